"""The training loop of the mini models: exact resume, the average, the log, stopping on request."""

from __future__ import annotations

import csv
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from threestudio_redream.runtime.checkpoint import read_checkpoint
from tools.mini.training import Plan, StopAtSignal, train

PLAN = Plan(steps=6, lr=0.05, warmup=2, ema=0.7, seed=5, log_every=2, save_every=4)


class Net(nn.Module):
    """Two layers around a norm with buffers, one of which counts."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.SiLU(), nn.Linear(4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def loss_of(net: nn.Module, at: Callable[[int], None] = lambda step: None):
    def loss_fn(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        at(step)
        x = torch.randn(8, 3, generator=generator)
        loss = (net(x) - x.sum(dim=1, keepdim=True)).square().mean()
        return loss, {"step_number": float(step)}

    return loss_fn


def run(folder: Path, plan: Plan = PLAN, *, until: int | None = None, at=lambda step: None, **more):
    """A fresh network trained in ``folder``: the network and its average."""
    net = Net()
    average = train(plan, {"net": net}, loss_of(net, at), folder, until=until, **more)
    return net, average["net"]


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_run_that_was_interrupted_ends_in_the_same_bits(tmp_path: Path) -> None:
    whole, whole_average = run(tmp_path / "whole")
    run(tmp_path / "parts", until=3)
    parts, parts_average = run(tmp_path / "parts")
    assert same(whole, parts)
    assert same(whole_average, parts_average)
    states = [read_checkpoint(tmp_path / name / "state.safetensors") for name in ("whole", "parts")]
    moments = [state["optimizer"]["state"] for state in states]
    assert states[0]["step"] == states[1]["step"] == 6
    for key, old in moments[0].items():
        assert all(torch.equal(torch.as_tensor(old[name]), torch.as_tensor(moments[1][key][name])) for name in old)
    assert not same(whole, Net())  # it did train
    assert not same(whole, whole_average)


def test_a_finished_run_trains_no_more_and_gives_its_average_back(tmp_path: Path) -> None:
    _, average = run(tmp_path)
    before = (tmp_path / "state.safetensors").stat().st_mtime_ns

    def forbidden(step: int) -> None:
        raise AssertionError(f"step {step} was trained again")

    _, again = run(tmp_path, at=forbidden)
    assert same(average, again)
    assert (tmp_path / "state.safetensors").stat().st_mtime_ns == before


def test_another_plan_is_refused_and_the_checkpoint_kept(tmp_path: Path) -> None:
    run(tmp_path, until=2)
    before = (tmp_path / "state.safetensors").read_bytes()
    with pytest.raises(SystemExit, match=r"belongs to another plan .*remove the folder"):
        run(tmp_path, Plan(steps=6, lr=0.06, warmup=2, ema=0.7, seed=5, log_every=2, save_every=4))
    assert (tmp_path / "state.safetensors").read_bytes() == before


def test_the_log_has_a_row_an_interval_with_means_and_goes_on_after_a_resume(tmp_path: Path) -> None:
    run(tmp_path, until=3)
    run(tmp_path)
    log = rows(tmp_path)
    assert [row["step"] for row in log] == ["2", "3", "4", "6"]
    assert [row["step_number"] for row in log] == ["0.5", "2", "3", "4.5"]
    assert [float(row["lr"]) for row in log] == pytest.approx([PLAN.rate(at - 1) for at in (2, 3, 4, 6)], rel=1e-4)
    assert all(float(row["loss"]) > 0 and float(row["grad_norm"]) > 0 for row in log)
    assert (tmp_path / "log.csv").read_text("utf-8").count("grad_norm") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_saves_and_ends_with_130(tmp_path: Path, number: signal.Signals) -> None:
    handler = signal.getsignal(number)

    def interrupt(step: int) -> None:
        if step == 2:
            signal.raise_signal(number)

    with pytest.raises(SystemExit) as caught:
        run(tmp_path / "parts", at=interrupt)
    assert caught.value.code == 130
    assert read_checkpoint(tmp_path / "parts" / "state.safetensors")["step"] == 3
    assert signal.getsignal(number) is handler
    parts, average = run(tmp_path / "parts")
    whole, whole_average = run(tmp_path / "whole")
    assert same(parts, whole)
    assert same(average, whole_average)


def test_the_old_handlers_come_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def fail() -> None:
        with StopAtSignal() as stop:
            assert not stop.asked
            assert signal.getsignal(signal.SIGTERM) is not before
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        fail()
    assert signal.getsignal(signal.SIGTERM) is before


def test_saving_calls_back_with_the_averages(tmp_path: Path) -> None:
    seen: list[tuple[int, bool]] = []

    def on_save(step: int, average: dict[str, nn.Module]) -> None:
        seen.append((step, average["net"].training))
        assert read_checkpoint(tmp_path / "state.safetensors")["step"] == step

    _, average = run(tmp_path, on_save=on_save)
    assert seen == [(4, False), (6, False)]
    assert not any(parameter.requires_grad for parameter in average.parameters())


def test_the_average_follows_its_formula(tmp_path: Path) -> None:
    plan = Plan(steps=3, lr=0.1, warmup=1, ema=0.2, seed=1)
    net = nn.Linear(1, 1, bias=False)
    path: list[float] = [float(net.weight.detach())]

    def loss_fn(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        path.append(float(net.weight.detach()))
        return net(torch.ones(1, 1)).square().sum(), {}

    average = train(plan, {"net": net}, loss_fn, tmp_path)["net"]
    weights = [*path[2:], float(net.weight.detach())]
    expected = path[0]
    for step, weight in enumerate(weights, 1):
        decay = min(0.2, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight
    assert float(average.weight) == pytest.approx(expected, abs=1e-6)
    _, plain = run(tmp_path / "none", Plan(steps=2, lr=0.05, ema=0.0))
    assert int(plain.state_dict()["layers.1.num_batches_tracked"]) == 2


def test_modules_have_their_own_rates_and_frozen_ones_stay(tmp_path: Path) -> None:
    nets = {"fast": Net(1), "slow": Net(2), "frozen": Net(3).requires_grad_(False)}
    before = {name: [p.detach().clone() for p in net.parameters()] for name, net in nets.items()}

    def loss_fn(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        x = torch.randn(8, 3, generator=generator)
        return torch.stack([net(x).square().mean() for net in nets.values()]).sum(), {}

    train(Plan(steps=2, lr=0.1, warmup=1), nets, loss_fn, tmp_path, rates={"slow": 0.0})
    moved = {
        name: any(not torch.equal(a, b) for a, b in zip(before[name], net.parameters())) for name, net in nets.items()
    }
    assert moved == {"fast": True, "slow": False, "frozen": False}


def test_a_gradient_that_is_not_finite_ends_the_run_before_it_spoils_the_weights(tmp_path: Path) -> None:
    net = Net()

    def loss_fn(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        return net(torch.ones(2, 3)).sum() * (float("nan") if step == 1 else 1.0), {}

    with pytest.raises(SystemExit, match="gradient of step 1 is not finite"):
        train(PLAN, {"net": net}, loss_fn, tmp_path)
    assert all(torch.isfinite(parameter).all() for parameter in net.parameters())


def test_the_learning_rate_grows_then_falls_to_its_floor() -> None:
    plan = Plan(steps=110, lr=2.0, warmup=10, floor=0.1)
    assert [plan.rate(step) for step in (0, 4, 9, 10)] == pytest.approx([0.2, 1.0, 2.0, 2.0])
    assert plan.rate(60) == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    assert plan.rate(110) == pytest.approx(0.2)
    linear = Plan(steps=110, lr=2.0, warmup=10, decay="linear")
    assert [linear.rate(step) for step in (35, 60, 110)] == pytest.approx([1.5, 1.0, 0.0])
