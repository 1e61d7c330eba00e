"""Arrays -> 8-bit pictures: value ranges, colour maps, grids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.errors import ConfigError

__all__ = ["apply_colormap", "grayscale_image", "image_grid", "rgb_image", "to_numpy", "uv_image"]

UInt8Image = NDArray[np.uint8]

# anchor colours, evenly spaced from 0 to 1
_MAGMA = ("#000004", "#180f3d", "#440f76", "#721f81", "#9e2f7f", "#cd4071", "#f1605d", "#fd9668", "#feca8d", "#fcfdbf")


def to_numpy(data: Any) -> Any:
    """Tensors to numpy arrays on the CPU, inside lists and dicts too; everything else unchanged."""
    if hasattr(data, "detach"):
        return data.detach().float().cpu().numpy() if data.is_floating_point() else data.detach().cpu().numpy()
    if isinstance(data, dict):
        return {key: to_numpy(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [to_numpy(value) for value in data]
    return data


def rgb_image(img: Any, data_format: str = "HWC", data_range: tuple[float, float] = (0, 1)) -> UInt8Image:
    """A colour image as ``uint8 [H, W, 3 or 4]``.

    Args:
        img: ``[H, W, C]`` or ``[C, H, W]`` by ``data_format``; C is 1, 2, 3 or 4, or a multiple of 3,
            shown side by side. Two channels get an empty blue.
        data_range: values mapped to black and white; clipped. ``uint8`` input is taken as it is.
    """
    array = to_numpy(img)
    if data_format not in ("HWC", "CHW"):
        raise ConfigError("Unknown image layout", received=data_format, fix="Use HWC or CHW.")
    if array.ndim == 2:
        array = array[..., None]
    elif data_format == "CHW":
        array = array.transpose(1, 2, 0)
    if array.dtype != np.uint8:
        low, high = data_range
        array = np.nan_to_num((np.clip(array, low, high) - low) / (high - low))
        array = (array * 255.0).round().astype(np.uint8)
    channels = array.shape[-1]
    if channels == 1:
        return np.repeat(array, 3, axis=-1)
    if channels == 2:
        return np.concatenate([array, np.zeros_like(array[..., :1])], axis=-1)
    if channels in (3, 4):
        return array
    if channels % 3:
        raise ConfigError(
            "An image has a channel count that cannot be shown", received=array.shape, fix="Give 1-4 or 3n."
        )
    return np.concatenate(np.split(array, channels // 3, axis=-1), axis=1)


def grayscale_image(img: Any, data_range: tuple[float, float] | None = None, cmap: str | None = "jet") -> UInt8Image:
    """A scalar image ``[H, W]`` (or ``[H, W, 1]``) as ``uint8 [H, W, 3]``; None stretches to its own range."""
    array = np.nan_to_num(np.asarray(to_numpy(img), np.float32))
    array = array[..., 0] if array.ndim == 3 else array
    low, high = (float(array.min()), float(array.max())) if data_range is None else data_range
    unit = np.clip((array - low) / max(high - low, 1e-12), 0.0, 1.0)
    return (apply_colormap(unit, cmap) * 255.0).round().astype(np.uint8)


def apply_colormap(unit: NDArray[np.float32], cmap: str | None) -> NDArray[np.float32]:
    """Values in [0, 1] -> colours ``[..., 3]`` in [0, 1]. ``cmap``: None (grey), jet, magma."""
    if cmap is None:
        return np.repeat(unit[..., None], 3, axis=-1)
    if cmap == "jet":
        offsets = np.array([3.0, 2.0, 1.0], np.float32)
        return np.clip(1.5 - np.abs(4.0 * unit[..., None] - offsets), 0.0, 1.0)
    if cmap == "magma":
        anchors = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in _MAGMA], np.float32)
        at = np.linspace(0, 1, len(anchors))
        return np.stack([np.interp(unit, at, anchors[:, i]) for i in range(3)], axis=-1).astype(np.float32)
    raise ConfigError("Unknown colour map", received=cmap, fix="Use jet, magma, or null for grey.")


def uv_image(img: Any, data_range: tuple[float, float] = (0, 1), cmap: str = "checkerboard") -> UInt8Image:
    """Texture coordinates ``[H, W, 2]`` as a picture: ``checkerboard`` or ``color`` (red u, green v)."""
    low, high = data_range
    uv = np.clip((np.asarray(to_numpy(img), np.float32) - low) / (high - low), 0.0, 1.0)
    if cmap == "color":
        return rgb_image(uv)
    if cmap != "checkerboard":
        raise ConfigError("Unknown uv picture", received=cmap, fix="Use checkerboard or color.")
    squares = (np.floor(uv * 64).sum(axis=-1) % 2).astype(np.float32)
    return rgb_image(0.25 + 0.5 * squares)


def image_grid(rows: Sequence[Any], align: Any = "max") -> UInt8Image:
    """Pictures side by side (and rows below each other), padded with black.

    Args:
        rows: pictures ``uint8 [H, W, 3+]``, or lists of them.
        align: cell size: ``max`` or ``min`` over the pictures, a number, or ``(height, width)``.
    """
    grid: list[list[UInt8Image]] = [list(row) for row in rows] if isinstance(rows[0], list | tuple) else [list(rows)]
    sizes = np.array([cell.shape[:2] for row in grid for cell in row])
    if align in ("max", "min"):
        height, width = (int(x) for x in (sizes.max(axis=0) if align == "max" else sizes.min(axis=0)))
    elif isinstance(align, int):
        height = width = align
    elif not isinstance(align, str) and len(align) == 2:
        height, width = align
    else:
        raise ConfigError("Unknown grid alignment", received=align, fix="Use max, min, a number, or (height, width).")
    columns = max(len(row) for row in grid)
    canvas = np.zeros((height * len(grid), width * columns, 3), np.uint8)
    for i, row in enumerate(grid):
        for j, cell in enumerate(row):
            fitted = _fit(cell[..., :3], height, width)
            canvas[i * height : i * height + fitted.shape[0], j * width : j * width + fitted.shape[1]] = fitted
    return canvas


def _fit(cell: UInt8Image, height: int, width: int) -> UInt8Image:
    scale = min(height / cell.shape[0], width / cell.shape[1])
    if scale >= 1.0:
        return cell
    from PIL import Image

    size = (max(1, round(cell.shape[1] * scale)), max(1, round(cell.shape[0] * scale)))
    return np.asarray(Image.fromarray(cell).resize(size, Image.Resampling.BOX))
