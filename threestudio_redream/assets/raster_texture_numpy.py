"""Texture look-ups of the numpy reference, over arrays of sample points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets.raster_pack import FIRST_LEVEL, LEVEL_COUNT, REPEAT, Packed
from threestudio_redream.assets.raster_resolve import LOD_SCALE, MAX_TAPS

__all__ = ["bilinear", "into_unit", "sample_texture"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def into_unit(uv: Floats, repeat: Bools) -> Floats:
    """Wrap or clamp ``uv [N, 2]`` to [0, 1]."""
    return np.where(repeat[:, None], uv - np.floor(uv), np.clip(uv, 0.0, 1.0))


def bilinear(packed: Packed, level: Ints, uv: Floats, repeat: Bools) -> Floats:
    """RGBA ``[N, 4]`` in [0, 1] at ``uv [N, 2]`` of one mip level each."""
    size = packed.levels[level, 1:]
    position = uv * size - 0.5
    low = np.floor(position)
    weight = position - low
    neighbours = np.stack([low, low + 1], axis=1).astype(np.int64)  # [N, 2, 2]: lower and upper, of x and y
    limit = size[:, None]
    neighbours = np.where(repeat[:, None, None], neighbours % limit, np.clip(neighbours, 0, limit - 1))
    result = np.zeros((len(uv), 4))
    for row in range(2):
        for column in range(2):
            share = (weight[:, 0] if column else 1.0 - weight[:, 0]) * (weight[:, 1] if row else 1.0 - weight[:, 1])
            index = packed.levels[level, 0] + neighbours[:, row, 1] * size[:, 0] + neighbours[:, column, 0]
            result += share[:, None] * packed.texels[index]
    return result / 255.0


def sample_texture(packed: Packed, material: Floats, uv: Floats, footprint: Floats, minor: Bools) -> Floats:
    """Filtered RGBA ``[N, 4]`` in [0, 1]; see the kernels of the same purpose in :mod:`.raster_resolve`.

    Args:
        material: ``[N, 10]`` rows. uv: ``[N, 2]``. footprint: ``[N, 2, 2]``: row 0 the change of uv to
            the right, row 1 down. minor: one bilinear look-up in the nearest level.
    """
    first = material[:, FIRST_LEVEL].astype(np.int64)
    last = first + material[:, LEVEL_COUNT].astype(np.int64) - 1
    repeat = material[:, REPEAT] != 0
    uv = into_unit(uv, repeat)
    result = np.zeros((len(uv), 4))
    for chosen, sample in ((minor, _sample_nearest_level), (~minor, _sample_filtered)):
        if chosen.any():
            result[chosen] = sample(packed, first[chosen], last[chosen], repeat[chosen], uv[chosen], footprint[chosen])
    return result


def _exponent(values: Floats) -> Ints:
    """``floor(log2(values))``; large for what is not finite."""
    return np.where(np.isfinite(values), np.frexp(values)[1] - 1, 1024).astype(np.int64)


def _sample_nearest_level(
    packed: Packed, first: Ints, last: Ints, repeat: Bools, uv: Floats, footprint: Floats
) -> Floats:
    determinant = footprint[:, 0, 0] * footprint[:, 1, 1] - footprint[:, 1, 0] * footprint[:, 0, 1]
    area = np.abs(determinant) * packed.levels[first, 1:].prod(1) * LOD_SCALE
    level = np.minimum(first + np.maximum((_exponent(area) + 1) >> 1, 0), last)
    return bilinear(packed, level, uv, repeat)


def _sample_filtered(packed: Packed, first: Ints, last: Ints, repeat: Bools, uv: Floats, footprint: Floats) -> Floats:
    right, down = np.moveaxis(footprint * packed.levels[first, None, 1:], 1, 0)
    xx, yy, xy = (right * right).sum(1), (down * down).sum(1), (right * down).sum(1)
    mean, half = 0.5 * (xx + yy), 0.5 * (xx - yy)
    spread = np.sqrt(half * half + xy * xy)
    major = mean + spread
    filtered = (major > 1.0) & (major < 1e12)
    ratio = np.where(filtered, major, 1.0) / np.maximum(np.where(filtered, mean - spread, 1.0), 1.0)
    stretched = ratio > 2.25
    taps = np.where(stretched, np.minimum(np.sqrt(ratio) + 0.5, MAX_TAPS).astype(np.int64), 1)
    along = np.where((half >= 0)[:, None], np.stack([half + spread, xy], 1), np.stack([xy, spread - half], 1))
    norm = np.where(stretched, taps * np.linalg.norm(along, axis=1), 1.0)
    step = np.where(stretched[:, None], np.einsum("na,nac->nc", along, footprint) / norm[:, None], 0.0)
    uv = np.where(stretched[:, None], uv - 0.5 * (taps - 1)[:, None] * step, uv)

    area = np.where(filtered, np.maximum(mean - spread, major / (taps * taps)), major) * LOD_SCALE
    level = np.minimum(first + np.maximum(_exponent(area) >> 1, 0), last)
    between = (area > 1.0) & (level < last)
    weight = np.where(between, np.sqrt(np.where(between, area, 1.0)) / (1 << (level - first)) - 1.0, 0.0)
    result = np.zeros((len(uv), 4))
    for tap in range(int(taps.max())):
        some = np.nonzero(tap < taps)[0]
        fine = bilinear(packed, level[some], uv[some], repeat[some])
        coarse = bilinear(packed, np.minimum(level[some] + 1, last[some]), uv[some], repeat[some])
        share = weight[some, None]
        result[some] += ((1.0 - share) * fine + share * coarse) / taps[some, None]
        uv = uv + step
    return result
