"""Renders of the retrieved assets, drawn evenly by view and not by angle.

A camera that goes round evenly sees a front as seldom as the thresholds make it narrow. What has to be corrected is
which view the model believes it is shown, so every view word gets the same share of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from threestudio_redream.adaptation.view_tokens import VIEWS
from threestudio_redream.assets import Asset
from threestudio_redream.cameras import orbit_c2w
from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime.prompt_processors.directions import direction_indices, view_directions

__all__ = ["ReferenceConfig", "References", "render_references"]


@dataclass
class ReferenceConfig:
    """Cameras around every asset (degrees; the asset has radius 0.5) and the views they count as.

    Attributes:
        views_per_asset: renders of each. resolution: pixels of a side.
        elevation_range, camera_distance_range, fovy_range: where the cameras stand and how wide they see.
        front_threshold, back_threshold, overhead_threshold: as those of the prompt processor.
        background_range: grey levels behind the object, drawn anew every time a render is used.
    """

    views_per_asset: int = 100
    resolution: int = 64
    elevation_range: tuple[float, float] = (-10.0, 45.0)
    camera_distance_range: tuple[float, float] = (1.36, 1.58)
    fovy_range: tuple[float, float] = (40.0, 40.0)
    front_threshold: float = 45.0
    back_threshold: float = 45.0
    overhead_threshold: float = 60.0
    background_range: tuple[float, float] = (0.42, 0.8)

    def __post_init__(self) -> None:
        if self.views_per_asset < 4:
            raise ConfigError("views_per_asset must be 4 or more", received=self.views_per_asset, fix="100 is usual.")
        for name in ("elevation_range", "camera_distance_range", "fovy_range", "background_range"):
            low, high = getattr(self, name)
            if low > high:
                raise ConfigError(f"{name} must be in order", received=(low, high), fix="Give [low, high].")


@dataclass(frozen=True)
class References:
    """Renders and what they show.

    Attributes:
        rgba: ``uint8 [N, H, W, 4]``, sRGB premultiplied by alpha. view: ``int64 [N]``, index into ``VIEWS``.
        asset: ``int64 [N]``, index into ``captions``. captions: of the assets.
        background_range: grey levels.
    """

    rgba: NDArray[np.uint8]
    view: NDArray[np.int64]
    asset: NDArray[np.int64]
    captions: tuple[str, ...]
    background_range: tuple[float, float]

    @property
    def views(self) -> tuple[str, ...]:
        """View words of which there are renders."""
        return tuple(name for i, name in enumerate(VIEWS) if (self.view == i).any())

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, NDArray[np.int64]]:
        """A batch balanced by view.

        Returns:
            images ``[count, H, W, 3]`` float32 in [0, 1] on grey grounds, and their rows.
        """
        groups = [np.flatnonzero(self.view == i) for i in range(len(VIEWS))]
        groups = [rows for rows in groups if len(rows)]
        order = torch.randperm(len(groups), generator=generator).tolist()
        picked = []
        for i in range(count):
            rows = groups[order[i % len(groups)]]
            picked.append(rows[int(torch.randint(0, len(rows), (1,), generator=generator))])
        low, high = self.background_range
        grey = low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)
        chosen = np.array(picked, np.int64)
        return self.images(chosen, grey), chosen

    def images(self, rows: NDArray[np.int64], grey: Tensor) -> Tensor:
        """``[B, H, W, 3]`` float32: renders on grounds ``[B, 1, 1, 1]``."""
        rgba = torch.from_numpy(self.rgba[rows].astype(np.float32) / 255.0)
        return rgba[..., :3] + (1.0 - rgba[..., 3:]) * grey


def render_references(
    assets: Sequence[Asset], captions: Sequence[str], cfg: ReferenceConfig, *, seed: int = 0
) -> References:
    """Render assets that are in the canonical frame with their front at +x.

    Args:
        captions: one for each asset. seed: of the cameras; azimuths are even with a random part within each step.

    Raises:
        ConfigError: no assets, or not one caption for each.
    """
    from threestudio_redream.assets.rasteriser import AssetRenderer

    if not assets or len(assets) != len(captions):
        raise ConfigError(
            "References need assets and a caption for each", received=(len(assets), len(captions)), fix="Retrieve some."
        )
    directions = view_directions(cfg.front_threshold, cfg.back_threshold, cfg.overhead_threshold)
    rgba, view = [], []
    for number, asset in enumerate(assets):
        rng = np.random.default_rng([seed, number])
        count = cfg.views_per_asset
        azimuth = (np.arange(count) + rng.random(count)) / count * 360.0
        elevation = rng.uniform(*cfg.elevation_range, count)
        distance = rng.uniform(*cfg.camera_distance_range, count)
        fovy = rng.uniform(*cfg.fovy_range, count)
        renders = AssetRenderer(asset)(orbit_c2w(azimuth, elevation, distance), fovy, cfg.resolution, cfg.resolution)
        rgba.append((np.clip(renders.rgba, 0.0, 1.0) * 255.0).round().astype(np.uint8))
        cameras = (torch.from_numpy(values) for values in (elevation, azimuth, distance))
        view.append(direction_indices(directions, *cameras).numpy())
    counts = [len(part) for part in view]
    return References(
        np.concatenate(rgba),
        np.concatenate(view),
        np.repeat(np.arange(len(assets)), counts),
        tuple(captions),
        (float(cfg.background_range[0]), float(cfg.background_range[1])),
    )
