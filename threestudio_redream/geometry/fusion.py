"""Several aligned assets as one reference: a vote on what is solid, painted with the nearest surface.

One fused reference can be steadier than several that take turns. Assets agree on little but the rough
shape; the vote keeps what most of them have.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets import Asset
from threestudio_redream.errors import ConfigError, EmptySceneError
from threestudio_redream.geometry.asset_volume import AssetVolume, asset_volume
from threestudio_redream.geometry.surface_colours import sample_surface
from threestudio_redream.meshing import Mesh, as_asset, clean, marching_cubes, smooth

__all__ = ["FUSIONS", "fuse"]

FUSIONS = ("none", "fused")

_COLOUR_POINTS = 200_000  # of all assets together
_SMOOTHING = 3
#: Width of the soft step of a vote, in cells, so that the surface is no staircase.
_SOFT = 0.5
#: Weight of the plain distance beside the vote: a tie falls half way between two surfaces and not on one of them.
_TIE = 1e-6
_CLOSE = 0.1  # world units
_LOWER, _UPPER = slice(None, -1), slice(1, None)


def fuse(assets: Sequence[Asset], weights: Sequence[float] | None = None, *, resolution: int = 128) -> Asset:
    """One asset of several in the canonical frame whose fronts agree.

    A place is solid where the weighted mean of the assets' occupancies is above one half. A tie is decided by the mean
    distance to the surfaces: of two spheres of radius 0.3 and 0.5 around one centre, equally weighted, comes one of
    0.4. A vertex is painted as the nearest point of the first asset that has one close by (the first is the best match,
    so its face stays in one piece), else of the nearest asset.

    Args:
        weights: votes of each; equal ones by default. resolution: nodes along each side of the grid.

    Raises:
        ConfigError: no asset, or not one positive weight for each. EmptySceneError: no place is solid in most assets,
            such as for surfaces that enclose nothing.
    """
    votes = np.ones(len(assets)) if weights is None else np.asarray(weights, np.float64)
    if not assets or len(votes) != len(assets) or not (votes > 0.0).all():
        raise ConfigError(
            "Fusing needs assets, and a positive weight for each",
            received=(len(assets), votes.tolist()),
            fix="Retrieve some.",
        )
    reach = max(float(np.abs(asset.vertices).max()) for asset in assets)
    radius = reach / (1.0 - 6.0 / (resolution - 1))
    majority = np.zeros((resolution,) * 3)
    for asset, vote in zip(assets, votes / votes.sum()):
        volume = asset_volume(asset, resolution, radius)
        depth = _inwards(volume) / volume.cell
        majority += vote * (0.5 * np.tanh(0.5 * depth / _SOFT) + _TIE * depth)
    if not (majority > 0.0).any():
        raise EmptySceneError(
            "The assets have no solid part in common",
            received=[asset.name for asset in assets],
            fix="Set system.fusion: none.",
        )
    box = [[-radius] * 3, [radius] * 3]
    mesh = smooth(clean(marching_cubes(majority.astype(np.float32), box, 0.0)), _SMOOTHING)
    colours = _nearest_colours(mesh.vertices, assets)
    painted = as_asset(Mesh(mesh.vertices, mesh.faces, colors=colours))
    return Asset(**{**vars(painted), "name": " + ".join(asset.name for asset in assets), "info": {"format": "fused"}})


def _inwards(volume: AssetVolume) -> NDArray[np.float64]:
    """Distance to the edge of the solid, positive inside, to about half a cell; in world units."""
    from scipy.ndimage import distance_transform_edt

    solid = volume.occupancy >= 0.5
    edge = np.zeros(solid.shape, bool)
    for axis in range(3):
        low, high = (tuple(cut if a == axis else slice(None) for a in range(3)) for cut in (_LOWER, _UPPER))
        changes = solid[low] != solid[high]
        edge[low] |= changes
        edge[high] |= changes
    if not edge.any():
        return np.full(solid.shape, -2.0 * volume.radius)
    away = (distance_transform_edt(~edge) + 0.5) * volume.cell  # the edge runs half way between two nodes
    return np.where(solid, away, -away)


def _nearest_colours(points: NDArray[np.float32], assets: Sequence[Asset]) -> NDArray[np.float32]:
    from scipy.spatial import cKDTree

    away, colours = [], []
    for asset in assets:
        positions, painted = sample_surface(asset, max(_COLOUR_POINTS // len(assets), 1))
        distance, nearest = cKDTree(positions).query(points)
        away.append(distance)
        colours.append(painted[nearest])
    # Those that are close by count as equally near, and of equals the first is taken.
    chosen = np.argmin(np.maximum(away, _CLOSE), axis=0)
    return np.stack(colours)[chosen, np.arange(len(points))].astype(np.float32)
