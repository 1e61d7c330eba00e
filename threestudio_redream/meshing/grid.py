"""Evaluate a field on a regular grid with bounded memory, densely or only where its surface runs.

Convention
----------
Node ``(i, j, k)`` of a grid of shape ``[X, Y, Z]`` lies at ``bbox[0] + (i, j, k) / (X-1, Y-1, Z-1) *
(bbox[1] - bbox[0])``: the first and last nodes lie on the box. With the box from -1 to 1 and 5 nodes,
node ``(0, 2, 4)`` is the point ``(-1, 0, 1)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from threestudio_redream.errors import ConfigError, EmptySceneError
from threestudio_redream.meshing.types import FloatArray, PointFn

__all__ = ["DEFAULT_CHUNK", "checked_bbox", "evaluate", "grid_shape", "sample_grid"]

DEFAULT_CHUNK = 1 << 18  # points per call of a field
MAX_RESOLUTION = 1024


def checked_bbox(bbox: ArrayLike) -> NDArray[np.float64]:
    """``[2, 3]`` float64 (lower corner, upper corner).

    Raises:
        ConfigError: another shape, a non-finite number, or a box without volume.
    """
    box = np.asarray(bbox, np.float64)
    if box.shape != (2, 3) or not np.isfinite(box).all() or not (box[1] > box[0]).all():
        raise ConfigError(
            "A bounding box must be [[x0, y0, z0], [x1, y1, z1]] with x0 < x1, y0 < y1, z0 < z1",
            received=box.tolist(),
            fix="Pass the lower corner first.",
        )
    return box


def grid_shape(bbox: ArrayLike, resolution: int) -> tuple[int, int, int]:
    """Nodes per axis for ``resolution`` nodes along the longest side and cells as cubic as possible.

    Convention: the box ``[[-1, -1, 0], [1, 1, 1]]`` at resolution 65 has the shape ``(65, 65, 33)``.

    Raises:
        ConfigError: a resolution outside 8 to 1024.
    """
    if not 8 <= resolution <= MAX_RESOLUTION:
        raise ConfigError(
            f"The grid resolution must lie between 8 and {MAX_RESOLUTION}",
            received=resolution,
            fix="192 resolves about half a percent of the object and needs 28 MB.",
        )
    box = checked_bbox(bbox)
    size = box[1] - box[0]
    x, y, z = np.maximum(np.round((resolution - 1) * size / size.max()).astype(int) + 1, 4)
    return int(x), int(y), int(z)


def evaluate(
    field: PointFn,
    points: FloatArray,
    channels: int | None = None,
    *,
    chunk: int = DEFAULT_CHUNK,
    what: str = "level",
    on_chunk: Callable[[int], None] | None = None,
) -> FloatArray:
    """Call ``field`` on at most ``chunk`` points at a time and check what it returns.

    Args:
        points: ``[N, 3]`` float32 world points.
        channels: None for a field of shape ``[N]`` (``[N, 1]`` is accepted), else ``[N, channels]``.
        what: the name of the field in errors.
        on_chunk: called with the number of points done so far.

    Returns:
        ``[N]`` or ``[N, channels]`` float32. Infinite values become the largest finite float32.

    Raises:
        ConfigError: a result of another shape, or ``chunk < 1``.
        EmptySceneError: NaN in the result: a field that diverged.
    """
    if chunk < 1:
        raise ConfigError("A chunk must hold at least one point", received=chunk, fix="Leave it at its default.")
    result = np.zeros((len(points),) if channels is None else (len(points), channels), np.float32)
    for start in range(0, len(points), chunk):
        part = result[start : start + chunk]
        value = np.asarray(field(points[start : start + chunk]))
        if channels is None and value.shape == (len(part), 1):
            value = value[:, 0]
        if value.shape != part.shape:
            raise ConfigError(
                f"The {what} function must return the shape {part.shape} for {len(part)} points",
                received=value.shape,
                fix="Return one row per point.",
            )
        if np.isnan(value).any():
            raise EmptySceneError(
                f"The {what} field holds NaN",
                received=f"{int(np.isnan(value).sum())} of {value.size} values in one batch of points",
                fix="The field diverged: lower the learning rate, or export an earlier checkpoint.",
            )
        limit = np.finfo(np.float32).max
        part[...] = np.clip(value, -limit, limit)
        if on_chunk is not None:
            on_chunk(min(start + chunk, len(points)))
    return result


def sample_grid(
    level_fn: PointFn,
    bbox: ArrayLike,
    resolution: int,
    *,
    stride: int = 1,
    band: tuple[float, float] | Callable[[FloatArray], tuple[float, float]] | None = None,
    chunk: int = DEFAULT_CHUNK,
    progress: Callable[[float], None] | None = None,
) -> FloatArray:
    """Levels at the nodes of a grid over ``bbox`` (Convention above).

    With ``stride`` s > 1 every s-th node is evaluated first. Blocks of ``s^3`` cells are then evaluated in
    full where their corners do not all lie on one side of the band, where a neighbour's do not, and where
    the surface leaves an evaluated block; so every surface for a threshold within the band is exact if it
    touches one such block. A part can be missed only when it is thinner than the stride and not connected
    to anything found. Nodes left out take the value of the coarse node before them, on the same side of the
    band.

    Args:
        level_fn: ``[N, 3]`` float32 -> ``[N]``.
        resolution: nodes along the longest side of the box.
        stride: 1 evaluates everything.
        band: lowest and highest threshold of interest, or a function of the coarse levels that returns
            them. Needed if ``stride > 1``.
        chunk: points per call of ``level_fn``.
        progress: called with the fraction done; with a stride it is an estimate.

    Returns:
        ``[X, Y, Z]`` float32.

    Raises:
        ConfigError: a bad box, resolution, stride, band or result. EmptySceneError: NaN.
    """
    box, shape = checked_bbox(bbox), grid_shape(bbox, resolution)
    axes = [np.linspace(box[0, a], box[1, a], shape[a]).astype(np.float32) for a in range(3)]
    if stride < 1 or (stride > 1 and band is None):
        raise ConfigError(
            "A stride must be 1, or larger together with a band",
            received={"stride": stride, "band": band},
            fix="Pass band=(threshold, threshold).",
        )
    report = progress or (lambda fraction: None)

    def at(nodes: NDArray[np.intp], done: float, share: float) -> FloatArray:
        values = np.zeros(len(nodes), np.float32)
        for start in range(0, len(nodes), chunk):  # points are made per chunk: all of them would outweigh the grid
            part = slice(start, start + chunk)
            index = np.unravel_index(nodes[part], shape)
            values[part] = evaluate(level_fn, np.stack([axes[a][index[a]] for a in range(3)], axis=-1), chunk=chunk)
            report(done + share * min(start + chunk, len(nodes)) / len(nodes))
        return values

    every = np.arange(math.prod(shape)).reshape(shape)
    if stride == 1:
        return at(every.ravel(), 0.0, 1.0).reshape(shape)

    knots = [np.append(np.arange(0, n - 1, stride), n - 1) for n in shape]
    coarse = every[np.ix_(*knots)]
    coarse = at(coarse.ravel(), 0.0, 0.5).reshape(coarse.shape)
    low, high = band(coarse) if callable(band) else band  # type: ignore[misc]
    level = coarse[np.ix_(*[np.minimum(np.arange(n) // stride, len(k) - 1) for n, k in zip(shape, knots, strict=True)])]
    level[np.ix_(*knots)] = coarse
    done = np.zeros(shape, bool)
    done[np.ix_(*knots)] = True

    wanted = _dilate(_straddles(coarse, low, high))
    finished = np.zeros_like(wanted)
    while (wanted & ~finished).any():
        fresh = wanted & ~finished
        todo = np.flatnonzero(_nodes_of(fresh, stride, shape) & ~done)
        level.ravel()[todo] = at(todo, 0.5, 0.5)
        done.ravel()[todo] = True
        finished |= fresh
        wanted = wanted | _neighbours_across(level, fresh, low, high, stride)
    return level


def _corners(values: NDArray) -> list[NDArray]:
    """The eight views of a node array that hold the corners of every cell."""
    n = values.shape
    return [values[x : n[0] - 1 + x, y : n[1] - 1 + y, z : n[2] - 1 + z] for x, y, z in product((0, 1), repeat=3)]


def _straddles(values: FloatArray, low: float, high: float) -> NDArray[np.bool_]:
    """Cells whose corners are neither all below the band nor all above it."""
    corners = _corners(values)
    return (np.minimum.reduce(corners) <= high) & (np.maximum.reduce(corners) >= low)


def _dilate(blocks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy.ndimage import binary_dilation

    return binary_dilation(blocks, np.ones((3, 3, 3), bool))


def _nodes_of(blocks: NDArray[np.bool_], stride: int, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """All nodes on or inside the given blocks, ``shape`` bool."""
    cells = blocks
    for axis in range(3):
        cells = np.repeat(cells, stride, axis=axis)
    cells = cells[: shape[0] - 1, : shape[1] - 1, : shape[2] - 1]
    nodes = np.zeros(shape, bool)
    for view in _corners(nodes):
        view |= cells
    return nodes


def _neighbours_across(
    level: FloatArray, blocks: NDArray[np.bool_], low: float, high: float, stride: int
) -> NDArray[np.bool_]:
    """Blocks that share a face with one of ``blocks`` on which the levels straddle the band."""
    index = np.stack(np.nonzero(blocks), axis=1)
    offsets = np.arange(stride + 1)
    last = np.array(level.shape) - 1
    spans = [np.minimum(index[:, a, None] * stride + offsets, last[a]) for a in range(3)]
    values = level[spans[0][:, :, None, None], spans[1][:, None, :, None], spans[2][:, None, None, :]]
    result = np.zeros_like(blocks)
    for axis, side in product(range(3), (0, 1)):
        face = np.take(values, -side, axis=axis + 1).reshape(len(index), -1)
        crossing = (face.min(axis=1) <= high) & (face.max(axis=1) >= low)
        moved = index[crossing].copy()
        moved[:, axis] += 2 * side - 1
        moved = moved[((moved >= 0) & (moved < blocks.shape)).all(axis=1)]
        result[tuple(moved.T)] = True
    return result
