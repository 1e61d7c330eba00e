"""Coloured points on an asset's surface: what another surface near it can take its colours from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets import Asset, Material
from threestudio_redream.assets.shading import decode_srgb, encode_srgb
from threestudio_redream.errors import AssetError

__all__ = ["sample_surface"]

Floats = NDArray[np.float64]


def sample_surface(asset: Asset, count: int, *, seed: int = 0) -> tuple[Floats, Floats]:
    """Points drawn evenly by area, and the colour of the surface there.

    Convention: factor, texture and vertex colour are multiplied in linear light, as the renderer does. A face with
    the factor 0.5, the texture 0.5 and no vertex colour (all sRGB-encoded) gives 0.2366.

    Args:
        count: points; those where the surface is transparent (below the material's cut-off, or less than half opaque)
            are left out.

    Returns:
        positions ``[M, 3]`` and sRGB-encoded colours ``[M, 3]`` in [0, 1], float64.

    Raises:
        AssetError: no face has an area.
    """
    triangles = asset.vertices.astype(np.float64)[asset.faces]
    area = np.linalg.norm(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=1)
    if not area.sum() > 0.0:
        raise AssetError("The asset has no surface", received=asset.name, fix="Use another file.")
    rng = np.random.default_rng(seed)
    # Evenly spaced in the sum of areas: every face gets its share, and no large one is missed by chance.
    places = (np.arange(count) + rng.random(count)) / count * area.sum()
    faces = np.minimum(np.searchsorted(np.cumsum(area), places, side="right"), len(area) - 1)
    u, v = rng.random((2, count))
    over = u + v > 1.0
    u, v = np.where(over, 1.0 - u, u), np.where(over, 1.0 - v, v)
    share = np.stack([1.0 - u - v, u, v], axis=1)
    rgba = np.ones((count, 4))
    cutoff = np.zeros(count)
    for number in np.unique(asset.face_materials[faces]).tolist():
        material, rows = asset.materials[number], np.flatnonzero(asset.face_materials[faces] == number)
        rgba[rows] = _base_colour(asset, material, faces[rows], share[rows])
        cutoff[rows] = {"OPAQUE": 0.0, "MASK": material.alpha_cutoff, "BLEND": 0.5}[material.alpha_mode]
    visible = rgba[:, 3] >= cutoff
    positions = (share[:, :, None] * triangles[faces]).sum(axis=1)
    return positions[visible], encode_srgb(np.clip(rgba[visible, :3], 0.0, 1.0))


def _base_colour(asset: Asset, material: Material, faces: NDArray[np.integer], share: Floats) -> Floats:
    """Linear RGBA ``[N, 4]`` at points of faces with one material."""
    corners = asset.faces[faces]
    factor = np.asarray(material.base_color, np.float64)
    rgba = np.tile(np.append(decode_srgb(factor[:3]), factor[3]), (len(faces), 1))
    if material.texture is not None and asset.uvs is not None:
        uv = (share[:, :, None] * asset.uvs[corners].astype(np.float64)).sum(axis=1)
        uv = uv - np.floor(uv) if material.wrap == "repeat" else np.clip(uv, 0.0, 1.0)
        size = np.array(material.texture.shape[1::-1])
        column, row = np.minimum((uv * size).astype(np.int64), size - 1).T
        texel = material.texture[row, column] / 255.0
        rgba *= np.concatenate([decode_srgb(texel[:, :3]), texel[:, 3:]], axis=1)
    if asset.colors is not None and len(asset.colors):
        colour = (share[:, :, None] * asset.colors[corners].astype(np.float64)).sum(axis=1)
        rgba *= np.concatenate([decode_srgb(colour[:, :3]), colour[:, 3:]], axis=1)
    return rgba
