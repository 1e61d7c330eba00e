"""Axes and image encoding shared by the writers.

Convention
----------
World (x, y, z) becomes glTF (y, z, x): glTF is +Y up, its front is +Z, its right is +X. The world point
``(0, 0, 1)`` (top) is written as ``(0, 1, 0)``, the front ``(1, 0, 0)`` as ``(0, 0, 1)``. This is a
rotation, so faces keep their winding and normals turn like points.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.errors import EmptySceneError
from threestudio_redream.meshing.normals import vertex_normals
from threestudio_redream.meshing.types import FloatArray, Mesh, TexturedMesh

__all__ = ["png_bytes", "unit_normals", "world_to_gltf"]


def world_to_gltf(vectors: NDArray[np.floating]) -> FloatArray:
    """Points or directions ``[N, 3]`` from the world frame to the frame of glTF: ``(x, y, z) -> (y, z, x)``."""
    return np.ascontiguousarray(np.asarray(vectors, np.float32)[:, [1, 2, 0]])


def unit_normals(mesh: Mesh | TexturedMesh) -> FloatArray:
    """Normals for a file, exactly of unit length; area-weighted where the mesh has none.

    Raises:
        EmptySceneError: a mesh without faces, which no writer accepts.
    """
    if len(mesh.faces) == 0:
        raise EmptySceneError(
            "A mesh without faces cannot be written",
            received=f"{len(mesh.vertices)} vertices",
            fix="Lower the threshold.",
        )
    if mesh.normals is None:
        return vertex_normals(mesh.vertices, mesh.faces)
    length = np.linalg.norm(mesh.normals.astype(np.float64), axis=1, keepdims=True)
    if (length > 1e-6).all():
        return (mesh.normals / length).astype(np.float32)
    plain = vertex_normals(mesh.vertices, mesh.faces)
    return np.where(length > 1e-6, mesh.normals / np.maximum(length, 1e-6), plain).astype(np.float32)


def png_bytes(image: NDArray[np.uint8]) -> bytes:
    """``[H, W, 3]`` uint8 as a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()
