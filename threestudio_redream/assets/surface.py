"""Vertex identity and vertex normals of triangle meshes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["face_vectors", "position_ids", "unit_rows", "vertex_normals"]

Float = NDArray[np.float64]
Int = NDArray[np.int64]


def position_ids(vertices: NDArray[np.floating]) -> tuple[Int, Int]:
    """Group vertices that lie at exactly the same float32 position.

    Args:
        vertices: ``[V, 3]``.

    Returns:
        ``first`` ``[U]``, a vertex of each group, and ``group`` ``[V]`` with values in ``[0, U)``.
    """
    bits = (np.asarray(vertices, np.float32).T + np.float32(0.0)).view(np.uint32)  # + 0: -0 becomes 0
    key = bits[0] * np.uint64(0x9E3779B97F4A7C15)
    for axis in (1, 2):
        key = (key ^ (key >> np.uint64(29)) ^ bits[axis]) * np.uint64(0xBF58476D1CE4E5B9)
    _, first, group = np.unique(key, return_index=True, return_inverse=True)
    if any(not np.array_equal(axis[first][group], axis) for axis in bits):  # collisions of 64 bits can only be forged
        return np.arange(len(key)), np.arange(len(key))
    return first, group


def unit_rows(vectors: Float) -> tuple[Float, NDArray[np.bool_]]:
    """Rows scaled to length one, and which rows could be: finite and not zero."""
    with np.errstate(all="ignore"):
        largest = np.abs(vectors).max(axis=1, keepdims=True)
        scaled = vectors / largest  # first by the largest component: squares neither overflow nor vanish
        length = np.linalg.norm(scaled, axis=1, keepdims=True)
        valid = np.isfinite(length[:, 0]) & (largest[:, 0] > 0)
        unit = np.where(valid[:, None], scaled / np.where(valid[:, None], length, 1.0), 0.0)
    return unit, valid


def face_vectors(vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> Float:
    """``[F, 3]`` cross products of the edges: along the outward normal, twice the area long."""
    corners = [np.asarray(vertices, np.float64)[faces[:, corner]] for corner in range(3)]
    x, y = (corners[1] - corners[0]).T, (corners[2] - corners[0]).T
    result = np.zeros((len(faces), 3))
    for axis in range(3):
        after, last = (axis + 1) % 3, (axis + 2) % 3
        result[:, axis] = x[after] * y[last] - x[last] * y[after]
    return result


def vertex_normals(
    vertices: NDArray[np.floating], faces: NDArray[np.integer], vectors: Float | None = None
) -> NDArray[np.float32]:
    """Area-weighted unit normals, equal for vertices at the same position (so UV seams do not show).

    Args:
        vertices: ``[V, 3]``. faces: ``[F, 3]``, counter-clockwise from outside.
        vectors: ``face_vectors`` of the same mesh at any scale, if at hand.

    Returns:
        ``[V, 3]`` float32; +z where the faces around a vertex cancel out.
    """
    first, group = position_ids(vertices)
    weighted = face_vectors(vertices, faces) if vectors is None else vectors
    total = np.zeros((len(first), 3))
    for corner in range(3):
        corner_group = group[faces[:, corner]]
        for axis in range(3):
            total[:, axis] += np.bincount(corner_group, weighted[:, axis], len(first))
    unit, valid = unit_rows(total)
    unit[~valid] = (0.0, 0.0, 1.0)
    return unit[group].astype(np.float32)
