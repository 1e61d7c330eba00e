"""Meshes on their way from a field to a file: plain numpy, in the world frame.

Convention
----------
* Vertices are world units in the frame of :mod:`threestudio_redream.cameras` (+z up, front +x).
  Writers convert to the +Y-up frame of glTF; nothing before them does.
* Faces are counter-clockwise seen from outside, so a closed mesh has a positive signed volume:
  ``signed_volume(vertices, faces) -> 1/6`` for the tetrahedron with corners 0, x, y, z and outward faces.
* Texture coordinates follow the image: ``u`` to the right, ``v`` down, ``(0, 0)`` is the top left corner.
* Colours are sRGB-encoded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.errors import AssetError

__all__ = ["FloatArray", "IntArray", "Mesh", "PointFn", "Progress", "TexturedMesh"]

FloatArray: TypeAlias = NDArray[np.float32]
IntArray: TypeAlias = NDArray[np.int32]
PointFn: TypeAlias = Callable[[FloatArray], NDArray[np.floating]]
"""A field: world points ``[N, 3]`` float32 -> ``[N]`` levels, or ``[N, 3]`` colours or normals."""
Progress: TypeAlias = Callable[[str, float], None]
"""Called with the name of the stage and the part of it that is done, in [0, 1]."""


@dataclass(frozen=True, eq=False)
class Mesh:
    """A triangle mesh without texture.

    Attributes:
        vertices: ``[V, 3]`` float32, finite.
        faces: ``[F, 3]`` int32 indices into ``vertices``.
        normals: ``[V, 3]`` float32 unit vectors that point outwards, or None.
        colors: ``[V, 3]`` float32 sRGB in [0, 1], or None.

    Raises:
        AssetError: shapes that do not belong together, an index out of range, or a non-finite vertex.
    """

    vertices: FloatArray
    faces: IntArray
    normals: FloatArray | None = None
    colors: FloatArray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "vertices", _per_vertex("vertices", self.vertices, None, 3))
        object.__setattr__(self, "faces", _checked_faces(self.faces, len(self.vertices)))
        for name in ("normals", "colors"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _per_vertex(name, value, len(self.vertices), 3))


@dataclass(frozen=True, eq=False)
class TexturedMesh:
    """A triangle mesh with one base-colour texture; vertices are split where charts meet.

    Attributes:
        vertices: ``[V, 3]`` float32, finite. faces: ``[F, 3]`` int32.
        normals: ``[V, 3]`` float32 unit vectors, equal for all copies of a split vertex.
        uvs: ``[V, 2]`` float32 in [0, 1], image convention (v down).
        texture: ``[T, T, 3]`` uint8, sRGB-encoded, row 0 at the top.
        name: a label for people, written into files; never used as a path.

    Raises:
        AssetError: as for :class:`Mesh`, and for a texture that is not ``[H, W, 3]`` uint8.
    """

    vertices: FloatArray
    faces: IntArray
    normals: FloatArray
    uvs: FloatArray
    texture: NDArray[np.uint8]
    name: str = "mesh"

    def __post_init__(self) -> None:
        object.__setattr__(self, "vertices", _per_vertex("vertices", self.vertices, None, 3))
        object.__setattr__(self, "faces", _checked_faces(self.faces, len(self.vertices)))
        object.__setattr__(self, "normals", _per_vertex("normals", self.normals, len(self.vertices), 3))
        object.__setattr__(self, "uvs", _per_vertex("uvs", self.uvs, len(self.vertices), 2))
        texture = np.asarray(self.texture)
        if texture.dtype != np.uint8 or texture.ndim != 3 or texture.shape[2] != 3 or texture.size == 0:
            raise AssetError(
                "A texture must be uint8 of shape [H, W, 3]",
                received=(str(texture.dtype), texture.shape),
                fix="Convert colours in [0, 1] with (color * 255 + 0.5).astype(uint8).",
            )
        object.__setattr__(self, "texture", texture)


def _per_vertex(name: str, value: NDArray[np.floating], count: int | None, channels: int) -> FloatArray:
    array = np.ascontiguousarray(value, np.float32)
    if array.ndim != 2 or array.shape[1] != channels or (count is not None and len(array) != count):
        expected = "V" if count is None else count
        raise AssetError(
            f"Mesh {name} must have the shape [{expected}, {channels}]",
            received=array.shape,
            fix="Pass one row per vertex.",
        )
    if not np.isfinite(array).all():
        raise AssetError(
            f"Mesh {name} hold non-finite numbers",
            received=f"{int((~np.isfinite(array)).any(axis=1).sum())} of {len(array)} rows",
            fix="Check the field or the file that they came from.",
        )
    return array


def _checked_faces(value: NDArray[np.integer], n_vertices: int) -> IntArray:
    faces = np.ascontiguousarray(value, np.int32)
    if faces.ndim != 2 or faces.shape[1] != 3:
        raise AssetError("Mesh faces must have the shape [F, 3]", received=faces.shape, fix="Triangulate the mesh.")
    if faces.size and (faces.min() < 0 or faces.max() >= n_vertices):
        raise AssetError(
            f"A face index lies outside the {n_vertices} vertices",
            received=(int(faces.min()), int(faces.max())),
            fix="Faces count vertices from 0.",
        )
    return faces
