"""Paint a mesh with pictures of the field that it came from.

A field that was distilled has no hard surface: a pixel shows a mean over some depth behind it, and the colour in the
points of one level is not that. So texels take the colour that pictures from all around show at their place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.cameras import focal_length, look_at
from threestudio_redream.errors import ConfigError, EmptySceneError
from threestudio_redream.meshing.preview import mesh_depths
from threestudio_redream.meshing.types import FloatArray, Mesh

__all__ = ["Pictures", "Projection", "ViewFn", "take_pictures"]

ViewFn: TypeAlias = Callable[[FloatArray, float, int], NDArray[np.floating]]
"""``(c2w [B, 4, 4], fovy_deg, side) -> [B, side, side, 4]``: sRGB-encoded colour premultiplied by opacity, and opacity,
in [0, 1], row 0 at the top."""

_Places: TypeAlias = NDArray[np.floating]

_FOVY_DEG = 40.0
_MARGIN = 1.05
_HIDDEN = 0.02  # of the mesh's radius: what lies farther behind what a camera sees does not show
_LEAST = 0.02  # weight of the given colour, which decides where no camera looks


@dataclass(frozen=True, eq=False)
class Pictures:
    """What a field looks like.

    Attributes:
        rgba: ``[B, S, S, 4]`` float32 in [0, 1], sRGB-encoded, premultiplied, row 0 at the top.
        c2w: ``[B, 4, 4]`` float32 camera-to-world matrices (:mod:`threestudio_redream.cameras`).
        fovy_deg: vertical field of view in degrees.
    """

    rgba: FloatArray
    c2w: FloatArray
    fovy_deg: float


def take_pictures(view_fn: ViewFn, mesh: Mesh, count: int = 24, side: int = 256) -> Pictures:
    """Square pictures of a field from directions spread evenly over the sphere, each filled by ``mesh``.

    Args:
        view_fn: draws the field. count: of pictures, 1 or more. side: pixels.

    Raises:
        ConfigError: ``view_fn`` returns another shape, or ``count`` or ``side`` is below 1.
        EmptySceneError: NaN in a picture.
    """
    if count < 1 or side < 1:
        raise ConfigError("There is nothing to look at", received=(count, side), fix="24 pictures of 256 are usual.")
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    centre = (low + high) / 2.0
    distance = _MARGIN * _radius(mesh) / np.sin(np.radians(_FOVY_DEG / 2.0))
    turn = np.arange(count) * np.pi * (3.0 - np.sqrt(5.0))  # golden angle
    height = 1.0 - (2.0 * np.arange(count) + 1.0) / count
    across = np.sqrt(1.0 - height**2)
    directions = np.stack([across * np.cos(turn), across * np.sin(turn), height], axis=1)
    c2w = look_at(centre + distance * directions, np.broadcast_to(centre, (count, 3)))
    rgba = np.asarray(view_fn(c2w, _FOVY_DEG, side), np.float32)
    if rgba.shape != (count, side, side, 4):
        raise ConfigError(
            "Pictures of a field must have the shape [B, S, S, 4]",
            received=rgba.shape,
            fix="Return colour premultiplied by opacity, then opacity.",
        )
    if np.isnan(rgba).any():
        raise EmptySceneError("The field's pictures hold NaN", fix="Use a checkpoint from before it diverged.")
    return Pictures(rgba.clip(0.0, 1.0), c2w, _FOVY_DEG)


class Projection:
    """Colours of points on a mesh as pictures show them.

    Args:
        mesh: hides what lies behind it.
    """

    def __init__(self, mesh: Mesh, pictures: Pictures) -> None:
        self._pictures = pictures
        side = pictures.rgba.shape[1]
        self._depths = mesh_depths(mesh, pictures.c2w, pictures.fovy_deg, side, side)
        self._hidden = _HIDDEN * _radius(mesh)

    def __call__(self, points: FloatArray, normals: FloatArray, colors: FloatArray) -> FloatArray:
        """Mean over the pictures that see a point, weighted by opacity and by the squared cosine between its normal
        and the way to the camera.

        Args:
            points, normals: ``[N, 3]``, world units, unit vectors. colors: ``[N, 3]`` in [0, 1], for points that
                hardly a picture sees.

        Returns:
            ``[N, 3]`` float32 in [0, 1].
        """
        total = np.concatenate([colors, np.ones_like(colors[:, :1])], axis=1) * np.float32(_LEAST)
        for rgba, c2w, depths in zip(self._pictures.rgba, self._pictures.c2w, self._depths, strict=True):
            to_camera = c2w[:3, 3] - points
            distance = np.linalg.norm(to_camera, axis=1)
            cosine = np.einsum("ni,ni->n", to_camera, normals) / np.maximum(distance, 1e-9)
            facing = np.flatnonzero(cosine > 0.0)
            row, column = self._pixels(points[facing], c2w, len(rgba))
            nearest = depths[_inside(row, len(rgba)), _inside(column, len(rgba))]
            seen = (nearest > 0.0) & (distance[facing] < nearest + self._hidden)
            weight = (cosine[facing[seen]] ** 2)[:, None]
            total[facing[seen]] += weight * _bilinear(rgba, row[seen], column[seen])
        return total[:, :3] / total[:, 3:]

    def _pixels(self, points: FloatArray, c2w: FloatArray, side: int) -> tuple[_Places, _Places]:
        """Row and column of points; pixel centres are whole numbers."""
        local = (points - c2w[:3, 3]) @ c2w[:3, :3]
        scale = focal_length(self._pictures.fovy_deg, side) / np.maximum(-local[:, 2], 1e-9)
        middle = 0.5 * side - 0.5
        return middle - local[:, 1] * scale, middle + local[:, 0] * scale


def _radius(mesh: Mesh) -> float:
    """Half the diagonal of the mesh's box, world units."""
    return float(np.linalg.norm(mesh.vertices.max(axis=0) - mesh.vertices.min(axis=0)) / 2.0)


def _inside(places: _Places, side: int) -> NDArray[np.intp]:
    return np.clip(np.rint(places), 0, side - 1).astype(np.intp)


def _bilinear(image: FloatArray, row: _Places, column: _Places) -> FloatArray:
    """``[H, W, C]`` at fractional places; the border goes on outside."""
    last = len(image) - 1
    row, column = np.clip(row, 0.0, last), np.clip(column, 0.0, last)
    top, left = row.astype(np.intp), column.astype(np.intp)
    bottom, right = np.minimum(top + 1, last), np.minimum(left + 1, last)
    down, across = (row - top)[:, None], (column - left)[:, None]
    upper = image[top, left] * (1.0 - across) + image[top, right] * across
    lower = image[bottom, left] * (1.0 - across) + image[bottom, right] * across
    return upper * (1.0 - down) + lower * down
