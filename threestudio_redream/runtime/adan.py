"""Adan (Xie et al., 2022): Adam with an explicit Nesterov term, which upstream's configurations name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer

__all__ = ["Adan"]


class Adan(Optimizer):
    """Algorithm 1 of the paper, with bias correction and decoupled (proximal) weight decay.

    Args:
        params: parameters or groups. lr: learning rate. betas: decay of the means of gradients, of their differences
            and of squares (one minus the paper's). eps: added to the root. weight_decay: proximal.
        max_grad_norm: all gradients together are scaled down to this norm; 0 is no limit.
        no_prox: decay before the step, as AdamW does. foreach: accepted from upstream's configurations.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        max_grad_norm: float = 0.0,
        no_prox: bool = False,
        foreach: bool = True,
    ) -> None:
        defaults = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "no_prox": no_prox}
        self.max_grad_norm = max_grad_norm
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        trained = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        if self.max_grad_norm > 0:
            torch.nn.utils.clip_grad_norm_(trained, self.max_grad_norm)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: torch.Tensor, grad: torch.Tensor, group: dict[str, Any]) -> None:
        state, (keep1, keep2, keep3) = self.state[parameter], group["betas"]
        if not state:
            state["step"] = torch.zeros(())
            state |= {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_diff", "exp_avg_sq")}
            state["previous_grad"] = grad.clone()
        state["step"] += 1
        count, difference = float(state["step"]), grad - state["previous_grad"]
        state["exp_avg"].lerp_(grad, 1.0 - keep1)
        state["exp_avg_diff"].lerp_(difference, 1.0 - keep2)
        ahead = grad + keep2 * difference
        state["exp_avg_sq"].mul_(keep3).addcmul_(ahead, ahead, value=1.0 - keep3)
        state["previous_grad"].copy_(grad)

        root = (state["exp_avg_sq"] / (1.0 - keep3**count)).sqrt_().add_(group["eps"])
        direction = state["exp_avg"] / (1.0 - keep1**count)
        direction += keep2 * state["exp_avg_diff"] / (1.0 - keep2**count)
        decay = group["lr"] * group["weight_decay"]
        if group["no_prox"]:
            parameter.mul_(1.0 - decay)
        parameter.addcdiv_(direction, root, value=-group["lr"])
        if not group["no_prox"]:
            parameter.div_(1.0 + decay)
