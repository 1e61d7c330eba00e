"""Elephant, owl, penguin, frog, turtle."""

from __future__ import annotations

import numpy as np

from tools.mini.kinds._accents import APRICOT, PINK
from tools.mini.kinds._skin import Skin, eyes, flesh, leaf
from tools.mini.kinds.registry import kind
from tools.mini.modelling import (
    Ball,
    Blob,
    Bone,
    Egg,
    Flat,
    Maker,
    Solid,
    cone,
    ellipsoid,
    join,
    loft,
    pair,
    sweep,
)
from tools.mini.modelling.paint import CREAM


@kind("elephant", front=True, tags=("animal", "wild"), synonyms=("jumbo", "pachyderm"))
def elephant(make: Maker) -> None:
    """Four pillar legs with pale nails, huge spread ears with pale insides, two tusks, a curling trunk, a thin tail."""
    fat, up = make.vary(0.33, 0.38), make.vary(0.80, 0.90)
    hip = -make.vary(0.34, 0.42)
    size = make.vary(0.28, 0.32)
    head = [Egg((0.34, 0, up), (0.27, size, size)), Ball((0.42, 0, up - 0.10), 0.2)]
    legs = [Bone((x, y, 0.45), (x, y, 0.11), 0.16, 0.145) for x in (0.20, hip) for y in (-0.19, 0.19)]
    torso = [
        Bone((0.10, 0, 0.62), (hip + 0.06, 0, 0.60), fat, fat - 0.02),
        Bone((0.1, 0, 0.7), (0.3, 0, up), 0.25, 0.2),
    ]
    turn = np.linspace(0.0, 1.0, 9)
    if make.chance(0.4):  # raised, or hanging and curled at the tip
        bend = np.deg2rad(-62.0 + make.vary(120.0, 150.0) * turn)
    else:
        bend = np.deg2rad(-30.0 - 58.0 * np.sin(0.5 * np.pi * np.minimum(2.2 * turn, 1.0)))
        bend = bend + np.deg2rad(make.vary(110.0, 190.0)) * np.clip(turn - 0.55, 0.0, 1.0) / 0.45
    step = make.vary(0.070, 0.078)
    trunk = np.stack(
        [np.cumsum(step * np.cos(bend)), np.linspace(0.0, make.vary(-0.08, 0.08), 9), np.cumsum(step * np.sin(bend))], 1
    )
    trunk += (0.50, 0.0, up - 0.10)
    make.add(flesh([*torso, *head, *legs], 0.07))
    make.add(sweep(trunk, np.linspace(0.135, 0.075, 9), sides=9), crease=80)
    ear_w, ear_h = make.vary(0.46, 0.56), make.vary(0.60, 0.70)
    flare = make.vary(15, 35)
    for scale, out, paint in ((1.0, 0.0, None), (0.72, 0.045, PINK)):
        ear = _ear(ear_w * scale, ear_h * scale, 0.09 * scale).moved(out, 0.14 * (1 - scale), 0)
        make.add(pair(ear.turned("z", -flare).moved(0.26, 0.76 * size, up + 0.06)), paint=paint, crease=70)
    face = Skin(*head)
    eyes(make, face, 0.52 * size, up + 0.10, 0.085)
    length = make.vary(0.16, 0.26)
    tusk = sweep([(0, 0, 0), (0.5 * length, 0.02, -0.10), (length, 0.03, -0.09)], (0.055, 0.05, 0.02), sides=8)
    make.add(pair(tusk.moved(0.50, 0.145, up - 0.17)), paint=Flat((0.95, 0.92, 0.84)), crease=80)
    nail = ellipsoid(0.04, 0.045, 0.055, segments=6)
    for x in (0.20, hip):
        nails = [nail.moved(0.145).turned("z", angle) for angle in (-42, 0, 42)]
        make.add(pair(join(*nails).moved(x, 0.19, 0.03)), paint=Flat(CREAM))
    sway = make.vary(-0.12, 0.12)
    tail = [(hip - 0.22, 0, 0.68), (hip - 0.33, 0.5 * sway, 0.52), (hip - 0.34, sway, 0.36)]
    make.add(sweep(tail, (0.05, 0.035, 0.035), sides=8), crease=80)
    make.add(ellipsoid(0.06, 0.06, 0.09, segments=8).moved(*tail[-1]), paint=make.dark)


def _ear(width: float, height: float, thick: float) -> Solid:
    """A fan that starts at the origin and reaches out along +y, rounded above, hanging to a lobe below."""
    angle = np.linspace(0.0, 2.0 * np.pi, 16, endpoint=False)
    y = 0.5 * width * (1.0 + np.cos(angle))
    z = 0.5 * height * np.sin(angle) * (1.0 - 0.25 * np.cos(angle)) - 0.30 * y
    rim = np.stack([-0.35 * y, y, z], axis=1)
    middle = rim.mean(axis=0)
    rings = [(0.35, -0.5), (0.9, -0.5), (1.0, 0.0), (0.9, 0.5), (0.35, 0.5)]
    return loft(np.stack([middle + scale * (rim - middle) + (side * thick, 0, 0) for scale, side in rings]))


@kind("owl", front=True, tags=("animal", "bird"), synonyms=("barn owl", "owlet"))
def owl(make: Maker) -> None:
    """A wide egg with ear tufts, two pale face discs with enormous eyes, hooked beak, pale breast, folded wings."""
    wide, deep, tall = make.vary(0.37, 0.43), make.vary(0.33, 0.38), make.vary(0.40, 0.46)
    up = make.vary(0.76, 0.84)
    head = [Egg((0.02, 0, up), (deep * 0.98, wide * 0.97, 0.29))]
    torso = [Egg((0.0, 0, tall), (deep, wide, tall))]
    tuft_z, tuft_y = make.vary(0.30, 0.42), make.vary(0.76, 0.95)
    tufts = [
        Bone((0.04, y * 0.5 * wide, up + 0.14), (0.06, y * tuft_y * wide, up + tuft_z), 0.13, 0.03) for y in (-1, 1)
    ]
    tail = Bone((-0.24, 0, 0.24), (-0.38, 0, 0.06), 0.13, 0.08)
    make.add(flesh([*torso, *head, *tufts, tail], 0.07))
    front = Skin(*torso, *head, smooth=0.07)
    disc, gap = make.vary(0.18, 0.195), 0.165
    tall_disc = make.vary(1.0, 1.12)
    for side in (-1, 1):
        make.add(front.patch(side * gap, up + 0.02, disc, disc * tall_disc, 0.03), paint=Flat(CREAM))
    amber = Flat(make.pick(((0.99, 0.86, 0.50), (0.80, 0.91, 0.90), (0.95, 0.80, 0.55))))
    for scale, out, paint in ((1.0, 0.015, amber), (0.62, 0.05, make.dark)):
        ball = ellipsoid(0.05, 0.13 * scale, 0.13 * scale, segments=12).moved(out, -0.015)
        make.add(pair(front.place(ball, gap - 0.01, up + 0.03, 0.8)), paint=paint)
    glint = ellipsoid(0.02, 0.026, segments=8).moved(0.095, 0.02, 0.04)
    make.add(front.place(glint, gap, up + 0.03, 0.8), front.place(glint, -gap, up + 0.03, 0.8), paint=Flat(CREAM))
    beak = cone(0.075, 0.20, segments=10).scaled(1.0, 0.8, 1.0).turned("x", 180).turned("y", -18)
    make.add(front.place(beak, 0, up - 0.08, 0.0).moved(0.035, 0, -0.02), paint=APRICOT, crease=60)
    breast = make.vary(0.23, 0.27)
    make.add(front.patch(0, 0.32, breast, 0.24), paint=Flat(CREAM))
    rows = make.pick(((0.40, 0.24), (0.42, 0.32, 0.20)))
    for index, z in enumerate(rows):
        for y in (-0.09, 0.09) if index % 2 else (-0.13, 0.0, 0.13):
            fleck = ellipsoid(0.02, 0.032, 0.024, segments=6)
            make.add(front.place(fleck.moved(0.022), y, z), paint=make.dark)
    angle = make.vary(2, 16)
    wing = (
        leaf(0.36, make.vary(0.56, 0.64), 0.13, 0.55)
        .turned("z", 90)
        .turned("x", 180)
        .turned("y", 14)
        .turned("x", angle)
    )
    make.add(pair(wing.moved(0.02, wide - 0.05, 0.70)), crease=70)
    foot = join(*(ellipsoid(0.10, 0.04, 0.04, segments=6).moved(0.07).turned("z", a) for a in (-28, 0, 28)))
    make.add(pair(foot.moved(deep - 0.16, 0.16, 0.03)), paint=APRICOT)


@kind("penguin", front=True, tags=("animal", "bird"), synonyms=("emperor penguin", "gentoo"))
def penguin(make: Maker) -> None:
    """Upright skittle, flippers at its sides, pale heart-shaped face and big pale belly in front, pointed beak."""
    fat, up = make.vary(0.31, 0.37), make.vary(0.86, 0.98)
    size = make.vary(0.25, 0.29)
    torso = [Egg((0.0, 0, 0.42), (fat * 0.95, fat, 0.42)), Bone((0.0, 0, 0.5), (0.01, 0, up - 0.1), 0.25, 0.22)]
    head = [Egg((0.03, 0, up), (size, size * 1.04, size))]
    tail = Bone((-0.2, 0, 0.16), (-fat - 0.02, 0, 0.04), 0.11, 0.06)
    make.add(flesh([*torso, *head, tail], 0.08))
    face, belly = Skin(*head), Skin(*torso, smooth=0.08)
    make.add(face.patch(0, up - 0.02, 0.87 * size, 0.70 * size, 0.016, cleft=0.42), paint=Flat(CREAM))
    make.add(belly.patch(0, 0.40, 0.74 * fat, 0.345, 0.025), paint=Flat(CREAM))
    eyes(make, face, 0.44 * size, up + 0.06, make.vary(0.088, 0.1), white=Flat((0.97, 0.95, 0.90)))
    at = face.front([0.0], [up - 0.06])[0][0]
    reach = make.vary(0.16, 0.24)
    beak = cone(0.09, reach, 0.015, segments=12).scaled(0.75, 1.0, 1.0).turned("y", 90 + make.vary(0, 14))
    make.add(beak.moved(at[0] + 0.4 * reach, 0, up - 0.07), paint=APRICOT, crease=60)
    length = make.vary(0.46, 0.56)
    low, waving = make.vary(14, 45), make.pick((0, 0, 1, -1))
    for side in (-1, 1):
        lift = make.vary(95, 125) if side == waving else low
        flipper = leaf(0.23, length, 0.09, 0.6).turned("x", 180)
        flipper = flipper.turned("y", 6).turned("x", side * lift)
        make.add(flipper.moved(0.0, side * (fat - 0.10), 0.66), crease=70)
    foot = join(*(ellipsoid(0.13, 0.055, 0.05, segments=8).moved(0.09).turned("z", a) for a in (-26, 0, 26)))
    spread = make.vary(0.14, 0.19)
    make.add(pair(foot.turned("z", 14).moved(fat - 0.22, spread, 0.03)), paint=APRICOT)


@kind("frog", front=True, tags=("animal", "pond"), synonyms=("toad", "tree frog"))
def frog(make: Maker) -> None:
    """Squats on folded hind legs, eyes bulging on top of a wide head, a smile from side to side, pale throat."""
    wide, up = make.vary(0.40, 0.47), make.vary(0.52, 0.60)
    head = [Egg((0.20, 0, up), (0.32, wide, 0.22))]
    torso = [Egg((-0.06, 0, 0.36), (0.42, 0.37, 0.28), 28.0), Egg((0.14, 0, 0.36), (0.28, 0.32, 0.27))]
    bulge, apart = make.vary(0.145, 0.17), make.vary(0.54, 0.64) * wide
    eye = np.array([0.20, apart, up + 0.20])
    bumps = [Ball((eye[0], side * eye[1], eye[2]), bulge) for side in (-1, 1)]
    splay = make.vary(0.0, 0.10)
    limbs: list[Blob] = [Egg((-0.18, side * (0.40 + splay), 0.22), (0.29, 0.15, 0.20), 20.0) for side in (-1, 1)]
    limbs += [
        Bone((-0.34, side * (0.44 + splay), 0.08), (0.10, side * (0.50 + splay), 0.06), 0.09, 0.07) for side in (-1, 1)
    ]
    arm = make.vary(0.26, 0.34)
    limbs += [Bone((0.22, side * 0.27, 0.36), (0.38, side * arm, 0.06), 0.085, 0.075) for side in (-1, 1)]
    make.add(flesh([*torso, *head, *bumps, *limbs], 0.05, cells=19))
    fingers = [ellipsoid(0.11, 0.045, 0.045, segments=6).moved(0.09).turned("z", angle) for angle in (-35, 0, 35)]
    make.add(pair(join(*fingers).moved(0.38, arm, 0.035)))
    make.add(pair(join(*fingers).scaled(1.3, 1.2, 1.0).turned("z", 20).moved(0.10, 0.50 + splay, 0.035)))
    ball = ellipsoid(0.6 * bulge, 0.86 * bulge, 0.86 * bulge, segments=14)
    pupil = ellipsoid(0.30 * bulge, make.vary(0.42, 0.62) * bulge, 0.46 * bulge, segments=12).moved(0.42 * bulge)
    look = make.vary(8, 26)
    for part, paint in ((ball, Flat((0.97, 0.93, 0.70))), (pupil, make.dark)):
        turned = part.moved(0.52 * bulge).turned("y", -12).turned("z", look)
        make.add(pair(turned.moved(*eye)), paint=paint)
    face, belly = Skin(*head), Skin(*torso, *head, smooth=0.05)
    y = np.linspace(-0.66, 0.66, 10) * wide
    make.add(belly.patch(0, up - 0.25, 0.28, 0.17), paint=Flat(CREAM))
    curve = make.vary(0.08, 0.13)
    make.add(belly.stroke(y, up - 0.06 + curve * (y / wide) ** 2, 0.024), paint=make.dark)
    nostril = ellipsoid(0.02, 0.022, segments=8)
    make.add(pair(face.place(nostril, 0.06, up + 0.07)), paint=make.dark)
    if make.chance(0.4):
        make.add(pair(face.place(ellipsoid(0.02, 0.07, 0.055, segments=10), 0.72 * wide, up + 0.02)), paint=PINK)


@kind("turtle", front=True, tags=("animal", "reptile"), synonyms=("tortoise", "terrapin"))
def turtle(make: Maker) -> None:
    """A high shell of raised plates with dark seams and a pale rim, stubby legs, big-eyed head with a pale face."""
    long, wide, tall = make.vary(0.48, 0.54), make.vary(0.44, 0.50), make.vary(0.48, 0.58)
    base = 0.22
    make.add(
        ellipsoid(long, wide, tall, segments=18)
        .warped(lambda p: np.column_stack([p[:, :2], np.maximum(p[:, 2], -0.08)]))
        .moved(0, 0, base),
        paint=make.dark,
    )
    plates = [plate.scaled(long, wide, tall).moved(0, 0, base) for plate in _plates(make)]
    make.add(join(*plates), crease=35)
    rim = sweep(
        [(1.0 * long * np.cos(a), wide * np.sin(a), base) for a in np.linspace(0, 2 * np.pi, 24, endpoint=False)],
        0.08,
        sides=6,
        closed=True,
    )
    make.add(rim, paint=Flat(CREAM))
    up, size = make.vary(0.54, 0.66), make.vary(0.225, 0.26)
    x = long + make.vary(0.12, 0.18)
    head = [Egg((x, 0, up), (size * 1.05, size, size * 0.95))]
    stride = make.vary(-0.08, 0.08)
    limbs = [Bone((long - 0.18, 0, base + 0.06), (x - 0.04, 0, up - 0.08), 0.14, 0.13)]
    for side in (-1, 1):
        limbs.append(
            Bone(
                (0.55 * long, side * 0.6 * wide, 0.2),
                (0.72 * long + side * stride, side * 0.86 * wide, 0.08),
                0.14,
                0.12,
            )
        )
        limbs.append(
            Bone(
                (-0.55 * long, side * 0.6 * wide, 0.2),
                (-0.72 * long + side * stride, side * 0.82 * wide, 0.07),
                0.13,
                0.11,
            )
        )
    limbs.append(Bone((-0.8 * long, 0, base - 0.05), (-long - 0.16, make.vary(-0.06, 0.06), 0.08), 0.09, 0.03))
    make.add(flesh([*head, *limbs], 0.05, cells=19))
    face = Skin(*head)
    make.add(face.patch(0, up - 0.09, 0.80 * size, 0.55 * size, 0.02), paint=Flat(CREAM))
    eyes(make, face, 0.52 * size, up + 0.06, make.vary(0.085, 0.095))
    y = np.linspace(-0.55, 0.55, 7) * size
    make.add(face.stroke(y, up - 0.12 + 0.9 * y**2 / size, 0.024), paint=make.dark)
    make.add(Skin(Egg((0, 0, base), (0.97 * long, wide, tall))).patch(0, base - 0.02, 0.3, 0.1), paint=Flat(CREAM))


def _plates(make: Maker) -> list[Solid]:
    """Raised plates on the upper half of the unit sphere: one on top, six around it, twelve above the rim."""
    seam, lift = 0.07, make.vary(0.06, 0.10)
    turn = make.pick((0.0, 30.0))
    rings = [(0.0, 32.0, 1), (32.0, 62.0, 6), (62.0, 84.0, 12)]
    plates = []
    for low, high, count in rings:
        for index in range(count):
            if count == 1:
                azimuth = np.deg2rad(turn + 30.0 + 60.0 * np.arange(6))
                polar = np.full(6, np.deg2rad(high))
            else:
                edge = turn + 30.0 + 360.0 / count * (index + np.array([0.0, 1.0]))
                azimuth = np.deg2rad(np.array([edge[0], 0.5 * edge.sum(), edge[1], edge[1], 0.5 * edge.sum(), edge[0]]))
                polar = np.deg2rad(np.array([high, high, high, low, low, low]))
            corner = np.stack([np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar)], 1)
            middle = corner.mean(axis=0)
            reach = np.linalg.norm(corner - middle, axis=1, keepdims=True)
            curves = []
            for inset, height in ((seam * 0.5, -0.06), (seam * 0.5, 0.5 * lift), (seam * 1.4, lift)):
                curve = middle + (corner - middle) * (1.0 - np.minimum(inset / reach, 0.6))
                curves.append(curve / np.linalg.norm(curve, axis=1, keepdims=True) * (1.0 + height))
            plate = loft(np.stack(curves))
            points = plate.vertices
            points[-1] *= (1.0 + 1.15 * lift) / np.linalg.norm(points[-1])
            plates.append(plate)
    return plates
