"""What an asset is after loading: plain numpy arrays, one vertex buffer, several materials.

Convention
----------
* Geometry: right-handed. Straight after ``load_asset`` the axes are those of the file; after
  ``normalise`` they are the canonical frame of :mod:`threestudio_redream.cameras`.
* Texture coordinates follow the image: ``u`` to the right, ``v`` **down**. The texel under ``(u, v)``
  is ``texture[floor(v * H), floor(u * W)]``: ``uv = (0.25, 0.75)`` on a 4x4 texture reads row 3, column 1.
* Colours are sRGB-encoded, alpha is linear. glTF multiplies factor, texture and vertex colour in
  linear light; a renderer that wants the exact product decodes, multiplies and encodes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["AlphaMode", "Asset", "Material", "Wrap"]

AlphaMode = Literal["OPAQUE", "MASK", "BLEND"]
Wrap = Literal["repeat", "clamp"]


@dataclass(frozen=True, eq=False)
class Material:
    """The base colour of a surface; roughness, metalness and normal maps are not kept.

    Attributes:
        base_color: RGBA factor in [0, 1]; rgb sRGB-encoded, alpha linear.
        texture: ``[H, W, 4]`` uint8, sRGB-encoded RGBA (alpha linear), row 0 at the top; multiplied
            with ``base_color`` in linear light. None for a plain colour.
        alpha_mode: OPAQUE ignores alpha, MASK keeps what reaches ``alpha_cutoff``, BLEND composites.
        alpha_cutoff: threshold in [0, 1] for MASK.
        double_sided: whether back faces show.
        wrap: what happens to texture coordinates outside [0, 1].
    """

    base_color: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    texture: NDArray[np.uint8] | None = None
    alpha_mode: AlphaMode = "OPAQUE"
    alpha_cutoff: float = 0.5
    double_sided: bool = True
    wrap: Wrap = "repeat"


@dataclass(frozen=True, eq=False)
class Asset:
    """A triangle mesh with base-colour materials, node transforms already applied.

    Attributes:
        name: a short label for people; never used as a path.
        vertices: ``[V, 3]`` float32, finite.
        faces: ``[F, 3]`` int32 indices into ``vertices``, counter-clockwise seen from outside.
        normals: ``[V, 3]`` float32 unit vectors: the file's where valid, else area-weighted.
        uvs: ``[V, 2]`` float32 in the image convention above, or None. Vertices are split at seams.
        colors: ``[V, 4]`` float32 vertex colours in [0, 1] (rgb sRGB-encoded), or None.
        face_materials: ``[F]`` int32 index into ``materials``.
        materials: at least one.
        source: the file it came from, or None for a generated asset.
        sha256: hex digest of that file's bytes, or None.
        info: ``format``, ``n_nodes``, ``warnings`` (list of str) and whatever else the loader noted.
    """

    name: str
    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    normals: NDArray[np.float32]
    uvs: NDArray[np.float32] | None
    colors: NDArray[np.float32] | None
    face_materials: NDArray[np.int32]
    materials: tuple[Material, ...]
    source: Path | None = None
    sha256: str | None = None
    info: dict[str, Any] = field(default_factory=dict)
