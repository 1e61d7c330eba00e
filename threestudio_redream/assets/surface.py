"""Vertex identity and vertex normals of triangle meshes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["position_ids", "total_area", "unit_rows", "vertex_normals"]

Float = NDArray[np.float64]
Int = NDArray[np.int64]


def position_ids(vertices: NDArray[np.floating]) -> tuple[Int, Int]:
    """Group vertices that lie at exactly the same float32 position.

    Args:
        vertices: ``[V, 3]``.

    Returns:
        ``first`` ``[U]``, a vertex of each group, and ``group`` ``[V]`` with values in ``[0, U)``.
    """
    bits = (np.asarray(vertices, np.float32) + np.float32(0.0)).view(np.uint32).astype(np.uint64)  # + 0: -0 becomes 0
    with np.errstate(over="ignore"):
        key = bits[:, 0] * np.uint64(0x9E3779B97F4A7C15)
        for axis in (1, 2):
            key = (key ^ (key >> np.uint64(29)) ^ bits[:, axis]) * np.uint64(0xBF58476D1CE4E5B9)
    _, first, group = np.unique(key, return_index=True, return_inverse=True)
    if not np.array_equal(bits[first][group], bits):  # a collision of 64-bit keys can only be forged: merge nothing
        return np.arange(len(bits)), np.arange(len(bits))
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


def _face_vectors(vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> Float:
    """``[F, 3]`` cross products: along the normal, twice the area long."""
    corners = np.asarray(vertices, np.float64)[faces]
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def total_area(vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> float:
    """Sum of the triangle areas, in squared units of ``vertices``."""
    return float(0.5 * np.linalg.norm(_face_vectors(vertices, faces), axis=1).sum())


def vertex_normals(vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> NDArray[np.float32]:
    """Area-weighted unit normals, equal for vertices at the same position (so UV seams do not show).

    Args:
        vertices: ``[V, 3]``. faces: ``[F, 3]``, counter-clockwise from outside.

    Returns:
        ``[V, 3]`` float32; +z where the faces around a vertex cancel out.
    """
    first, group = position_ids(vertices)
    weighted, corner_group = _face_vectors(vertices, faces), group[faces]
    total = np.zeros((len(first), 3))
    for axis in range(3):
        for corner in range(3):
            total[:, axis] += np.bincount(corner_group[:, corner], weighted[:, axis], len(first))
    unit, valid = unit_rows(total)
    unit[~valid] = (0.0, 0.0, 1.0)
    return unit[group].astype(np.float32)
