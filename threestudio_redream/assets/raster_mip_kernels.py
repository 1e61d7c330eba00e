"""Numba kernels of :mod:`.raster_mips`, whose numpy code is their reference."""

from __future__ import annotations

import numpy as np

from threestudio_redream.kernels.jit import njit

__all__ = ["finish_level", "halve_sums", "halve_texture"]


@njit(nogil=True, error_model="numpy", forceinline=True)
def _box(index, size):
    """First input texel of an output texel along one axis, and the weights of three; odd sizes too."""
    if size == 1:
        return 0, np.float32(1.0), np.float32(0.0), np.float32(0.0)
    if size % 2 == 0:
        return 2 * index, np.float32(0.5), np.float32(0.5), np.float32(0.0)
    half = size // 2
    return 2 * index, np.float32((half - index) / size), np.float32(half / size), np.float32((index + 1) / size)


@njit(nogil=True, error_model="numpy")
def halve_texture(texture, used, by_alpha, out):
    """Weighted sums of the first level: rgb, alpha, weight of rgb, weight of alpha in ``out [h, w, 6]``.

    ``used`` is ``[H, W]`` bool, or has no rows when every texel counts.
    """
    height, width = texture.shape[0], texture.shape[1]
    everything = used.shape[0] == 0
    for y in range(out.shape[0]):
        top, wy0, wy1, wy2 = _box(y, height)
        for x in range(out.shape[1]):
            left, wx0, wx1, wx2 = _box(x, width)
            red, green, blue, alpha = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            colour_weight, alpha_weight = np.float32(0), np.float32(0)
            for dy in range(3):
                wy = wy0 if dy == 0 else (wy1 if dy == 1 else wy2)
                if wy == 0.0:
                    continue
                for dx in range(3):
                    weight = wy * (wx0 if dx == 0 else (wx1 if dx == 1 else wx2))
                    if weight == 0.0 or not (everything or used[top + dy, left + dx]):
                        continue
                    opacity = np.float32(texture[top + dy, left + dx, 3])
                    share = weight * opacity / np.float32(255.0) if by_alpha else weight
                    red += share * np.float32(texture[top + dy, left + dx, 0])
                    green += share * np.float32(texture[top + dy, left + dx, 1])
                    blue += share * np.float32(texture[top + dy, left + dx, 2])
                    alpha += weight * opacity
                    colour_weight += share
                    alpha_weight += weight
            out[y, x, 0], out[y, x, 1], out[y, x, 2], out[y, x, 3] = red, green, blue, alpha
            out[y, x, 4], out[y, x, 5] = colour_weight, alpha_weight


@njit(nogil=True, error_model="numpy")
def halve_sums(level, out):
    """Area average of ``level [H, W, 6]`` into ``out [h, w, 6]``, zeroed."""
    height, width = level.shape[0], level.shape[1]
    for y in range(out.shape[0]):
        top, wy0, wy1, wy2 = _box(y, height)
        for x in range(out.shape[1]):
            left, wx0, wx1, wx2 = _box(x, width)
            for dy in range(3):
                wy = wy0 if dy == 0 else (wy1 if dy == 1 else wy2)
                for dx in range(3):
                    weight = wy * (wx0 if dx == 0 else (wx1 if dx == 1 else wx2))
                    if weight > 0.0:
                        for channel in range(6):
                            out[y, x, channel] += weight * level[top + dy, left + dx, channel]


@njit(nogil=True, error_model="numpy")
def finish_level(level, parent, colour, texels):
    """Sums to averages, with the parent's colour where nothing counted; float and uint8.

    ``parent`` is ``[h, w, 4]`` float32, without rows for the last level.
    """
    height, width = level.shape[0], level.shape[1]
    for y in range(height):
        for x in range(width):
            for channel in range(4):
                weight = level[y, x, 4 if channel < 3 else 5]
                if weight > 0.0:
                    value = level[y, x, channel] / max(weight, np.float32(1e-12))
                elif parent.shape[0] > 0:
                    up_y = min(y * parent.shape[0] // height, parent.shape[0] - 1)
                    up_x = min(x * parent.shape[1] // width, parent.shape[1] - 1)
                    value = parent[up_y, up_x, channel]
                else:
                    value = np.float32(0.0)
                colour[y, x, channel] = value
                texels[y, x, channel] = np.uint8(np.rint(value))
