"""The rasteriser in plain numpy: slow, simple, and what the numba kernels are tested against.

Same arithmetic in the same order (float64, depth compared in float32), so the images agree to rounding.
Faces are drawn one after another in a Python loop; use it for small images, or where numba is missing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets.raster_pack import (
    BLEND,
    CUTOFF,
    FACTOR,
    FIRST_LEVEL,
    LEVEL_COUNT,
    MODE,
    OPAQUE,
    REPEAT,
    SINGLE_SIDED,
    Packed,
)  # fmt: skip
from threestudio_redream.assets.raster_resolve import MINOR_SHARE
from threestudio_redream.assets.raster_settings import Settings, sample_order
from threestudio_redream.assets.raster_texture_numpy import bilinear, into_unit, sample_texture
from threestudio_redream.assets.shading import decode_srgb, encode_srgb, light_factor

__all__ = ["render_views"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_TINY, _SLIVER = 1e-300, 1e-10


def _project(packed: Packed, view: Floats) -> Floats:
    """``[V, 3]`` homogeneous screen coordinates in samples."""
    local = (packed.attributes[:, :3].astype(np.float64) - view[9:12]) @ view[:9].reshape(3, 3).T
    z = -local[:, 2]
    return np.column_stack([view[12] * local[:, 0] + view[13] * z, -view[12] * local[:, 1] + view[14] * z, z])


def _set_up(corners: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """``[F, 13]`` edge functions, plane of 1/Z and winding of ``corners [F, 3, 3]``; which are drawable."""
    v0, v1, v2 = corners[:, 0], corners[:, 1], corners[:, 2]
    normal = np.cross(v1 - v0, v2 - v0)
    terms = v0 * normal
    det = terms.sum(1)
    drawable = np.abs(det) > _SLIVER * np.abs(terms).sum(1)
    sign = np.where(det > 0, 1.0, -1.0)[:, None]
    edges = np.concatenate([np.cross(v1, v2), np.cross(v2, v0), np.cross(v0, v1)], axis=1) * sign
    plane = normal * (1.0 / np.where(det == 0.0, 1.0, det))[:, None]
    return np.concatenate([edges, plane, sign], axis=1), drawable


def _box(corners: Floats, near: float, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Sample box of one triangle; the whole image where it crosses the near plane."""
    height, width = size
    if (corners[:, 2] <= near).all():
        return None
    if (corners[:, 2] <= near).any():
        return 0, 0, width - 1, height - 1
    screen = corners[:, :2] / corners[:, 2:]
    low = np.maximum(np.ceil(screen.min(0) - 0.500001), 0)
    high = np.minimum(np.floor(screen.max(0) - 0.499999), (width - 1, height - 1))
    return None if (low > high).any() else (int(low[0]), int(low[1]), int(high[0]), int(high[1]))


def _alpha(packed: Packed, face: NDArray[np.int32], weights: Floats) -> Floats:
    """Unfiltered alpha at barycentric ``weights [N, 3]`` of one face."""
    corner = packed.attributes[face[:3]].astype(np.float64)
    row = packed.materials[face[3]]
    alpha = row[FACTOR + 3] * (weights @ corner[:, 11])
    if row[LEVEL_COUNT] > 0:
        repeat = np.full(len(weights), row[REPEAT] != 0)
        uv = into_unit(weights @ corner[:, 6:8], repeat)
        level = np.full(len(weights), int(row[FIRST_LEVEL]))
        alpha = alpha * bilinear(packed, level, uv, repeat)[:, 3]
    return alpha


def _draw(
    packed: Packed, homogeneous: Floats, setups: Floats, order: Ints, size: tuple[int, int], settings: Settings,
    nearest: NDArray[np.float32], seen: NDArray[np.int32], limit: NDArray[np.float32] | None,
) -> bool:  # fmt: skip
    """Draw faces into ``nearest`` and ``seen``, blended ones only behind ``limit``; True if any was drawn."""
    drawn = False
    for f in order:
        face = packed.faces[f]
        row = packed.materials[face[3]]
        if settings.cull and setups[f, 12] > 0 and row[SINGLE_SIDED]:
            continue
        box = _box(homogeneous[face[:3]], settings.near, size)
        if box is None:
            continue
        region = np.s_[box[1] : box[3] + 1, box[0] : box[2] + 1]
        x, y = np.arange(box[0], box[2] + 1) + 0.5, (np.arange(box[1], box[3] + 1) + 0.5)[:, None]
        plane = setups[f, :12].reshape(4, 3)
        edges = [a * x + (b * y + c) for a, b, c in plane[:3]]
        inverse_depth = (plane[3, 0] * x + (plane[3, 1] * y + plane[3, 2])).astype(np.float32)
        hit = (inverse_depth > nearest[region]) & (inverse_depth < np.float32(1.0 / settings.near))
        for (a, b, _), e in zip(plane[:3], edges, strict=True):
            hit &= e >= (0.0 if a > 0 or (a == 0 and b > 0) else _TINY)
        if limit is not None:
            hit &= inverse_depth < limit[region]
        if row[MODE] != OPAQUE and hit.any():
            values = np.stack([e[hit] for e in edges], axis=1)
            alpha = _alpha(packed, face, values / values.sum(1, keepdims=True))
            hit[hit] = (alpha > 0) & ((row[MODE] == BLEND) | (alpha >= row[CUTOFF]))
        nearest[region][hit] = inverse_depth[hit]
        seen[region][hit] = f
        drawn |= bool(hit.any())
    return drawn


def _layers(
    packed: Packed,
    homogeneous: Floats,
    setups: Floats,
    drawable: NDArray[np.bool_],
    size: tuple[int, int],
    settings: Settings,
) -> NDArray[np.int32]:
    """``[H, W, 1 + layers]`` faces per sample: blended ones from near to far, then the solid one; -1 for none."""
    blended = packed.materials[packed.faces[:, 3], MODE] == BLEND
    nearest, solid = np.zeros(size, np.float32), np.full(size, -1, np.int32)
    _draw(packed, homogeneous, setups, np.nonzero(drawable & ~blended)[0], size, settings, nearest, solid, None)
    layers: list[NDArray[np.int32]] = []
    limit = np.full(size, np.inf, np.float32)
    for _ in range(settings.layers):
        behind, seen = nearest.copy(), np.full(size, -1, np.int32)
        if not _draw(
            packed, homogeneous, setups, np.nonzero(drawable & blended)[0], size, settings, behind, seen, limit
        ):
            break
        layers.append(seen)
        limit = behind
    return np.stack([*layers, solid], axis=-1)


def _rays(view: Floats, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Unit world directions ``[N, 3]`` and the ratio ``[N]`` of distance to depth Z."""
    local = np.stack([(x - view[13]) / view[12], -(y - view[14]) / view[12], np.full(len(x), -1.0)], axis=1)
    direction = local @ view[:9].reshape(3, 3)
    norm = np.linalg.norm(direction, axis=1)
    return direction / norm[:, None], norm


def _normals(corner: Floats, weights: Floats, eye: Floats) -> Floats:
    """Interpolated unit normals on the side that the camera sees; ``corner [N, 3, 12]``."""
    position = corner[:, :, :3]
    flat = np.cross(position[:, 1] - position[:, 0], position[:, 2] - position[:, 0])
    flat *= np.where(((eye - position[:, 0]) * flat).sum(1) < 0, -1.0, 1.0)[:, None]
    normal = np.einsum("nk,nkc->nc", weights, corner[:, :, 3:6])
    side = (normal * flat).sum(1)
    normal = np.where((side == 0)[:, None], flat, normal * np.where(side < 0, -1.0, 1.0)[:, None])
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)


def _weights(setups: Floats, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    edges = setups[:, :9].reshape(-1, 3, 3)
    values = edges[:, :, 0] * x[:, None] + edges[:, :, 1] * y[:, None] + edges[:, :, 2]
    inverse = 1.0 / values.sum(1)
    return values * inverse[:, None], inverse


def _shade(
    packed: Packed,
    setups: Floats,
    view: Floats,
    shading: int,
    f: Ints,
    x: Floats,
    y: Floats,
    extent: Floats,
    minor: NDArray[np.bool_],
) -> Floats:
    """Premultiplied RGBA ``[N, 4]`` of faces ``f`` at sample positions, each for a square of side ``extent``."""
    row = packed.materials[packed.faces[f, 3]]
    corner = packed.attributes[packed.faces[f, :3]].astype(np.float64)
    weights, inverse = _weights(setups[f], x, y)
    colour = row[:, FACTOR : FACTOR + 4].copy()
    textured = row[:, LEVEL_COUNT] > 0
    if textured.any():
        uv = np.einsum("nk,nkc->nc", weights, corner[:, :, 6:8])
        difference = corner[:, :, 6:8] - uv[:, None]
        edges = setups[f, :9].reshape(-1, 3, 3)
        footprint = np.einsum("nka,nkc->nac", edges[:, :, :2], difference) * (extent * inverse)[:, None, None]
        texel = sample_texture(packed, row[textured], uv[textured], footprint[textured], minor[textured])
        colour[textured, :3] = texel[:, :3]
        colour[textured, 3] *= texel[:, 3]
    if packed.has_colors:
        vertex = np.einsum("nk,nkc->nc", weights, corner[:, :, 8:])
        exact = encode_srgb(decode_srgb(colour[:, :3]) * decode_srgb(vertex[:, :3]))
        exact = np.where(vertex[:, :3] == 1.0, colour[:, :3], exact)
        colour[:, :3] = np.where(colour[:, :3] == 1.0, vertex[:, :3], exact)
        colour[:, 3] *= vertex[:, 3]
    colour[row[:, MODE] != BLEND, 3] = 1.0
    light = colour[:, 3]
    if shading:
        light = light * light_factor(_normals(corner, weights, view[9:12]), -_rays(view, x, y)[0], shading)
    colour[:, :3] *= light[:, None]
    return colour


def _resolve(
    packed: Packed, setups: Floats, view: Floats, settings: Settings, layers: NDArray[np.int32], images: tuple
) -> None:
    """Shade once per pixel and set of visible faces; see :func:`.raster_resolve.resolve`."""
    rgba, depth, normal = images
    side, count = settings.supersample, settings.supersample**2
    height, width = rgba.shape[:2]
    blocks = layers.reshape(height, side, width, side, -1).swapaxes(1, 2).reshape(height * width, count, -1)
    pixel = np.nonzero((blocks >= 0).any((1, 2)))[0]
    if len(pixel) == 0:
        return
    blocks = blocks[pixel]
    covered = (blocks >= 0).any(2)
    x_base, y_base = (pixel % width) * side + 0.5, (pixel // width) * side + 0.5

    order = sample_order(side)
    chosen = order[covered[:, order].argmax(1)]
    stack = blocks[np.arange(len(pixel)), chosen]
    f = stack[np.arange(len(pixel)), (stack >= 0).argmax(1)].astype(np.int64)
    x, y = x_base + chosen % side, y_base + chosen // side
    direction, stretch = _rays(view, x, y)
    weights, _ = _weights(setups[f], x, y)
    facing = _normals(packed.attributes[packed.faces[f, :3]].astype(np.float64), weights, view[9:12])
    away = np.maximum((facing * direction).sum(1), 0.0)
    turned = facing - away[:, None] * direction
    facing = np.where((away > 0)[:, None], turned / np.linalg.norm(turned, axis=1, keepdims=True), facing)
    normal.reshape(-1, 3)[pixel] = facing
    depth.reshape(-1)[pixel] = stretch / (setups[f, 9] * x + setups[f, 10] * y + setups[f, 11])

    place, q = np.nonzero(covered)
    keys, group = np.unique(np.column_stack([place, blocks[place, q]]), axis=0, return_inverse=True)
    group = group.reshape(-1)
    same = np.bincount(group).astype(np.float64)
    place = keys[:, 0]
    x = x_base[place] + np.bincount(group, q % side) / same
    y = y_base[place] + np.bincount(group, q // side) / same
    total, remaining = np.zeros((len(keys), 4)), same.copy()
    for layer in range(1, keys.shape[1]):
        f = keys[:, layer].astype(np.int64)
        some = np.nonzero(f >= 0)[0]
        shaded = _shade(
            packed, setups, view, settings.shading, f[some], x[some], y[some], np.sqrt(same[some]),
            MINOR_SHARE * same[some] < count,
        )  # fmt: skip
        total[some] += remaining[some, None] * shaded
        remaining[some] *= 1.0 - shaded[:, 3]
    pixels = np.zeros((len(pixel), 4))
    np.add.at(pixels, place, total)
    rgba.reshape(-1, 4)[pixel] = pixels / count


def render_views(
    packed: Packed, views: Floats, settings: Settings, rgba: NDArray, depth: NDArray, normal: NDArray
) -> None:
    """As :func:`.rasteriser_numba.render_views`."""
    size = (rgba.shape[1] * settings.supersample, rgba.shape[2] * settings.supersample)
    for v, view in enumerate(views):
        homogeneous = _project(packed, view)
        setups, drawable = _set_up(homogeneous[packed.faces[:, :3]])
        layers = _layers(packed, homogeneous, setups, drawable, size, settings)
        _resolve(packed, setups, view, settings, layers, (rgba[v], depth[v], normal[v]))
