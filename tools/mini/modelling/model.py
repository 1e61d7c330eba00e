"""The maker of one object: draws its variations, collects painted solids, and turns them into an asset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets import Asset, Material
from tools.mini.modelling.normals import creased
from tools.mini.modelling.paint import CREAM, DARK, Flat, Paint, Picture, Texture
from tools.mini.modelling.solid import Solid, join

__all__ = ["Maker"]

Float = NDArray[np.float64]
Item = TypeVar("Item")
#: In-plane axes (u, v) and their signs for faces that look along x, y, z.
_PROJECTIONS = (((1, 1.0), (2, -1.0)), ((0, -1.0), (2, -1.0)), ((1, 1.0), (0, 1.0)))


class Maker:
    """Hands a kind its random choices and takes its solids.

    Attributes:
        rng: source of every variation; the same seed makes the same object.
        body: paint of the main surface, what the colour, material or pattern of the caption names.
        dark, light: flat accents that no caption names.
    """

    def __init__(self, body: Paint, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.body = body
        self.dark, self.light = Flat(DARK), Flat(CREAM)
        self._items: list[tuple[Solid, Paint, float]] = []

    def vary(self, low: float, high: float) -> float:
        """A number between ``low`` and ``high``."""
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return bool(self.rng.random() < probability)

    def pick(self, items: Sequence[Item]) -> Item:
        """One of the items."""
        return items[int(self.rng.integers(len(items)))]

    def add(self, *solids: Solid, paint: Paint | None = None, crease: float = 40.0) -> None:
        """Put solids into the model.

        Args:
            paint: ``body`` unless given. crease: angle in degrees above which an edge stays sharp.
        """
        self._items.append((join(*solids) if len(solids) > 1 else solids[0], paint or self.body, crease))

    def asset(self, name: str) -> Asset:
        """Everything that was added, centred, with radius 0.5, front +x, up +z."""
        points = np.concatenate([solid.vertices for solid, _, _ in self._items])
        centre = 0.5 * (points.min(axis=0) + points.max(axis=0))
        scale = 0.5 / float(np.linalg.norm(points - centre, axis=1).max())
        materials: list[Material] = [Material()]
        known: dict[int, int] = {}
        pieces = []
        for solid, paint, crease in self._items:
            placed = (solid.vertices - centre) * scale
            piece = _painted(placed, solid, paint, crease)
            index = 0
            if isinstance(paint, Texture | Picture):
                index = known.setdefault(id(paint), len(materials))
                if index == len(materials):
                    materials.append(_material(paint))
            pieces.append((*piece, np.full(len(piece[1]), index)))
        vertices, faces, normals, uvs, colors, owners = zip(*pieces)
        starts = np.cumsum([0, *(len(part) for part in vertices)])
        return Asset(
            name=name,
            vertices=np.concatenate(vertices).astype(np.float32),
            faces=np.concatenate([part + start for part, start in zip(faces, starts)]).astype(np.int32),
            normals=np.concatenate(normals).astype(np.float32),
            uvs=np.concatenate(uvs).astype(np.float32),
            colors=np.concatenate(colors).astype(np.float32),
            face_materials=np.concatenate(owners).astype(np.int32),
            materials=tuple(materials),
        )


def _material(paint: Texture | Picture) -> Material:
    opaque = np.full((*paint.image.shape[:2], 1), 255, np.uint8)
    wrap = "repeat" if isinstance(paint, Texture) else "clamp"
    return Material(texture=np.concatenate([paint.image, opaque], axis=2), wrap=wrap)  # type: ignore[arg-type]


def _painted(
    placed: Float, solid: Solid, paint: Paint, crease: float
) -> tuple[Float, NDArray[np.int64], Float, Float, Float]:
    """Vertices, faces, normals, uvs and RGBA colours of one solid in the finished frame."""
    source, faces, normals = creased(placed, solid.faces, crease)
    vertices = placed[source]
    uvs = np.zeros((len(vertices), 2)) if solid.uvs is None else solid.uvs[source]
    rgba = np.ones((len(vertices), 4))
    if isinstance(paint, Texture):
        vertices, faces, normals, uvs = _boxed(vertices, faces, normals, paint.period)
        rgba = np.ones((len(vertices), 4))
    elif isinstance(paint, Picture):
        if solid.uvs is None:
            raise ValueError("a picture needs a solid with texture coordinates, such as plate()")
    else:
        rgba[:, :3] = paint.colors(vertices, normals)
    return vertices, faces, normals, uvs, rgba


def _boxed(
    vertices: Float, faces: NDArray[np.int64], normals: Float, period: float
) -> tuple[Float, NDArray[np.int64], Float, Float]:
    """Texture coordinates by box projection; vertices are split where the axis changes."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    facing = np.cross(b - a, c - a)
    # A slight preference for the sides keeps bands level on rounded shoulders.
    axis = np.argmax(np.abs(facing) * (1.0, 1.0, 0.8), axis=1)
    keys, inverse = np.unique(faces * 3 + axis[:, None], return_inverse=True)
    source, chosen = keys // 3, keys % 3
    points, uvs = vertices[source], np.zeros((len(keys), 2))
    for which, ((u, u_sign), (v, v_sign)) in enumerate(_PROJECTIONS):
        rows = chosen == which
        uvs[rows] = np.stack([u_sign * points[rows, u], v_sign * points[rows, v]], axis=1) / period
    return points, inverse.reshape(-1, 3), normals[source], uvs
