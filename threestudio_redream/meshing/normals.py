"""Vertex normals, from the field or from the faces. Make them before charts are cut: seams then do not shade.

Convention: normals are unit vectors that point outwards; for ``level = 0.5 - |p|`` the normal at
``(0, 0, 0.5)`` is ``(0, 0, 1)``, the direction in which the level falls.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.errors import ConfigError
from threestudio_redream.meshing.grid import DEFAULT_CHUNK, evaluate
from threestudio_redream.meshing.types import FloatArray, Mesh, PointFn

__all__ = ["gradient_normal_fn", "vertex_normals", "with_normals"]


def vertex_normals(vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> FloatArray:
    """Area-weighted mean of the normals of the faces around each vertex, ``[V, 3]`` float32.

    A vertex without a face, or whose faces cancel, gets +z.
    """
    corners = np.asarray(vertices, np.float64)[faces]
    weighted = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    flat, repeated = faces.ravel(), np.repeat(weighted, 3, axis=0)
    summed = [np.bincount(flat, repeated[:, axis], minlength=len(vertices)) for axis in range(3)]
    total = np.stack(summed, axis=1).astype(np.float64)
    return _unit(total, np.broadcast_to([0.0, 0.0, 1.0], total.shape))


def gradient_normal_fn(level_fn: PointFn, epsilon: float) -> PointFn:
    """Outward normals of a field by central differences: minus the gradient of the level, normalised.

    Args:
        level_fn: ``[N, 3]`` -> ``[N]``; larger means further inside.
        epsilon: step in world units; about one grid cell suppresses the field's noise.

    Raises:
        ConfigError: a step that is not positive.
    """
    if not epsilon > 0.0:
        raise ConfigError("The finite-difference step must be positive", received=epsilon, fix="Try one grid cell.")

    def normal(points: FloatArray) -> FloatArray:
        offsets = np.eye(3, dtype=np.float32) * np.float32(epsilon)
        shifted = np.concatenate([points + sign * offset for sign in (1.0, -1.0) for offset in offsets])
        level = np.asarray(level_fn(shifted.astype(np.float32)), np.float64).reshape(2, 3, len(points))
        return _unit((level[1] - level[0]).T, np.zeros((len(points), 3)))

    return normal


def with_normals(mesh: Mesh, normal_fn: PointFn | None = None, *, chunk: int = DEFAULT_CHUNK) -> Mesh:
    """``mesh`` with normals from ``normal_fn``, else area-weighted ones.

    A field normal that is zero or looks into the surface gives way to the area-weighted one: it would
    show as a black spot.

    Args:
        normal_fn: ``[N, 3]`` points -> ``[N, 3]`` outward directions of any length.
    """
    plain = vertex_normals(mesh.vertices, mesh.faces)
    if normal_fn is None:
        return replace(mesh, normals=plain)
    field = _unit(evaluate(normal_fn, mesh.vertices, 3, chunk=chunk, what="normal").astype(np.float64), plain)
    outwards = np.einsum("ij,ij->i", field, plain) > 0.0
    return replace(mesh, normals=np.where(outwards[:, None], field, plain))


def _unit(vectors: NDArray[np.float64], otherwise: NDArray) -> FloatArray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    tiny = length < 1e-20
    return np.where(tiny, otherwise, vectors / np.where(tiny, 1.0, length)).astype(np.float32)
