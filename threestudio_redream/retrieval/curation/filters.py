"""Which assets are worth indexing: enough surface, one object rather than a scene, something to see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from threestudio_redream.assets.types import Asset
from threestudio_redream.errors import ConfigError
from threestudio_redream.retrieval.curation.duplicates import near_duplicates

__all__ = ["FilterSettings", "check_asset", "geometry_problem", "near_duplicates", "render_problem"]

_GRID = 32  # voxels along each side of the unit cube, in which parts count as apart if a voxel lies between them
_SAMPLES = 20_000
_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)


@dataclass(frozen=True)
class FilterSettings:
    """Thresholds of the filters; the defaults are ours, chosen on real meshes.

    Attributes:
        min_faces, max_faces: triangles.
        min_thickness: shortest side of the bounding box over the longest; below it an asset is flat.
        max_objects: separate objects of similar size that one asset may hold; more are a scene.
        min_coverage: share of the picture that an asset covers in its best view.
        min_brightness: mean luminance (sRGB-encoded, 0 to 1) of its brightest view.
        min_contrast: largest difference to the background, 0 to 1, that an asset shows anywhere.
    """

    min_faces: int = 4
    max_faces: int = 1_000_000
    min_thickness: float = 0.03
    max_objects: int = 3
    min_coverage: float = 0.01
    min_brightness: float = 0.02
    min_contrast: float = 0.03


def check_asset(
    asset: Asset, images: NDArray[np.float32], settings: FilterSettings | None = None, background: ArrayLike = 0.5
) -> str | None:
    """Both filters in one call: why the asset should be left out, or None.

    Args:
        asset: in the canonical frame. images: ``[V, H, W, 3]``, see :func:`render_problem`.
    """
    return geometry_problem(asset, settings) or render_problem(images, background, settings)


def geometry_problem(asset: Asset, settings: FilterSettings | None = None) -> str | None:
    """Why the shape of an asset makes it useless as a prior for one object, or None.

    Convention: the asset is in the canonical frame, +z up, bounding sphere of radius 0.5. A square tile of
    side 1 and height 0.02 is flat (0.02 < 0.03); the same tile standing on its edge is flat as well.
    """
    settings = settings or FilterSettings()
    count = len(asset.faces)
    if not settings.min_faces <= count <= settings.max_faces:
        what = "few" if count < settings.min_faces else "many"
        return f"too {what} faces ({count:,}; {settings.min_faces:,} to {settings.max_faces:,} are admitted)"
    corners = asset.vertices[asset.faces].astype(np.float64)
    crosses = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = 0.5 * np.linalg.norm(crosses, axis=1)
    used = corners.reshape(-1, 3)
    extent = np.ptp(used, axis=0)
    if not float(areas.sum()) > 1e-8 * float(extent.max()) ** 2:
        return "degenerate: its faces have no area"
    thickness = float(extent.min() / extent.max())
    if thickness < settings.min_thickness:
        return f"flat: {thickness:.3f} times as thick as it is long (at least {settings.min_thickness})"
    if _is_room(corners, crosses, areas):
        return "scene-like: a room seen from inside"
    objects = _count_objects(corners, areas)
    if objects > settings.max_objects:
        return f"scene-like: {objects} separate objects (at most {settings.max_objects})"
    return None


def render_problem(
    images: NDArray[np.float32], background: ArrayLike = 0.5, settings: FilterSettings | None = None
) -> str | None:
    """Why renders show nothing that a model could describe, or None.

    Args:
        images: ``[V, H, W, 3]`` in [0, 1], sRGB-encoded, over a plain background. background: that colour.

    Raises:
        ConfigError: another shape.
    """
    settings = settings or FilterSettings()
    if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape:
        raise ConfigError("renders must be [V, H, W, 3]", received=images.shape, fix="Stack the views of one asset")
    if not np.isfinite(images).all():
        return "blank: its renders are not finite"
    difference = np.abs(images - np.asarray(background, np.float32)).max(axis=-1)
    shown = difference > 1.5 / 255.0
    coverage = float(shown.mean(axis=(1, 2)).max())
    if coverage < settings.min_coverage:
        return f"blank: it covers {100 * coverage:.2f} % of its best view (at least {100 * settings.min_coverage:g} %)"
    if float(difference.max()) < settings.min_contrast:
        return "blank: it has the colour of the background"
    luminance = (images @ _LUMA) * shown
    brightness = float((luminance.sum(axis=(1, 2)) / np.maximum(shown.sum(axis=(1, 2)), 1)).max())
    if brightness < settings.min_brightness:
        return f"near-black: mean brightness {brightness:.3f} (at least {settings.min_brightness})"
    return None


def _is_room(corners: NDArray[np.float64], crosses: NDArray[np.float64], areas: NDArray[np.float64]) -> bool:
    """True if most of the area at the sides of the bounding box faces inwards, and there is much of it."""
    low, high = corners.reshape(-1, 3).min(axis=0), corners.reshape(-1, 3).max(axis=0)
    extent = high - low
    centres = corners.mean(axis=1)
    normals = crosses / np.maximum(2.0 * areas[:, None], 1e-300)
    inward = outward = 0.0
    for axis in range(3):
        across = np.prod(np.delete(extent, axis))
        for side, sign in ((low, 1.0), (high, -1.0)):
            near = np.abs(centres[:, axis] - side[axis]) < 0.03 * extent[axis]
            facing = sign * normals[near, axis]
            inward += min(float(areas[near][facing > 0.9].sum() / across), 1.0)
            outward += min(float(areas[near][facing < -0.9].sum() / across), 1.0)
    # At least floor and two walls; a closed box with both sides modelled is a box.
    return inward > 2.4 and inward > 4.0 * outward


def _count_objects(corners: NDArray[np.float64], areas: NDArray[np.float64]) -> int:
    """Groups of surface points that lie apart from each other, without the ground they may stand on."""
    from scipy import ndimage

    rng = np.random.default_rng(0)
    picks = np.searchsorted(np.cumsum(areas), rng.random(_SAMPLES) * areas.sum()).clip(max=len(areas) - 1)
    weights = rng.dirichlet(np.ones(3), _SAMPLES)
    points = (corners[picks] * weights[:, :, None]).sum(axis=1)
    low, high = corners.reshape(-1, 3).min(axis=0), corners.reshape(-1, 3).max(axis=0)
    points = _without_ground(points, low, high)
    # Thin parts may go without a sample, but not without a vertex: they keep what they join together.
    step = max(1, len(corners) // _SAMPLES)
    vertices = corners[::step].reshape(-1, 3)
    points = np.concatenate([points, _without_ground(vertices, low, high)])
    if len(points) == 0:
        return 1
    cells = ((points - low) / float((high - low).max()) * (_GRID - 1e-6)).astype(np.int64)
    occupied = np.zeros((_GRID, _GRID, _GRID), np.bool_)
    occupied[tuple(cells.T)] = True
    labels, count = ndimage.label(occupied, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    return max(1, int((sizes >= 0.05 * sizes.sum()).sum())) if count else 1


def _without_ground(
    points: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Points above the lowest layer, if that layer reaches over most of the footprint like a floor; else all."""
    extent = np.maximum(high - low, 1e-12)
    thickness = float(np.clip(0.02 * extent.max(), 0.04 * extent[2], 0.2 * extent[2]))
    layer = points[:, 2] < low[2] + thickness
    cells = ((points[layer, :2] - low[:2]) / extent[:2] * 7.999).astype(np.int64)
    filled = len(np.unique(cells, axis=0)) / 64.0 if len(cells) else 0.0
    return points[~layer] if filled > 0.75 else points
