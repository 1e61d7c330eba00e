"""Airplane, sailboat, rocket, helicopter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tools.mini.kinds._accents import GLASS
from tools.mini.kinds.registry import kind
from tools.mini.modelling import (
    Flat,
    Maker,
    Solid,
    box,
    cylinder,
    disc,
    ellipsoid,
    extrude,
    join,
    loft,
    pair,
    revolve,
    sweep,
    torus,
)

GREY = Flat((0.27, 0.28, 0.32))


def _tube(stations: Sequence[tuple[float, float, float, float]], power: float = 1.0) -> Solid:
    """A body along x: stations of (x, z of the centre, half width, half height), x rising; power < 1 squares it."""
    angle = np.linspace(0.0, 2.0 * np.pi, 18, endpoint=False)
    y, z = (np.sign(wave) * np.abs(wave) ** power for wave in (np.cos(angle), np.sin(angle)))
    return loft([np.column_stack([np.full(18, x), w * y, c + h * z]) for x, c, w, h in stations])


def _wing(half: float, chord: float, thick: float, *, taper: float = 0.3, sweep: float = 0.1) -> Solid:
    """A wing along y through the origin, of span ``2 * half``, with rounded tips; it narrows and sweeps back."""
    angle = np.linspace(0.0, 2.0 * np.pi, 10, endpoint=False)
    curves = []
    for share in np.array([-1.0, -0.96, -0.8, 0.0, 0.8, 0.96, 1.0]):
        out = abs(share)
        tip = max(1.0 - out**8, 0.0) ** 0.5
        reach = 0.5 * chord * (1.0 - taper * out) * max(tip, 0.05)
        x = -sweep * out - reach * np.cos(angle)
        z = 0.5 * thick * (1.0 - 0.4 * out) * max(tip, 0.05) * np.sin(angle) * (1.0 - 0.35 * np.cos(angle))
        curves.append(np.column_stack([x, np.full(10, share * half), z]))
    return loft(curves)


def _blades(count: int, length: float, width: float, thick: float, start: float) -> Solid:
    """Propeller blades in the plane x = 0, rounded, broad towards their ends."""
    blade = ellipsoid(thick, width, 0.5 * length, segments=10).moved(0, 0, 0.5 * length)
    return join(*(blade.turned("x", start + 360.0 * index / count) for index in range(count)))


@kind("airplane", front=True, tags=("vehicle", "aircraft"), synonyms=("plane", "aeroplane"))
def airplane(make: Maker) -> None:
    """A plump propeller plane: cowled nose with a big propeller, windscreen behind it, tail fin at the back."""
    fat, tail = make.vary(0.31, 0.36), make.vary(0.70, 0.82)
    nose = 0.60
    make.add(
        _tube(
            [
                (-tail, 0.13, 0.035, 0.05),
                (-0.93 * tail, 0.12, 0.075, 0.095),
                (-0.6 * tail, 0.07, 0.55 * fat, 0.60 * fat),
                (-0.3 * tail, 0.03, 0.82 * fat, 0.85 * fat),
                (0.0, 0.01, 0.97 * fat, 0.98 * fat),
                (0.25, 0.0, fat, fat),
                (0.45, 0.0, 0.97 * fat, 0.97 * fat),
                (nose - 0.03, 0.0, 0.86 * fat, 0.86 * fat),
                (nose, 0.0, 0.76 * fat, 0.76 * fat),
            ]
        )
    )
    ring = torus(0.72 * fat, 0.055, segments=20, sides=6).turned("y", 90)
    make.add(ring.moved(nose), paint=make.pick((make.light, None, None)))
    make.add(disc(0.66 * fat, 0.05).moved(nose), paint=make.dark)
    make.add(ellipsoid(0.15, 0.1, 0.1, segments=14).moved(nose + 0.06), paint=make.light)
    blades = make.pick((2, 3, 3, 4))
    start = make.vary(0, 360)
    make.add(_blades(blades, make.vary(0.40, 0.45), 0.065, 0.025, start).moved(nose + 0.1), paint=GREY)

    deck = 0.72 * fat
    make.add(ellipsoid(0.24, 0.72 * fat, 0.23, segments=18).moved(0.15, 0, deck), paint=GLASS)
    make.add(ellipsoid(make.vary(0.34, 0.42), 0.78 * fat, 0.26, segments=18).moved(-0.14, 0, deck - 0.01))
    hoop = torus(1.0, 0.055, segments=18, sides=5).turned("y", 90).scaled(0.5, 0.72 * fat, 0.23)
    make.add(hoop.moved(0.13, 0, deck), paint=make.light)
    bar = torus(1.0, 0.07, segments=18, sides=5).turned("x", 90).scaled(0.24, 0.25, 0.23)
    make.add(bar.moved(0.15, 0, deck), paint=make.light)

    span, chord = make.vary(0.74, 0.84), make.vary(0.44, 0.54)
    taper, swept, rise = make.vary(0.1, 0.45), make.vary(0.0, 0.12), make.vary(4, 10)
    style = make.pick(("low", "low", "low", "bi"))
    wing = _wing(span, chord, 0.19, taper=taper, sweep=swept)
    make.add(_raised(wing, rise).moved(0.10, 0, -0.45 * fat))
    if style == "bi":
        above = deck + 0.30
        make.add(wing.scaled(0.92).moved(0.18, 0, above))
        strut = sweep([(0.1, 0.55 * span, -0.4 * fat), (0.16, 0.55 * span, above)], 0.032, sides=6)
        make.add(pair(strut), paint=make.light)

    fin_root, fin_top = make.vary(0.34, 0.42), make.vary(0.38, 0.46)
    fin = _wing(fin_top, fin_root, 0.14, taper=make.vary(0.25, 0.5), sweep=make.vary(0.08, 0.2)).turned("x", 90)
    fin = fin.warped(lambda p: p * np.where(p[:, 2:] < 0.0, (1.0, 1.0, 0.1), (1.0, 1.0, 1.0)))
    make.add(fin.moved(-tail + 0.5 * fin_root + 0.02, 0, 0.15))
    make.add(_wing(make.vary(0.32, 0.40), 0.28, 0.11, taper=0.3, sweep=0.06).moved(-tail + 0.18, 0, 0.15))

    if make.chance(0.25):  # floats
        boat = ellipsoid(0.48, 0.10, 0.10, segments=16).moved(0.18, 0.26, -fat - 0.24)
        make.add(pair(boat), paint=make.light)
        make.add(pair(sweep([(0.15, 0.15, -0.7 * fat), (0.15, 0.26, -fat - 0.2)], 0.04, sides=8)), paint=GREY)
    else:
        drop = -fat - 0.12
        make.add(pair(sweep([(0.24, 0.12, -0.7 * fat), (0.26, 0.24, drop)], 0.035, sides=8)), paint=make.light)
        wheel = cylinder(0.12, 0.10, 0.04, segments=18).turned("x", 90).moved(0.26, 0.27, drop)
        make.add(pair(wheel), paint=make.dark)
        make.add(pair(ellipsoid(0.055, 0.02, 0.055, segments=10).moved(0.26, 0.32, drop)), paint=make.light)


def _raised(wing: Solid, degrees: float) -> Solid:
    """Wing tips lifted."""
    slope = np.tan(np.deg2rad(degrees))
    return wing.warped(lambda p: p + np.abs(p[:, 1:2]) * (0.0, 0.0, slope))


def _sail(chord: float, tip: float, height: float, belly: float, thick: float = 0.03) -> Solid:
    """A hollow of cloth: its luff stands on the z axis, its foot runs to -x; it bulges towards +y."""
    share = np.linspace(0.0, 1.0, 7)
    curves = []
    for up in np.linspace(0.0, 1.0, 8):
        length = tip + (chord - tip) * (1.0 - up**1.25)
        bulge = 0.5 * thick * np.sin(np.pi * share) ** 0.5
        x, z = -length * share, np.full(7, up * height)
        outer, inner = np.column_stack([x, bulge, z]), np.column_stack([x, -bulge, z])[::-1]
        curves.append(np.concatenate([outer, inner[1:-1]]))
    return _bellied(loft(curves), chord, height, belly)


def _bellied(flat: Solid, chord: float, height: float, belly: float) -> Solid:
    def push(points: NDArray[np.float64]) -> NDArray[np.float64]:
        along, up = np.clip(-points[:, 0] / chord, 0, 1), np.clip(points[:, 2] / height, 0, 1)
        depth = belly * 4.0 * along * (1.0 - along) * (1.0 - 0.7 * up)
        return points + np.column_stack([np.zeros_like(depth), depth, np.zeros_like(depth)])

    return flat.warped(push)


@kind("sailboat", front=True, tags=("vehicle", "boat"), synonyms=("sailing boat", "yacht"))
def sailboat(make: Maker) -> None:
    """A tubby boat with two bellied sails and big eyes (or round anchor badges) on its bow."""
    long, wide, deep = make.vary(0.62, 0.70), make.vary(0.40, 0.45), make.vary(0.44, 0.52)
    blunt, sheer = make.vary(2.0, 2.4), make.vary(0.08, 0.14)

    def half_width(x: float) -> float:
        if x > 0.0:
            return wide * max(1.0 - (x / long) ** blunt, 0.0) ** 0.55
        return wide * (1.0 - 0.28 * (x / long) ** 2)

    def rim(x: float) -> float:
        return sheer * (x / long + 0.15) ** 2 * (1.6 if x > 0 else 0.6)

    angle = np.linspace(0.0, np.pi, 13)
    curves, deck = [], []
    stations = long * np.array([-0.9, -0.88, -0.6, -0.2, 0.15, 0.45, 0.68, 0.84, 0.93, 0.98, 1.0])
    for x in stations:
        w, top = max(half_width(x), 0.015), rim(x)
        depth = (deep + top) * (1.0 - 0.45 * max(x / long, 0.0) ** 3 - 0.15 * max(-x / long, 0.0) ** 2)
        y = -np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** 0.55 * w
        z = top - depth * np.sin(angle) ** 0.75
        # Below the rim the bow rakes back.
        rake = 0.16 * (top - z) / deep * max(x / long, 0.0) ** 2
        curves.append(np.column_stack([x - rake, y, z]))
        deck.append([(x, -w, top), (x, w, top)])
    make.add(loft(curves), crease=50)
    edge = np.array([row[0] for row in deck] + [row[1] for row in deck[::-1]])
    make.add(sweep(edge, 0.034, sides=8, closed=True), paint=make.light if make.chance(0.6) else make.dark)

    side = make.pick((-1.0, 1.0))
    mast_x, mast_top = make.vary(0.02, 0.12), make.vary(1.02, 1.16)
    make.add(sweep([(mast_x, 0, -0.1), (mast_x, 0, 0.5), (mast_x, 0, mast_top)], 0.035, sides=8), paint=GREY)
    make.add(ellipsoid(0.055, segments=10).moved(mast_x, 0, mast_top + 0.03), paint=make.light)
    chord, height, belly = make.vary(0.68, 0.78), mast_top - 0.24, make.vary(0.10, 0.16)
    turn = make.vary(30, 42)

    def trimmed(solid: Solid) -> Solid:
        return solid.scaled(1, side, 1).turned("z", -side * turn).moved(mast_x - 0.02, 0, 0.2)

    swapped = make.chance(0.35)
    main, fore = (None, make.light) if swapped else (make.light, None)
    make.add(trimmed(_sail(chord, 0.03, height, belly)), paint=main, crease=60)
    make.add(trimmed(sweep([(0, 0, -0.03), (-chord, 0, -0.03)], 0.032, sides=8)), paint=GREY)
    emblem = make.pick(("dot", "ring", "bands"))
    if emblem == "bands":
        for low, high in ((0.18, 0.32), (0.46, 0.60)):
            make.add(trimmed(_band(chord, height, belly, low, high)), paint=fore, crease=60)
    else:
        hole = 0.11 if emblem == "ring" else 0.0
        rings = [(hole, -0.03), (0.12, -0.03), (0.18, -0.03), (0.18, 0.03), (0.12, 0.03), (hole, 0.03)]
        mark = revolve([*rings, rings[0]], 18).turned("x", 90).moved(-0.33 * chord, 0, 0.33 * height)
        make.add(trimmed(_bellied(mark, chord, height, belly)), paint=fore)
    jib = _sail(make.vary(0.48, 0.56), 0.02, 0.8 * mast_top, 0.08)
    lean = np.rad2deg(np.arctan2(long - 0.08 - mast_x, 0.85 * mast_top))
    # Wing on wing: the second sail swings out to the other side, so that one of them is always seen flat.
    jib = jib.scaled(1, -side, 1).turned("z", side * make.vary(24, 34))
    make.add(jib.turned("y", -lean).moved(long - 0.06, 0, rim(long) + 0.03), paint=fore, crease=60)

    at, size = make.vary(0.80, 0.85) * long, make.vary(0.125, 0.145)
    step = 0.02
    flank = half_width(at)
    facing = np.rad2deg(np.arctan2(2 * step, half_width(at - step) - half_width(at + step)))
    height_at = rim(at) - 0.2
    if make.chance(0.65):
        ball = ellipsoid(0.06, size, 1.1 * size, segments=14).turned("z", facing - 8)
        make.add(pair(ball.moved(at - 0.02, flank - 0.03, height_at)), paint=make.light)
        pupil = ellipsoid(0.05, 0.55 * size, 0.68 * size, segments=12).turned("z", facing - 14)
        make.add(pair(pupil.moved(at + 0.025, flank + 0.005, height_at - 0.01)), paint=make.dark)
    else:
        badge = disc(1.15 * size, 0.09, 0.02, segments=20)
        anchor = extrude(_anchor(1.15 * size), 0.05).moved(0.04)
        for part, paint in ((badge, make.light), (anchor, make.dark)):
            make.add(pair(part.turned("z", facing - 6).moved(at - 0.02, flank - 0.015, height_at)), paint=paint)


def _band(chord: float, height: float, belly: float, low: float, high: float) -> Solid:
    """A stripe across the sail between two shares of its height."""
    share = np.linspace(0.0, 1.0, 7)
    curves = []
    for up in np.linspace(low, high, 3):
        length = 0.03 + (chord - 0.03) * (1.0 - up**1.25)
        x, z = -length * share, np.full(7, up * height)
        thick = np.full(7, 0.03)
        curves.append(np.concatenate([np.column_stack([x, thick, z]), np.column_stack([x, -thick, z])[::-1]]))
    return _bellied(loft(curves), chord, height, belly)


def _anchor(size: float) -> list[tuple[float, float]]:
    """An outline of half height ``size``."""
    half = [(0.16, 0.72), (0.16, 0.4), (0.45, 0.4), (0.45, 0.14), (0.16, 0.14), (0.16, -0.35)]
    half += [(0.42, -0.12), (0.66, -0.1), (0.5, -0.5), (0.0, -0.78)]
    outline = half + [(-y, z) for y, z in half[-2::-1]]
    return [(size * y, size * z) for y, z in outline]


@kind("rocket", front=False, tags=("vehicle", "space"), synonyms=("rocket ship", "spaceship"))
def rocket(make: Maker) -> None:
    """A plump rocket on swept fins, a ring of portholes around its belly, a nozzle below."""
    fat, tall = make.vary(0.30, 0.37), make.vary(1.15, 1.35)
    pointed = make.vary(1.6, 2.4)
    share = np.linspace(0.0, 1.0, 14)
    # Widest at 40 % of the height, drawn in a little at the tail.
    below, above = np.clip((0.4 - share) / 0.4, 0, 1), np.clip((share - 0.4) / 0.6, 0, 1)
    radius = 1.0 - 0.38 * below**2 - above**pointed
    profile = np.column_stack([fat * radius, tall * share])

    def girth(up: float) -> float:
        return float(np.interp(up, share, fat * radius))

    make.add(revolve([(0, 0), *profile], 22), crease=50)
    cap = make.vary(0.80, 0.86)
    tip = np.linspace(cap, 1.0, 7)
    style = make.pick(("tip", "tip", "ball"))
    if style == "tip":
        foot = tall * cap - 0.005
        rows = [(girth(up) + 0.014 * (up < 1), tall * up + 0.014) for up in tip]
        hat = revolve([(0, foot), (girth(cap) - 0.02, foot), *rows], 22)
        make.add(hat, paint=make.pick((make.light, make.dark)), crease=50)
    else:
        make.add(ellipsoid(0.07, segments=12).moved(0, 0, tall + 0.01), paint=make.light)
    for up in make.pick(((0.12,), (0.70,), (0.12, 0.70), ())):
        ring = torus(girth(up), 0.028, segments=22, sides=6)
        make.add(ring.moved(0, 0, tall * up), paint=make.light)
    nozzle = [(0, -0.02), (0.5 * fat, 0.0), (0.62 * fat, -0.02), (0.75 * fat, -0.12), (0.62 * fat, -0.12), (0, -0.06)]
    make.add(revolve([*nozzle[:0:-1], (0, 0.02)], 22), paint=make.dark)

    count = make.pick((3, 4, 4, 5))
    start, reach, low = make.vary(0, 90), make.vary(0.30, 0.40), make.vary(0.14, 0.24)
    root, crook = make.vary(0.42, 0.52), make.vary(0.0, 0.12)
    outline = [
        (0.35 * fat, 0.05),
        (0.85 * fat, 0.03),
        (fat + 0.45 * reach, -0.04 - 0.3 * low),
        (fat + 0.82 * reach, -low),
        (fat + reach, -low + 0.02),
        (fat + 1.02 * reach, -low + 0.16),
        (fat + 0.85 * reach, 0.16 + crook),
        (fat + 0.45 * reach, 0.32 + crook),
        (0.92 * fat, root + 0.05),
        (0.5 * fat, root),
    ]
    fin = extrude(outline, 0.10, 0.035)
    fins = join(*(fin.turned("z", start + 360.0 * index / count) for index in range(count)))
    make.add(fins, paint=make.pick((None, None, None, make.light, GREY)), crease=50)

    level = make.vary(0.48, 0.55)
    hole = make.vary(0.115, 0.135)
    slope = np.rad2deg(np.arctan2(girth(level - 0.03) - girth(level + 0.03), 0.06 * tall))
    frame = torus(hole, 0.035, segments=16, sides=6).turned("y", 90)
    pane = ellipsoid(0.045, hole, hole, segments=12)
    windows = make.pick((3, 4, 4))
    for part, paint in ((frame, make.light), (pane, GLASS)):
        placed = part.turned("y", -slope).moved(girth(level) - 0.01, 0, tall * level)
        make.add(join(*(placed.turned("z", 30 + 360.0 * i / windows) for i in range(windows))), paint=paint)


@kind("helicopter", front=True, tags=("vehicle", "aircraft"), synonyms=("chopper",))
def helicopter(make: Maker) -> None:
    """A bubble cockpit in front, a fat cabin, a short boom with a tail rotor, short broad rotor blades, skids."""
    wide, high, boom = make.vary(0.38, 0.43), make.vary(0.40, 0.45), make.vary(0.86, 0.98)
    rise, stub = make.vary(0.12, 0.24), make.vary(0.105, 0.13)
    front = [(0.5 * np.cos(a), 0.0, wide * np.sin(a), high * np.sin(a)) for a in np.linspace(1.35, 0.02, 8)]
    make.add(
        _tube(
            [
                (-boom, rise, 0.6 * stub, 0.6 * stub),
                (-0.98 * boom, rise, 0.85 * stub, 0.85 * stub),
                (-0.7 * boom, 0.8 * rise, stub, stub),
                (-0.48, 0.35 * rise, 1.35 * stub, 1.35 * stub),
                (-0.38, 0.25 * rise, 0.55 * wide, 0.55 * high),
                (-0.26, 0.1 * rise, 0.82 * wide, 0.82 * high),
                (-0.12, 0.0, 0.95 * wide, 0.96 * high),
                (0.0, 0.0, wide, high),
                *front,
            ]
        )
    )
    make.add(ellipsoid(0.28, 0.2, 0.15, segments=16).moved(-0.12, 0, high - 0.03))
    # Sits a little in front of the cabin, so that it shows on the front alone; the chin below stays painted.
    glass_wide, glass_high, lift = 0.80 * wide, 0.64 * high, 0.24 * high
    make.add(ellipsoid(0.38, glass_wide, glass_high, segments=18).moved(0.165, 0, lift), paint=GLASS)
    frame = make.pick((make.light, make.dark))
    post = torus(1.0, 0.05, segments=24, sides=5).turned("x", 90).scaled(0.38, 0.6, glass_high)
    make.add(post.moved(0.165, 0, lift), paint=frame)
    if make.chance(0.4):
        belt = torus(1.0, 0.05, segments=24, sides=5).scaled(0.38, glass_wide, 0.6)
        make.add(belt.moved(0.165, 0, lift), paint=frame)
    if make.chance(0.6):
        make.add(ellipsoid(0.07, 0.09, 0.09, segments=12).moved(0.42, 0, -0.42 * high), paint=Flat((0.98, 0.93, 0.66)))
    if make.chance(0.6):  # a porthole in the side of the cabin
        pane = ellipsoid(0.10, 0.04, 0.11, segments=12).moved(-0.08, wide - 0.035, 0.10)
        make.add(pair(pane), paint=GLASS)

    fin_high = make.vary(0.30, 0.38)
    fin = _wing(fin_high, 0.30, 0.12, taper=0.4, sweep=make.vary(0.10, 0.18)).turned("x", 90)
    fin = fin.warped(lambda p: p * np.where(p[:, 2:] < 0.0, (1.0, 1.0, 0.45), (1.0, 1.0, 1.0)))
    make.add(fin.moved(-boom + 0.02, 0, rise))
    make.add(_wing(make.vary(0.26, 0.32), 0.20, 0.08, taper=0.2, sweep=0.04).moved(-0.78 * boom, 0, 0.8 * rise))
    side = make.pick((-1.0, 1.0))
    small = _blades(make.pick((2, 3, 4)), 0.2, 0.05, 0.02, make.vary(0, 180)).turned("z", 90)
    make.add(small.moved(-boom, side * 0.12, rise + 0.05), paint=make.light)
    make.add(disc(0.045, 0.14, segments=12).turned("z", 90).moved(-boom, side * 0.07, rise + 0.05), paint=make.dark)

    hub, reach = high + 0.20, make.vary(0.66, 0.76)
    make.add(cylinder(0.055, 0.26, segments=12).moved(-0.12, 0, hub - 0.08), paint=make.dark)
    make.add(ellipsoid(0.10, 0.10, 0.06, segments=12).moved(-0.12, 0, hub + 0.03), paint=make.light)
    count = make.pick((3, 4, 4))
    blade = box(reach, 0.15, 0.05, 0.02).moved(0.5 * reach).turned("x", 14)
    start = make.vary(20, 70)
    rotor = join(*(blade.turned("z", start + 360.0 * index / count) for index in range(count)))
    make.add(rotor.moved(-0.12, 0, hub), paint=GREY)

    floor = -high - 0.17
    rail = [(-0.42, 0.3, floor), (0.3, 0.3, floor), (0.44, 0.3, floor + 0.03), (0.53, 0.3, floor + 0.11)]
    make.add(pair(sweep(rail, 0.04, sides=6)), paint=make.dark)
    for x in (-0.22, 0.22):
        make.add(pair(sweep([(x, 0.16, -0.7 * high), (x, 0.3, floor)], 0.035, sides=6)), paint=make.dark)
