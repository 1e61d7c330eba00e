"""The inside of an asset on a regular grid, by rays through it: a few hundredths of a second for thousands of faces.

Along a ray every face adds +1 or -1, by whether the ray enters or leaves through it. For a closed mesh the sum ahead of
a point is its winding number, whatever the direction; for a mesh with holes it depends on the direction, and the
winding number (Jacobson et al., 2013) is its mean over all of them. Here the mean goes over six, along the axes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets import Asset
from threestudio_redream.errors import ConfigError

__all__ = ["AssetVolume", "asset_volume"]

Floats = NDArray[np.float32]

#: Share of consistently oriented rays below which the signs of a mesh mean nothing.
CONSISTENT = 0.5
_SHIFT = (3.1e-4, 4.7e-4)  # of a cell: rays keep off the edges of axis-aligned parts
_PAIRS = 1 << 20  # pairs of face and ray that are looked at together


@dataclass(frozen=True)
class AssetVolume:
    """An asset on the nodes of a cube (the convention of :mod:`threestudio_redream.meshing.grid`).

    Attributes:
        occupancy: ``[R, R, R]`` in [0, 1]: 1 inside.
        surface: ``[R, R, R]`` bool: nodes beside a face. Sheets without an inside count, too.
        radius: the cube reaches from ``-radius`` to ``radius``.
        oriented: whether the faces' orientation could be used; else inside is what no ray along an axis can see.
    """

    occupancy: Floats
    surface: NDArray[np.bool_]
    radius: float
    oriented: bool

    @property
    def cell(self) -> float:
        """Distance of two neighbouring nodes."""
        return 2.0 * self.radius / (len(self.occupancy) - 1)

    @cached_property
    def distance(self) -> Floats:
        """``[R, R, R]`` to the nearest surface in world units, to about half a cell."""
        from scipy.ndimage import distance_transform_edt

        if not self.surface.any():
            return np.full(self.surface.shape, 2.0 * self.radius, np.float32)
        return np.asarray(distance_transform_edt(~self.surface) * self.cell, np.float32)


def asset_volume(asset: Asset, resolution: int = 96, radius: float | None = None) -> AssetVolume:
    """The inside of an asset in the canonical frame.

    Convention: for a closed sphere of radius 0.4 whose faces look outwards the occupancy at ``(0.3, 0, 0)`` is 1 and
    the distance 0.1; inside out it is the same. Parts that overlap make one solid. Of a mesh with holes inside is
    where the mean over six directions says so: a bowl with a small opening is full. Where less than half of the rays
    meet faces in a consistent order, the signs are given up, and inside is what is hidden in all six directions.

    Args:
        resolution: nodes along each side, 8 to 512. radius: of the cube; by default the asset and three cells around.

    Raises:
        ConfigError: a resolution out of range.
    """
    if not 8 <= resolution <= 512:
        raise ConfigError("The resolution of an asset's volume must be in 8..512", received=resolution, fix="Use 96.")
    if radius is None:
        reach = float(np.abs(asset.vertices).max())
        radius = reach / (1.0 - 6.0 / (resolution - 1))
    triangles = asset.vertices.astype(np.float64)[asset.faces]
    shape = (resolution,) * 3
    winding, hidden, near = np.zeros(shape), np.ones(shape, bool), np.zeros(shape, bool)
    rays = np.zeros(3)  # in all; with the faces in order; in order if they were turned
    for axis in range(3):
        order = [axis, (axis + 1) % 3, (axis + 2) % 3]
        signed, count = _crossings(triangles[:, :, order], resolution, radius)
        back = np.argsort([order[1], order[2], order[0]])
        behind = np.cumsum(signed, axis=2)  # up to and with each node; faces that are left count +1
        total = behind[:, :, -1:]
        winding += np.transpose(0.5 * total - behind[:, :, :-1], back)
        seen = np.cumsum(count, axis=2)
        both = (seen[:, :, :-1] > 0) & (seen[:, :, :-1] < seen[:, :, -1:])
        hidden &= np.transpose(both, back)
        touched = count > 0
        near |= np.transpose(touched[:, :, :-1] | touched[:, :, 1:], back)
        hit, closed = touched.any(axis=2), total[:, :, 0] == 0
        rays += [hit.sum(), (hit & closed & (behind.max(2) <= 0)).sum(), (hit & closed & (behind.min(2) >= 0)).sum()]
    oriented = bool(max(rays[1], rays[2]) >= CONSISTENT * max(rays[0], 1.0))
    sign = 1.0 if rays[1] >= rays[2] else -1.0
    occupancy = np.clip(sign * winding / 3.0, 0.0, 1.0) if oriented else hidden.astype(np.float64)
    return AssetVolume(occupancy.astype(np.float32), near, float(radius), oriented)


def _crossings(triangles: NDArray[np.float64], resolution: int, radius: float) -> tuple[Floats, Floats]:
    """Where rays along the first coordinate, one through each node of the other two, go through faces.

    Returns:
        two arrays ``[R, R, R + 1]`` by node of the second and the third coordinate: entry ``i`` of the last axis sums
        over the faces between nodes ``i - 1`` and ``i`` their signs (+1 where the ray leaves), and their number.
    """
    cell = 2.0 * radius / (resolution - 1)
    shape = (resolution, resolution, resolution + 1)
    signed, count = np.zeros(int(np.prod(shape))), np.zeros(int(np.prod(shape)))
    depth = (triangles[:, :, 0] + radius) / cell
    plane = (triangles[:, :, 1:] + radius) / cell - np.array(_SHIFT)
    for face, rows, columns in _pairs(plane, resolution):
        corners = plane[face]
        away = corners - np.stack([rows, columns], axis=-1)[:, None]
        part = np.stack([_cross(away[:, (c + 1) % 3], away[:, (c + 2) % 3]) for c in range(3)], axis=-1)
        area = _cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        inside = ((part >= 0).all(axis=1) | (part <= 0).all(axis=1)) & (area != 0)
        face, rows, columns, part, area = (values[inside] for values in (face, rows, columns, part, area))
        node = np.ceil((part * depth[face]).sum(axis=1) / area)
        index = (rows * resolution + columns) * (resolution + 1) + np.clip(node, 0, resolution).astype(np.int64)
        np.add.at(signed, index, np.sign(area))
        np.add.at(count, index, 1.0)
    return signed.reshape(shape).astype(np.float32), count.reshape(shape).astype(np.float32)


def _pairs(plane: NDArray[np.float64], resolution: int) -> Iterator[tuple[NDArray[np.int64], ...]]:
    """Faces, rows and columns of the rays in the bounding rectangle of each face, in portions."""
    low = np.clip(np.ceil(plane.min(axis=1)), 0, resolution).astype(np.int64)
    high = np.clip(np.floor(plane.max(axis=1)), -1, resolution - 1).astype(np.int64)
    sides = np.maximum(high - low + 1, 0)
    counts = sides.prod(axis=1)
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        done = int(ends[start - 1]) if start else 0
        stop = max(int(np.searchsorted(ends, done + _PAIRS, side="right")), start + 1)
        face = np.repeat(np.arange(start, stop), counts[start:stop])
        within = np.arange(len(face)) - (ends[face] - counts[face] - done)
        yield face, low[face, 0] + within // sides[face, 1], low[face, 1] + within % sides[face, 1]
        start = stop


def _cross(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    return first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]
