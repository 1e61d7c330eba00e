"""Mip pyramids of textures: what keeps a 4k texture from aliasing in a 64 px view.

Levels are averages of sRGB-encoded values, as the rest of the package treats colour, with two
weights that a plain box filter lacks: texels no triangle uses (the gutters between UV charts) and
invisible texels of cut-out textures have weight 0, so their colours never bleed into coarse levels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets.shading import decode_srgb, encode_srgb

__all__ = ["build_pyramid", "halve", "multiply_factor"]


def multiply_factor(texture: NDArray[np.uint8], factor: tuple[float, ...]) -> NDArray[np.uint8]:
    """The texture times an sRGB-encoded colour factor, the product taken in linear light.

    Args:
        texture: ``[H, W, 4]`` uint8. factor: three or more numbers in [0, 1]; alpha is not touched.

    Returns:
        ``[H, W, 4]`` uint8; the input itself when the factor is white.
    """
    if all(value == 1.0 for value in factor[:3]):
        return texture
    result = texture.copy()
    encoded = np.arange(256) / 255.0
    for channel in range(3):
        product = encode_srgb(decode_srgb(encoded) * decode_srgb(np.float64(factor[channel])))
        table = np.rint(product * 255.0).astype(np.uint8)
        result[..., channel] = table[texture[..., channel]]
    return result


def _halve_axis(image: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    size = image.shape[axis]
    if size == 1:
        return image
    half = size // 2
    index = np.arange(half)
    even, odd = np.take(image, 2 * index, axis), np.take(image, 2 * index + 1, axis)
    if size % 2 == 0:
        return 0.5 * (even + odd)
    # An odd size: every output texel covers 2 + 1/half input texels (polyphase box filter).
    shape = [half if dimension == axis else 1 for dimension in range(image.ndim)]
    first = ((half - index) / size).astype(np.float32).reshape(shape)
    last = ((index + 1) / size).astype(np.float32).reshape(shape)
    return first * even + np.float32(half / size) * odd + last * np.take(image, 2 * index + 2, axis)


def halve(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Area-average ``[H, W, C]`` to ``[max(H // 2, 1), max(W // 2, 1), C]``, exact for odd sizes too."""
    return _halve_axis(_halve_axis(image, 0), 1)


def _fill(colour: NDArray[Any], weight: NDArray[Any], parent: NDArray[np.float32]) -> None:
    """Give texels without any weight the colour of the texel above them in the pyramid (in place)."""
    empty = weight <= 0.0
    if empty.any():
        rows, columns = np.nonzero(empty)
        height, width = weight.shape
        up_rows = np.minimum(rows * parent.shape[0] // height, parent.shape[0] - 1)
        up_columns = np.minimum(columns * parent.shape[1] // width, parent.shape[1] - 1)
        colour[rows, columns] = parent[up_rows, up_columns]


def _weighted(texture: NDArray[np.uint8], used: NDArray[np.bool_] | None, by_alpha: bool) -> NDArray[np.float32]:
    """``[H, W, 6]``: rgb times its weight, alpha times its weight, the two weights."""
    result = np.zeros((*texture.shape[:2], 6), np.float32)
    weight = np.ones(texture.shape[:2], np.float32) if used is None else used.astype(np.float32)
    alpha = texture[..., 3].astype(np.float32) / 255.0
    colour_weight = weight * alpha if by_alpha else weight
    result[..., :3] = texture[..., :3] * colour_weight[..., None]
    result[..., 3] = texture[..., 3] * weight
    result[..., 4], result[..., 5] = colour_weight, weight
    return result


def _sums_reference(
    texture: NDArray[np.uint8], used: NDArray[np.bool_] | None, by_alpha: bool
) -> list[NDArray[np.float32]]:
    sums = [halve(_weighted(texture, used, by_alpha))]
    while max(sums[-1].shape[:2]) > 1:
        sums.append(halve(sums[-1]))
    return sums


def _finish_reference(level: NDArray[np.float32], parent: NDArray[np.float32] | None) -> NDArray[np.float32]:
    colour = np.zeros((*level.shape[:2], 4), np.float32)
    colour[..., :3] = level[..., :3] / np.maximum(level[..., 4:5], 1e-12)
    colour[..., 3] = level[..., 3] / np.maximum(level[..., 5], 1e-12)
    if parent is not None:
        _fill(colour[..., :3], level[..., 4], parent[..., :3])
        _fill(colour[..., 3:], level[..., 5], parent[..., 3:])
    return colour


def _sums(texture: NDArray[np.uint8], used: NDArray[np.bool_] | None, by_alpha: bool) -> list[NDArray[np.float32]]:
    from threestudio_redream.assets.raster_mip_kernels import halve_sums, halve_texture

    def smaller(shape: tuple[int, ...]) -> NDArray[np.float32]:
        return np.zeros((max(shape[0] // 2, 1), max(shape[1] // 2, 1), 6), np.float32)

    sums = [smaller(texture.shape)]
    halve_texture(texture, np.zeros((0, 0), np.bool_) if used is None else used, by_alpha, sums[0])
    while max(sums[-1].shape[:2]) > 1:
        sums.append(smaller(sums[-1].shape))
        halve_sums(sums[-2], sums[-1])
    return sums


def _finish(
    level: NDArray[np.float32], parent: NDArray[np.float32] | None
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    from threestudio_redream.assets.raster_mip_kernels import finish_level

    colour, texels = (np.zeros((*level.shape[:2], 4), kind) for kind in (np.float32, np.uint8))
    finish_level(level, np.zeros((0, 0, 4), np.float32) if parent is None else parent, colour, texels)
    return colour, texels


def build_pyramid(
    texture: NDArray[np.uint8],
    used: NDArray[np.bool_] | None = None,
    *,
    by_alpha: bool = False,
    fast: bool = True,
) -> list[NDArray[np.uint8]]:
    """All mip levels of a texture, the texture itself first and one texel last.

    Args:
        texture: ``[H, W, 4]`` uint8, straight alpha.
        used: ``[H, W]`` bool, which texels some triangle shows; None for all of them.
        by_alpha: weight colours by alpha (cut-out and blended textures). The rgb of texels with
            alpha 0 is then replaced by that of their neighbourhood, in the first level too.
        fast: use the numba kernels; the numpy path is their reference (equal up to rounding).

    Returns:
        ``[H_l, W_l, 4]`` uint8 with ``H_l = max(H >> l, 1)``; straight alpha.
    """
    if max(texture.shape[:2]) == 1:
        return [texture]
    sums = _sums(texture, used, by_alpha) if fast else _sums_reference(texture, used, by_alpha)
    levels: list[NDArray[np.uint8]] = []
    parent: NDArray[np.float32] | None = None
    for level in reversed(sums):
        if fast:
            parent, texels = _finish(level, parent)
        else:
            parent = _finish_reference(level, parent)
            texels = np.rint(parent).astype(np.uint8)
        levels.append(texels)
    first = texture
    if by_alpha and parent is not None and (texture[..., 3] == 0).any():
        first = texture.copy()
        _fill(first[..., :3], first[..., 3], np.rint(parent[..., :3]))
    return [first, *reversed(levels)]
