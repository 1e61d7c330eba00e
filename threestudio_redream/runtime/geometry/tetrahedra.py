"""Grids of tetrahedra, and the surface inside each by the signs at its corners.

Convention
----------
Every tetrahedron (i, j, k, l) has a positive volume: ``det(j - i, k - i, l - i) > 0``. Inside is where the level is
negative; triangles are counter-clockwise seen from outside. For i inside and j, k, l outside, the triangle is
(ij, ik, il).
"""

from __future__ import annotations

import itertools
import zipfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from threestudio_redream.errors import AssetError

__all__ = ["EDGES", "TRIANGLES", "TRIANGLE_COUNT", "kuhn_grid", "read_grid"]

#: Edges of a tetrahedron as pairs of its corners.
EDGES = tuple(itertools.combinations(range(4), 2))
MAX_GRID_BYTES = 256 * 2**20


def _is_even(order: tuple[int, ...]) -> bool:
    return sum(a > b for a, b in itertools.combinations(order, 2)) % 2 == 0


def _triangles(inside: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Triangles, each three places in :data:`EDGES`, for the corners that are inside."""
    outside = tuple(corner for corner in range(4) if corner not in inside)
    if not inside or not outside:
        return []
    lead = inside if len(inside) <= 2 else outside
    i, j, k, m = next(  # the corners that lead come first, without changing the orientation
        order for order in itertools.permutations(range(4)) if _is_even(order) and set(order[: len(lead)]) == set(lead)
    )
    if len(lead) == 2:
        pairs = [((i, k), (i, m), (j, m)), ((i, k), (j, m), (j, k))]
    else:
        pairs = [((i, j), (i, k), (i, m)) if lead is inside else ((i, j), (i, m), (i, k))]
    places = {frozenset(edge): place for place, edge in enumerate(EDGES)}
    return [tuple(places[frozenset(edge)] for edge in triangle) for triangle in pairs]


_ALL = [_triangles(tuple(corner for corner in range(4) if code >> corner & 1)) for code in range(16)]
#: Number of triangles by code: bit c is set where corner c is inside.
TRIANGLE_COUNT = torch.tensor([len(found) for found in _ALL])
#: ``[16, 2, 3]`` places in :data:`EDGES`, padded with zeros.
TRIANGLES = torch.tensor([[*found, *[(0, 0, 0)] * (2 - len(found))] for found in _ALL])


def _oriented(vertices: NDArray[np.float32], tets: NDArray[np.int64]) -> NDArray[np.int64]:
    corners = vertices.astype(np.float64)[tets]
    turned = np.linalg.det(corners[:, 1:] - corners[:, :1]) < 0.0
    return np.where(turned[:, None], tets[:, [0, 1, 3, 2]], tets)


def kuhn_grid(resolution: int) -> tuple[Tensor, Tensor]:
    """The unit cube as ``resolution`` cubes along each side, each cut into six tetrahedra along a diagonal.

    Returns:
        Vertices ``[(resolution + 1)^3, 3]`` float32 in [0, 1] and tetrahedra ``[6 resolution^3, 4]`` int64.
    """
    nodes = np.arange(resolution + 1)
    places = np.stack(np.meshgrid(nodes, nodes, nodes, indexing="ij"), axis=-1)
    index = np.arange(places[..., 0].size).reshape(places.shape[:3])
    low = index[:-1, :-1, :-1].reshape(-1)
    strides = np.array([(resolution + 1) ** 2, resolution + 1, 1])
    tets = [
        np.stack([low + step for step in np.cumsum([0, *strides[list(axes)]])], axis=1)
        for axes in itertools.permutations(range(3))
    ]
    vertices = (places.reshape(-1, 3) / resolution).astype(np.float32)
    return torch.from_numpy(vertices), torch.from_numpy(_oriented(vertices, np.concatenate(tets)))


def _unpacked(path: Path) -> int:
    with zipfile.ZipFile(path) as archive:
        return sum(entry.file_size for entry in archive.infolist())


def read_grid(path: Path) -> tuple[Tensor, Tensor]:
    """A grid from a file ``.npz`` with ``vertices`` ``[V, 3]`` in [0, 1] and ``indices`` ``[T, 4]``.

    Raises:
        AssetError: the file is too large, not such a file, or its indices do not fit its vertices.
    """
    problem, vertices, tets = "", np.zeros((0, 3), np.float32), np.zeros((0, 4), np.int64)
    if not zipfile.is_zipfile(path):
        problem = "it is no archive of arrays"
    elif _unpacked(path) > MAX_GRID_BYTES:
        problem = f"it unpacks to more than {MAX_GRID_BYTES} bytes"
    else:
        try:
            with np.load(path, allow_pickle=False) as file:
                vertices, tets = file["vertices"].astype(np.float32), file["indices"].astype(np.int64)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as cause:
            problem = str(cause)
    if not problem and (vertices.ndim != 2 or vertices.shape[1] != 3 or tets.ndim != 2 or tets.shape[1] != 4):
        problem = f"vertices are {vertices.shape}, indices {tets.shape}"
    elif not problem and (not np.isfinite(vertices).all() or not ((tets >= 0) & (tets < len(vertices))).all()):
        problem = "its values are not finite, or its indices point nowhere"
    if problem:
        raise AssetError(
            f"This is no grid of tetrahedra: {problem}",
            received=str(path),
            fix="Remove the file: without one the grid is made here.",
        )
    return torch.from_numpy(vertices), torch.from_numpy(_oriented(vertices, tets))
