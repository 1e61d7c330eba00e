"""Take the roughness of a noisy density off a surface without shrinking it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from threestudio_redream.errors import ConfigError
from threestudio_redream.meshing.types import Mesh

__all__ = ["smooth"]

# Taubin's pair: a step inwards and a slightly larger one outwards; the pass band ends at 1/0.5 - 1/0.53
_INWARDS, _OUTWARDS = 0.5, -0.53


def smooth(mesh: Mesh, iterations: int) -> Mesh:
    """Taubin smoothing (G. Taubin, SIGGRAPH 1995): moves vertices only, keeps volume to about a per cent.

    Args:
        iterations: pairs of steps; 0 returns the mesh as it is.

    Returns:
        A mesh with new vertices and no normals (the old ones no longer fit).

    Raises:
        ConfigError: a negative count.
    """
    if iterations < 0:
        raise ConfigError("Smoothing iterations must be 0 or more", received=iterations, fix="10 is usual.")
    if iterations == 0 or not len(mesh.faces):
        return mesh
    from scipy.sparse import coo_matrix, diags

    count = len(mesh.vertices)
    edges = np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    both = np.concatenate([edges, edges[:, ::-1]])
    adjacency = coo_matrix((np.ones(len(both), np.float32), (both[:, 0], both[:, 1])), shape=(count, count)).tocsr()
    adjacency.data[:] = 1.0  # an edge of two faces was counted twice
    degree = np.maximum(np.asarray(adjacency.sum(axis=1)).ravel(), 1.0)
    average = diags(1.0 / degree) @ adjacency
    connected = np.asarray(adjacency.getnnz(axis=1) > 0)[:, None]
    vertices = mesh.vertices.astype(np.float64)
    for _ in range(iterations):
        for factor in (_INWARDS, _OUTWARDS):
            vertices = vertices + factor * np.where(connected, average @ vertices - vertices, 0.0)
    return replace(mesh, vertices=vertices.astype(np.float32), normals=None)
