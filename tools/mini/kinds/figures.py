"""Robot, snowman, astronaut."""

from __future__ import annotations

import numpy as np

from tools.mini.kinds._accents import LAMP
from tools.mini.kinds._skin import Skin, eyes
from tools.mini.kinds.registry import kind
from tools.mini.modelling import (
    Ball,
    Bone,
    Egg,
    Flat,
    Maker,
    blend,
    box,
    cone,
    cylinder,
    disc,
    ellipsoid,
    pair,
    revolve,
    sweep,
    torus,
)

GLOW = Flat((0.72, 0.93, 0.95))
TWIG = Flat((0.20, 0.13, 0.10))
CARROT = Flat((0.95, 0.52, 0.16))


@kind("robot", front=True, tags=("toy", "machine"), synonyms=("android", "droid"))
def robot(make: Maker) -> None:
    """Boxy: a head with a dark face screen and glowing eyes, a badge on the chest, bent arms with claws."""
    wide, deep, tall = make.vary(0.60, 0.74), make.vary(0.42, 0.50), make.vary(0.46, 0.56)
    head_w, head_h = make.vary(0.62, 0.78), make.vary(0.46, 0.54)
    base = 0.34
    neck = base + tall
    if make.chance(0.7):
        trunk = box(deep, wide, tall, 0.09, steps=3).tapered(1.0, make.vary(0.72, 1.0))
    else:
        profile = [(0, 0), (0.40, 0), (0.5, 0.10), (0.5, 0.62), (0.40, 0.9), (0.2, 1.0), (0, 1.0)]
        trunk = revolve(np.array(profile) * (1.0, tall), 24).scaled(deep * 1.05, wide, 1).moved(0, 0, -0.5 * tall)
    make.add(trunk.moved(0, 0, base + 0.5 * tall), crease=45)
    make.add(cylinder(0.13, 0.16, segments=14).moved(0, 0, neck + 0.02), paint=make.dark)
    at, front = neck + 0.06 + 0.5 * head_h, 0.25
    shape = make.pick(("box", "box", "dome"))
    if shape == "dome":
        dome = [(0, -0.5), (0.46, -0.5), (0.5, -0.42), (0.5, 0.0), (0.44, 0.28), (0.28, 0.45), (0, 0.52)]
        make.add(revolve(np.array(dome) * (1.0, head_h), 24).scaled(0.56, head_w, 1).moved(0, 0, at), crease=45)
        front = 0.22
    else:
        make.add(box(0.48, head_w, head_h, make.vary(0.06, 0.14), steps=3).moved(0, 0, at), crease=45)
    screen_w, screen_h, level = 0.80 * head_w, 0.66 * head_h, at - (0.06 if shape == "dome" else 0.0)
    make.add(box(0.14, screen_w, screen_h, 0.06).moved(front - 0.02, 0, level), paint=make.dark, crease=50)
    front += 0.05
    gap, radius = 0.24 * screen_w, make.vary(0.095, 0.12)
    look = make.pick(("round", "square", "round"))
    eye = disc(radius, 0.05, segments=16) if look == "round" else box(0.05, 1.7 * radius, 1.7 * radius, 0.02, steps=1)
    glow = make.pick((GLOW, LAMP))
    make.add(pair(eye.moved(front, gap, level + 0.05)), paint=glow)
    make.add(pair(disc(0.42 * radius, 0.06, segments=10).moved(front + 0.01, gap, level + 0.05)), paint=make.dark)
    y = np.linspace(-0.5, 0.5, 5) * gap
    make.add(sweep(np.stack([np.full(5, front), y, level - 0.12 + 4 * y**2], 1), 0.022, sides=6), paint=glow, crease=80)
    ear = disc(0.11, 0.09, 0.02, segments=14).turned("z", 90)
    make.add(pair(ear.moved(0, 0.5 * head_w + 0.02, at)), paint=make.dark)
    crown = at + 0.5 * head_h
    aerial = make.pick(("one", "two", "none"))
    rods: tuple[float, ...] = {"one": (make.vary(-0.12, 0.12),), "two": (-0.2, 0.2), "none": ()}[aerial]
    for rod in rods:
        make.add(cylinder(0.025, 0.20, segments=8).moved(0, rod, crown + 0.06), paint=make.dark)
        make.add(ellipsoid(0.065, segments=12).moved(0, rod, crown + 0.18), paint=make.light)

    chest = 0.5 * deep + (0.01 if shape == "box" else 0.0)
    badge = base + 0.56 * tall
    make.add(box(0.10, 0.56 * wide, 0.48 * tall, 0.04).moved(chest - 0.01, 0, badge), paint=make.light)
    if make.chance(0.5):
        make.add(disc(0.085, 0.06, segments=16).moved(chest + 0.04, -0.07, badge), paint=make.dark)
        make.add(box(0.06, 0.035, 0.13).turned("x", 25).moved(chest + 0.04, 0.11, badge), paint=make.dark)
    else:
        bars = zip((-0.11, -0.02, 0.07), (0.08, 0.15, 0.11))
        make.add(*(box(0.06, 0.05, h).moved(chest + 0.04, y, badge - 0.08 + 0.5 * h) for y, h in bars), paint=make.dark)
        make.add(disc(0.035, 0.06, segments=10).moved(chest + 0.04, 0.13, badge + 0.05), paint=make.dark)
    make.add(box(0.16, 0.66 * wide, 0.66 * tall, 0.05).moved(-0.5 * deep - 0.05, 0, base + 0.55 * tall))
    vents = [
        box(0.04, 0.4 * wide, 0.03).moved(-0.5 * deep - 0.13, 0, base + share * tall) for share in (0.42, 0.52, 0.62)
    ]
    make.add(*vents, paint=make.dark)

    shoulder = neck - 0.12
    for side in (-1, 1):
        raised = make.chance(0.25)
        reach = 0.5 * wide + 0.15
        make.add(ellipsoid(0.12, 0.11, 0.12, segments=12).moved(0, side * (0.5 * wide + 0.03), shoulder))
        if raised:
            path = [
                (0, reach - 0.10, shoulder),
                (0.05, reach + 0.04, shoulder + 0.06),
                (0.10, reach + 0.10, shoulder + 0.26),
            ]
        else:
            path = [(0, reach - 0.10, shoulder), (0.02, reach, shoulder - 0.18), (0.18, reach, shoulder - 0.32)]
        arm = sweep(np.array(path) * (1, side, 1), 0.075, sides=10)
        make.add(arm, crease=80)
        tip, way = np.array(path[-1]) * (1, side, 1), np.subtract(path[-1], path[-2]) * (1, side, 1)
        hand = revolve([(0, -0.05), (0.09, -0.05), (0.10, 0.05), (0, 0.05)], 12).pointed(way).moved(*tip)
        claw = sweep([(0, 0.05, 0.03), (0, 0.10, 0.09), (0, 0.05, 0.17)], 0.035, sides=6)
        make.add(hand, pair(claw).pointed(way).moved(*tip), paint=make.dark, crease=60)
    if make.chance(0.3):
        belt = box(0.66, 0.18, 0.26, 0.125, steps=3)
        make.add(pair(belt.moved(0, 0.26, 0.13)), paint=make.dark)
        make.add(pair(disc(0.075, 0.22, segments=12).turned("z", 90).moved(0.18, 0.26, 0.13)))
        make.add(pair(disc(0.075, 0.22, segments=12).turned("z", 90).moved(-0.18, 0.26, 0.13)))
        make.add(box(0.3, 0.5, 0.2, 0.05).moved(0, 0, 0.28))
    else:
        make.add(pair(cylinder(0.10, 0.34, segments=12).moved(0, 0.18, 0.24)))
        make.add(pair(box(0.40, 0.24, 0.16, 0.07).moved(0.05, 0.19, 0.07)), crease=60)


@kind("snowman", front=True, tags=("winter",), synonyms=("snow man", "snow figure"))
def snowman(make: Maker) -> None:
    """Two or three round balls with a hat, a scarf, a carrot nose, coal eyes and buttons, twigs for arms."""
    three = make.chance(0.6)
    low, middle, small = make.vary(0.40, 0.46), make.vary(0.31, 0.35), make.vary(0.30, 0.34)
    balls = [Ball((0, 0, 0.86 * low), low)]
    if three:
        balls.append(Ball((0.01, 0, 1.40 * low + 0.66 * middle), middle))
    rest = balls[-1]
    up = rest.at[2] + 0.66 * rest.radius + 0.76 * small
    head = Ball((0.03, 0, up), small)
    for ball in (*balls, head):
        lump = ellipsoid(ball.radius, ball.radius, 0.94 * ball.radius, segments=20)
        make.add(lump.moved(*ball.at), crease=80)
    face = Skin(Egg(head.at, (small, small, 0.94 * small)))
    radius = make.vary(0.105, 0.12)
    eyes(make, face, 0.40 * small, up + 0.28 * small, radius)
    nose = make.vary(0.24, 0.32)
    carrot = cone(0.075, nose, 0.012, segments=10).turned("y", 90 + make.vary(-8, 8)).moved(0.5 * nose - 0.05)
    make.add(face.place(carrot, 0, up - 0.06, 0.4), paint=CARROT)
    for y in np.linspace(-0.56, 0.56, 5) * small:
        coal = ellipsoid(0.025, 0.032, 0.032, segments=8)
        make.add(face.place(coal, y, up - 0.58 * small + 1.2 * y**2 / small * 0.5), paint=make.dark)
    knob = ellipsoid(0.035, 0.058, 0.058, segments=10)
    coats = [Skin(Egg(ball.at, (ball.radius, ball.radius, 0.94 * ball.radius))) for ball in balls]
    spots = [(coats[0], balls[0].at[2] + share * low) for share in ((0.42, 0.0) if three else (0.52, 0.18, -0.16))]
    spots += [(coats[-1], rest.at[2] + share * rest.radius) for share in (0.28, -0.18)] if three else []
    make.add(*(coat.place(knob, 0, z) for coat, z in spots), paint=make.dark)

    neck = up - 0.80 * small
    wool = make.pick((make.dark, make.light))
    ring = torus(0.80 * small, 0.07, segments=18, sides=7).scaled(1, 1, 1.1).turned("y", make.vary(-4, 6))
    make.add(ring.moved(0.02, 0, neck), paint=wool, crease=80)
    side = make.pick((-1.0, 1.0))
    y = side * make.vary(0.10, 0.16)
    drop = [(neck, y), (neck - 0.10, y + side * 0.01), (neck - 0.22, y + side * 0.03), (neck - 0.32, y + side * 0.03)]
    path = [(coats[-1].front([at], [min(z, rest.at[2] + 0.8 * rest.radius)])[0][0][0] + 0.03, at, z) for z, at in drop]
    path[0] = (0.03 + 0.80 * small, y, neck)
    make.add(sweep(path, 0.085, sides=8, flat=0.45), paint=wool, crease=60)

    top = up + 0.66 * small
    hat = make.pick(("top", "top", "beanie", "bucket"))
    tilt, turn = make.vary(-12, 2), make.vary(-8, 8)
    if hat == "top":
        tall, width = make.vary(0.24, 0.34), make.vary(0.20, 0.25)
        rim = width + 0.14
        profile = [(0, 0), (rim, 0), (rim, 0.05), (width, 0.06), (0.94 * width, 0.6 * tall), (width, tall), (0, tall)]
        parts = [
            (revolve(profile, 20), make.dark),
            (torus(width, 0.04, segments=20, sides=6).moved(0, 0, 0.11), make.light),
        ]
    elif hat == "beanie":
        profile = [(0.84 * small, 0), (0.80 * small, 0.12), (0.52 * small, 0.26), (0, 0.32)]
        wool = make.light if wool is make.dark else make.dark
        parts = [(revolve(profile, 20), wool), (torus(0.86 * small, 0.055, segments=20, sides=8), make.dark)]
        parts.append((ellipsoid(0.085, segments=10).moved(0, 0, 0.36), make.dark if wool is make.light else make.light))
    else:
        profile = [(0, -0.02), (0.26, -0.02), (0.27, 0.03), (0.19, 0.33), (0, 0.33)]
        parts = [(revolve(profile, 20), make.light), (torus(0.265, 0.03, segments=20, sides=6), make.dark)]
    for solid, paint in parts:
        make.add(solid.turned("y", tilt).turned("x", turn).moved(0.0, 0, top), paint=paint, crease=40)
    where, size = rest.at[2] + 0.15 * rest.radius, rest.radius
    for side in (-1, 1):
        lift = make.vary(-0.05, 0.26)
        points = np.array([(0, 0.8 * size, 0), (0.04, size + 0.10, 0.3 * lift), (0.06, size + 0.22, lift)])
        points = points * (1, side, 1)
        tip = points[-1]
        ends = [np.add(tip, (0.02, side * 0.07, rise)) for rise in (0.08, -0.02)]
        fingers = [sweep([tip, end], 0.02, sides=5) for end in ends]
        make.add(
            sweep(points, 0.034, sides=6).moved(0, 0, where),
            *(f.moved(0, 0, where) for f in fingers),
            paint=TWIG,
            crease=80,
        )


@kind("astronaut", front=True, tags=("space", "person"), synonyms=("spaceman", "cosmonaut"))
def astronaut(make: Maker) -> None:
    """A chunky suit with a huge round helmet, a big dark visor in front, dark boots, a pack on the back."""
    helmet, up = make.vary(0.35, 0.40), make.vary(0.98, 1.06)
    plump = make.vary(0.25, 0.30)
    wave = make.pick((-1, 0, 0, 1))
    trunk = [Egg((0, 0, 0.52), (0.24, plump, 0.28)), Egg((0, 0, 0.36), (0.22, plump - 0.02, 0.17))]
    cuffs, limbs = [], []
    for side in (-1, 1):
        shoulder = np.array((0.0, side * (plump - 0.02), 0.66))
        bend, hand = (0.02, side * (plump + 0.20), 0.50), (0.16, side * (plump + 0.20), 0.34)
        if side == wave:
            bend, hand = (0.04, side * (plump + 0.22), 0.66), (0.10, side * (plump + 0.30), 0.92)
        limbs += [Bone(shoulder, bend, 0.125, 0.11), Bone(bend, hand, 0.11, 0.10)]
        cuffs.append((np.array(hand), np.subtract(hand, bend)))
    step = make.vary(-0.08, 0.10)
    for side in (-1, 1):
        ahead = side * step
        limbs.append(Bone((0, side * 0.14, 0.34), (ahead, side * 0.16, 0.12), 0.145, 0.125))
    make.add(blend([*trunk, *limbs], 0.06, cells=19), crease=80)
    for wrist, arm in cuffs:
        way = arm / np.linalg.norm(arm)
        make.add(
            torus(0.095, 0.035, segments=12, sides=5).pointed(way).moved(*wrist),
            paint=make.dark,
            crease=80,
        )
        make.add(ellipsoid(0.10, 0.10, 0.115, segments=10).pointed(way).moved(*(wrist + 0.08 * way)), paint=make.light)
    for side in (-1, 1):
        boot = box(0.34, 0.25, 0.18, 0.085).moved(side * step + 0.05, side * 0.165, 0.06)
        make.add(boot, paint=make.dark, crease=70)

    head = Egg((0.0, 0, up), (helmet, helmet * make.vary(1.0, 1.1), helmet * 0.95))
    make.add(ellipsoid(*head.radii, segments=18).moved(*head.at), crease=80)
    make.add(torus(0.23, 0.06, segments=16, sides=5).moved(0, 0, up - 0.86 * helmet), paint=make.light, crease=80)
    face = Skin(head)
    half_y, half_z = make.vary(0.70, 0.78) * head.radii[1], make.vary(0.56, 0.66) * head.radii[2]
    level = up - 0.01
    make.add(face.patch(0, level, half_y + 0.05, half_z + 0.05, 0.03), paint=make.light, crease=80)
    make.add(face.patch(0, level, half_y, half_z, 0.055), paint=make.dark, crease=80)
    shine = make.pick((-1.0, 1.0))
    make.add(face.patch(shine * 0.42 * half_y, level + 0.38 * half_z, 0.09, 0.07, 0.07), paint=GLOW, crease=80)
    if make.chance(0.6):
        make.add(face.patch(shine * 0.62 * half_y, level + 0.02 * half_z, 0.035, 0.035, 0.07), paint=GLOW, crease=80)
    ear = disc(0.11, 0.10, segments=12).turned("z", 90)
    make.add(pair(ear.moved(0, head.radii[1] - 0.01, up)), paint=make.light)
    if make.chance(0.4):
        make.add(cylinder(0.022, 0.2, segments=8).moved(-0.02, -head.radii[1] - 0.02, up + 0.15), paint=make.dark)
        make.add(ellipsoid(0.045, segments=8).moved(-0.02, -head.radii[1] - 0.02, up + 0.26), paint=make.light)

    front = Skin(*trunk, smooth=0.06)
    chest = front.front([0.0], [0.52])[0][0][0]
    make.add(box(0.10, 0.26, 0.17, 0.03, steps=1).moved(chest, 0, 0.53), paint=make.light)
    buttons = [disc(0.032, 0.04, segments=10).moved(chest + 0.055, y, 0.56) for y in (-0.075, 0.0)]
    make.add(*buttons, box(0.04, 0.18, 0.035).moved(chest + 0.045, 0, 0.49), paint=make.dark)
    make.add(
        torus(1.0, 0.16, segments=18, sides=5).scaled(0.215, plump - 0.02, 0.22).moved(0, 0, 0.31),
        paint=make.dark,
        crease=80,
    )
    pack, rise = make.vary(0.44, 0.54), make.vary(0.50, 0.60)
    make.add(box(0.26, pack, rise, 0.08, steps=1).moved(-0.30, 0, 0.58), crease=60)
    make.add(box(0.08, 0.6 * pack, 0.14, 0.03, steps=1).moved(-0.42, 0, 0.68), paint=make.light)
    if make.chance(0.5):
        tank = cylinder(0.09, 0.44, 0.06, segments=10).moved(-0.44, 0.13, 0.52)
        make.add(pair(tank), paint=make.light, crease=60)
    else:
        make.add(*(box(0.04, 0.5 * pack, 0.035).moved(-0.43, 0, z) for z in (0.40, 0.47, 0.54)), paint=make.dark)
    hose = [(-0.28, 0.20, 0.72), (-0.12, plump + 0.12, 0.74), (0.12, plump - 0.02, 0.66), (chest - 0.02, 0.10, 0.56)]
    make.add(sweep(hose, 0.032, sides=6), paint=make.dark, crease=80)
