"""Boxes, turned and lofted bodies, tubes, extrusions. Everything is centred at the origin unless it says otherwise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tools.mini.modelling.solid import Solid, join

__all__ = [
    "box",
    "cone",
    "cylinder",
    "disc",
    "ellipsoid",
    "extrude",
    "loft",
    "outline_area",
    "plate",
    "revolve",
    "sweep",
    "torus",
]

Float = NDArray[np.float64]
_UP = np.array([0.0, 0.0, 1.0])


def _skin(rings: int, around: int) -> NDArray[np.int64]:
    """Faces between rings of ``around`` vertices, closed around; rings run upwards, counter-clockwise from above."""
    index = np.arange(rings * around).reshape(rings, around)
    a, b = index[:-1], np.roll(index[:-1], -1, axis=1)
    c, d = index[1:], np.roll(index[1:], -1, axis=1)
    return np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([b, d, c], -1).reshape(-1, 3)])


def loft(sections: ArrayLike, *, capped: bool = True) -> Solid:
    """A skin over closed curves.

    Args:
        sections: ``[S, N, 3]``, each curve counter-clockwise seen from where the last one lies.
        capped: close both ends with a fan around their centre.
    """
    curves = np.asarray(sections, np.float64)
    rings, around = curves.shape[:2]
    vertices, faces = [curves.reshape(-1, 3)], [_skin(rings, around)]
    if capped:
        i = np.arange(around)
        j = np.roll(i, -1)
        vertices += [curves[0].mean(axis=0)[None], curves[-1].mean(axis=0)[None]]
        first, last = rings * around, rings * around + 1
        top = (rings - 1) * around
        faces += [np.stack([j, i, np.full_like(i, first)], -1), np.stack([top + i, top + j, np.full_like(i, last)], -1)]
    return Solid(np.concatenate(vertices), np.concatenate(faces))


def box(x: float, y: float, z: float, bevel: float = 0.0, *, steps: int = 2) -> Solid:
    """A box with edge lengths x, y, z; ``bevel`` rounds all edges with that radius."""
    half = 0.5 * np.array([x, y, z])
    bevel = float(min(bevel, 0.999 * half.min()))
    if bevel <= 0.0:
        signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)
        ring = np.concatenate([signs, np.zeros((4, 1))], axis=1)
        return loft(np.stack([(ring - _UP) * half, (ring + _UP) * half]))
    # Directions of a sphere whose latitudes and longitudes repeat where the flat sides go.
    arc = np.linspace(0.0, 0.5 * np.pi, steps + 1)
    longitude = np.concatenate([quarter * 0.5 * np.pi + arc for quarter in range(4)])
    latitude = np.concatenate([arc - 0.5 * np.pi, arc])
    directions = np.stack(
        [
            np.cos(latitude)[:, None] * np.cos(longitude)[None],
            np.cos(latitude)[:, None] * np.sin(longitude)[None],
            np.repeat(np.sin(latitude)[:, None], len(longitude), axis=1),
        ],
        axis=-1,
    )
    corner = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]], np.float64).repeat(steps + 1, axis=0)
    core = np.zeros_like(directions)
    core[..., :2] = corner[None] * (half[:2] - bevel)
    core[..., 2] = np.where(latitude[:, None] < 0.0, -1.0, 1.0) * (half[2] - bevel)
    core[steps, :, 2], core[steps + 1, :, 2] = -(half[2] - bevel), half[2] - bevel
    return loft(core + bevel * directions)


def revolve(profile: ArrayLike, segments: int = 24, *, degrees: float = 360.0) -> Solid:
    """A profile turned around the z axis.

    Args:
        profile: ``[P, 2]`` (radius, z) going **up**; start or end at radius 0 to close the body. Open
            profiles leave a hole; for a vessel let the profile come down again inside.
        segments: around the axis. degrees: less than 360 gives an open slice.
    """
    points = np.asarray(profile, np.float64)
    angle = np.linspace(0.0, np.deg2rad(degrees), segments, endpoint=degrees < 360.0)
    curves = np.stack(
        [
            points[:, :1] * np.cos(angle),
            points[:, :1] * np.sin(angle),
            np.repeat(points[:, 1:], segments, axis=1),
        ],
        axis=-1,
    )
    solid = loft(curves, capped=False)
    if degrees < 360.0:  # drop the faces that close the ring
        span = solid.faces % segments
        solid = Solid(solid.vertices, solid.faces[(span.max(axis=1) - span.min(axis=1)) <= 1])
    a, b, c = (solid.vertices[solid.faces[:, i]] for i in range(3))
    keep = np.linalg.norm(np.cross(b - a, c - a), axis=1) > 1e-12  # triangles at the poles
    return Solid(solid.vertices, solid.faces[keep])


def ellipsoid(x: float, y: float | None = None, z: float | None = None, *, segments: int = 20) -> Solid:
    """An ellipsoid with semi-axes x, y, z; one number gives a sphere."""
    latitude = np.linspace(-0.5 * np.pi, 0.5 * np.pi, segments // 2 + 1)
    ball = revolve(np.stack([np.cos(latitude), np.sin(latitude)], axis=1), segments)
    return ball.scaled(x, x if y is None else y, x if z is None else z)


def cylinder(radius: float, height: float, bevel: float = 0.0, *, segments: int = 24) -> Solid:
    """An upright cylinder; ``bevel`` rounds both rims."""
    half = 0.5 * height
    bevel = min(bevel, 0.999 * radius, 0.999 * half)
    if bevel <= 0.0:
        return revolve([(0, -half), (radius, -half), (radius, half), (0, half)], segments)
    arc = np.linspace(0.0, 0.5 * np.pi, 4)
    rim = np.stack([radius - bevel + bevel * np.sin(arc), -half + bevel - bevel * np.cos(arc)], axis=1)
    return revolve([(0, -half), *rim, *(rim[::-1] * (1, -1)), (0, half)], segments)


def cone(radius: float, height: float, top: float = 0.0, *, segments: int = 24) -> Solid:
    """An upright cone from ``radius`` at the bottom to ``top`` at height."""
    half = 0.5 * height
    end = [(top, half), (0.0, half)] if top > 0.0 else [(0.0, half)]
    return revolve([(0, -half), (radius, -half), *end], segments)


def torus(radius: float, thickness: float, *, segments: int = 28, sides: int = 10) -> Solid:
    """A ring around the z axis; ``thickness`` is the radius of the tube."""
    angle = np.linspace(0.0, 2.0 * np.pi, segments, endpoint=False)
    path = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.zeros(segments)], axis=1)
    return sweep(path, thickness, sides=sides, closed=True)


def sweep(path: ArrayLike, radius: ArrayLike, *, sides: int = 10, closed: bool = False, flat: float = 1.0) -> Solid:
    """A tube along a path with rounded ends.

    Args:
        path: ``[P, 3]`` points, not straight reversals.
        radius: one, or one per point (0 at an end makes a tip).
        closed: join the last point to the first.
        flat: factor on the tube's second axis; below 1 makes straps and blades.
    """
    points = np.asarray(path, np.float64)
    radii = np.broadcast_to(np.asarray(radius, np.float64), (len(points),)).copy()
    around = np.roll(points, -1, axis=0) - np.roll(points, 1, axis=0)
    tangents = around if closed else np.gradient(points, axis=0)
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    start = np.array([0.0, 1.0, 0.0]) if abs(tangents[0, 1]) < 0.9 else np.array([0.0, 0.0, 1.0])
    side = start - tangents[0] * (start @ tangents[0])
    frames = []
    for tangent in tangents:  # parallel transport: the tube does not twist
        side = side - tangent * (side @ tangent)
        side /= np.linalg.norm(side)
        frames.append((side, np.cross(tangent, side)))
    first, second = (np.stack(axes) for axes in zip(*frames))
    if not closed:  # round the ends off
        ends = np.deg2rad([90.0, 60.0, 30.0])
        points = np.concatenate(
            [
                points[0] - tangents[0] * (radii[0] * np.sin(ends))[:, None],
                points,
                points[-1] + tangents[-1] * (radii[-1] * np.sin(ends[::-1]))[:, None],
            ]
        )
        radii = np.concatenate([radii[0] * np.cos(ends), radii, radii[-1] * np.cos(ends[::-1])])
        first = np.concatenate([first[:1].repeat(3, 0), first, first[-1:].repeat(3, 0)])
        second = np.concatenate([second[:1].repeat(3, 0), second, second[-1:].repeat(3, 0)])
    angle = np.linspace(0.0, 2.0 * np.pi, sides, endpoint=False)
    ring = np.cos(angle)[None, :, None] * first[:, None] + flat * np.sin(angle)[None, :, None] * second[:, None]
    curves = points[:, None] + radii[:, None, None] * ring
    return loft(np.concatenate([curves, curves[:1]]), capped=False) if closed else loft(curves)


def disc(radius: float, thickness: float, bevel: float = 0.0, *, segments: int = 24) -> Solid:
    """A cylinder lying along x: wheels, dials, eyes. Its flat sides face +x and -x."""
    return cylinder(radius, thickness, bevel, segments=segments).turned("y", 90.0)


def plate(y: float, z: float, thickness: float = 0.0) -> Solid:
    """A rectangle in the plane x = 0 that faces +x and carries a picture upright; with ``thickness`` a slab behind it.

    The picture's left edge lies at -y, where a viewer in front of the object has the left.
    """
    half_y, half_z = 0.5 * y, 0.5 * z
    corners = np.array([(0, -half_y, half_z), (0, half_y, half_z), (0, half_y, -half_z), (0, -half_y, -half_z)])
    face = Solid(corners, np.array([[0, 2, 1], [0, 3, 2]]), np.array([(0, 0), (1, 0), (1, 1), (0, 1.0)]))
    if thickness <= 0.0:
        return face
    rest = box(thickness, y, z).moved(-0.5 * thickness - 1e-4)
    return join(face, Solid(rest.vertices, rest.faces, np.full((len(rest.vertices), 2), 0.02)))


def outline_area(outline: ArrayLike) -> float:
    """Signed area of ``[N, 2]``; positive when counter-clockwise."""
    x, y = np.asarray(outline, np.float64).T
    return float(0.5 * (x * np.roll(y, -1) - np.roll(x, -1) * y).sum())


def extrude(outline: ArrayLike, depth: float, bevel: float = 0.0) -> Solid:
    """A flat shape with thickness: the outline lies in the plane x = 0 as (y, z), half of ``depth`` on either side.

    Args:
        outline: ``[N, 2]`` simple polygon, convex or not, either direction.
        bevel: chamfer of the rims, small against the shape.
    """
    points = np.asarray(outline, np.float64)
    if outline_area(points) < 0.0:
        points = points[::-1]
    inner = points if bevel <= 0.0 else _inset(points, bevel)
    half = 0.5 * depth
    levels = [(inner, -half), (points, -half + bevel), (points, half - bevel), (inner, half)]
    if bevel <= 0.0:
        levels = [(points, -half), (points, half)]
    curves = np.stack([np.column_stack([np.full(len(ring), x), ring]) for ring, x in levels])
    skin = loft(curves, capped=False)
    triangles = _triangulate(inner)
    last = (len(levels) - 1) * len(points)
    return Solid(skin.vertices, np.concatenate([skin.faces, triangles[:, ::-1], triangles + last]))


def _inset(points: Float, distance: float) -> Float:
    """Each vertex moved inwards along the bisector of its corner."""
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    normals = [np.stack([-edge[:, 1], edge[:, 0]], axis=1) for edge in (before, after)]
    normals = [normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12) for normal in normals]
    bisector = normals[0] + normals[1]
    scale = 2.0 / np.maximum((bisector**2).sum(axis=1, keepdims=True), 0.5)
    return points + distance * bisector * scale


def _triangulate(points: Float) -> NDArray[np.int64]:
    """Ear clipping of a counter-clockwise simple polygon."""

    def turn(a: Sequence[float], b: Sequence[float], c: Sequence[float]) -> float:
        return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])

    rest, corners, triangles = list(range(len(points))), points.tolist(), []
    while len(rest) > 3:
        for at in range(len(rest)):
            i, j, k = rest[at - 1], rest[at], rest[(at + 1) % len(rest)]
            a, b, c = corners[i], corners[j], corners[k]
            if turn(a, b, c) <= 1e-14:
                continue
            inside = (
                turn(a, b, corners[p]) > 0 and turn(b, c, corners[p]) > 0 and turn(c, a, corners[p]) > 0
                for p in rest
                if p not in (i, j, k)
            )
            if not any(inside):
                triangles.append((i, j, k))
                rest.pop(at)
                break
        else:  # nothing but degenerate corners left
            rest.pop(0)
    return np.array([*triangles, tuple(rest)], np.int64)
