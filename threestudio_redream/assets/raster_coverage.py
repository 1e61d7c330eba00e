"""Which texels of a texture any triangle shows: the rest must not bleed into coarse mip levels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["used_texels"]

_ROWS = 256  # texture rows drawn at a time
_OUTSIDE = 1e-3  # texture coordinates may leave [0, 1] by rounding


def used_texels(uv: NDArray[np.float64], height: int, width: int, *, fast: bool = True) -> NDArray[np.bool_] | None:
    """Texels that a bilinear look-up inside one of the triangles can touch, and sometimes one more.

    Args:
        uv: ``[F, 3, 2]`` corners in image convention. height, width: of the texture.
        fast: use the numba kernels; the numpy path is their reference.

    Returns:
        ``[H, W]`` bool, or None for "all of them": when triangles use coordinates outside [0, 1]
        the texture repeats and no part of it is a gutter.
    """
    if len(uv) == 0 or uv.min() < -_OUTSIDE or uv.max() > 1.0 + _OUTSIDE:
        return None
    corners = uv.reshape(-1, 2) * (width, height)
    used = _draw(corners, height, width) if fast else _draw_reference(corners, height, width)
    # The four texels around each corner, so that triangles between texel centres count as well.
    low = np.floor(corners - 0.5).astype(np.int64)
    for shift in ((0, 0), (0, 1), (1, 0), (1, 1)):
        column, row = (low + shift).T
        used[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)] = True
    # A look-up reaches one texel beyond the texels whose centres are covered.
    grown = used.copy()
    grown[1:] |= used[:-1]
    grown[:-1] |= used[1:]
    used = grown.copy()
    used[:, 1:] |= grown[:, :-1]
    used[:, :-1] |= grown[:, 1:]
    return used


def _draw(corners: NDArray[np.float64], height: int, width: int) -> NDArray[np.bool_]:
    from threestudio_redream.assets.raster_visibility import bin_faces, raster, set_up_faces

    # A flat mesh at depth 1 whose screen is the texture, drawn by the kernels that draw views.
    near, count = 0.5, len(corners) // 3
    homogeneous = np.column_stack([corners, np.ones(len(corners))])
    faces = np.column_stack([np.arange(3 * count).reshape(-1, 3), np.zeros(count)]).astype(np.int32)
    boxes, setups = np.zeros((count, 4), np.int32), np.zeros((count, 13))
    set_up_faces(faces, homogeneous, np.ascontiguousarray(corners), near, width, height, 0, count, boxes, setups)
    starts, entries = bin_faces(boxes, 0, -(-height // _ROWS), _ROWS)
    nothing = (np.zeros((1, 12), np.float32), faces, np.zeros((1, 10)), np.zeros((0, 3), np.int64))
    used = np.zeros((height, width), np.bool_)
    for band, row in enumerate(range(0, height, _ROWS)):
        end = min(row + _ROWS, height)
        nearest, seen = np.zeros((end - row) * width, np.float32), np.full((end - row) * width, -1, np.int32)
        chosen = entries[starts[band] : starts[band + 1]]
        region = (row, end, 0, width)
        raster(
            *nothing, np.zeros(0, np.uint32), chosen, boxes, setups, region, near, False, False, nearest, nearest, seen
        )
        used[row:end] = (seen >= 0).reshape(end - row, width)
    return used


def _draw_reference(corners: NDArray[np.float64], height: int, width: int) -> NDArray[np.bool_]:
    used = np.zeros((height, width), np.bool_)
    for triangle in corners.reshape(-1, 3, 2):
        low = np.maximum(np.ceil(triangle.min(0) - 0.500001), 0).astype(int)
        high = np.minimum(np.floor(triangle.max(0) - 0.499999), (width - 1, height - 1)).astype(int)
        if (low > high).any():
            continue
        x, y = np.arange(low[0], high[0] + 1) + 0.5, (np.arange(low[1], high[1] + 1) + 0.5)[:, None]
        (x0, y0), (x1, y1), (x2, y2) = triangle
        edges = [
            (xb - xa) * (y - ya) - (yb - ya) * (x - xa)
            for xa, ya, xb, yb in ((x0, y0, x1, y1), (x1, y1, x2, y2), (x2, y2, x0, y0))
        ]
        inside = np.all([e >= 0 for e in edges], axis=0) | np.all([e <= 0 for e in edges], axis=0)
        used[low[1] : high[1] + 1, low[0] : high[0] + 1] |= inside
    return used
