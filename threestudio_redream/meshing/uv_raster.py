"""Which face lies under every texel: triangles rasterised in texture space.

Convention: the centre of the texel in row ``i`` and column ``j`` is the pixel position
``(j + 0.5, i + 0.5) = uv * size``. On a texture of 4 texels, ``uv = (0.125, 0.625)`` is the centre of
row 2, column 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from threestudio_redream.kernels.jit import njit, use_numba
from threestudio_redream.meshing.types import FloatArray, IntArray

__all__ = ["UVRaster", "rasterise_uv", "rasterise_uv_reference"]

_INSIDE = 1e-6  # barycentric slack, so that texel centres on a shared edge are never lost


class UVRaster(NamedTuple):
    """What lies under every texel.

    Attributes:
        face: ``[T, T]`` int32, index of the nearest face, -1 where none is within the margin.
        weights: ``[T, T, 2]`` float32, barycentric weights of the second and third corner of the point of
            that face nearest to the texel centre; the first corner has the rest.
        distance: ``[T, T]`` float32, texels from the texel centre to the face; 0 inside, inf where none.
    """

    face: IntArray
    weights: FloatArray
    distance: FloatArray


def rasterise_uv(uvs: ArrayLike, faces: ArrayLike, size: int, margin: float = 1.5) -> UVRaster:
    """Nearest face of every texel, within ``margin`` texels of the charts.

    A texel centre inside several faces gets the one with the lowest index. Both windings count. The
    margin gives the rim that bilinear look-ups at chart borders need, and texels to faces that are
    too small to hold a centre.

    Args:
        uvs: ``[V, 2]`` in [0, 1]. faces: ``[F, 3]``.
        size: texels along a side. margin: texels.
    """
    pixels = np.ascontiguousarray(np.asarray(uvs, np.float64) * size)
    corners = np.ascontiguousarray(pixels[np.asarray(faces, np.int64)])
    if not use_numba():
        return rasterise_uv_reference(uvs, faces, size, margin)
    raster = _blank(size)
    squared = np.full((size, size), np.inf)
    _rasterise(corners, float(margin), raster.face, raster.weights, squared)
    return raster._replace(distance=np.sqrt(squared).astype(np.float32))


def _blank(size: int) -> UVRaster:
    return UVRaster(
        np.full((size, size), -1, np.int32), np.zeros((size, size, 2), np.float32), np.zeros((size, size), np.float32)
    )


@njit
def _nearest_on_triangle(x, y, ax, ay, bx, by, cx, cy):
    """Squared distance of a point to a triangle, and the weights of b and c at the nearest point."""
    ux, uy, vx, vy = bx - ax, by - ay, cx - ax, cy - ay
    area = ux * vy - uy * vx
    if abs(area) > 1e-12:
        wb = ((x - ax) * vy - (y - ay) * vx) / area
        wc = (ux * (y - ay) - uy * (x - ax)) / area
        if wb >= -_INSIDE and wc >= -_INSIDE and wb + wc <= 1.0 + _INSIDE:
            wb, wc = min(max(wb, 0.0), 1.0), min(max(wc, 0.0), 1.0)
            total = max(wb + wc, 1.0)
            return 0.0, wb / total, wc / total
    best, best_b, best_c = np.inf, 0.0, 0.0
    for edge in range(3):
        if edge == 0:
            px, py, qx, qy = ax, ay, bx, by
        elif edge == 1:
            px, py, qx, qy = bx, by, cx, cy
        else:
            px, py, qx, qy = cx, cy, ax, ay
        length = (qx - px) ** 2 + (qy - py) ** 2
        t = 0.0
        if length > 0.0:
            t = min(max(((x - px) * (qx - px) + (y - py) * (qy - py)) / length, 0.0), 1.0)
        squared = (px + t * (qx - px) - x) ** 2 + (py + t * (qy - py) - y) ** 2
        if squared < best:
            best = squared
            if edge == 0:
                best_b, best_c = t, 0.0
            elif edge == 1:
                best_b, best_c = 1.0 - t, t
            else:
                best_b, best_c = 0.0, 1.0 - t
    return best, best_b, best_c


@njit
def _rasterise(corners, margin, face, weights, squared):
    """Serial on purpose: 15k faces take about 0.1 s, and the lowest face index wins without locks."""
    size = face.shape[0]
    limit = margin * margin
    for f in range(corners.shape[0]):
        ax, ay = corners[f, 0, 0], corners[f, 0, 1]
        bx, by = corners[f, 1, 0], corners[f, 1, 1]
        cx, cy = corners[f, 2, 0], corners[f, 2, 1]
        left = max(int(np.floor(min(ax, bx, cx) - margin - 0.5)), 0)
        right = min(int(np.ceil(max(ax, bx, cx) + margin - 0.5)), size - 1)
        top = max(int(np.floor(min(ay, by, cy) - margin - 0.5)), 0)
        bottom = min(int(np.ceil(max(ay, by, cy) + margin - 0.5)), size - 1)
        for i in range(top, bottom + 1):
            for j in range(left, right + 1):
                if squared[i, j] == 0.0:
                    continue
                found, wb, wc = _nearest_on_triangle(j + 0.5, i + 0.5, ax, ay, bx, by, cx, cy)
                if found <= limit and found < squared[i, j]:
                    squared[i, j] = found
                    face[i, j] = f
                    weights[i, j, 0] = wb
                    weights[i, j, 1] = wc


def rasterise_uv_reference(uvs: ArrayLike, faces: ArrayLike, size: int, margin: float = 1.5) -> UVRaster:
    """:func:`rasterise_uv` in plain numpy: the path without numba, and what the kernel is tested against."""
    pixels = np.asarray(uvs, np.float64) * size
    corners = pixels[np.asarray(faces, np.int64)]
    raster, squared = _blank(size), np.full((size, size), np.inf)
    low = np.maximum(np.floor(corners.min(axis=1) - margin - 0.5), 0).astype(int)
    high = np.minimum(np.ceil(corners.max(axis=1) + margin - 0.5), size - 1).astype(int)
    for f, triangle in enumerate(corners):
        (left, top), (right, bottom) = low[f], high[f]
        if left > right or top > bottom:
            continue
        y, x = np.mgrid[top : bottom + 1, left : right + 1] + 0.5
        found, weights = _nearest_on_triangle_reference(np.stack([x, y], axis=-1), triangle)
        box = np.s_[top : bottom + 1, left : right + 1]
        better = (found <= margin * margin) & (found < squared[box])
        squared[box][better] = found[better]
        raster.face[box][better] = f
        raster.weights[box][better] = weights[better]
    return raster._replace(distance=np.sqrt(squared).astype(np.float32))


def _nearest_on_triangle_reference(
    points: NDArray[np.float64], triangle: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b, c = triangle
    candidates, candidate_weights = [], []
    for start, end, at_start, at_end in ((a, b, (0, 0), (1, 0)), (b, c, (1, 0), (0, 1)), (c, a, (0, 1), (0, 0))):
        length = float(((end - start) ** 2).sum())
        t = (
            np.clip(((points - start) @ (end - start)) / length, 0.0, 1.0)
            if length > 0.0
            else np.zeros(points.shape[:-1])
        )
        candidates.append(((start + t[..., None] * (end - start) - points) ** 2).sum(axis=-1))
        candidate_weights.append((1.0 - t)[..., None] * np.array(at_start) + t[..., None] * np.array(at_end))
    nearest = np.argmin(candidates, axis=0)
    squared = np.take_along_axis(np.stack(candidates), nearest[None], axis=0)[0]
    weights = np.take_along_axis(np.stack(candidate_weights), nearest[None, ..., None], axis=0)[0]
    area = (b - a)[0] * (c - a)[1] - (b - a)[1] * (c - a)[0]
    if abs(area) > 1e-12:
        offset = points - a
        wb = (offset[..., 0] * (c - a)[1] - offset[..., 1] * (c - a)[0]) / area
        wc = ((b - a)[0] * offset[..., 1] - (b - a)[1] * offset[..., 0]) / area
        inside = (wb >= -_INSIDE) & (wc >= -_INSIDE) & (wb + wc <= 1.0 + _INSIDE)
        clipped = np.clip(np.stack([wb, wc], axis=-1), 0.0, 1.0)
        clipped = clipped / np.maximum(clipped.sum(axis=-1, keepdims=True), 1.0)
        squared, weights = np.where(inside, 0.0, squared), np.where(inside[..., None], clipped, weights)
    return squared, weights
