"""BaseMaterial of the threestudio contract."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from threestudio_redream.runtime.base import BaseModule

__all__ = ["BaseMaterial"]


class BaseMaterial(BaseModule):
    """Colours points of a geometry.

    The renderer calls it with ``viewdirs``, ``positions``, ``light_positions`` (each ``[N, 3]``, world
    units), everything that the geometry returned, and the rest of the batch; take what you need and
    swallow the rest with ``**kwargs``.

    Attributes:
        requires_normal: the geometry must give ``normal`` and ``shading_normal``.
        requires_tangent: the renderer must give tangents (mesh renderers only).
    """

    @dataclass
    class Config(BaseModule.Config):
        pass

    cfg: Config
    requires_normal: bool = False
    requires_tangent: bool = False

    def configure(self) -> None:
        """Override to build the material."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Colours ``[N, C]``."""
        raise NotImplementedError

    def export(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Texture channels from ``geometry.export``: ``albedo`` ``[..., 3]`` sRGB in [0, 1], and others."""
        return {}
