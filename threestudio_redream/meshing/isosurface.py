"""From a grid of levels to a closed triangle mesh in world units.

Convention
----------
Inside is where ``level > threshold``; faces look outwards (positive signed volume). Node ``(0, 0, 0)`` is
``bbox[0]`` and node ``(X-1, Y-1, Z-1)`` is ``bbox[1]``. For ``level = 0.5 - |p|`` on the box from -1 to 1
and threshold 0 the mesh is a sphere of volume ``+0.5236`` whose highest vertex is ``(0, 0, 0.5)``, to
0.02 of a cell.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from threestudio_redream.errors import ConfigError, EmptySceneError
from threestudio_redream.meshing.grid import checked_bbox
from threestudio_redream.meshing.types import FloatArray, Mesh

__all__ = ["fill_voids", "marching_cubes"]

_WALL = 100.0  # the outer layer lies this many level ranges below the threshold: caps end up on the box
_OFF_NODE = 0.02  # of a cell: how far vertices stay from grid nodes
_HUGE = 1e30  # infinite levels become this, so that interpolation stays finite


def marching_cubes(level: FloatArray, bbox: ArrayLike, threshold: float) -> Mesh:
    """The surface ``level == threshold`` (Convention above).

    Objects that touch the box are closed by a flat cap on it.

    Args:
        level: ``[X, Y, Z]`` float32, at least 2 nodes per axis. bbox: ``[2, 3]``.

    Returns:
        A mesh without normals; it may hold coincident vertices, which ``clean`` merges.

    Raises:
        EmptySceneError: no node lies above the threshold, or the levels hold NaN.
        ConfigError: a level that is not a 3D grid, a non-finite threshold, or a bad box.
    """
    from skimage import measure

    box, level = checked_bbox(bbox), np.asarray(level, np.float32)
    if level.ndim != 3 or min(level.shape) < 2:
        raise ConfigError(
            "Levels must be a grid [X, Y, Z] of at least 2 nodes per axis",
            received=level.shape,
            fix="Use sample_grid to make one.",
        )
    if not np.isfinite(threshold):
        raise ConfigError("The threshold must be finite", received=threshold, fix="Use threshold='auto' to find one.")
    level = np.clip(level, -_HUGE, _HUGE)  # NaN stays
    low, high = float(level.min()), float(level.max())
    seen = {"min level": low, "max level": high, "threshold": float(threshold)}
    if np.isnan(low):
        raise EmptySceneError(
            "The level grid holds NaN",
            received=f"{int(np.isnan(level).sum())} of {level.size} nodes",
            fix="The field diverged: lower the learning rate, or export an earlier checkpoint.",
        )
    if high <= threshold:
        raise EmptySceneError(
            "No part of the level grid lies above the threshold, so there is no surface",
            received=seen,
            fix=f"Lower the threshold below {high:.6g}, train for longer, or check that the object lies in the box.",
        )
    gap = _off_nodes(level - np.float32(threshold))
    wall = min(float(gap.min()), -_WALL * float(gap.max()))
    vertices, faces, _, _ = measure.marching_cubes(
        np.pad(gap, 1, constant_values=wall), 0.0, gradient_direction="ascent"
    )
    spacing = (box[1] - box[0]) / (np.array(level.shape) - 1)
    world = box[0] + (vertices.astype(np.float64) - 1.0) * spacing
    return Mesh(np.clip(world, box[0], box[1]).astype(np.float32), faces.astype(np.int32))


def _off_nodes(gap: FloatArray) -> FloatArray:
    """Levels relative to the threshold, changed where the surface runs through a node, or nearly so.

    Such nodes make slivers and several vertices in one place, which no later stage likes. The surface moves
    by at most 0.02 of a cell, and no node changes sides.
    """
    inside, size = gap > 0.0, np.abs(gap)
    least = np.zeros_like(gap)
    for axis in range(3):
        lower = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
        upper = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        start = np.nonzero(inside[lower] != inside[upper])
        end = tuple(index + (a == axis) for a, index in enumerate(start))
        np.maximum.at(least, start, _OFF_NODE * size[end])
        np.maximum.at(least, end, _OFF_NODE * size[start])
    size = np.maximum(size, least)
    return np.where(inside, size, -size)


def fill_voids(level: FloatArray, threshold: float) -> FloatArray:
    """Raise the level in hollows that no path connects to the outside, so that they make no inner surface.

    Radiance fields are often hollow. Surfaces around such hollows cannot be seen and would take part of
    the face and texel budget. Paths may step diagonally, so the visible surface stays as it is.

    Returns:
        ``level`` itself if there is nothing to fill, else a changed copy.
    """
    from scipy import ndimage

    outside = np.pad(level <= threshold, 1, constant_values=True)
    labels, count = ndimage.label(outside, np.ones((3, 3, 3), bool))
    if count <= 1:
        return level
    hollow = (outside & (labels != labels[0, 0, 0]))[1:-1, 1:-1, 1:-1]
    filled = level.copy()
    filled[hollow] = level.max()
    return filled
