"""Rounded bodies of vehicles, and the windows, lamps and wheels that go onto them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tools.mini.kinds._accents import GLASS, LAMP, TAIL_LIGHT
from tools.mini.modelling import (
    Maker,
    Paint,
    Solid,
    box,
    disc,
    ellipsoid,
    loft,
    pair,
    revolve,
    sweep,
)
from tools.mini.modelling.shapes import outline_area

__all__ = [
    "bumper",
    "decal",
    "frame",
    "grille",
    "headlights",
    "hull",
    "mounted",
    "pane",
    "rounded",
    "tail_lights",
    "tyre",
    "wheels",
    "window",
]

Float = NDArray[np.float64]
Knots = Sequence[float] | float


def hull(
    x: tuple[float, float],
    half: Knots,
    low: Knots,
    high: Knots,
    *,
    end: float = 5.0,
    power: float = 4.5,
    lean: float = 0.0,
    rings: int = 10,
    around: int = 18,
) -> Solid:
    """A rounded body along x.

    Args:
        x: rear and front. half, low, high: half width, bottom and top, at equal steps from rear to front.
        end, power: squareness seen from the side at both ends, and of the cross-section.
        lean: share by which the top is narrower than the bottom.
    """
    u = np.sin(0.5 * np.pi * np.linspace(-1.0, 1.0, rings)) * 0.998

    def along(knots: Knots) -> Float:
        values = np.atleast_1d(np.asarray(knots, np.float64))
        place = 0.5 * (u + 1.0) * (len(values) - 1)
        first = np.clip(place.astype(int), 0, max(len(values) - 2, 0))
        share = place - first
        second = np.minimum(first + 1, len(values) - 1)
        return values[first] + (values[second] - values[first]) * share**2 * (3.0 - 2.0 * share)

    size = (1.0 - np.abs(u) ** end) ** (1.0 / end)
    angle = np.linspace(0.0, 2.0 * np.pi, around, endpoint=False) + np.pi / around
    ring_y, ring_z = (np.sign(f(angle)) * np.abs(f(angle)) ** (2.0 / power) for f in (np.cos, np.sin))
    bottom, top = along(low), along(high)
    y = (along(half) * size)[:, None] * ring_y * (1.0 - lean * (0.5 + 0.5 * ring_z))
    z = (0.5 * (bottom + top))[:, None] + (0.5 * (top - bottom) * size)[:, None] * ring_z
    at = 0.5 * (x[0] + x[1]) + 0.5 * (x[1] - x[0]) * u
    return loft(np.stack([np.broadcast_to(at[:, None], y.shape), y, z], axis=-1))


def _depth(onto: Solid, points: ArrayLike, axis: str, side: float) -> Float:
    """Where lines along an axis through the points meet the outermost surface.

    Args:
        points: ``[N, 2]``, the other two coordinates, in the order x, y, z.
        side: +1 or -1, from which end of the axis one looks.
    """
    k = "xyz".index(axis)
    i, j = (other for other in range(3) if other != k)
    p = np.asarray(points, np.float64)
    a, b, c = (onto.vertices[onto.faces[:, corner]] for corner in range(3))
    ab, ac = b - a, c - a
    area = ab[:, i] * ac[:, j] - ab[:, j] * ac[:, i]
    keep = area * side * (-1.0 if axis == "y" else 1.0) > 1e-12
    for column, values in ((i, p[:, 0]), (j, p[:, 1])):
        corners = onto.vertices[onto.faces, column]
        keep &= (corners.max(axis=1) >= values.min()) & (corners.min(axis=1) <= values.max())
    a, ab, ac, area = a[keep], ab[keep], ac[keep], area[keep]
    pi, pj = p[:, :1] - a[:, i], p[:, 1:] - a[:, j]
    s, t = (pi * ac[:, j] - pj * ac[:, i]) / area, (pj * ab[:, i] - pi * ab[:, j]) / area
    inside = (s > -1e-6) & (t > -1e-6) & (s + t < 1.0 + 1e-6)
    found = np.where(inside, side * (a[:, k] + s * ab[:, k] + t * ac[:, k]), -np.inf).max(axis=1)
    return side * np.where(np.isfinite(found), found, found[np.isfinite(found)].min())


def rounded(corners: ArrayLike, radius: float, count: int = 18) -> Float:
    """A polygon with round corners, ``count`` points along it."""
    points = np.asarray(corners, np.float64)
    share = np.linspace(0.0, 1.0, 5)[:, None]
    arcs = []
    for before, at, after in zip(np.roll(points, 1, 0), points, np.roll(points, -1, 0)):
        start, stop = (
            at + (other - at) * min(0.5, radius / max(float(np.linalg.norm(other - at)), 1e-9))
            for other in (before, after)
        )
        arcs.append((1 - share) ** 2 * start + 2 * share * (1 - share) * at + share**2 * stop)
    path = np.concatenate([*arcs, arcs[0][:1]])
    walked = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    steps = np.linspace(0.0, walked[-1], count, endpoint=False)
    return np.stack([np.interp(steps, walked, path[:, axis]) for axis in range(2)], axis=1)


def pane(u: tuple[float, float], v: tuple[float, float], radius: float = 0.05, slant: float = 0.0) -> Float:
    """Outline of a window from ``u[0]`` to ``u[1]``; ``slant`` moves its upper edge inwards on both sides."""
    corners = [(u[0], v[0]), (u[1], v[0]), (u[1] - slant, v[1]), (u[0] + slant, v[1])]
    return rounded(corners, radius)


def _raised(onto: Solid, curves: Sequence[Float], lifts: Sequence[float], axis: str, side: float) -> Float:
    """Curves seen along an axis (see :func:`_depth`) laid onto a body, each with its own height above it."""
    flip = (outline_area(curves[0]) < 0.0) != (side * (-1.0 if axis == "y" else 1.0) < 0.0)
    flat = np.stack(curves)[:, :: -1 if flip else 1]
    depth = _depth(onto, flat.reshape(-1, 2), axis, side).reshape(flat.shape[:2])
    return np.insert(flat, "xyz".index(axis), depth + side * np.asarray(lifts)[:, None], axis=2)


def decal(onto: Solid, outline: Float, axis: str, side: float, lift: float = 0.02) -> Solid:
    """A panel that follows a body."""
    centre = outline.mean(axis=0)
    # Ends of a hull are rounder than its sides: more curves keep it from poking through.
    sizes = (1.0, 0.95, 0.72, 0.35) if axis == "x" else (1.0, 0.95, 0.45)
    curves = [centre + size * (outline - centre) for size in sizes]
    return loft(_raised(onto, curves, [-1.5 * lift, 0.85 * lift, *(lift for _ in sizes[2:])], axis, side))


def frame(onto: Solid, outline: Float, axis: str, side: float, width: float) -> Solid:
    """A rim of that width around a panel."""
    centre = outline.mean(axis=0)
    reach = np.abs(outline - centre).max(axis=0)
    curves = [centre + (outline - centre) * (1.0 + grow / reach) for grow in (width, 0.8 * width, -0.3 * width)]
    return loft(_raised(onto, curves, [-0.02, 0.02, 0.02], axis, side), capped=False)


def window(make: Maker, onto: Solid, outline: Float, axis: str = "x", rim: float = 0.03) -> None:
    """A pane of glass with a dark rim: on the front (x) or on both sides (y)."""
    parts = [frame(onto, outline, axis, 1.0, rim), decal(onto, outline, axis, 1.0, 0.035)]
    for part, paint in zip(parts, (make.dark, GLASS)):
        make.add(pair(part) if axis == "y" else part, paint=paint, crease=60)


def mounted(onto: Solid, solid: Solid, y: float, z: float, side: float = 1.0) -> Solid:
    """A solid centred at the origin, put on the front (or rear, side -1) of a body."""
    return solid.moved(float(_depth(onto, [(y, z)], "x", side)[0]), y, z)


def tyre(radius: float, width: float, segments: int = 16) -> Solid:
    """Lies along y."""
    half, bevel = 0.5 * width, 0.28 * width
    ring = [(radius - bevel, -half), (radius, bevel - half), (radius, half - bevel), (radius - bevel, half)]
    return revolve([(0, -half), *ring, (0, half)], segments).turned("x", 90)


def wheels(
    make: Maker,
    places: Sequence[tuple[float, float]],
    radius: float,
    width: float,
    *,
    hub: Paint | None = None,
    rim: float = 0.62,
) -> None:
    """Pairs of wheels that stand on z = 0, at each (x, y of the middle of the tyre); ``rim``: radius of the hub."""
    profile = [(rim * radius, 0.0), (rim * radius - 0.02, 0.05), (0.45 * rim * radius, 0.04), (0, 0.08)]
    cap = revolve(profile, 12).turned("x", -90).moved(0, 0.5 * width - 0.025)
    rubber = tyre(radius, width)
    make.add(*(pair(rubber.moved(x, y, radius)) for x, y in places), paint=make.dark, crease=50)
    make.add(*(pair(cap.moved(x, y, radius)) for x, y in places), paint=hub or make.light, crease=30)


def grille(make: Maker, onto: Solid, y: float, z: tuple[float, float], bars: int, *, upright: bool = False) -> None:
    """A dark radiator on the front with pale bars."""
    high = z[1] - z[0]
    make.add(decal(onto, pane((-y, y), z, 0.35 * high), "x", 1.0, 0.03), paint=make.dark, crease=60)
    share = (np.arange(bars) + 1.0) / (bars + 1.0)
    if upright:
        places, bar = [(-y + 2.0 * y * at, 0.5 * (z[0] + z[1])) for at in share], box(0.07, 0.3 * y / bars, 0.74 * high)
    else:
        places, bar = [(0.0, z[0] + high * at) for at in share], box(0.07, 1.64 * y, 0.3 * high / bars)
    make.add(*(mounted(onto, bar, *place).moved(0.012) for place in places), paint=make.light)


def headlights(make: Maker, onto: Solid, y: float, z: float, radius: float) -> None:
    """Two big round lamps in dark rings."""
    ring = disc(1.22 * radius, 0.12, segments=16)
    lamp = ellipsoid(0.5 * radius, radius, radius, segments=10).moved(0.055)
    make.add(pair(mounted(onto, ring, y, z)), paint=make.dark)
    make.add(pair(mounted(onto, lamp, y, z)), paint=LAMP)


def tail_lights(make: Maker, onto: Solid, y: float, z: float) -> None:
    """Two small dark red lamps on the rear."""
    make.add(pair(mounted(onto, box(0.06, 0.09, 0.07, 0.025, steps=1), y, z, -1.0)), paint=TAIL_LIGHT)


def bumper(make: Maker, x: float, half: float, z: float, radius: float) -> None:
    """A bar across the front (x > 0) or the rear, its ends bent around the corners."""
    back = 0.16 * np.sign(x)
    path = [(x - back, -half, z), (x - 0.2 * back, -0.85 * half, z), (x, -0.6 * half, z), (x, 0.6 * half, z)]
    make.add(
        sweep([*path, (x - 0.2 * back, 0.85 * half, z), (x - back, half, z)], radius, sides=6),
        paint=make.light,
        crease=80,
    )
