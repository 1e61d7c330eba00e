"""Procedural solids with smooth normals and texture coordinates, for the sample asset.

All shapes are closed, centred at the origin unless said otherwise, +y up, with faces counter-clockwise
from outside. Texture coordinates fill [0, 1]^2 of a rectangle that the caller places in an atlas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from threestudio_redream.assets.assemble import Part

__all__ = ["Rect", "capsule_profile", "moved", "revolve", "rounded_box", "turn_y_to"]

Float = NDArray[np.float64]
#: Left, top, width and height of an atlas region, in [0, 1], v down.
Rect = tuple[float, float, float, float]

#: Faces of a box: outward axis, direction of u, direction of v (down in the image).
_SIDES: dict[str, tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]] = {
    "front": ((0, 0, 1), (1, 0, 0), (0, -1, 0)),
    "back": ((0, 0, -1), (-1, 0, 0), (0, -1, 0)),
    "right": ((1, 0, 0), (0, 0, -1), (0, -1, 0)),
    "left": ((-1, 0, 0), (0, 0, 1), (0, -1, 0)),
    "top": ((0, 1, 0), (1, 0, 0), (0, 0, 1)),
    "bottom": ((0, -1, 0), (1, 0, 0), (0, 0, -1)),
}


def _grid(rows: int, columns: int) -> NDArray[np.int64]:
    """``[2 * (rows-1) * (columns-1), 3]`` faces over a grid of vertices, columns fastest, u right, v down."""
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    return np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])


def _in_rect(uv: Float, rect: Rect) -> Float:
    return uv * (rect[2], rect[3]) + (rect[0], rect[1])


def rounded_box(size: Sequence[float], radius: float, steps: int, rects: dict[str, Rect]) -> list[Part]:
    """Six parts of a box with rounded edges.

    Args:
        size: edge lengths (x, y, z). radius: of the rounding, at most half the shortest edge.
        steps: quads along each edge. rects: atlas region of each side: front (+z), back, right (+x),
            left, top, bottom.
    """
    half = 0.5 * np.asarray(size, np.float64)
    # Half of the grid lines go to the rounding, where the surface bends.
    ramp = np.sin(np.linspace(-0.5 * np.pi, 0.5 * np.pi, steps + 1))
    parts = []
    for side, axes in _SIDES.items():
        outward, right, down = (np.array(axis, np.float64) for axis in axes)
        u, v = np.meshgrid(ramp, ramp)
        cube = (outward + u[..., None] * right + v[..., None] * down).reshape(-1, 3) * half
        core = np.clip(cube, -(half - radius), half - radius)
        normal = cube - core
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        uv = 0.5 + 0.5 * np.stack([u, v], -1).reshape(-1, 2)
        parts.append(Part(core + radius * normal, _grid(steps + 1, steps + 1), 0, normal, _in_rect(uv, rects[side])))
    return parts


def revolve(profile: ArrayLike, segments: int, rect: Rect) -> Part:
    """Turn a profile around the y axis.

    Args:
        profile: ``[P, 2]`` (radius, y) from top to bottom, smooth, radius 0 at both ends.
        segments: around. rect: u runs around, v along the profile.
    """
    profile = np.asarray(profile, np.float64)
    tangent = np.gradient(profile, axis=0)
    slope = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)  # (radial, y) of the normal
    slope /= np.linalg.norm(slope, axis=1, keepdims=True)
    angle = np.linspace(0.0, 2.0 * np.pi, segments + 1)  # starts at the back, so that the seam does not face the viewer
    around = np.stack([-np.sin(angle), np.zeros_like(angle), -np.cos(angle)], axis=1)
    up = np.array([0.0, 1.0, 0.0])
    vertices = profile[:, :1, None] * around[None] + profile[:, 1:, None] * up
    normals = slope[:, :1, None] * around[None] + slope[:, 1:, None] * up
    u, v = np.meshgrid(np.linspace(0, 1, segments + 1), np.linspace(0, 1, len(profile)))
    uv = np.stack([u, v], -1).reshape(-1, 2)
    faces = _grid(len(profile), segments + 1)
    return Part(vertices.reshape(-1, 3), faces, 0, normals.reshape(-1, 3), _in_rect(uv, rect))


def capsule_profile(radius: float, length: float, steps: int, ribs: float = 0.0) -> Float:
    """``[P, 2]`` profile of a capsule of total ``length`` centred at 0; ``ribs`` adds rings of that height."""
    arc = np.linspace(0.5 * np.pi, 0.0, steps + 1)
    straight = max(length - 2.0 * radius, 0.0)
    cap = np.stack([radius * np.cos(arc), radius * np.sin(arc) + 0.5 * straight], axis=1)
    middle = np.linspace(0.5 * straight, -0.5 * straight, 2 * steps + 1)[1:-1] if straight > 0.0 else np.zeros(0)
    swell = radius + ribs * np.sin(np.linspace(0, 6 * np.pi, len(middle) + 2)[1:-1]) ** 2
    return np.concatenate([cap, np.stack([swell, middle], axis=1), cap[::-1] * (1.0, -1.0)])


def turn_y_to(direction: ArrayLike) -> Float:
    """``[3, 3]`` rotation that takes +y to ``direction`` and keeps the seam of :func:`revolve` behind if it can."""
    up = np.asarray(direction, np.float64)
    up = up / np.linalg.norm(up)
    front = np.array([0.0, 0.0, 1.0]) if abs(up[2]) < 0.9 else np.array([0.0, 1.0, 0.0])
    right = np.cross(up, front)
    right /= np.linalg.norm(right)
    return np.stack([right, up, np.cross(right, up)], axis=1)


def moved(part: Part, offset: Sequence[float], rotation: Float | None = None) -> Part:
    """``part`` rotated about the origin, then moved."""
    turn = np.eye(3) if rotation is None else rotation
    normals = None if part.normals is None else part.normals @ turn.T
    return replace(part, vertices=part.vertices @ turn.T + np.asarray(offset), normals=normals)
