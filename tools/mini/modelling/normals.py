"""Normals by crease angle: smooth over gentle bends, sharp over edges."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["creased"]

#: Normals of a vertex that agree to this many steps in each component are one.
_STEPS = 64


def creased(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], degrees: ArrayLike = 40.0
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Split vertices where the surface bends by more than ``degrees``.

    Args:
        vertices: ``[V, 3]``, fewer than 2**39. faces: ``[F, 3]``. degrees: one angle, or one per face ``[F]``; faces
            that share a vertex should agree on it.

    Returns:
        ``source [W]``, ascending: the old vertex of each new one; ``faces [F, 3]`` into the new ones; their unit
        ``normals [W, 3]``.
    """
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    area = np.cross(b - a, c - a)
    length = np.linalg.norm(area, axis=1, keepdims=True)
    x, y, z = np.ascontiguousarray((area / np.maximum(length, 1e-20)).T)
    bound = np.broadcast_to(np.cos(np.deg2rad(np.asarray(degrees, np.float64))), len(faces))
    corner_vertex, corner_face = faces.ravel(), np.repeat(np.arange(len(faces)), 3)
    order = np.argsort(corner_vertex, kind="stable")
    counts = np.bincount(corner_vertex, minlength=len(vertices))
    starts = np.cumsum(counts) - counts
    # All pairs of corners that share a vertex.
    mine = counts[corner_vertex]
    first = np.repeat(np.arange(len(corner_vertex)), mine)
    within = np.arange(len(first)) - np.repeat(np.cumsum(mine) - mine, mine)
    second = order[starts[corner_vertex[first]] + within]
    one, other = corner_face[first], corner_face[second]
    alike = x[one] * x[other] + y[one] * y[other] + z[one] * z[other] > bound[one]
    alike |= first == second
    first, other = first[alike], other[alike]
    total = np.zeros((len(corner_vertex), 3))
    for axis in range(3):
        total[:, axis] = np.bincount(first, area[other, axis], len(corner_vertex))
    normal = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-20)
    step = np.round(normal * _STEPS).astype(np.int64) + _STEPS  # 0 to 128, a byte each
    keys = (corner_vertex << 24) | (step[:, 0] << 16) | (step[:, 1] << 8) | step[:, 2]
    _, index, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return corner_vertex[index], inverse.reshape(-1, 3).astype(np.int64), normal[index]
