"""Texture look-ups of the numba rasteriser: bilinear, trilinear over mips, anisotropic.

Compiled functions here take plain arrays, not the :class:`.Packed` tuple: taking an array out of a
tuple costs two atomic operations each time.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from threestudio_redream.assets.raster_mips import LOD_SCALE, MAX_TAPS
from threestudio_redream.assets.raster_pack import FACTOR, FIRST_LEVEL, LEVEL_COUNT, REPEAT

__all__ = ["sample_texture", "surface_alpha"]


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _texel_pair(coordinate, size, repeat):
    """The two neighbours of a coordinate along one axis, and the weight of the second."""
    position = coordinate * size - 0.5
    base = np.floor(position)
    first = int(base)
    second = first + 1
    if first < 0 or second >= size:
        if repeat:
            first, second = first % size, second % size
        else:
            first, second = min(max(first, 0), size - 1), min(max(second, 0), size - 1)
    return first, second, position - base


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _bilinear(levels, texels, level, u, v, repeat):
    width, height = levels[level, 1], levels[level, 2]
    x0, x1, wx = _texel_pair(u, width, repeat)
    y0, y1, wy = _texel_pair(v, height, repeat)
    row0, row1 = levels[level, 0] + y0 * width, levels[level, 0] + y1 * width
    w01, w10 = wx * (1.0 - wy), (1.0 - wx) * wy
    w00, w11 = (1.0 - wx) * (1.0 - wy), wx * wy
    p, q, s, t = texels[row0 + x0], texels[row0 + x1], texels[row1 + x0], texels[row1 + x1]
    return (
        w00 * (p & 255) + w01 * (q & 255) + w10 * (s & 255) + w11 * (t & 255),
        w00 * (p >> 8 & 255) + w01 * (q >> 8 & 255) + w10 * (s >> 8 & 255) + w11 * (t >> 8 & 255),
        w00 * (p >> 16 & 255) + w01 * (q >> 16 & 255) + w10 * (s >> 16 & 255) + w11 * (t >> 16 & 255),
        w00 * (p >> 24) + w01 * (q >> 24) + w10 * (s >> 24) + w11 * (t >> 24),
    )


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _into_unit(coordinate, repeat):
    """Wrap or clamp to [0, 1], so that no later conversion to an integer can overflow."""
    if repeat:
        return coordinate - np.floor(coordinate)
    return min(max(coordinate, 0.0), 1.0)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def sample_texture(materials, levels, texels, material, u, v, ux, uy, vx, vy):
    """Filtered texture colour in [0, 255] under a pixel footprint.

    ``(ux, vx)`` and ``(uy, vy)`` are the changes of ``(u, v)`` over one footprint to the right and
    down. Along the longer axis of the footprint up to MAX_TAPS trilinear look-ups are averaged.
    """
    repeat = materials[material, REPEAT] != 0.0
    first = int(materials[material, FIRST_LEVEL])
    width, height = levels[first, 1], levels[first, 2]
    u, v = _into_unit(u, repeat), _into_unit(v, repeat)
    # Squared singular values of the footprint, in texels: mean + spread and mean - spread.
    ux_texels, uy_texels, vx_texels, vy_texels = ux * width, uy * width, vx * height, vy * height
    xx = ux_texels * ux_texels + vx_texels * vx_texels
    yy = uy_texels * uy_texels + vy_texels * vy_texels
    xy = ux_texels * uy_texels + vx_texels * vy_texels
    mean, half = 0.5 * (xx + yy), 0.5 * (xx - yy)
    spread = np.sqrt(half * half + xy * xy)
    last = first + int(materials[material, LEVEL_COUNT]) - 1
    level, taps, step_u, step_v, weight = first, 1, 0.0, 0.0, 0.0
    if not mean + spread < 1e12:  # seen edge-on, or next to the eye: the average of the texture
        level = last
    elif mean + spread > 1.0:
        ratio = (mean + spread) / max(mean - spread, 1.0)
        if ratio > 2.25:
            taps = int(min(np.sqrt(ratio) + 0.5, MAX_TAPS))
            # Screen direction of the longer axis: eigenvector of [[xx, xy], [xy, yy]] to mean + spread.
            along_x, along_y = (half + spread, xy) if half >= 0.0 else (xy, spread - half)
            norm = taps * np.sqrt(along_x * along_x + along_y * along_y)
            step_u, step_v = (ux * along_x + uy * along_y) / norm, (vx * along_x + vy * along_y) / norm
            u, v = u - 0.5 * (taps - 1) * step_u, v - 0.5 * (taps - 1) * step_v
        area = max(mean - spread, (mean + spread) / (taps * taps)) * LOD_SCALE
        while area >= 4.0 and level < last:
            area *= 0.25
            level += 1
        # Between two levels the weight is linear in the size of the footprint, not in its logarithm.
        if area > 1.0 and level < last:
            weight = np.sqrt(area) - 1.0
    red, green, blue, alpha = 0.0, 0.0, 0.0, 0.0
    for _ in range(taps):
        share, below = 1.0 - weight, level
        while share > 0.0:
            r, g, b, a = _bilinear(levels, texels, below, u, v, repeat)
            red, green, blue, alpha = red + share * r, green + share * g, blue + share * b, alpha + share * a
            share, below = (weight, level + 1) if below == level else (0.0, level)
        u, v = u + step_u, v + step_v
    scale = 1.0 / taps
    return red * scale, green * scale, blue * scale, alpha * scale


@njit(cache=True, nogil=True, error_model="numpy")
def surface_alpha(attributes, materials, levels, texels, material, i, j, k, b0, b1, b2):
    """Unfiltered alpha of a surface point: factor times first mip level times vertex colour."""
    alpha = materials[material, FACTOR + 3]
    if materials[material, LEVEL_COUNT] > 0.0:
        repeat = materials[material, REPEAT] != 0.0
        u = _into_unit(b0 * attributes[i, 6] + b1 * attributes[j, 6] + b2 * attributes[k, 6], repeat)
        v = _into_unit(b0 * attributes[i, 7] + b1 * attributes[j, 7] + b2 * attributes[k, 7], repeat)
        level = int(materials[material, FIRST_LEVEL])
        alpha *= _bilinear(levels, texels, level, u, v, repeat)[3] / 255.0
    return alpha * (b0 * attributes[i, 11] + b1 * attributes[j, 11] + b2 * attributes[k, 11])
