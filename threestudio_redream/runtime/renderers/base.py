"""Renderer, VolumeRenderer and Rasterizer of the threestudio contract."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from threestudio_redream.runtime.base import BaseModule

__all__ = ["Rasterizer", "Renderer", "SubModules", "VolumeRenderer"]


@dataclass
class SubModules:
    """The scene. A plain dataclass hides it from the module tree: its parameters belong to the system."""

    geometry: Any
    material: Any
    background: Any


class Renderer(BaseModule):
    """Holds references to a geometry, a material and a background, and a box.

    Keys:
        radius: half the side of the box that is rendered, in world units; as the geometry's.
    """

    @dataclass
    class Config(BaseModule.Config):
        radius: float = 1.0

    cfg: Config
    bbox: Tensor

    def configure(self, geometry: Any, material: Any, background: Any) -> None:
        self.sub_modules = SubModules(geometry, material, background)
        radius = self.cfg.radius
        self.register_buffer("bbox", torch.tensor([[-radius] * 3, [radius] * 3], dtype=torch.float32))

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Called as ``renderer(**batch)``: swallow the keys you do not need."""
        raise NotImplementedError

    @property
    def geometry(self) -> Any:
        return self.sub_modules.geometry

    @property
    def material(self) -> Any:
        return self.sub_modules.material

    @property
    def background(self) -> Any:
        return self.sub_modules.background

    def set_geometry(self, geometry: Any) -> None:
        self.sub_modules.geometry = geometry

    def set_material(self, material: Any) -> None:
        self.sub_modules.material = material

    def set_background(self, background: Any) -> None:
        self.sub_modules.background = background


class VolumeRenderer(Renderer):
    """Renders by integrating along rays."""


class Rasterizer(Renderer):
    """Renders by drawing triangles."""
