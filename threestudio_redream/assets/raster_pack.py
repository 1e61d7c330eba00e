"""An asset as the rasterisers want it: contiguous arrays, materials as columns, mips in one buffer."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets.raster_coverage import used_texels
from threestudio_redream.assets.raster_mips import build_pyramid, multiply_factor
from threestudio_redream.assets.types import Asset, Material

__all__ = [
    "BLEND",
    "CUTOFF",
    "FACTOR",
    "FIRST_LEVEL",
    "LEVEL_COUNT",
    "MASK",
    "MODE",
    "OPAQUE",
    "REPEAT",
    "SINGLE_SIDED",
    "Packed",
    "effective_mode",
    "pack",
]

OPAQUE, MASK, BLEND = 0, 1, 2
#: Columns of ``Packed.materials``; FACTOR is the first of four (RGBA).
MODE, CUTOFF, SINGLE_SIDED, REPEAT, FIRST_LEVEL, LEVEL_COUNT, FACTOR = range(7)


class Packed(NamedTuple):
    """Arrays shared by all backends; few of them, because compiled functions pass them around.

    Attributes:
        attributes: ``[V, 12]`` float32: position, normal, uv (0 without), vertex colour (white without).
        faces: ``[F, 4]`` int32: three corners and the material.
        materials: ``[M, 10]`` float64; columns are the constants of this module. The factor is white
            where it is already baked into the texels.
        levels: ``[L, 3]`` int64: first texel row, width and height of each mip level of each texture.
        texels: ``[N, 4]`` uint8.
        has_colors: whether vertex colours mean anything.
    """

    attributes: NDArray[np.float32]
    faces: NDArray[np.int32]
    materials: NDArray[np.float64]
    levels: NDArray[np.int64]
    texels: NDArray[np.uint8]
    has_colors: bool


def effective_mode(material: Material, vertex_alpha_min: float) -> int:
    """The alpha mode that matters: a material in BLEND or MASK mode with nothing transparent is OPAQUE."""
    alpha = material.base_color[3] * vertex_alpha_min
    if material.texture is not None:
        alpha *= int(material.texture[..., 3].min()) / 255.0
    if material.alpha_mode == "MASK":
        return OPAQUE if alpha >= material.alpha_cutoff else MASK
    if material.alpha_mode == "BLEND":
        return OPAQUE if alpha >= 1.0 else BLEND
    return OPAQUE


def pack(asset: Asset, *, fast: bool = True) -> Packed:
    """Pack an asset; textures that several materials share with the same factor are stored once.

    Args:
        fast: prepare textures with the numba kernels.
    """
    colors = asset.colors if asset.colors is not None and len(asset.colors) > 0 else None
    vertex_alpha = 1.0 if colors is None else float(colors[:, 3].min())
    modes = [effective_mode(material, vertex_alpha) for material in asset.materials]
    materials = np.zeros((len(asset.materials), 10))
    for row, material, mode in zip(materials, asset.materials, modes, strict=True):
        row[MODE], row[CUTOFF], row[REPEAT] = mode, material.alpha_cutoff, material.wrap == "repeat"
        row[SINGLE_SIDED] = not material.double_sided
        row[FACTOR : FACTOR + 4] = material.base_color

    shared: dict[tuple[object, ...], list[int]] = {}
    if asset.uvs is not None:
        for index in np.unique(asset.face_materials).tolist():
            material = asset.materials[index]
            if material.texture is not None:
                key = (id(material.texture), material.base_color[:3], modes[index] != OPAQUE)
                shared.setdefault(key, []).append(index)
    uvs = np.zeros((len(asset.vertices), 2)) if asset.uvs is None else asset.uvs.astype(np.float64)
    pyramid: list[NDArray[np.uint8]] = []
    for users in shared.values():
        material = asset.materials[users[0]]
        texture = np.ascontiguousarray(material.texture, np.uint8)
        chosen = asset.faces[np.isin(asset.face_materials, users)]
        used = used_texels(uvs[chosen], *texture.shape[:2], fast=fast)
        levels = build_pyramid(
            multiply_factor(texture, material.base_color), used, by_alpha=modes[users[0]] != OPAQUE, fast=fast
        )
        materials[users, FIRST_LEVEL], materials[users, LEVEL_COUNT] = len(pyramid), len(levels)
        materials[users, FACTOR : FACTOR + 3] = 1.0
        pyramid += levels

    table = np.zeros((len(pyramid), 3), np.int64)
    for row_number, level in enumerate(pyramid):
        table[row_number, 1:] = level.shape[1], level.shape[0]
    table[1:, 0] = np.cumsum(table[:-1, 1] * table[:-1, 2])
    attributes = np.zeros((len(asset.vertices), 12), np.float32)
    attributes[:, :3], attributes[:, 3:6] = asset.vertices, asset.normals
    attributes[:, 6:8] = uvs
    attributes[:, 8:] = 1.0 if colors is None else colors
    return Packed(
        attributes=attributes,
        faces=np.column_stack([asset.faces, asset.face_materials]).astype(np.int32),
        materials=materials,
        levels=table,
        texels=np.concatenate([level.reshape(-1, 4) for level in pyramid]) if pyramid else np.zeros((0, 4), np.uint8),
        has_colors=colors is not None,
    )
