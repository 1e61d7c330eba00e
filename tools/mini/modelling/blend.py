"""Bodies that flow into each other: a smooth union of balls, eggs and bones, meshed by marching cubes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tools.mini.modelling.solid import Solid

__all__ = ["Ball", "Blob", "Bone", "Egg", "blend"]

Float = NDArray[np.float64]
Point = Sequence[float] | Float


class Blob(ABC):
    """A rounded primitive, described by how far points lie outside of it."""

    @abstractmethod
    def distance(self, points: Float) -> Float:
        """Signed distance of ``[..., 3]`` points to the surface, negative inside; exact at least on the surface."""

    @abstractmethod
    def bounds(self) -> tuple[Float, Float]:
        """Lowest and highest corner of a box around it, ``[3]`` each."""


@dataclass(frozen=True)
class Ball(Blob):
    """A sphere."""

    at: Point
    radius: float

    def distance(self, points: Float) -> Float:
        return np.linalg.norm(points - np.asarray(self.at), axis=-1) - self.radius

    def bounds(self) -> tuple[Float, Float]:
        at = np.asarray(self.at, np.float64)
        return at - self.radius, at + self.radius


@dataclass(frozen=True)
class Egg(Blob):
    """An ellipsoid with semi-axes ``radii``, tilted by ``pitch`` degrees (nose up is positive, about y)."""

    at: Point
    radii: Point
    pitch: float = 0.0

    def distance(self, points: Float) -> Float:
        local, radii = points - np.asarray(self.at), np.asarray(self.radii, np.float64)
        if self.pitch:
            cos, sin = np.cos(np.deg2rad(self.pitch)), np.sin(np.deg2rad(self.pitch))
            x, z = local[..., 0] * cos + local[..., 2] * sin, local[..., 2] * cos - local[..., 0] * sin
            local = np.stack([x, local[..., 1], z], axis=-1)
        # First-order distance: exact on the surface, good enough near it.
        inner = np.linalg.norm(local / radii, axis=-1)
        slope = np.linalg.norm(local / radii**2, axis=-1)
        return inner * (inner - 1.0) / np.maximum(slope, 1e-9)

    def bounds(self) -> tuple[Float, Float]:
        at, reach = np.asarray(self.at, np.float64), np.asarray(self.radii, np.float64)
        if self.pitch:
            reach = np.array([max(reach[0], reach[2]), reach[1], max(reach[0], reach[2])])
        return at - reach, at + reach


@dataclass(frozen=True)
class Bone(Blob):
    """A capsule from ``a`` to ``b`` with radius ``ra`` at one end and ``rb`` (default the same) at the other."""

    a: Point
    b: Point
    ra: float
    rb: float | None = None

    def distance(self, points: Float) -> Float:
        start, axis = np.asarray(self.a, np.float64), np.asarray(self.b, np.float64) - np.asarray(self.a, np.float64)
        share = np.clip(((points - start) @ axis) / max(float(axis @ axis), 1e-12), 0.0, 1.0)
        end = self.ra if self.rb is None else self.rb
        radius = self.ra + (end - self.ra) * share
        return np.linalg.norm(points - start - share[..., None] * axis, axis=-1) - radius

    def bounds(self) -> tuple[Float, Float]:
        reach = max(self.ra, self.ra if self.rb is None else self.rb)
        ends = np.stack([np.asarray(self.a, np.float64), np.asarray(self.b, np.float64)])
        return ends.min(axis=0) - reach, ends.max(axis=0) + reach


def blend(blobs: Sequence[Blob], smooth: float = 0.08, *, cells: int = 26) -> Solid:
    """The smooth union of blobs.

    Args:
        blobs: in model units.
        smooth: width over which neighbours melt into each other, in model units.
        cells: along the longest side; the surface has about ``8 * cells**2`` triangles on a compact body.
    """
    from skimage.measure import marching_cubes

    bounds = [blob.bounds() for blob in blobs]
    low = np.min([bound[0] for bound in bounds], axis=0)
    high = np.max([bound[1] for bound in bounds], axis=0)
    cell = float((high - low).max()) / cells
    low, high = low - 1.5 * cell - 0.25 * smooth, high + 1.5 * cell + 0.25 * smooth
    axes = [np.arange(a, b + cell, cell) for a, b in zip(low, high)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    level = blobs[0].distance(points)
    for blob in blobs[1:]:  # polynomial smooth minimum
        other = blob.distance(points)
        share = np.clip(0.5 + 0.5 * (other - level) / max(smooth, 1e-9), 0.0, 1.0)
        level = other + (level - other) * share - smooth * share * (1.0 - share)
    # Marching cubes leaves slivers where the surface passes close to a node; keep it away from them.
    near = np.abs(level) < 0.12 * cell
    level = np.where(near, np.where(level < 0.0, -0.12 * cell, 0.12 * cell), level)
    vertices, faces, _, _ = marching_cubes(level, 0.0, spacing=(cell, cell, cell), gradient_direction="descent")
    return Solid(vertices.astype(np.float64) + low, faces.astype(np.int64))
