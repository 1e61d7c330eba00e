"""Gradients that travel through a UNet in half precision without getting lost.

The mean of squared errors over a latent has gradients of some 1e-5, and float16 has nothing below 6e-8: on their way
to the first blocks they round to 0. They are made larger where they enter the UNet and smaller again where they
arrive, at parameters in float32. The factor is a power of two, so nothing else changes.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["FACTOR", "GradientScale"]

FACTOR = 2.0**12


class GradientScale:
    """Scales the gradients between the output of a UNet and the parameters that learn in it.

    Args:
        dtype: of the UNet. Only float16 needs it; bfloat16 has the range of float32.
        parameters: everything that gets its gradient through that output and nowhere else.
    """

    def __init__(self, dtype: torch.dtype, parameters: Iterable[Tensor]) -> None:
        self.factor = FACTOR if dtype is torch.float16 else 1.0
        self._parameters = list(parameters) if self.factor != 1.0 else []
        self._hooks = [p.register_hook(lambda gradient: gradient / self.factor) for p in self._parameters]

    def __call__(self, output: Tensor) -> Tensor:
        """``output``, with a gradient that enters the UNet ``factor`` times as large."""
        if self.factor != 1.0 and output.requires_grad:
            output.register_hook(lambda gradient: gradient * self.factor)
        return output

    def arrived(self) -> bool:
        """Whether all gradients are finite: larger ones may leave the range of float16, and belong in no optimiser."""
        found = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        return all(bool(gradient.isfinite().all()) for gradient in found)

    def remove(self) -> None:
        """Leave the parameters as they were."""
        for hook in self._hooks:
            hook.remove()
