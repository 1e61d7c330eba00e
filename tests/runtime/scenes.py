"""Small scenes for the tests of geometry and renderer: real fields with known answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from threestudio_redream.cameras import orbit_c2w, pixel_rays
from threestudio_redream.runtime.backgrounds.solid_color import SolidColorBackground
from threestudio_redream.runtime.geometry.base import BaseImplicitGeometry
from threestudio_redream.runtime.geometry.implicit_volume import ImplicitVolume
from threestudio_redream.runtime.materials.no_material import NoMaterial
from threestudio_redream.runtime.renderers.nerf_volume_renderer import NeRFVolumeRenderer

SMALL_GRID = {
    "otype": "HashGrid",
    "n_levels": 4,
    "n_features_per_level": 2,
    "log2_hashmap_size": 10,
    "base_resolution": 4,
    "per_level_scale": 1.5,
}
SMALL_MLP = {
    "otype": "VanillaMLP",
    "activation": "ReLU",
    "output_activation": "none",
    "n_neurons": 16,
    "n_hidden_layers": 1,
}


def small_volume(**config: Any) -> ImplicitVolume:
    """An implicit volume of a few thousand parameters whose hash grid is not near zero."""
    geometry = ImplicitVolume({"pos_encoding_config": SMALL_GRID, "mlp_network_config": SMALL_MLP, **config})
    with torch.no_grad():
        for parameter in geometry.encoding.parameters():
            parameter.uniform_(-0.5, 0.5)
    return geometry


def bare_volume(**config: Any) -> ImplicitVolume:
    """An implicit volume whose density network is silent, so that only its bias remains."""
    geometry = small_volume(**config)
    with torch.no_grad():
        for parameter in geometry.density_network.parameters():
            parameter.zero_()
    return geometry


class Ball(BaseImplicitGeometry):
    """Constant density inside a ball around the origin, features 0, exact normals."""

    @dataclass
    class Config(BaseImplicitGeometry.Config):
        ball_radius: float = 0.5
        inside: float = 1000.0

    cfg: Config

    def configure(self) -> None:
        super().configure()
        self.log_density = nn.Parameter(torch.tensor(self.cfg.inside).log())

    def forward(self, points: Tensor, output_normal: bool = False) -> dict[str, Tensor]:
        output = {"density": self.forward_density(points), "features": torch.zeros_like(points)}
        if output_normal:
            output["normal"] = output["shading_normal"] = nn.functional.normalize(points, dim=-1)
        return output

    def forward_density(self, points: Tensor) -> Tensor:
        inside = points.norm(dim=-1, keepdim=True) < self.cfg.ball_radius
        return torch.where(inside, self.log_density.exp(), torch.zeros(()))


def camera_batch(
    height: int = 8, width: int = 8, azimuth: tuple[float, ...] = (0.0,), distance: float = 2.0
) -> dict[str, Any]:
    """A batch as the data module makes it: cameras on the horizon, 40 degrees field of view."""
    c2w = orbit_c2w(list(azimuth), [0.0] * len(azimuth), [distance] * len(azimuth))
    rays_o, rays_d = (torch.from_numpy(rays) for rays in pixel_rays(c2w, 40.0, height, width))
    return {
        "rays_o": rays_o,
        "rays_d": rays_d,
        "light_positions": rays_o[:, 0, 0],
        "elevation": torch.zeros(len(azimuth)),
        "height": height,
        "width": width,
    }


def renderer_of(geometry: Any, material: Any = None, background: Any = None, **config: Any) -> NeRFVolumeRenderer:
    """A renderer over the geometry, by default with features as colours on black."""
    return NeRFVolumeRenderer(
        {"num_samples_per_ray": 128, **config},
        geometry=geometry,
        material=NoMaterial({}) if material is None else material,
        background=SolidColorBackground({"color": [0.0, 0.0, 0.0]}) if background is None else background,
    )
