"""The fixed set of views by which an asset is described in an index.

Convention: cameras are those of :mod:`threestudio_redream.cameras`. The first of the default views, azimuth 0 and
elevation 20 degrees at distance 1.5, has its camera at ``(1.4095, 0, 0.5130)`` and looks at the front of an asset whose
front is known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets.limits import DEFAULT_LIMITS, Limits
from threestudio_redream.assets.loading import load_asset
from threestudio_redream.assets.normalise import normalise
from threestudio_redream.assets.shading import SHADINGS
from threestudio_redream.assets.types import Asset
from threestudio_redream.cameras import orbit_c2w
from threestudio_redream.errors import ConfigError
from threestudio_redream.retrieval.types import AssetRecord

__all__ = ["DEFAULT_VIEWS", "RenderedViews", "ViewSpec", "open_record", "render_views", "thumbnail"]

MAX_VIEWS = 1024


@dataclass(frozen=True)
class ViewSpec:
    """Cameras, light and background of a set of views; :meth:`to_json` of it is stored in a manifest.

    Attributes:
        azimuths_deg: one per view, degrees. elevation_deg, fovy_deg: degrees. distance: in world units; an asset has
            radius 0.5. background: grey, sRGB-encoded. shading: see :mod:`threestudio_redream.assets.shading`.
        supersample: samples along each side of a pixel.
    """

    azimuths_deg: tuple[float, ...] = tuple(45.0 * index for index in range(8))
    elevation_deg: float = 20.0
    fovy_deg: float = 40.0
    distance: float = 1.5
    background: float = 0.5
    shading: str = "world"
    supersample: int = 3

    def __post_init__(self) -> None:
        numbers = (*self.azimuths_deg, self.elevation_deg, self.fovy_deg, self.distance, self.background)
        right = (
            0 < len(self.azimuths_deg) <= MAX_VIEWS
            and all(type(value) in (int, float) and math.isfinite(value) for value in numbers)
            and abs(self.elevation_deg) <= 90.0
            and 0.0 < self.fovy_deg < 180.0
            and self.distance > 0.5
            and 0.0 <= self.background <= 1.0
            and self.shading in SHADINGS
            and type(self.supersample) is int
            and 1 <= self.supersample <= 8
        )
        if not right:
            raise ConfigError(
                "The set of views makes no sense",
                received=asdict(self),
                fix="Elevations lie in [-90, 90], distances above 0.5, backgrounds in [0, 1]; see ViewSpec.",
            )

    @property
    def count(self) -> int:
        """Number of views."""
        return len(self.azimuths_deg)

    def to_json(self) -> dict[str, Any]:
        """Plain values; :meth:`from_json` reads them."""
        return {**asdict(self), "azimuths_deg": [float(azimuth) for azimuth in self.azimuths_deg]}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> ViewSpec:
        """Read what :meth:`to_json` wrote.

        Raises:
            ConfigError: keys are missing or unknown, or a value makes no sense.
        """
        if set(values) != set(ViewSpec.__dataclass_fields__) or not isinstance(values["azimuths_deg"], (list, tuple)):
            raise ConfigError(
                "The description of the views has other keys than expected",
                received=sorted(values),
                fix=f"It must hold {', '.join(ViewSpec.__dataclass_fields__)}.",
            )
        return ViewSpec(**{**values, "azimuths_deg": tuple(values["azimuths_deg"])})


DEFAULT_VIEWS = ViewSpec()


@dataclass(frozen=True, eq=False)
class RenderedViews:
    """Pictures of one asset.

    Attributes:
        images: ``[V, S, S, 3]`` float32 in [0, 1], sRGB-encoded, over the background. masks: ``[V, S, S]`` coverage.
    """

    images: NDArray[np.float32]
    masks: NDArray[np.float32]


def open_record(path: Path, record: AssetRecord, *, limits: Limits = DEFAULT_LIMITS) -> Asset:
    """Load the file of a record into the canonical frame, by the axes that the record names.

    Raises:
        AssetError: the file cannot be used.
    """
    return normalise(load_asset(path, limits=limits), up=record.up or "+y", front=record.front or None)


def render_views(asset: Asset, spec: ViewSpec = DEFAULT_VIEWS, size: int = 224) -> RenderedViews:
    """Render a normalised asset from the cameras of ``spec``, ``size`` pixels square."""
    return render_sets(asset, (spec,), size)[0]


def render_sets(asset: Asset, specs: tuple[ViewSpec, ...], size: int) -> list[RenderedViews]:
    """Several sets of views of one asset; its textures are prepared once."""
    from threestudio_redream.assets.rasteriser import AssetRenderer

    renderer, sets = AssetRenderer(asset), []
    for spec in specs:
        c2w = orbit_c2w(np.array(spec.azimuths_deg), spec.elevation_deg, spec.distance)
        renders = renderer(c2w, spec.fovy_deg, size, size, supersample=spec.supersample, shading=spec.shading)
        images = np.clip(renders.over(spec.background), 0.0, 1.0).astype(np.float32)
        sets.append(RenderedViews(images, renders.mask[..., 0]))
    return sets


def thumbnail(image: NDArray[Any], side: int = 64) -> NDArray[np.uint8]:
    """``[side, side, 3]`` uint8 of a square picture ``[S, S, 3]``, float in [0, 1] or uint8."""
    from PIL import Image

    if image.dtype != np.uint8:
        image = np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)
    if image.shape[:2] == (side, side):
        return image
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BOX), np.uint8)
