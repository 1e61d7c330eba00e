"""Pictures of a field, and textures that show what they show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from scenes import Ball, small_volume
from torch import Tensor

from threestudio_redream.assets.rasteriser import AssetRenderer
from threestudio_redream.cameras import orbit_c2w, pixel_rays
from threestudio_redream.errors import ConfigError
from threestudio_redream.meshing import as_asset
from threestudio_redream.runtime.exporters.field_pictures import FieldPictures
from threestudio_redream.runtime.exporters.mesh_exporter import MeshExporter
from threestudio_redream.runtime.geometry.base import BaseImplicitGeometry
from threestudio_redream.runtime.materials.no_material import NoMaterial

CAMERAS = orbit_c2w([20.0, 140.0, 260.0], [10.0, -40.0, 60.0], [3.0] * 3)
BOX = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])


class HazyBall(BaseImplicitGeometry):
    """A dense ball with the features of its place, in a haze of other ones."""

    @dataclass
    class Config(BaseImplicitGeometry.Config):
        haze: float = 12.0

    def configure(self) -> None:
        super().configure()
        self.anchor = torch.nn.Parameter(torch.zeros(()))

    def forward(self, points: Tensor, output_normal: bool = False) -> dict[str, Tensor]:
        return {"density": self.forward_density(points), **self.export(points)}

    def forward_density(self, points: Tensor) -> Tensor:
        distance = points.norm(dim=-1, keepdim=True)
        return 400.0 * torch.sigmoid((0.5 - distance) * 200.0) + self.cfg.haze * torch.sigmoid(
            (0.56 - distance) * 400.0
        )

    def export(self, points: Tensor, **kwargs: Any) -> dict[str, Tensor]:
        reach = 0.53 if self.cfg.haze else 9.0  # where the ball has faded
        inside = points.norm(dim=-1, keepdim=True) < reach
        return {"features": torch.where(inside, 4.0 * points, torch.full_like(points, 3.0))}


def exporter_of(geometry: Any, **config: Any) -> MeshExporter:
    small = {"resolution": 40, "target_faces": 1500, "texture_size": 128, "threshold": 6.0, "view_size": 96}
    return MeshExporter({**small, **config}, geometry=geometry, material=NoMaterial({}), background=None)


def integrated(geometry: Any, colour: Any, side: int, steps: int = 1000) -> np.ndarray:
    """The same integral by a plain sum of even steps through the box, in float64."""
    origins, directions = (torch.from_numpy(rays).double() for rays in pixel_rays(CAMERAS, 40.0, side, side))
    spacing = 4.0 / steps
    distances = 1.0 + (torch.arange(steps).double() + 0.5) * spacing
    points = origins[..., None, :] + distances[:, None] * directions[..., None, :]
    flat = points.reshape(-1, 3).float()
    within = (points.abs() <= 1.0).all(dim=-1)
    density = geometry.forward_density(flat).double().view(within.shape) * within
    alpha = 1.0 - torch.exp(-density * spacing)
    left = torch.cumprod(torch.cat([torch.ones_like(alpha[..., :1]), 1.0 - alpha[..., :-1]], dim=-1), dim=-1)
    shown = (left * alpha)[..., None] * colour(flat).double().view(points.shape)
    return torch.cat([shown.sum(dim=-2), (left * alpha).sum(dim=-1, keepdim=True)], dim=-1).float().numpy()


@torch.no_grad()
@pytest.mark.parametrize("kind", ["haze", "volume"])
def test_pictures_are_the_rendering_integral(kind: str) -> None:
    torch.manual_seed(0)
    geometry = HazyBall({}) if kind == "haze" else small_volume(density_bias="blob_magic3d", density_blob_std=0.3)
    material = NoMaterial({})

    def colour(points: Tensor) -> Tensor:
        return material.export(points=points, **geometry.export(points))["albedo"]

    shown = FieldPictures(BOX, geometry.forward_density, colour)(CAMERAS, 40.0, 12)
    truth = integrated(geometry, colour, 12)
    assert truth[..., 3].max() > 0.5
    assert np.abs(shown - truth).mean() < 0.005
    assert np.abs(shown - truth).max() < 0.05  # steps with less than 0.2 % of opacity are left out
    assert shown.dtype == np.float32


def test_an_empty_field_shows_nothing() -> None:
    geometry = Ball({"inside": 1e-6})
    shown = FieldPictures(BOX, geometry.forward_density, torch.zeros_like)(CAMERAS, 40.0, 12)
    assert shown.shape == (3, 12, 12, 4)
    assert not shown.any()


def test_the_texture_shows_what_the_field_shows() -> None:
    """Through a haze, whose own colour is all that the surface has."""
    geometry = HazyBall({})
    field = FieldPictures(BOX, geometry.forward_density, exporter_of(geometry)._albedo)(CAMERAS, 40.0, 64)
    errors = {}
    for source in ("surface", "views"):
        mesh = exporter_of(geometry, colour_from=source)()[0].params["mesh"]
        renders = AssetRenderer(as_asset(mesh))(CAMERAS, np.full(3, 40.0), 64, 64)
        inside = (renders.mask[..., 0] > 0.99) & (field[..., 3] > 0.95)
        assert inside.mean() > 0.05
        errors[source] = float(np.abs(renders.rgba - field)[inside].mean())
    assert errors["views"] < 0.06
    assert errors["surface"] > 2.5 * errors["views"]


def test_a_hard_field_has_the_same_texture_either_way() -> None:
    geometry = HazyBall({"haze": 0.0})
    views, surface = (
        exporter_of(geometry, colour_from=source, threshold="auto")()[0].params["mesh"]
        for source in ("views", "surface")
    )
    np.testing.assert_array_equal(views.vertices, surface.vertices)
    shown = [AssetRenderer(as_asset(mesh))(CAMERAS, np.full(3, 40.0), 64, 64).rgba for mesh in (views, surface)]
    assert np.abs(shown[0] - shown[1]).mean() < 0.02


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Unknown source of colours.*'front'.*views or surface"):
        exporter_of(HazyBall({}), colour_from="front")()
