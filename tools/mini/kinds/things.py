"""Things one plays, carries or calls with: guitar, backpack, telephone, piano."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tools.mini.kinds._accents import PALE_BLUE
from tools.mini.kinds.registry import kind
from tools.mini.modelling import (
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
    sweep,
)

Float = NDArray[np.float64]


def _curve(controls: list[tuple[float, float]], steps: int = 4) -> Float:
    """Closed smooth outline through the points (Catmull-Rom)."""
    points = np.array(controls)
    before, after, beyond = np.roll(points, 1, axis=0), np.roll(points, -1, axis=0), np.roll(points, -2, axis=0)
    t = (np.arange(steps) / steps)[:, None, None]
    curve = 0.5 * (
        2 * points
        + (after - before) * t
        + (2 * before - 5 * points + 4 * after - beyond) * t**2
        + (3 * points - before - 3 * after + beyond) * t**3
    )
    return curve.transpose(1, 0, 2).reshape(-1, 2)


def _squircle(x: float, y: float, z: float, power: float = 0.6, segments: int = 18) -> Solid:
    """An ellipsoid pushed towards a box; the half sizes stay, ``power`` 1 leaves it round."""

    def push(points: Float) -> Float:
        level = np.hypot(points[:, 0], points[:, 1])
        planar = points[:, :2] / np.maximum(level, 1e-9)[:, None]
        planar = np.sign(planar) * np.abs(planar) ** power
        return np.column_stack(
            [planar * (level**power)[:, None], np.sign(points[:, 2]) * np.abs(points[:, 2]) ** power]
        )

    return ellipsoid(1.0, segments=segments).warped(push).scaled(x, y, z)


@kind("guitar", front=True, tags=("music", "instrument"), synonyms=("acoustic guitar", "ukulele"))
def guitar(make: Maker) -> None:
    """A plump upright guitar with a short neck; sound hole, bridge, strings and pick guard only in front."""
    lower, waist, upper = make.vary(0.49, 0.56), make.vary(0.28, 0.33), make.vary(0.38, 0.44)
    deep = make.vary(0.28, 0.38)
    side = make.pick((-1.0, 1.0))
    right = [(0.0, -0.52), (0.62 * lower, -0.47), (lower, -0.20), (0.85 * lower, 0.02), (waist, 0.16)]
    right += [(0.92 * upper, 0.30), (upper, 0.42), (0.66 * upper, 0.53)]
    left = [(-y, z) for y, z in right[:0:-1]]
    if make.chance(0.35):  # a cutaway: one shoulder scooped out, with a horn
        left[:2] = [(-0.50 * upper, 0.36), (-0.92 * upper, 0.45)]
    outline = _curve([*right, (0.0, 0.53), *left]) * (side, 1.0)
    make.add(extrude(outline, deep, 0.045), crease=50)
    front = 0.5 * deep
    long = make.vary(0.28, 0.38)
    top = 0.50 + long
    make.add(box(0.12, 0.15, long + 0.12, 0.04).moved(front - 0.06, 0, 0.5 + 0.5 * long - 0.05))
    hole_z, hole = 0.17, make.vary(0.15, 0.18)
    low = hole_z + 0.6 * hole
    make.add(box(0.05, 0.135, top - low).moved(front + 0.02, 0, 0.5 * (top + low)), paint=make.dark)
    flare = make.vary(0.11, 0.15)
    shape = make.pick(("paddle", "crown"))
    head = [(0.08, 0.0), (flare, 0.07), (flare + 0.02, 0.25), (-flare - 0.02, 0.25), (-flare, 0.07), (-0.08, 0.0)]
    if shape == "crown":
        head[3:3] = [(0.07, 0.29), (0.0, 0.25), (-0.07, 0.29)]
    make.add(extrude(head, 0.10, 0.02).turned("y", -8).moved(front - 0.06, 0, top), crease=50)
    peg = ellipsoid(0.04, 0.06, 0.045, segments=10)
    for z in (0.08, 0.19):
        make.add(pair(peg.moved(front - 0.07 - 0.14 * z, flare + 0.04, top + z)), paint=make.light)
    make.add(disc(hole + 0.045, 0.03).moved(front + 0.002, 0, hole_z), paint=make.light)
    make.add(disc(hole, 0.03).moved(front + 0.014, 0, hole_z), paint=make.dark)
    bridge_z = make.vary(-0.24, -0.18)
    make.add(box(0.07, make.vary(0.36, 0.44), 0.085, 0.025).moved(front + 0.02, 0, bridge_z), paint=make.dark)
    make.add(box(0.03, 0.22, 0.03).moved(front + 0.055, 0, bridge_z + 0.01), paint=make.light)
    for y in (-0.045, 0.0, 0.045):
        string = sweep([(front + 0.065, 1.35 * y, bridge_z), (front + 0.055, y, top)], 0.011, sides=5)
        make.add(string, paint=make.light)
    make.add(box(0.05, 0.15, 0.03).moved(front + 0.04, 0, top), paint=make.light)
    if make.chance(0.7):
        guard = _curve([(0.19, 0.22), (0.27, 0.06), (0.24, -0.10), (0.12, -0.06), (0.11, 0.05)], 3) * (side, 1.0)
        make.add(extrude(guard, 0.03).moved(front + 0.005, 0, 0.0), paint=make.dark)
    make.add(ellipsoid(0.04, segments=10).moved(0, 0, -0.53), paint=make.dark)


@kind("backpack", front=True, tags=("bag",), synonyms=("rucksack", "school bag"))
def backpack(make: Maker) -> None:
    """A stuffed satchel for the back: front pocket under a pale buckled flap, grab loop on top, two straps behind."""
    width, height, depth = make.vary(0.42, 0.50), make.vary(0.54, 0.64), make.vary(0.25, 0.32)
    crown = make.vary(0.72, 0.88)
    main = _squircle(depth, width, height, 0.55, 20)

    def narrow(points: Float) -> Float:
        factor = 1.0 - (1.0 - crown) * np.clip(points[:, 2] / height, 0.0, 1.0) ** 1.5
        return points * np.column_stack([np.ones_like(factor), factor, np.ones_like(factor)])

    make.add(main.warped(narrow), crease=60)
    pocket_w, pocket_h = 0.78 * width, make.vary(0.40, 0.48) * height
    low = -0.90 * height + pocket_h
    out = make.vary(0.14, 0.19)
    x = depth - 0.03
    make.add(_squircle(out, pocket_w, pocket_h, 0.5).moved(x, 0, low), crease=60)

    # The flap is the upper part of a slightly larger pocket.
    flap_h = make.vary(0.30, 0.38) * height
    point = make.pick((0.0, 0.10, 0.16))

    def hang(points: Float) -> Float:
        moved = points.copy()
        below = points[:, 2] < 0
        moved[below, 2] -= point * (1.0 - np.abs(points[below, 1] / (1.04 * pocket_w)))
        return moved

    flap = _squircle(out + 0.035, 1.05 * pocket_w, 0.5 * flap_h + 0.02, 0.45).warped(hang)
    flap_z = low + pocket_h - 0.5 * flap_h + 0.02
    make.add(flap.moved(x, 0, flap_z), paint=make.light, crease=60)
    reach = x + out + 0.03
    strap_low = flap_z - 0.5 * flap_h - point - 0.05
    for y in make.pick(((0.0,), (-0.45 * pocket_w, 0.45 * pocket_w))):
        slack = point * 0.5 if y else 0.0
        length = 0.62 * flap_h + point - slack
        wide = 0.13 if y == 0.0 else 0.10
        make.add(box(0.05, wide, length, 0.02).moved(reach, y, strap_low + slack + 0.5 * length), paint=make.dark)
        make.add(box(0.06, wide + 0.08, 0.13, 0.025).moved(reach + 0.01, y, strap_low + slack + 0.09), paint=make.dark)
        make.add(box(0.04, wide - 0.03, 0.05).moved(reach + 0.03, y, strap_low + slack + 0.09), paint=make.light)
    # Zip of the main compartment, over the front shoulder.
    angle = np.linspace(0.12 * np.pi, 0.88 * np.pi, 13)
    zip_y = 0.74 * crown * width * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** 0.6
    zip_z = 0.24 * height + 0.48 * height * np.sin(angle) ** 0.6
    edge = width * (1.0 - (1.0 - crown) * (zip_z / height) ** 1.5)
    inside = 1.0 - (zip_z / height) ** (2 / 0.55) - np.abs(zip_y / edge) ** (2 / 0.55)
    zip_x = depth * np.maximum(inside, 0.0) ** 0.275
    make.add(sweep(np.stack([zip_x, zip_y, zip_z], axis=1), 0.022, sides=6), paint=make.dark)
    pull = make.pick((-1.0, 1.0))
    make.add(
        box(0.03, 0.06, 0.13, 0.012).moved(zip_x[0] + 0.03, pull * abs(zip_y[0]), zip_z[0] - 0.05), paint=make.light
    )
    loop = np.linspace(0.0, np.pi, 8)
    make.add(
        sweep(
            np.stack([0 * loop - 0.05, 0.15 * np.cos(loop), height - 0.03 + 0.15 * np.sin(loop)], axis=1),
            0.032,
            sides=8,
        ),
        paint=make.dark,
    )
    bulge = make.vary(0.10, 0.15)
    t = np.linspace(0.0, 1.0, 9)
    strap = np.stack(
        [-depth - bulge * np.sin(np.pi * t) ** 0.7 + 0.04, 0.30 * width + 0.22 * width * t, height * (0.72 - 1.46 * t)],
        axis=1,
    )
    make.add(pair(sweep(strap, np.interp(t, [0, 0.5, 0.8, 1], [0.06, 0.066, 0.04, 0.035]), sides=8)), paint=make.dark)
    sides = make.pick(((1,), (-1,), (1, -1)))
    for sign in sides:
        make.add(
            _squircle(0.6 * depth, 0.10, 0.38 * height, 0.6, 14).moved(0, sign * (width + 0.01), -0.45 * height),
            crease=60,
        )
    if make.chance(0.5):
        bottle = cylinder(0.085, 0.36 * height, 0.03, segments=12)
        cap = cylinder(0.055, 0.10, 0.02, segments=10)
        y = sides[0] * (width + 0.01)
        make.add(bottle.moved(0, y, -0.06 * height), paint=PALE_BLUE)
        make.add(cap.moved(0, y, 0.14 * height + 0.02), paint=make.dark)


def _ring(x: float, y: float, centre: float, z: float, power: float = 0.4, count: int = 28) -> Float:
    """A rounded rectangle with half sizes x, y at height z."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack(
        [
            centre + x * np.sign(cos) * np.abs(cos) ** power,
            y * np.sign(sin) * np.abs(sin) ** power,
            np.full(count, z),
        ],
        axis=1,
    )


@kind("telephone", front=True, tags=("electronics",), synonyms=("phone", "rotary phone"))
def telephone(make: Maker) -> None:
    """An old desk telephone: a big finger dial on the sloping front, the handset across the top, a curly cord."""
    deep, wide, high = make.vary(0.42, 0.48), make.vary(0.46, 0.54), make.vary(0.50, 0.60)
    top_x, top_y, back = make.vary(0.16, 0.20), make.vary(0.26, 0.32), -0.16
    waist = make.pick((0.0, 0.05))
    levels = [(deep - 0.03, wide - 0.03, 0.0, 0.0), (deep, wide, 0.0, 0.04), (deep, wide, 0.0, 0.09)]
    for share in (0.35, 0.7, 1.0):
        sag = waist * np.sin(np.pi * share)
        x = deep + (top_x - deep) * share - 0.3 * sag
        levels.append((x, wide + (top_y - wide) * share - sag, back * share, 0.09 + (high - 0.09) * share))
    levels.append((top_x - 0.03, top_y - 0.03, back, high + 0.03))
    make.add(loft(np.stack([_ring(x, y, c, z) for x, y, c, z in levels])), crease=50)
    make.add(
        loft(np.stack([_ring(deep - 0.06, wide - 0.06, 0, -0.05), _ring(deep - 0.06, wide - 0.06, 0, 0.02)])),
        paint=make.dark,
    )

    run, rise = deep - (top_x + back), high - 0.09
    pitch = np.degrees(np.arctan2(run, rise))
    dial = make.vary(0.27, 0.30)
    middle = (deep - 0.50 * run, 0.09 + 0.50 * rise)

    def on_slope(solid: Solid) -> Solid:
        return solid.turned("y", -pitch).moved(middle[0], 0, middle[1])

    make.add(on_slope(disc(dial + 0.03, 0.14, 0.02)), paint=make.dark)
    make.add(on_slope(disc(dial, 0.08, 0.02).moved(0.06)), paint=make.light)
    holes = [
        disc(0.20 * dial, 0.05, segments=10).moved(0.088).moved(0, 0.68 * dial * np.sin(a), 0.68 * dial * np.cos(a))
        for a in np.deg2rad(np.arange(9) * 34 - 150 + make.vary(-12, 12))
    ]
    make.add(on_slope(join(*holes)), paint=make.dark)
    make.add(
        on_slope(disc(0.34 * dial, 0.05, 0.015, segments=16).moved(0.095)), paint=make.pick((make.body, make.dark))
    )
    make.add(on_slope(box(0.06, 0.035, 0.15).turned("x", -130).moved(0.10, 0.74 * dial, -0.62 * dial)), paint=make.dark)

    # Cradle and handset.
    prong = sweep([(0, 0, 0), (0, 0.03, 0.08), (0, 0.07, 0.14)], 0.035, sides=6)
    for x in (-0.11, 0.11):
        make.add(pair(prong.moved(back + x, top_y - 0.10, high)), paint=make.dark)
    reach, hand = make.vary(0.50, 0.58), high + 0.20
    t = np.linspace(-1.0, 1.0, 11)
    arch = make.vary(0.04, 0.10)
    bar = np.stack([0 * t + back, reach * t, hand - arch * t**2 + 0.03], axis=1)
    make.add(sweep(bar, 0.075 + 0.02 * t**2))
    cup = cylinder(0.145, 0.14, 0.04, segments=18).tapered(0.75, 1.0)
    make.add(pair(cup.turned("x", 8).moved(back, reach, hand - arch - 0.08)))
    rim = cylinder(0.115, 0.03, segments=16)
    make.add(pair(rim.turned("x", 8).moved(back, reach + 0.01, hand - arch - 0.16)), paint=make.dark)
    side = make.pick((-1.0, 1.0))
    turns = np.linspace(0.0, 1.0, 34)
    angle = 2 * np.pi * 6 * turns
    start, end = np.array([back, reach + 0.02, hand - arch - 0.16]), np.array([-0.1, wide - 0.03, 0.10])
    line = start + turns[:, None] * (end - start)
    line[:, 1] += 0.05 * np.sin(np.pi * turns)
    line[:, 0] += 0.05 * np.cos(angle)
    line[:, 1] += 0.05 * np.sin(angle)
    make.add(sweep(line * (1.0, side, 1.0), 0.022, sides=5), paint=make.dark)


@kind("piano", front=True, tags=("music", "instrument"), synonyms=("upright piano", "pianino"))
def piano(make: Maker) -> None:
    """An upright piano: wide keyboard in front, sheet music above it, pedals below; its back is plain."""
    width, height, depth = make.vary(1.10, 1.30), make.vary(1.00, 1.18), make.vary(0.36, 0.44)
    case = [box(depth, width, height, 0.05).moved(0, 0, 0.5 * height)]
    case.append(box(depth + 0.12, width + 0.10, 0.09, 0.035).moved(0.01, 0, height))
    front = 0.5 * depth
    level, out = make.vary(0.40, 0.45) * height, make.vary(0.32, 0.38)
    case.append(box(out + 0.05, width, 0.13, 0.04).moved(front + 0.5 * out - 0.03, 0, level - 0.06))
    cheek = make.pick(("round", "square"))
    thick = 0.10
    shape = [(-0.05, -0.12), (out, -0.12)]
    if cheek == "round":
        shape += [(out + 0.02, 0.02), (0.75 * out, 0.12), (0.35 * out, 0.16), (0.15 * out, 0.30), (-0.05, 0.34)]
    else:
        shape += [(out + 0.01, 0.13), (0.3 * out, 0.15), (0.2 * out, 0.26), (-0.05, 0.26)]
    board = extrude(shape, thick, 0.02).turned("z", -90)
    make.add(pair(board.moved(front, 0.5 * (width - thick) + 0.005, level)), crease=50)
    keys_w, count = width - 2 * thick - 0.01, make.pick((8, 9, 10))
    keys_x = front + 0.5 * out + 0.01
    pale = [box(out - 0.02, keys_w, 0.10).moved(keys_x, 0, level + 0.02)]
    one = keys_w / count
    gaps = [box(out - 0.03, 0.018, 0.02).moved(keys_x, (i - 0.5 * count) * one, level + 0.068) for i in range(1, count)]
    fronts = [
        box(0.02, 0.018, 0.09).moved(keys_x + 0.5 * out - 0.01, (i - 0.5 * count) * one, level + 0.02)
        for i in range(1, count)
    ]
    black = [
        box(0.60 * out, 0.55 * one, 0.07).moved(front + 0.30 * out, (0.5 * count - i) * one, level + 0.09)
        for i in range(1, count)
        if i % 7 not in (3, 0)
    ]
    ink = [*gaps, *fronts, *black]

    # Music desk with sheets, a little off the middle.
    desk_w, desk_z = make.vary(0.62, 0.80) * width, level + 0.20
    room = height - 0.06 - desk_z
    case.append(box(0.05, desk_w, 0.85 * room, 0.02).turned("y", -9).moved(front + 0.05, 0, desk_z + 0.42 * room))
    case.append(box(0.14, desk_w, 0.05, 0.02).moved(front + 0.09, 0, desk_z))
    sheet_y, page = make.vary(-0.10, 0.10), make.vary(0.19, 0.23)
    for sign in (-1.0, 1.0):
        leaf = box(0.03, page, 0.78 * room)
        lines = join(*(box(0.02, 0.72 * page, 0.028).moved(0.02, 0, z * room) for z in (-0.22, -0.02, 0.18)))
        for solid, heap in ((leaf, pale), (lines, ink)):
            placed = solid.turned("z", -8 * sign).turned("y", -9)
            heap.append(placed.moved(front + 0.105, sheet_y + sign * 0.5 * page, desk_z + 0.42 * room))
    case.append(box(0.03, 0.70 * width, 0.55 * level, 0.012).moved(front + 0.01, 0, 0.45 * level))
    for y in make.pick(((-0.08, 0.08), (-0.13, 0.0, 0.13))):
        pale.append(_squircle(0.11, 0.05, 0.03, 0.8, 10).moved(front + 0.08, y, 0.09))
    leg_x = front + 0.80 * out
    if make.chance(0.5):
        leg = cylinder(0.06, level - 0.10, 0.02, segments=12).tapered(1.15, 0.75)
    else:
        leg = box(0.10, 0.10, level - 0.10, 0.03).tapered(1.0, 0.7)
    case.append(pair(leg.moved(leg_x, 0.5 * width - 0.06, 0.5 * level - 0.05)))
    case.append(pair(box(0.95 * out + 0.1, 0.12, 0.08, 0.03).moved(front + 0.45 * out, 0.5 * width - 0.06, 0.0)))
    case.append(box(depth + 0.02, width + 0.02, 0.10, 0.03).moved(0, 0, 0.03))
    case += [box(0.06, 0.10, 0.88 * height).moved(-front, y * width, 0.5 * height) for y in (-0.34, 0.0, 0.34)]
    make.add(*case)
    make.add(*pale, paint=make.light)
    make.add(*ink, paint=make.dark)
