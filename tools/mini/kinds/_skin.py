"""The skin on which animals of all families wear their faces."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tools.mini.modelling import (
    Blob,
    Flat,
    Maker,
    Paint,
    Solid,
    blend,
    ellipsoid,
    loft,
    pair,
    sweep,
)
from tools.mini.modelling.paint import CREAM

__all__ = ["Skin", "eyes", "flesh", "leaf"]

Float = NDArray[np.float64]


class Skin:
    """The front of a smooth union of blobs, to put eyes, patches and mouths on."""

    def __init__(self, *blobs: Blob, smooth: float = 0.06) -> None:
        self.blobs, self.smooth = blobs, smooth

    def level(self, points: Float) -> Float:
        level = self.blobs[0].distance(points)
        for blob in self.blobs[1:]:
            other = blob.distance(points)
            share = np.clip(0.5 + 0.5 * (other - level) / self.smooth, 0.0, 1.0)
            level = other + (level - other) * share - self.smooth * share * (1.0 - share)
        return level

    def front(self, y: ArrayLike, z: ArrayLike) -> tuple[Float, Float]:
        """Foremost points at (y, z) and their normals, ``[N, 3]`` each."""
        y, z = np.broadcast_arrays(np.asarray(y, np.float64).ravel(), np.asarray(z, np.float64).ravel())
        points = np.stack([np.full(len(y), max(blob.bounds()[1][0] for blob in self.blobs) + 0.02), y, z], axis=1)
        for _ in range(12):
            points[:, 0] -= 0.95 * self.level(points)
        probes = points[:, None] + 0.01 * np.eye(3)
        normals = self.level(probes) - self.level(points)[:, None]
        return points, normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)

    def place(self, solid: Solid, y: float, z: float, turn: float = 1.0) -> Solid:
        """A solid that faces +x, put at (y, z) and turned (wholly, or less) to look along the normal."""
        points, normals = self.front([y], [z])
        azimuth = np.rad2deg(np.arctan2(normals[0, 1], max(normals[0, 0], 0.05)))
        elevation = np.rad2deg(np.arcsin(np.clip(normals[0, 2], -1.0, 1.0)))
        return solid.turned("y", -turn * elevation).turned("z", turn * azimuth).moved(*points[0])

    def patch(
        self, y: float, z: float, half_y: float, half_z: float, lift: float = 0.022, *, cleft: float = 0.0
    ) -> Solid:
        """An oval patch that follows the skin; ``cleft`` cuts into its top, towards a heart."""
        angle = np.linspace(0.0, 2.0 * np.pi, 18, endpoint=False)
        outline = 1.0 - cleft * np.clip(np.sin(angle), 0.0, 1.0) ** 6
        size = np.array([1.0, 1.0, 0.93, 0.72, 0.36])[:, None] * outline
        points, normals = self.front(y + half_y * size * np.cos(angle), z + half_z * size * np.sin(angle))
        height = lift * np.array([-1.5, 0.1, 0.8, 1.0, 1.0]).repeat(len(angle))[:, None]
        return loft((points + height * normals).reshape(5, len(angle), 3))

    def stroke(self, y: Sequence[float] | Float, z: Sequence[float] | Float, radius: float) -> Solid:
        """A line drawn on the skin."""
        return sweep(self.front(y, z)[0], radius, sides=5)


def flesh(blobs: Sequence[Blob], smooth: float, *, cells: int = 17) -> Solid:
    """``blend`` with few triangles, its vertices then moved onto the true surface so that it does not look lumpy."""
    solid, skin = blend(blobs, smooth, cells=cells), Skin(*blobs, smooth=smooth)
    points, step = solid.vertices, 0.01
    level = skin.level(points)
    slope = (skin.level(points[:, None] + step * np.eye(3)) - level[:, None]) / step
    shift = level[:, None] * slope / np.maximum((slope**2).sum(axis=1, keepdims=True), 0.25)
    return Solid(points - shift, solid.faces)


def eyes(make: Maker, skin: Skin, y: float, z: float, radius: float, *, white: Paint | None = None) -> None:
    """A pair of big eyes: pale with dark pupils that look slightly inwards."""
    tall, pupil = make.vary(1.0, 1.2), make.vary(0.58, 0.72)
    ball = ellipsoid(0.45 * radius, radius, tall * radius, segments=12)
    dark = ellipsoid(0.36, pupil, tall * pupil, segments=10).scaled(radius).moved(0.24 * radius, -0.14 * radius)
    make.add(pair(skin.place(ball, y, z, 0.85)), paint=white or Flat(CREAM))
    make.add(pair(skin.place(dark, y, z, 0.85)), paint=make.dark)
    if make.chance(0.6):
        glint = ellipsoid(0.13 * radius, 0.2 * radius, segments=8).moved(0.55 * radius, 0.02 * radius, 0.3 * radius)
        make.add(skin.place(glint, y, z, 0.85), skin.place(glint, -y, z, 0.85), paint=Flat(CREAM))


def leaf(width: float, length: float, thick: float, tip: float = 0.5) -> Solid:
    """An ear, wing or flipper: rises from the origin along z, flat in x, widest at ``1 - tip`` of its length."""
    share = np.array([0.0, 0.03, 0.18, 0.34, 0.50, 0.66, 0.84, 1.0])
    bulge = np.sin(np.pi * share ** (np.log(0.5) / np.log(1.0 - tip))) ** 0.6
    bulge = np.maximum(bulge, 0.5 * (share < 0.4))
    bulge[0], bulge[-1] = 0.3, 0.0
    angle = np.linspace(0.0, 2.0 * np.pi, 10, endpoint=False)
    ring = np.stack([0.5 * thick * np.cos(angle), 0.5 * width * np.sin(angle)], axis=1)
    height = np.broadcast_to(length * share[:, None, None], (8, 10, 1))
    return loft(np.concatenate([bulge[:, None, None] * ring, height], axis=2))
