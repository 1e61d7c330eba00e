"""Cut polygons into triangle fans."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets.limits import Limits, check_limit

__all__ = ["fan_corners"]

Int = NDArray[np.int64]


def fan_corners(counts: Int, limits: Limits) -> tuple[Int, Int]:
    """Triangles over corners that are numbered through all polygons.

    ``fan_corners([4, 3])`` gives corners ``[[0, 1, 2], [0, 2, 3], [4, 5, 6]]`` of polygons ``[0, 0, 1]``.

    Args:
        counts: ``[P]`` corners per polygon, not negative; polygons below three give no triangle.

    Returns:
        ``[F, 3]`` corner numbers, and ``[F]`` the polygon of each triangle.

    Raises:
        AssetLimitError: more triangles than allowed.
    """
    triangles = np.maximum(counts - 2, 0)
    check_limit(limits, "max_faces", int(triangles.sum()), "faces")
    polygon = np.repeat(np.arange(len(counts)), triangles)
    step = np.arange(len(polygon)) - (np.cumsum(triangles) - triangles)[polygon]
    first = (np.cumsum(counts) - counts)[polygon]
    return np.stack([first, first + step + 1, first + step + 2], axis=1), polygon
