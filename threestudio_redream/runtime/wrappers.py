"""``ToDTypeWrapper``: a module whose output has another floating-point type."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ToDTypeWrapper"]


class ToDTypeWrapper(nn.Module):
    """``module(x)``, converted to ``dtype``."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module, self.dtype = module, dtype

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x).to(self.dtype)
