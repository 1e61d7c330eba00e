"""BaseBackground of the threestudio contract."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from threestudio_redream.runtime.base import BaseModule

__all__ = ["BaseBackground", "randomly_recolored"]


class BaseBackground(BaseModule):
    """Colour of rays that hit nothing."""

    @dataclass
    class Config(BaseModule.Config):
        pass

    cfg: Config

    def configure(self) -> None:
        """Override to build the background."""

    def forward(self, dirs: Tensor) -> Tensor:
        """Colour ``[B, H, W, C]`` for world-space ray directions ``dirs`` ``[B, H, W, 3]``."""
        raise NotImplementedError


def randomly_recolored(color: Tensor, probability: float) -> Tensor:
    """With ``probability``, replace the colours ``[B, H, W, C]`` by one random colour per image.

    Draws from torch's CPU generator. The old colour keeps a zero gradient, so that its parameters
    are not reported as unused by distributed training.
    """
    if float(torch.rand(())) >= probability:
        return color
    random = torch.rand(color.shape[0], *[1] * (color.ndim - 2), color.shape[-1]).to(color)
    return color * 0.0 + random
