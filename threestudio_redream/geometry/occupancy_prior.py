"""Form C of the prior: the field should be dense inside the asset and empty outside. Blind to colour.

The shape loss of Latent-NeRF (Metzer et al., 2023): a cross entropy that does not care about details near the surface.
No image is made and no colour is asked for, so none can leak from the asset.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from threestudio_redream.assets import Asset
from threestudio_redream.errors import ConfigError
from threestudio_redream.geometry.asset_volume import asset_volume

__all__ = ["OccupancyConfig", "OccupancyPrior", "occupancy_loss"]


@dataclass
class OccupancyConfig:
    """What ``prior_occupancy`` looks at.

    Attributes:
        points: places in the field's box that a step asks about.
        resolution: nodes along each side of the asset's volume.
        reach: length over which a density counts, in world units: it is full where ``1 - exp(-reach * density)`` is 1.
        surface: width of the zone around the asset's surface in which the field is free, in world units; the asset has
            radius 0.5. 0 asks for the surface exactly. Latent-NeRF has 0.3, for shapes without thin parts; limbs of an
            asset lie within that zone altogether, and nothing would hold them.
    """

    points: int = 4096
    resolution: int = 96
    reach: float = 0.2
    surface: float = 0.05

    def __post_init__(self) -> None:
        if self.points < 1 or not self.reach > 0.0 or self.surface < 0.0:
            raise ConfigError(
                "occupancy needs points >= 1, reach > 0 and surface >= 0",
                received=(self.points, self.reach, self.surface),
                fix="4096, 0.2 and 0.05 are usual.",
            )


def occupancy_loss(density: Tensor, occupancy: Tensor, distance: Tensor, *, reach: float, surface: float) -> Tensor:
    """Mean over points of the cross entropy between ``o`` and ``p = 1 - exp(-reach * density)``, weighted.

    The weight is ``1 - exp(-d^2 / (2 surface^2))``. Latent-NeRF sums where this takes the mean: its factor of 0.1 on N
    points is one of ``0.1 N`` here.

    Args:
        density: ``[N]``, 0 or more. occupancy: ``[N]`` in [0, 1]. distance: ``[N]`` to the asset's surface.
    """
    optical = reach * density
    # log p, and log(1 - p) = -optical without rounding
    full = torch.log(-torch.expm1(-optical.clamp(min=1e-12)))
    entropy = (1.0 - occupancy) * optical - occupancy * full
    weight = torch.ones_like(distance)
    if surface > 0.0:
        weight = -torch.expm1(-distance.square() / (2.0 * surface**2))
    return (weight * entropy).mean()


class OccupancyPrior:
    """Compares a field with assets in the canonical frame.

    The assets' volumes are made once, here.
    """

    def __init__(self, assets: Sequence[Asset], cfg: OccupancyConfig) -> None:
        if not assets:
            raise ConfigError("There is no asset to compare with", received=0, fix="Retrieve some, or drop this prior.")
        self.cfg = cfg
        self._volumes = [asset_volume(asset, cfg.resolution) for asset in assets]
        self._grids = [
            torch.from_numpy(np.stack([volume.occupancy, volume.distance]))[None] for volume in self._volumes
        ]

    def __call__(
        self, which: int, density: Callable[[Tensor], Tensor], bbox: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The loss of a field against asset ``which`` (modulo their number), at points drawn evenly.

        Args:
            density: points ``[N, 3]`` to densities ``[N, 1]``. bbox: ``[2, 3]``, where points are drawn.
            generator: of them, on the CPU.
        """
        cfg = self.cfg
        unit = torch.rand(cfg.points, 3, generator=generator).to(bbox)
        points = bbox[0] + unit * (bbox[1] - bbox[0])
        occupancy, distance = self.look_up(which, points)
        return occupancy_loss(
            density(points).reshape(-1).float(), occupancy, distance, reach=cfg.reach, surface=cfg.surface
        )

    def look_up(self, which: int, points: Tensor) -> tuple[Tensor, Tensor]:
        """Occupancy and distance to the surface ``[N]`` at points ``[N, 3]``, trilinearly.

        Convention: far from a sphere of radius 0.5 at the origin, at ``(2, 0, 0)``, they are 0 and about 1.5.
        """
        number = which % len(self._volumes)
        radius = self._volumes[number].radius
        grid = self._grids[number].to(points)
        inside = points.clamp(-radius, radius)
        # grid_sample's x runs along the last axis of the grid, which is our z
        places = (inside / radius).flip(-1).view(1, 1, 1, -1, 3)
        values = functional.grid_sample(grid, places, mode="bilinear", padding_mode="border", align_corners=True)
        occupancy, distance = values[0, :, 0, 0]
        return occupancy.clamp(0.0, 1.0), distance + (points - inside).norm(dim=-1)
