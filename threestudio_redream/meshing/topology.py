"""Measures of a triangle mesh: areas, volume, whether it is closed, its connected parts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["face_areas", "face_components", "is_watertight", "signed_volume"]


def _edge_vectors(vertices: NDArray, faces: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray]:
    corners = vertices.astype(np.float64)[faces]
    return corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], corners[:, 0]


def face_areas(vertices: NDArray, faces: NDArray) -> NDArray[np.float64]:
    """Area of every face, ``[F]`` float64, in squared world units."""
    first, second, _ = _edge_vectors(vertices, faces)
    return 0.5 * np.linalg.norm(np.cross(first, second), axis=1)


def signed_volume(vertices: NDArray, faces: NDArray) -> float:
    """Enclosed volume of a closed mesh in cubic world units; positive when the faces look outwards.

    Convention: ``+1/6`` for the tetrahedron with the corners 0, x, y, z and outward faces.
    """
    first, second, origin = _edge_vectors(vertices, faces)
    # Sum of (a x b) . c over tetrahedra; measured from the first corner of each face it is (e1 x e2) . a.
    return float(np.einsum("ij,ij->", np.cross(first, second), origin) / 6.0)


def is_watertight(faces: NDArray) -> bool:
    """Whether every edge belongs to exactly two faces that run through it in opposite directions.

    Vertices are compared by index: ask before the mesh is cut into charts, not after.
    """
    if len(faces) == 0:
        return False
    start = faces.astype(np.int64).ravel()
    end = np.roll(faces, -1, axis=1).astype(np.int64).ravel()
    base = int(start.max()) + 1
    edges = np.sort(start * base + end)
    if (edges[1:] == edges[:-1]).any() or (start == end).any():
        return False
    return bool(np.array_equal(edges, np.sort(end * base + start)))


def face_components(faces: NDArray, n_vertices: int) -> tuple[int, NDArray[np.int32]]:
    """Connected parts by shared vertices: their number and the part of every face, ``[F]`` int32."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    start, end = faces[:, [0, 1]].ravel(), faces[:, [1, 2]].ravel()
    graph = coo_matrix((np.ones(len(start), bool), (start, end)), shape=(n_vertices, n_vertices))
    _, labels = connected_components(graph, directed=False)
    _, per_face = np.unique(labels[faces[:, 0]], return_inverse=True)  # vertices without a face do not count
    return (int(per_face.max()) + 1 if len(per_face) else 0), per_face.astype(np.int32)
