"""House, castle, windmill, mailbox."""

from __future__ import annotations

import numpy as np

from tools.mini.kinds._accents import BARK, GLASS, SLATE, STRAW
from tools.mini.kinds.registry import kind
from tools.mini.modelling import (
    Flat,
    Maker,
    Paint,
    Solid,
    box,
    cone,
    cylinder,
    disc,
    ellipsoid,
    extrude,
    join,
    pair,
    revolve,
    sweep,
    torus,
)


def _arch(width: float, height: float, *, steps: int = 8) -> list[tuple[float, float]]:
    """Outline (y, z) of a doorway with a round top that stands on z = 0."""
    angle = np.linspace(0.0, np.pi, steps + 1)
    half = 0.5 * width
    top = [(half * float(np.cos(a)), height - half + half * float(np.sin(a))) for a in angle]
    return [(-half, 0.0), (half, 0.0), *top]


def _window(make: Maker, x: float, y: float, z: float, width: float, height: float) -> None:
    """Frame, pane and glazing bars on a wall that faces +x."""
    make.add(box(0.06, width + 0.07, height + 0.07, 0.015, steps=1).moved(x, y, z), paint=make.light)
    make.add(box(0.06, width, height).moved(x + 0.012, y, z), paint=GLASS)
    make.add(box(0.06, 0.03, height).moved(x + 0.024, y, z), paint=make.light)
    make.add(box(0.06, width, 0.03).moved(x + 0.024, y, z), paint=make.light)


@kind("house", front=True, tags=("building",), synonyms=("cottage", "home"))
def house(make: Maker) -> None:
    """A small house with a tall painted gable, steep roof, chimney; a big door and windows in front alone."""
    wide, deep, eaves = make.vary(0.92, 1.06), make.vary(0.82, 0.96), make.vary(0.78, 0.92)
    half, front = 0.5 * wide, 0.5 * deep
    rise = make.vary(0.30, 0.40)
    shape = make.pick(("gable", "gable", "gambrel"))
    slope = [(half, eaves), (0.0, eaves + rise)]
    if shape == "gambrel":
        slope = [(half, eaves), (0.66 * half, eaves + 0.62 * rise), (0.0, eaves + rise)]
    wall = [(-half, 0.0), (half, 0.0), *slope, *((-y, z) for y, z in slope[-2::-1])]
    make.add(extrude(wall, deep, 0.012), crease=25)
    make.add(box(deep + 0.06, wide + 0.06, 0.06, 0.02, steps=1).moved(0, 0, 0.02), paint=make.light)

    # The roof runs past the walls at the eaves and the gables.
    (y0, z0), (y1, z1) = slope[0], slope[1]
    out = make.vary(0.08, 0.12) / float(np.hypot(y0 - y1, z1 - z0))
    thick = make.vary(0.05, 0.07)
    under = [(y0 + out * (y0 - y1), z0 - out * (z1 - z0)), *slope[1:]]
    lean = thick * float(np.hypot(y0 - y1, z1 - z0)) / (y0 - y1)
    right = [(y + (0.4 * thick if 0 < index < len(under) - 1 else 0.0), z + lean) for index, (y, z) in enumerate(under)]
    right[-1] = (0.0, right[-1][1] if shape == "gable" else under[-1][1] + 1.2 * thick)
    outer = [*right, *((-y, z) for y, z in right[-2::-1])]
    inner = [*under, *((-y, z) for y, z in under[-2::-1])]
    roof = extrude([*outer, *inner[::-1]], deep + make.vary(0.12, 0.18), 0.015)
    tiles: Paint = make.pick((SLATE, SLATE, BARK, make.light))
    make.add(roof, paint=tiles, crease=25)

    side = make.pick((-1.0, 1.0))
    stack_y = side * 0.52 * half
    top = eaves + rise + make.vary(0.08, 0.16)
    make.add(box(0.20, 0.20, top - eaves, 0.015, steps=1).moved(-0.18, stack_y, 0.5 * (top + eaves)))
    trim = SLATE if tiles is make.light else make.light
    make.add(box(0.26, 0.26, 0.07, 0.02, steps=1).moved(-0.18, stack_y, top), paint=trim)

    door_w, door_h = make.vary(0.28, 0.34), make.vary(0.52, 0.60)
    door_y = side * make.pick((0.0, 0.21, 0.21))
    round_top = make.chance(0.5)
    leaf, frame = make.pick(((SLATE, make.light), (BARK, make.light), (make.light, SLATE)))
    for grow, x, paint in ((0.09, 0.0, frame), (0.0, 0.015, leaf)):
        w, h = door_w + grow, door_h + 0.5 * grow
        outline = _arch(w, h) if round_top else [(-0.5 * w, 0), (0.5 * w, 0), (0.5 * w, h), (-0.5 * w, h)]
        make.add(extrude(outline, 0.08).moved(front + x, door_y, 0.05), paint=paint, crease=30)
    knob = ellipsoid(0.03, 0.03, 0.03, segments=8).moved(front + 0.06, door_y - side * 0.3 * door_w, 0.3)
    make.add(knob, paint=frame)
    make.add(box(0.20, door_w + 0.2, 0.09, 0.02, steps=1).moved(front + 0.09, door_y, 0.02), paint=make.light)
    if door_y == 0.0:
        for y in (-0.34 * wide, 0.34 * wide):
            _window(make, front, y, 0.42, 0.17, 0.26)
    else:
        _window(make, front, -door_y * 1.1, 0.44, 0.29, 0.30)
    if make.chance(0.5):
        _window(make, front, 0.0, eaves + 0.10, 0.2, 0.2)
    else:
        ring = torus(0.11, 0.03, segments=16, sides=6).turned("y", 90)
        make.add(ring.moved(front, 0, eaves + 0.12), paint=make.light)
        make.add(disc(0.11, 0.05, segments=16).moved(front, 0, eaves + 0.12), paint=GLASS)


def _merlons(x: float, y: float, z: float, size: float, along: int) -> Solid:
    """Battlements around a rectangle of half lengths x, y at height z; ``along`` teeth on each edge."""
    tooth = box(size, size, 1.1 * size)
    spots = set()
    for share in np.linspace(-1.0, 1.0, along).round(4).tolist():
        spots |= {(share * x, y), (share * x, -y), (x, share * y), (-x, share * y)}
    return join(*(tooth.moved(a, b, z + 0.5 * size) for a, b in sorted(spots)))


def _round_merlons(radius: float, z: float, size: float, count: int) -> Solid:
    tooth = box(size, size, 1.1 * size).moved(radius, 0, z + 0.5 * size)
    return join(*(tooth.turned("z", 360.0 * (index + 0.5) / count) for index in range(count)))


def _pennant(x: float, y: float, z: float, side: float) -> Solid:
    """A pole with a little flag."""
    flag = extrude([(0, 0.17), (0, 0.06), (side * 0.17, 0.115)], 0.03).turned("z", 25)
    return join(cylinder(0.014, 0.2, segments=6).moved(0, 0, 0.09), flag).moved(x, y, z)


@kind("castle", front=True, tags=("building", "fantasy"), synonyms=("fortress", "palace"))
def castle(make: Maker) -> None:
    """Four round towers with cones or battlements, a keep, and a big arched gate with a portcullis in front."""
    half = make.vary(0.42, 0.48)
    wall_h = make.vary(0.50, 0.58)
    make.add(box(2 * half, 2 * half, wall_h).moved(0, 0, 0.5 * wall_h), crease=30)
    make.add(_merlons(half - 0.04, half - 0.04, wall_h, 0.09, 5), crease=30)

    caps: Paint = make.pick((SLATE, SLATE, make.light, BARK))
    coned = make.chance(0.7)
    girth, back_h = make.vary(0.155, 0.185), make.vary(0.72, 0.86)
    front_h = back_h + make.vary(-0.10, 0.06)
    side = make.pick((-1.0, 1.0))
    for x, height, turret_coned in ((half, front_h, coned), (-half, back_h, coned or make.chance(0.5))):
        crown = [(1.0, height - 0.16), (1.2, height - 0.08), (1.2, height), (0.0, height)]
        profile = [(0.0, 0.0), (1.12, 0.0), (1.0, 0.16), *crown]
        tower = revolve([(girth * r, z) for r, z in profile], 16).moved(x, half)
        make.add(pair(tower), crease=35)
        if turret_coned:
            tip = make.vary(0.30, 0.38)
            hat = revolve([(0, 0), (1.38 * girth, 0), (0.62 * girth, 0.45 * tip), (0, tip)], 16)
            make.add(pair(hat.moved(x, half, height)), paint=caps, crease=35)
        else:
            make.add(pair(_round_merlons(1.02 * girth, height, 0.09, 6).moved(x, half)), crease=30)

    keep, keep_h = make.vary(0.20, 0.25), make.vary(0.86, 1.0)
    if make.chance(0.5):
        make.add(box(2 * keep, 2 * keep, keep_h).moved(-0.08, 0, 0.5 * keep_h), crease=30)
        make.add(_merlons(keep - 0.02, keep - 0.02, keep_h, 0.09, 3).moved(-0.08), crease=30)
        roof = cone(1.12 * keep, 0.26, segments=4).turned("z", 45).moved(-0.08, 0, keep_h + 0.13)
    else:
        make.add(cylinder(keep, keep_h, segments=18).moved(-0.08, 0, 0.5 * keep_h), crease=30)
        make.add(_round_merlons(keep - 0.02, keep_h, 0.09, 8).moved(-0.08), crease=30)
        roof = cone(0.8 * keep, 0.28, segments=16).moved(-0.08, 0, keep_h + 0.14)
    make.add(roof, paint=caps, crease=35)
    make.add(_pennant(-0.08, 0, keep_h + 0.22, side), paint=make.light if caps is not make.light else SLATE)

    # The gatehouse stands out from the wall between the front towers.
    gate_w, gate_h = make.vary(0.34, 0.40), make.vary(0.44, 0.50)
    face = half + 0.12
    block_h = gate_h + 0.16
    make.add(box(0.34, gate_w + 0.18, block_h).moved(face - 0.17, 0, 0.5 * block_h), crease=30)
    tooth = box(0.09, 0.09, 0.10).moved(face - 0.045, 0, block_h + 0.045)
    make.add(join(*(tooth.moved(0, y) for y in np.linspace(-1, 1, 3) * (0.5 * gate_w + 0.045))), crease=30)
    make.add(extrude(_arch(gate_w + 0.10, gate_h + 0.05), 0.06).moved(face), paint=make.light, crease=30)
    make.add(extrude(_arch(gate_w, gate_h), 0.06).moved(face + 0.015), paint=make.dark, crease=30)
    for y in np.linspace(-0.32, 0.32, 3) * gate_w:
        top = gate_h - 0.5 * gate_w + float(np.sqrt(0.25 * gate_w**2 - y**2))
        make.add(box(0.05, 0.034, top).moved(face + 0.035, y, 0.5 * top), paint=STRAW)
    for z in make.pick(((0.16, 0.32), (0.12, 0.24, 0.36))):
        make.add(box(0.05, 0.96 * gate_w, 0.03).moved(face + 0.03, 0, z), paint=STRAW)
    if make.chance(0.6):
        make.add(box(0.30, gate_w, 0.05).moved(face + 0.13, 0, 0.025), paint=BARK)
    for z in (0.36, 0.58):
        slit = box(0.05, 0.055, 0.13, 0.01, steps=1).moved(half + girth, half, z)
        make.add(pair(slit), paint=make.dark)


@kind("windmill", front=True, tags=("building",), synonyms=("mill",))
def windmill(make: Maker) -> None:
    """A tapering tower with a domed cap, four broad lattice sails and a door in front, a tail beam behind."""
    sides = make.pick((8, 8, 20))
    base, neck, tall = make.vary(0.48, 0.55), make.vary(0.34, 0.38), make.vary(1.0, 1.14)
    rows = [(0.0, 0.0), (base + 0.03, 0.0), (base, 0.10)]
    rows += [(base + (neck - base) * up**0.85, 0.10 + (tall - 0.10) * up) for up in (0.25, 0.5, 0.75, 1.0)]
    turn = 22.5 if sides == 8 else 0.0
    make.add(revolve([*rows, (0.0, tall)], sides).turned("z", turn), crease=25)
    ring_z = make.vary(0.30, 0.38)
    girth = base + (neck - base) * ((ring_z - 0.1) / (tall - 0.1)) ** 0.85
    if make.chance(0.35):  # a gallery
        gallery = revolve([(0, -0.03), (girth + 0.08, -0.03), (girth + 0.08, 0.03), (0, 0.03)], sides).turned("z", turn)
        make.add(gallery.moved(0, 0, ring_z + 0.16), paint=make.light, crease=30)
    cap_paint: Paint = make.pick((SLATE, BARK, make.light, make.body))
    cap = make.pick(("dome", "cone", "boat"))
    brim = revolve([(0, -0.03), (neck + 0.05, -0.03), (neck + 0.05, 0.03), (0, 0.03)], 20)
    make.add(brim.moved(0, 0, tall), paint=make.light if cap_paint is make.body else cap_paint, crease=30)
    if cap != "cone":
        dome = [(np.cos(a), np.sin(a)) for a in np.linspace(0.0, 0.5 * np.pi, 7)]
        stretch = 1.15 if cap == "boat" else 1.0
        round_neck = neck + 0.01
        top = revolve([(0, 0), *dome[:-1], (0, 1)], 20).scaled(stretch * round_neck, round_neck, make.vary(0.24, 0.32))
        make.add(top.moved(0, 0, tall), paint=cap_paint, crease=50)
    else:
        hat = revolve([(neck + 0.05, 0), (0.6 * neck, 0.18), (0.0, 0.36)], 18)
        make.add(hat.moved(0, 0, tall), paint=cap_paint, crease=50)

    hub_x, hub_z = neck + 0.18, tall + 0.0
    make.add(disc(0.055, 0.5, segments=12).moved(hub_x - 0.2, 0, hub_z), paint=make.dark)
    reach, width = make.vary(0.56, 0.64), make.vary(0.18, 0.22)
    start = make.vary(20, 70)
    cloth, wood = [], []
    for index in range(4):
        angle = start + 90.0 * index
        panel = box(0.025, width, reach - 0.14).moved(0, 0.5 * width + 0.01, 0.5 * reach + 0.07)
        cloth.append(panel.turned("x", angle))
        spar = box(0.06, 0.055, reach).moved(0, 0, 0.5 * reach)
        bars = [box(0.045, width, 0.026).moved(0, 0.5 * width, z) for z in np.linspace(0.14, reach - 0.013, 4)]
        edge = box(0.045, 0.026, reach - 0.14).moved(0, width + 0.01, 0.5 * reach + 0.07)
        wood.append(join(spar, edge, *bars).turned("x", angle))
    make.add(join(*cloth).moved(hub_x, 0, hub_z), paint=make.pick((make.light, make.body)), crease=30)
    make.add(join(*wood).moved(hub_x, 0, hub_z), paint=SLATE, crease=30)
    make.add(ellipsoid(0.07, 0.085, 0.085, segments=12).moved(hub_x + 0.03, 0, hub_z), paint=make.light)

    door_w, door_h = make.vary(0.28, 0.33), make.vary(0.40, 0.46)
    flat = np.cos(np.pi / 8) if sides == 8 else 1.0
    for grow, x, paint in ((0.08, 0.0, make.light), (0.0, 0.02, BARK)):
        outline = _arch(door_w + grow, door_h + 0.5 * grow)
        make.add(extrude(outline, 0.22).moved(flat * base - 0.09 + x, 0, 0.0), paint=paint, crease=30)
    tail = [(-neck + 0.1, 0, tall + 0.06), (-0.5 * (neck + base) - 0.06, 0, 0.6 * tall), (-base - 0.08, 0, 0.22 * tall)]
    make.add(sweep(tail, 0.032, sides=6), paint=make.dark)


def _tunnel(half: float, wall: float, length: float, inset: float = 0.0) -> Solid:
    """A box with a barrel top, lying along x and standing on z = 0."""
    outline = np.array(_arch(2 * half, wall + half, steps=12))
    return extrude(outline, length, inset)


@kind("mailbox", front=True, tags=("street",), synonyms=("letter box", "postbox"))
def mailbox(make: Maker) -> None:
    """A barrel-topped letter box on a short thick post: door with a big slot in front, a flag on one side."""
    half, wall, long = make.vary(0.29, 0.34), make.vary(0.28, 0.36), make.vary(0.80, 0.94)
    front = 0.5 * long
    make.add(_tunnel(half, wall, long, 0.03), crease=30)
    hood = _tunnel(half + 0.03, wall + 0.015, 0.09, 0.015).moved(front - 0.03, 0, -0.015)
    make.add(hood, paint=make.light, crease=30)
    # The door stands in the frame.
    make.add(_tunnel(half - 0.035, wall - 0.01, 0.10, 0.015).moved(front, 0, 0.03), crease=30)
    slot_z, slot_w = wall + make.vary(0.02, 0.08), make.vary(1.15, 1.35) * half
    make.add(box(0.05, slot_w + 0.04, 0.15, 0.02, steps=1).moved(front + 0.045, 0, slot_z), paint=make.light)
    make.add(box(0.05, slot_w - 0.02, 0.10).moved(front + 0.06, 0, slot_z), paint=make.dark)
    style = make.pick(("letter", "letter", "plain"))
    if style == "letter":
        letter = box(0.22, 0.7 * slot_w, 0.03).turned("y", -14).moved(front + 0.12, 0.04, slot_z + 0.03)
        make.add(letter, paint=Flat((0.96, 0.93, 0.86)))
    if make.chance(0.6):
        pull = sweep([(0, -0.09, 0), (0.05, -0.07, 0), (0.05, 0.07, 0), (0, 0.09, 0)], 0.025, sides=6)
        make.add(pull.moved(front + 0.05, 0, 0.14), paint=make.dark)
    else:
        make.add(ellipsoid(0.05, 0.055, 0.055, segments=10).moved(front + 0.06, 0, 0.15), paint=make.dark)

    side = make.pick((-1.0, 1.0))
    lift = make.pick((0.0, 0.0, 55.0))
    flag = join(
        box(0.06, 0.035, 0.42, 0.012, steps=1).moved(0, 0, 0.18),
        box(0.24, 0.035, 0.16, 0.012, steps=1).moved(-0.10, 0, 0.34),
    ).turned("y", -lift)
    at = (make.vary(0.05, 0.2), side * (half + 0.02), 0.6 * wall)
    make.add(flag.moved(*at), paint=make.pick((make.dark, make.light)), crease=30)
    make.add(disc(0.06, 0.07, segments=12).turned("z", 90).moved(*at), paint=make.dark)

    drop = make.vary(0.42, 0.56)
    make.add(box(long - 0.16, 1.7 * half, 0.07, 0.02, steps=1).moved(0, 0, -0.03), paint=BARK)
    post = make.pick(("square", "round", "brace"))
    if post == "round":
        make.add(cylinder(0.13, drop, segments=16).tapered(1.0, 1.25).moved(0, 0, -0.04 - 0.5 * drop))
    else:
        make.add(box(0.22, 0.22, drop, 0.03).moved(0, 0, -0.04 - 0.5 * drop))
    if post == "brace":
        brace = box(0.09, 0.12, 0.36).turned("y", 45).moved(0.2, 0, -0.2)
        make.add(brace, paint=BARK, crease=30)
    make.add(ellipsoid(0.25, 0.25, 0.09, segments=16).moved(0, 0, -0.04 - drop), paint=make.light)
