"""A triangle mesh on its way into a model, and the ways to place it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Solid", "join", "pair"]

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Solid:
    """Geometry alone; normals follow from it by crease angle, paint is chosen when it joins a model.

    Attributes:
        vertices: ``[V, 3]`` float64 in the canonical axes (+x front, +y left, +z up).
        faces: ``[F, 3]`` int64, counter-clockwise from outside.
        uvs: ``[V, 2]`` in [0, 1], v down, where a picture may be laid; None elsewhere.
    """

    vertices: Float
    faces: NDArray[np.int64]
    uvs: Float | None = None

    def moved(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Solid:
        return replace(self, vertices=self.vertices + np.array([x, y, z]))

    def scaled(self, x: float, y: float | None = None, z: float | None = None) -> Solid:
        """Stretched about the origin; one number scales all axes. Negative factors mirror."""
        factors = np.array([x, x if y is None else y, x if z is None else z], np.float64)
        faces = self.faces if np.prod(factors) > 0 else self.faces[:, ::-1]
        return replace(self, vertices=self.vertices * factors, faces=faces)

    def turned(self, axis: str, degrees: float) -> Solid:
        """Rotated about the origin by the right-hand rule: ``turned("z", 90)`` takes +x to +y."""
        i = "xyz".index(axis)
        j, k = (i + 1) % 3, (i + 2) % 3
        cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        vertices = self.vertices.copy()
        vertices[:, j] = cos * self.vertices[:, j] - sin * self.vertices[:, k]
        vertices[:, k] = sin * self.vertices[:, j] + cos * self.vertices[:, k]
        return replace(self, vertices=vertices)

    def pointed(self, direction: ArrayLike) -> Solid:
        """Rotated so that its +z goes along ``direction``."""
        up = np.asarray(direction, np.float64)
        up = up / np.linalg.norm(up)
        side = np.cross((0.0, 1.0, 0.0) if abs(up[1]) < 0.9 else (0.0, 0.0, 1.0), up)
        side /= np.linalg.norm(side)
        return replace(self, vertices=self.vertices @ np.stack([side, np.cross(up, side), up]))

    def mirrored(self) -> Solid:
        """The other side of a symmetric object: y changes sign."""
        return self.scaled(1.0, -1.0, 1.0)

    def warped(self, function: Callable[[Float], ArrayLike]) -> Solid:
        """Vertices sent through ``function`` (``[V, 3]`` to ``[V, 3]``): bends, tapers, bulges."""
        return replace(self, vertices=np.asarray(function(self.vertices), np.float64))

    def bent(self, degrees: float) -> Solid:
        """Bent towards +x like a stalk: the +z axis becomes an arc that has turned by ``degrees`` at the top."""
        low, high = self.vertices[:, 2].min(), self.vertices[:, 2].max()
        if abs(degrees) < 1e-6 or high - low < 1e-9:
            return self
        radius = (high - low) / np.deg2rad(degrees)
        angle = (self.vertices[:, 2] - low) / radius
        x = radius - (radius - self.vertices[:, 0]) * np.cos(angle)
        z = low + (radius - self.vertices[:, 0]) * np.sin(angle)
        return replace(self, vertices=np.stack([x, self.vertices[:, 1], z], axis=1))

    def tapered(self, top: float, bottom: float = 1.0) -> Solid:
        """x and y scaled linearly from ``bottom`` at the lowest point to ``top`` at the highest."""
        low, high = self.vertices[:, 2].min(), self.vertices[:, 2].max()
        share = (self.vertices[:, 2:] - low) / max(high - low, 1e-9)
        factor = bottom + (top - bottom) * share
        return replace(self, vertices=self.vertices * np.concatenate([factor, factor, np.ones_like(factor)], axis=1))

    @property
    def low(self) -> Float:
        """``[3]`` smallest coordinates."""
        return self.vertices.min(axis=0)

    @property
    def high(self) -> Float:
        """``[3]`` largest coordinates."""
        return self.vertices.max(axis=0)


def join(*solids: Solid) -> Solid:
    """Several solids as one; uvs survive if all have them."""
    offsets = np.cumsum([0, *(len(solid.vertices) for solid in solids)])
    uvs = [solid.uvs for solid in solids if solid.uvs is not None]
    return Solid(
        np.concatenate([solid.vertices for solid in solids]),
        np.concatenate([solid.faces + start for solid, start in zip(solids, offsets)]),
        np.concatenate(uvs) if len(uvs) == len(solids) else None,
    )


def pair(solid: Solid) -> Solid:
    """The solid and its mirror image on the other side of the plane y = 0."""
    return join(solid, solid.mirrored())
