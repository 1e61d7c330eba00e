"""Muon for hidden layers, AdamW for the rest: a small diffusion model learns about as much in half the steps.

Muon (Jordan et al. 2024) replaces the momentum of a weight matrix by the nearest semi-orthogonal one, found by
Newton-Schulz iterations, so that all directions of a layer learn at the same speed. Updates are scaled to the size of
AdamW's (Liu et al. 2025, "Muon is scalable for LLM training"), so both share a learning rate. ``torch.optim.Muon``
takes matrices only; here a convolution counts as the matrix [out, in * kernel].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

__all__ = ["MuonAdamW", "hidden_matrices", "orthogonalize"]

#: Coefficients of the quintic iteration (Jordan et al.): steep at 0, singular values end near 1.
_A, _B, _C = 3.4445, -4.7750, 2.0315


def orthogonalize(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Roughly ``U V^T`` of every matrix ``[N, R, C]``; singular values come out within about 0.7 and 1.2."""
    matrices = matrices.bfloat16()
    x = matrices.mT if matrices.shape[-2] > matrices.shape[-1] else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x.mT if matrices.shape[-2] > matrices.shape[-1] else x


def hidden_matrices(module: nn.Module, skip: tuple[str, ...] = ("conv_in", "conv_out")) -> list[Tensor]:
    """Weights of linear and convolution layers whose name has none of the parts in ``skip``: not the outermost."""
    chosen: list[Tensor] = []
    for name, layer in module.named_modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)) and not any(part in name for part in skip):
            chosen.append(layer.weight)
    return chosen


class MuonAdamW(torch.optim.Optimizer):
    """Groups with ``muon=True`` are stepped by Muon, the others by AdamW.

    Args:
        groups: as for every optimizer. lr, weight_decay (decoupled), betas, eps (of AdamW).
        momentum: of Muon (Nesterov).
    """

    def __init__(
        self,
        groups: Iterable[Any],
        *,
        lr: float,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        momentum: float = 0.95,
    ) -> None:
        defaults = {"lr": lr, "weight_decay": weight_decay, "betas": betas, "eps": eps, "momentum": momentum}
        super().__init__(groups, {**defaults, "muon": False})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step from the gradients at hand."""
        for group in self.param_groups:
            parameters: list[Tensor] = [p for p in group["params"] if p.grad is not None]
            gradients: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
            if parameters:
                (self._muon if group["muon"] else self._adamw)(group, parameters, gradients)

    def _muon(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        for p in parameters:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        momenta = [self.state[p]["momentum"] for p in parameters]
        torch._foreach_lerp_(momenta, gradients, 1.0 - group["momentum"])
        updates = torch._foreach_lerp(gradients, momenta, group["momentum"])
        # Matrices of a shape go through the iteration together: many small products are slow one by one.
        by_shape: dict[tuple[int, int], list[int]] = {}
        for i, update in enumerate(updates):
            by_shape.setdefault((update.shape[0], update[0].numel()), []).append(i)
        torch._foreach_mul_(parameters, 1.0 - group["lr"] * group["weight_decay"])
        for shape, members in by_shape.items():
            stacked = orthogonalize(torch.stack([updates[i].reshape(shape) for i in members]))
            size = group["lr"] * 0.2 * max(shape) ** 0.5
            for i, direction in zip(members, stacked):
                parameters[i].add_(direction.view_as(parameters[i]), alpha=-size)

    def _adamw(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        for p in parameters:
            if not self.state[p]:
                self.state[p] = {
                    "step": torch.zeros((), dtype=torch.float32),
                    "exp_avg": torch.zeros_like(p),
                    "exp_avg_sq": torch.zeros_like(p),
                }
        states = [self.state[p] for p in parameters]
        adamw(
            parameters,
            gradients,
            [s["exp_avg"] for s in states],
            [s["exp_avg_sq"] for s in states],
            [],
            [s["step"] for s in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
