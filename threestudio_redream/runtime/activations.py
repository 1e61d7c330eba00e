"""Activation functions by the names that threestudio configurations use."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from threestudio_redream.errors import ConfigError

__all__ = ["get_activation", "lin2srgb", "trunc_exp"]

Activation = Callable[[Tensor], Tensor]

_LARGEST_EXPONENT = 80.0  # exp(80) = 5.5e34: times a step length or a colour it is still finite in float32
_LARGEST_GRADIENT_EXPONENT = 15.0


class _TruncatedExp(torch.autograd.Function):
    """exp whose gradient stops growing at exp(15) (Instant NGP, Mueller et al. 2022)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.exp(x.clamp(max=_LARGEST_EXPONENT))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * torch.exp(x.clamp(max=_LARGEST_GRADIENT_EXPONENT))


def trunc_exp(x: Tensor) -> Tensor:
    """exp for densities: value at most exp(80), gradient at most exp(15), so that training does not blow up."""
    return _TruncatedExp.apply(x)


def lin2srgb(x: Tensor) -> Tensor:
    """Linear light in [0, 1] to sRGB-encoded [0, 1] (IEC 61966-2-1); ``0.5 -> 0.7354``. Clamped."""
    curve = torch.pow(x.clamp(min=0.0031308), 1.0 / 2.4) * 1.055 - 0.055
    return torch.where(x > 0.0031308, curve, 12.92 * x).clamp(0.0, 1.0)


def _identity(x: Tensor) -> Tensor:
    return x


# Names of tiny-cuda-nn ("ReLU", "Exponential", ...) are the same words in another case.
_ACTIVATIONS: dict[str, Activation] = {
    "none": _identity,
    "linear": _identity,
    "exp": torch.exp,
    "exponential": torch.exp,
    "shifted_exp": lambda x: torch.exp(x - 1.0),
    "trunc_exp": trunc_exp,
    "shifted_trunc_exp": lambda x: trunc_exp(x - 1.0),
    "softplus": functional.softplus,
    "shifted_softplus": lambda x: functional.softplus(x - 1.0),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": functional.relu,
    "leaky_relu": functional.leaky_relu,
    "leakyrelu": functional.leaky_relu,
    "elu": functional.elu,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "sine": torch.sin,
    "squareplus": lambda x: 0.5 * (x + torch.sqrt(x * x + 4.0)),
    "lin2srgb": lin2srgb,
    "scale_-11_01": lambda x: x * 0.5 + 0.5,
}


def get_activation(name: str | None) -> Activation:
    """The function called ``name`` (any case); None and ``"none"`` change nothing.

    Raises:
        ConfigError: if there is no such activation; the message names near ones.
    """
    key = "none" if name is None else str(name).lower()
    if key not in _ACTIVATIONS:
        near = difflib.get_close_matches(key, _ACTIVATIONS, n=3) or list(_ACTIVATIONS)
        raise ConfigError("There is no such activation function", received=name, fix=f"Use one of: {', '.join(near)}.")
    return _ACTIVATIONS[key]
