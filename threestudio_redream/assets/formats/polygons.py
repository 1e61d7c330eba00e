"""Cut polygons into triangle fans."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets.limits import Limits, check_limit
from threestudio_redream.errors import AssetError

__all__ = ["fan", "fan_corners"]

Int = NDArray[np.int64]


def fan_corners(counts: Int) -> tuple[Int, Int]:
    """Triangles over corners that are numbered through all polygons.

    Args:
        counts: ``[P]`` corners per polygon; polygons below three give no triangle.

    Returns:
        ``[F, 3]`` corner numbers, and ``[F]`` the polygon of each triangle.
    """
    triangles = np.maximum(counts - 2, 0)
    polygon = np.repeat(np.arange(len(counts)), triangles)
    step = np.arange(len(polygon)) - (np.cumsum(triangles) - triangles)[polygon]
    first = (np.cumsum(counts) - counts)[polygon]
    return np.stack([first, first + step + 1, first + step + 2], axis=1), polygon


def fan(values: NDArray, row_lengths: Int, what: str, limits: Limits) -> tuple[Int, Int]:
    """Triangles of rows that hold a corner count, that many vertex indices, and perhaps more.

    Args:
        values: all rows, flat. row_lengths: ``[P]`` numbers in each row. what: format, for messages.

    Returns:
        ``[F, 3]`` vertex indices (not yet range-checked) and ``[F]`` the row of each triangle.

    Raises:
        AssetError: a row is shorter than its count says. AssetLimitError: too many triangles.
    """
    start = np.cumsum(row_lengths) - row_lengths
    counts = values[start]
    if len(counts) and not ((counts >= 0) & (counts < row_lengths)).all():
        raise AssetError(f"an {what} face has fewer corners than it announces", received=counts.max(), fix="Export it again")
    counts = counts.astype(np.int64)
    check_limit(limits, "max_faces", int(np.maximum(counts - 2, 0).sum()), "faces")
    corners, polygon = fan_corners(counts)
    within = corners - (np.cumsum(counts) - counts)[polygon][:, None]
    indices = values[(start[polygon] + 1)[:, None] + within]
    bounded = np.clip(np.nan_to_num(indices, nan=-1.0), -1, 2**53) if indices.dtype.kind == "f" else indices
    return bounded.astype(np.int64), polygon
