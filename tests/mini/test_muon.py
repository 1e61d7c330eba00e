"""Muon: the orthogonal direction against the SVD, AdamW against PyTorch's, and that a run can go on."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from tools.mini.muon import MuonAdamW, hidden_matrices, orthogonalize


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(2, 6, 3), nn.GroupNorm(2, 6), nn.Conv2d(6, 6, 3), nn.Flatten(), nn.Linear(6, 4))


@pytest.mark.parametrize("shape", [(1, 24, 24), (3, 8, 40), (2, 40, 8)])
def test_the_direction_is_near_the_orthogonal_factor(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    u, s, v = torch.linalg.svd(matrices, full_matrices=False)
    found = orthogonalize(matrices).float()
    values = torch.linalg.svdvals(found)
    strong = s > 0.1 * s.amax(dim=1, keepdim=True)  # weak directions need more iterations
    assert (values[strong] > 0.6).all()
    assert values.max() < 1.3
    exact = u @ v
    cosine = (found * exact).sum((1, 2)) / (found.norm(dim=(1, 2)) * exact.norm(dim=(1, 2)))
    assert (cosine > 0.95).all()
    assert torch.equal(orthogonalize(torch.zeros(1, 3, 5)).float(), torch.zeros(1, 3, 5))


def test_outer_layers_are_not_hidden() -> None:
    model = nn.ModuleDict({"conv_in": nn.Conv2d(1, 2, 1), "inner": network(), "conv_out": nn.Linear(2, 2)})
    chosen = hidden_matrices(model)
    assert [tuple(p.shape) for p in chosen] == [(6, 2, 3, 3), (6, 6, 3, 3), (4, 6)]


def test_groups_without_muon_are_stepped_as_by_adamw() -> None:
    ours, theirs = network(), network()
    settings = {"lr": 0.01, "weight_decay": 0.1, "betas": (0.9, 0.99)}
    first = MuonAdamW([{"params": list(ours.parameters()), "muon": False}], **settings)
    second = torch.optim.AdamW(theirs.parameters(), fused=True, **settings)
    for step in range(4):
        x = torch.randn(5, 2, 5, 5, generator=torch.Generator().manual_seed(step))
        for model, optimizer in ((ours, first), (theirs, second)):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
    for mine, yours in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, yours)


def test_a_step_of_muon_has_the_promised_size_and_decays_the_weight() -> None:
    weight = nn.Parameter(torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(2)))
    before = weight.detach().clone()
    optimizer = MuonAdamW([{"params": [weight], "muon": True}], lr=0.01, weight_decay=0.5)
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(4))
    optimizer.step()
    update = (weight.detach() - before * (1.0 - 0.01 * 0.5)) / 0.01
    assert update.square().mean().sqrt() == pytest.approx(0.2, rel=0.25)  # of AdamW's size
    assert (update * weight.grad).sum() < 0


def test_the_state_goes_on_after_saving() -> None:
    def optimizer_of(model: nn.Module) -> MuonAdamW:
        hidden = hidden_matrices(model)
        rest = [p for p in model.parameters() if all(p is not q for q in hidden)]
        return MuonAdamW([{"params": rest}, {"params": hidden, "muon": True}], lr=0.01)

    def step(model: nn.Module, optimizer: MuonAdamW, seed: int) -> float:
        x = torch.randn(5, 2, 5, 5, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    first = network()
    running = optimizer_of(first)
    losses = [step(first, running, 0) for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]
    second = network()
    second.load_state_dict(first.state_dict())
    resumed = optimizer_of(second)
    resumed.load_state_dict(deepcopy(running.state_dict()))
    for seed in (1, 2):
        assert step(first, running, seed) == step(second, resumed, seed)
    for mine, yours in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(mine, yours)
