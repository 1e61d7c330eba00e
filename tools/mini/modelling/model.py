"""The maker of one object: draws its variations, collects painted solids, and turns them into an asset."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets import Asset, Material
from threestudio_redream.errors import ConfigError, EmptySceneError
from tools.mini.modelling.normals import creased
from tools.mini.modelling.paint import CREAM, DARK, Flat, Paint, Picture, Texture
from tools.mini.modelling.solid import Solid, join

__all__ = ["Maker"]

Float = NDArray[np.float64]
Item = TypeVar("Item")
#: In-plane axes (u, v) and their signs for faces that look along x, y, z.
_PROJECTIONS = (((1, 1.0), (2, -1.0)), ((0, -1.0), (2, -1.0)), ((1, 1.0), (0, 1.0)))
#: Faces below this double area, in the finished frame, are left out: tips of tubes, poles. They have no normal.
_NO_AREA = 1e-13


class _Item(NamedTuple):
    """A solid in model units, its paint, and the angle in degrees above which its edges stay sharp."""

    solid: Solid
    paint: Paint
    crease: float


class _Piece(NamedTuple):
    """Painted geometry in the finished frame: ``[V, 3]``, ``[F, 3]``, ``[V, 3]``, ``[V, 2]``, RGBA ``[V, 4]``."""

    vertices: Float
    faces: NDArray[np.int64]
    normals: Float
    uvs: Float
    colors: Float


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
        self._items: list[_Item] = []

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

        Raises:
            ConfigError: no solid, or a picture on one without texture coordinates.
        """
        if not solids:
            raise ConfigError("Nothing was added to the model", received=solids, fix="Pass at least one solid.")
        solid = join(*solids) if len(solids) > 1 else solids[0]
        if isinstance(paint, Picture) and solid.uvs is None:
            raise ConfigError(
                "A picture needs a solid with texture coordinates",
                received=solid.vertices.shape,
                fix="Lay it on a plate(), or use a Texture, which needs none.",
            )
        self._items.append(_Item(solid, paint or self.body, crease))

    def asset(self, name: str) -> Asset:
        """Everything that was added, centred, with radius 0.5, front +x, up +z.

        Raises:
            EmptySceneError: nothing was added.
        """
        if not self._items:
            raise EmptySceneError("A model without solids has no shape", received=name, fix="Add a solid to it.")
        materials: list[Material] = [Material()]
        known: dict[int, int] = {}
        owners = []
        pieces = _painted_items(self._items)
        for (_, paint, _), piece in zip(self._items, pieces):
            index = 0
            if isinstance(paint, Texture | Picture):
                index = known.setdefault(id(paint), len(materials))
                if index == len(materials):
                    materials.append(_material(paint))
            owners.append(np.full(len(piece.faces), index))
        starts = np.cumsum([0, *(len(piece.vertices) for piece in pieces)])
        return Asset(
            name=name,
            vertices=np.concatenate([piece.vertices for piece in pieces]).astype(np.float32),
            faces=np.concatenate([piece.faces + start for piece, start in zip(pieces, starts)]).astype(np.int32),
            normals=np.concatenate([piece.normals for piece in pieces]).astype(np.float32),
            uvs=np.concatenate([piece.uvs for piece in pieces]).astype(np.float32),
            colors=np.concatenate([piece.colors for piece in pieces]).astype(np.float32),
            face_materials=np.concatenate(owners).astype(np.int32),
            materials=tuple(materials),
        )


def _material(paint: Texture | Picture) -> Material:
    opaque = np.full((*paint.image.shape[:2], 1), 255, np.uint8)
    wrap = "repeat" if isinstance(paint, Texture) else "clamp"
    return Material(texture=np.concatenate([paint.image, opaque], axis=2), wrap=wrap)  # type: ignore[arg-type]


def _painted_items(items: Sequence[_Item]) -> list[_Piece]:
    """The items in the finished frame, with normals and paint."""
    whole = join(*(item.solid for item in items))
    uvs = np.concatenate(
        [np.zeros((len(solid.vertices), 2)) if solid.uvs is None else solid.uvs for solid, _, _ in items]
    )
    centre = 0.5 * (whole.low + whole.high)
    placed = whole.vertices - centre
    placed = placed * (0.5 / float(np.linalg.norm(placed, axis=1).max()))
    solid = _double_areas(placed, whole.faces) > _NO_AREA
    owner = np.repeat(np.arange(len(items)), [len(item.solid.faces) for item in items])[solid]
    # All normals in one go: most solids are small, and no two share a vertex.
    source, faces, normals = creased(placed, whole.faces[solid], np.array([item.crease for item in items])[owner])
    rows = np.searchsorted(source, np.cumsum([0, *(len(item.solid.vertices) for item in items)]))
    pieces = []
    for index, (start, stop) in enumerate(pairwise(rows.tolist())):
        part, triangles = slice(start, stop), faces[owner == index] - start
        pieces.append(_painted(placed[source[part]], triangles, normals[part], uvs[source[part]], items[index].paint))
    return pieces


def _double_areas(vertices: Float, faces: NDArray[np.int64]) -> Float:
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    return np.linalg.norm(np.cross(b - a, c - a), axis=1)


def _painted(vertices: Float, faces: NDArray[np.int64], normals: Float, uvs: Float, paint: Paint) -> _Piece:
    if isinstance(paint, Texture):
        vertices, faces, normals, uvs = _boxed(vertices, faces, normals, paint.period)
    rgba = np.ones((len(vertices), 4))
    if not isinstance(paint, Texture | Picture):
        rgba[:, :3] = paint.colors(vertices, normals)
    return _Piece(vertices, faces, normals, uvs, rgba)


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
