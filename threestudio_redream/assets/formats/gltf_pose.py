"""Apply node transforms and skins to vertices and normals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets.assemble import Part
from threestudio_redream.errors import AssetError

__all__ = ["posed", "skinned"]

_CHUNK = 65_536


def posed(part: Part, matrix: NDArray[np.float64]) -> Part:
    """``part`` under a ``[4, 4]`` transform; normals by the inverse transpose, faces turned over by a mirror.

    The cofactor matrix replaces the inverse transpose, so a scale of zero along one axis works too.
    """
    linear = matrix[:3, :3]
    after, last = [1, 2, 0], [2, 0, 1]
    vertices = part.vertices @ linear.T + matrix[:3, 3]
    one, two = linear[after], linear[last]
    cofactor = one[:, after] * two[:, last] - one[:, last] * two[:, after]
    mirrored = float(linear[0] @ cofactor[0]) < 0.0
    normals = None if part.normals is None else part.normals @ cofactor.T * (-1.0 if mirrored else 1.0)
    faces = part.faces[:, ::-1] if mirrored else part.faces
    return replace(part, vertices=vertices, normals=normals, faces=faces)


def skinned(part: Part, joints: NDArray[np.int64], weights: NDArray[np.float64], matrices: NDArray[np.float64]) -> Part:
    """``part`` under linear blend skinning.

    Args:
        joints: ``[V, 4]`` indices into ``matrices``. weights: ``[V, 4]``, made to sum to one.
        matrices: ``[J, 4, 4]`` mesh space to world.

    Raises:
        AssetError: a joint that does not exist, or weights that are negative, not finite or all zero.
    """
    if len(joints) and int(joints.max()) >= len(matrices):
        raise AssetError(
            "a glTF vertex uses a joint that does not exist", received=int(joints.max()), fix="Export the file again"
        )
    total = weights.sum(axis=1, keepdims=True)
    shares = weights / total
    if not np.isfinite(shares).all() or float(shares.min(initial=0.0)) < 0.0:
        raise AssetError(
            "glTF skin weights are damaged", received=float(total.min(initial=0.0)), fix="Export the file again"
        )
    vertices = np.zeros_like(part.vertices)
    normals = None if part.normals is None else np.zeros_like(part.normals)
    for start in range(0, len(vertices), _CHUNK):
        rows = slice(start, start + _CHUNK)
        blended = np.einsum("vk,vkij->vij", shares[rows], matrices[joints[rows]])
        vertices[rows] = np.einsum("vij,vj->vi", blended[:, :3, :3], part.vertices[rows]) + blended[:, :3, 3]
        if part.normals is not None and normals is not None:
            normals[rows] = np.einsum("vij,vj->vi", blended[:, :3, :3], part.normals[rows])
    return replace(part, vertices=vertices, normals=normals)
