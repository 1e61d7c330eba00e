"""Cat, dog, rabbit, pig, duck, bear."""

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
    Paint,
    cone,
    cylinder,
    disc,
    ellipsoid,
    join,
    pair,
    sweep,
    torus,
)
from tools.mini.modelling.paint import CREAM


def _muzzle(
    make: Maker, skin: Skin, z: float, size: tuple[float, float, float], nose: float, nose_paint: Paint
) -> Skin:
    """A pale muzzle with a nose on top and a mouth line below; returns its skin."""
    at = skin.front([0.0], [z])[0][0]
    egg = Egg((at[0] + 0.1 * size[0], 0, z), size)
    make.add(ellipsoid(*size, segments=16).moved(*egg.at), paint=Flat(CREAM))
    own = Skin(egg)
    make.add(
        own.place(ellipsoid(0.6 * nose, nose, 0.72 * nose, segments=10), 0, z + 0.42 * size[2], 0.7), paint=nose_paint
    )
    return own


def _mouth(make: Maker, skin: Skin, z: float, half: float, radius: float = 0.016) -> None:
    """Two little arcs that meet in the middle, like a w."""
    y = np.linspace(0.0, half, 6)
    arc = skin.stroke(y, z - 0.34 * half * np.sin(np.pi * y / half), radius)
    make.add(pair(arc), paint=make.dark)


@kind("cat", front=True, tags=("animal", "pet"), synonyms=("kitten", "kitty"))
def cat(make: Maker) -> None:
    """Sits upright, pointed ears, tail curled around one side, a large pale muzzle and big green eyes in front."""
    wide, tall = make.vary(0.34, 0.40), make.vary(0.29, 0.34)
    plump, up = make.vary(0.27, 0.34), make.vary(0.80, 0.92)
    head = [Egg((0.10, 0, up), (0.31, wide, tall)), Egg((0.16, 0, up - 0.10), (0.25, wide + 0.02, 0.19))]
    chest = [Egg((-0.05, 0, 0.30), (plump + 0.03, plump, 0.32)), Ball((0.03, 0, 0.50), 0.23)]
    legs: list[Blob] = [Bone((0.18, y, 0.42), (0.28, y, 0.05), 0.095, 0.085) for y in (-0.12, 0.12)]
    legs += [Egg((0.06, y * plump * 0.9, 0.13), (0.26, 0.13, 0.14)) for y in (-1.0, 1.0)]
    make.add(flesh([*chest, *head, *legs], 0.06))
    ear = (
        cone(0.17, make.vary(0.30, 0.42), segments=4).turned("z", 45).scaled(0.5, 1, 1).turned("x", make.vary(-20, -8))
    )
    place = (0.06, 0.62 * wide, up + 0.86 * tall + 0.04)
    make.add(pair(ear.moved(*place)), crease=30)
    make.add(pair(ear.scaled(0.5, 0.62, 0.7).moved(place[0] + 0.062, place[1], place[2] - 0.02)), paint=PINK, crease=30)
    face = Skin(*head)
    iris = Flat(make.pick(((0.80, 0.92, 0.45), (0.72, 0.90, 0.86), (0.96, 0.88, 0.50))))
    eyes(make, face, 0.46 * wide, up + 0.06, make.vary(0.105, 0.125), white=iris)
    nose = _muzzle(make, face, up - 0.13, (0.11, 0.18, 0.115), 0.06, Flat((0.90, 0.55, 0.56)))
    _mouth(make, nose, up - 0.15, 0.07)
    make.add(Skin(*chest).patch(0, 0.44, 0.15, 0.20), paint=Flat(CREAM))
    if make.chance(0.5):
        for y in (-0.12, 0.12):
            make.add(ellipsoid(0.12, 0.095, 0.075, segments=10).moved(0.30, y, 0.055), paint=Flat(CREAM))
    side = make.pick((-1.0, 1.0))
    turn = np.linspace(0.0, 1.0, 9)
    if make.chance(0.5):  # wrapped around the body, or raised behind it
        angle = np.linspace(np.pi, 0.25 * np.pi, 9)
        reach = plump + 0.12
        path = np.stack([reach * np.cos(angle), side * reach * np.sin(angle), 0.09 + 0.04 * turn], axis=1)
    else:
        bend = side * make.vary(0.1, 0.25)
        path = np.stack(
            [-0.28 - 0.25 * np.sin(0.75 * np.pi * turn), bend * np.sin(4 * turn), 0.12 + 0.62 * turn**1.4], 1
        )
    make.add(sweep(path, np.linspace(0.085, 0.065, 9)), crease=80)


@kind("dog", front=True, tags=("animal", "pet"), synonyms=("puppy", "hound", "doggy"))
def dog(make: Maker) -> None:
    """Stands or sits, big floppy ears beside the head, a long pale snout with a large dark nose, often a collar."""
    standing = make.chance(0.6)
    wide, tall = make.vary(0.30, 0.35), make.vary(0.28, 0.33)
    fat = make.vary(0.21, 0.26)
    if standing:
        x, up, hip = 0.26, make.vary(0.88, 0.96), -make.vary(0.28, 0.36)
        chest = [Ball((0.16, 0, 0.50), fat + 0.03), Bone((0.16, 0, 0.55), (0.22, 0, up - 0.1), 0.19, 0.17)]
        trunk: list[Blob] = [Bone((0.1, 0, 0.47), (hip + 0.05, 0, 0.47), fat, fat)]
        trunk += [Bone((0.18, y, 0.42), (0.21, y, 0.08), 0.11, 0.10) for y in (-0.14, 0.14)]
        trunk += [Bone((hip, y, 0.42), (hip - 0.02, y, 0.08), 0.13, 0.10) for y in (-0.14, 0.14)]
        paws = [(0.25, 0.14), (hip + 0.02, 0.14)]
        root = np.array([hip - 0.14, 0.0, 0.56])
    else:
        x, up = 0.16, make.vary(0.90, 0.98)
        chest = [Ball((0.04, 0, 0.52), 0.25), Bone((0.02, 0, 0.55), (0.10, 0, up - 0.1), 0.2, 0.17)]
        trunk = [Egg((-0.08, 0, 0.30), (fat + 0.1, fat + 0.06, 0.31))]
        trunk += [Bone((0.17, y, 0.45), (0.25, y, 0.08), 0.11, 0.095) for y in (-0.13, 0.13)]
        trunk += [Egg((0.02, y, 0.15), (0.27, 0.13, 0.16)) for y in (-fat - 0.02, fat + 0.02)]
        paws = [(0.28, 0.13), (0.24, fat + 0.03)]
        root = np.array([-0.36, 0.0, 0.16])
    skull = [Egg((x, 0, up), (0.31, wide, tall)), Egg((x + 0.18, 0, up - 0.10), (0.22, 0.20, 0.16))]
    make.add(flesh([*chest, *trunk, *skull], 0.07, cells=17 if standing else 16))
    sock = ellipsoid(0.14, 0.105, 0.08, segments=10)
    if make.chance(0.5):
        for px, py in paws:
            make.add(pair(sock.moved(px, py, 0.06)), paint=Flat(CREAM))
    face = Skin(*skull)
    snout = make.vary(0.16, 0.22)
    nose = _muzzle(make, face, up - 0.12, (snout, 0.19, 0.14), 0.09, make.dark)
    _mouth(make, nose, up - 0.16, 0.09)
    if make.chance(0.6):
        tongue = ellipsoid(0.035, 0.06, 0.10, segments=8)
        make.add(
            nose.place(tongue, make.vary(-0.02, 0.02), up - 0.22, 0.0).moved(0.0, 0, -0.03),
            paint=Flat((0.95, 0.62, 0.64)),
        )
    if make.chance(0.4):
        side = make.pick((-1.0, 1.0))
        make.add(face.patch(side * 0.13, up + 0.12, 0.105, 0.13, 0.012), paint=Flat(CREAM))
    eyes(make, face, 0.44 * wide, up + 0.10, make.vary(0.092, 0.108))
    ear = leaf(make.vary(0.26, 0.34), make.vary(0.42, 0.54), 0.12, 0.36).turned("z", 90).turned("x", 180)
    ear = ear.turned("x", make.vary(8, 24)).turned("y", make.vary(-12, 6))
    shade = None if make.chance(0.65) else make.dark
    make.add(pair(ear.moved(x - 0.03, 0.93 * wide, up + 0.50 * tall)), paint=shade, crease=70)
    make.add(Skin(*chest).patch(0, 0.50 if standing else 0.46, 0.14, 0.16), paint=Flat(CREAM))
    if make.chance(0.6):
        collar = torus(0.195, 0.04, segments=18, sides=6).turned("y", 20)
        make.add(collar.moved(x - 0.09, 0, up - 0.24), paint=make.dark)
    turn = np.linspace(0.0, 1.0, 7)
    wag, lift = make.vary(-0.2, 0.2), make.vary(0.25, 0.45)
    path = root + np.stack([-0.20 * turn + 0.12 * turn**3, wag * turn**2, lift * turn**1.3], axis=1)
    make.add(sweep(path, np.linspace(0.085, 0.05, 7), sides=8), crease=80)


@kind("rabbit", front=True, tags=("animal", "pet"), synonyms=("bunny", "hare"))
def rabbit(make: Maker) -> None:
    """Sits up on large feet, long thick ears with pale insides, chubby cheeks, buck teeth, a pale tuft of a tail."""
    wide, up = make.vary(0.33, 0.38), make.vary(0.76, 0.84)
    plump = make.vary(0.29, 0.36)
    head = [Egg((0.08, 0, up), (0.30, wide, 0.29)), Egg((0.14, 0, up - 0.10), (0.26, wide + 0.05, 0.18))]
    chest = [Egg((-0.06, 0, 0.32), (plump + 0.02, plump, 0.33))]
    limbs: list[Blob] = [Egg((0.0, y * (plump - 0.04), 0.20), (0.27, 0.14, 0.20)) for y in (-1, 1)]
    limbs += [Egg((0.16, y * (plump - 0.06), 0.07), (0.27, 0.125, 0.085)) for y in (-1, 1)]
    limbs += [Bone((0.16, y, 0.50), (0.32, 0.8 * y, make.vary(0.33, 0.39)), 0.085, 0.09) for y in (-0.2, 0.2)]
    make.add(flesh([*head, *chest, *limbs], 0.06))
    length, width = make.vary(0.48, 0.60), make.vary(0.23, 0.28)
    spread = make.vary(5, 20)
    folded = make.pick((0, 0, 0, -1, 1))
    for side in (-1, 1):
        for scale, out, paint in ((1.0, 0.0, None), (0.66, 0.03, PINK)):
            ear = leaf(width * scale, length * (0.75 + 0.25 * scale), 0.11, 0.42).moved(out, 0, 0.12 * (1 - scale))
            ear = ear.bent(120.0) if side == folded else ear
            ear = ear.turned("x", -side * spread).turned("y", -10)
            make.add(ear.moved(0.02, side * 0.48 * wide, up + 0.20), paint=paint, crease=80)
    face = Skin(*head)
    eyes(make, face, 0.50 * wide, up + 0.06, make.vary(0.10, 0.115))
    nose = _muzzle(make, face, up - 0.12, (0.10, 0.15, 0.10), 0.05, Flat((0.92, 0.60, 0.62)))
    teeth = nose.front([0.0], [up - 0.17])[0][0]
    make.add(ellipsoid(0.03, 0.05, 0.055, segments=10).moved(teeth[0], 0, up - 0.20), paint=Flat((0.97, 0.95, 0.90)))
    make.add(Skin(*chest).patch(0, 0.29, 0.19, 0.18), paint=Flat(CREAM))
    tail = make.vary(0.12, 0.15)
    make.add(ellipsoid(tail, segments=14).moved(-plump - 0.10, 0, 0.18), paint=Flat(CREAM))


@kind("pig", front=True, tags=("animal", "farm"), synonyms=("piglet", "hog", "piggy"))
def pig(make: Maker) -> None:
    """A barrel on four short legs, a huge pale snout disc with two nostrils, drooping triangular ears, a curly tail."""
    fat, long = make.vary(0.37, 0.43), make.vary(0.43, 0.49)
    up = make.vary(0.60, 0.70)
    legs = [Bone((x, y, 0.30), (x, y, 0.10), 0.13, 0.115) for x in (0.20, -0.60 * long) for y in (-0.19, 0.19)]
    cheeks = make.vary(0.33, 0.38)
    head = [Egg((0.30, 0, up), (0.30, cheeks, 0.32)), Egg((0.48, 0, up - 0.07), (0.19, 0.19, 0.16))]
    make.add(flesh([Egg((-0.06, 0, 0.48), (long, fat, fat)), *head, *legs], 0.08))
    hoof = cylinder(0.13, 0.09, segments=14)
    for x in (0.20, -0.60 * long):
        make.add(pair(hoof.moved(x, 0.19, 0.03)), paint=make.dark)
    snout = make.vary(0.155, 0.185)
    make.add(
        disc(1.0, 0.16, 0.05, segments=20).scaled(1.0, snout * 1.08, snout * 0.92).moved(0.64, 0, up - 0.07),
        paint=Flat((0.98, 0.84, 0.80)),
    )
    make.add(pair(ellipsoid(0.025, 0.038, 0.058, segments=12).moved(0.725, 0.072, up - 0.07)), paint=make.dark)
    face = Skin(*head)
    eyes(make, face, make.vary(0.17, 0.20), up + 0.12, 0.092)
    jaw = np.linspace(-0.13, 0.13, 7)
    make.add(face.stroke(jaw, up - 0.25 + 2.0 * jaw**2, 0.018), paint=make.dark)
    droop = make.vary(40, 60) if make.chance(0.7) else make.vary(5, 15)
    for scale, out, paint in ((1.0, 0.0, None), (0.6, 0.035, PINK)):
        ear = leaf(0.28 * scale, 0.34 * (0.72 + 0.28 * scale), 0.08, 0.62).moved(out, 0, 0.10 * (1 - scale)).bent(droop)
        make.add(
            pair(ear.turned("y", 0.7 * droop - 15).turned("x", -24).moved(0.18, 0.17, up + 0.24)),
            paint=paint,
            crease=70,
        )
    turn = np.linspace(0.0, 1.0, 15)
    angle = make.pick((-1.0, 1.0)) * 2.0 * np.pi * 1.5 * turn
    curl = 0.085 * np.sin(0.5 * np.pi * np.minimum(2.5 * turn, 1.0))
    path = np.stack([-long - 0.03 - 0.17 * turn, curl * np.sin(angle), 0.58 + curl * (1 - np.cos(angle))], axis=1)
    make.add(sweep(path, np.linspace(0.045, 0.035, 15), sides=6), crease=80)


@kind("duck", front=True, tags=("animal", "farm", "bird"), synonyms=("duckling", "mallard", "drake"))
def duck(make: Maker) -> None:
    """A bath duck: boat-shaped body with an upturned tail, round head, a broad pale bill, folded wings, webbed feet."""
    long, fat, up = make.vary(0.44, 0.52), make.vary(0.34, 0.39), make.vary(0.82, 0.94)
    size = make.vary(0.27, 0.31)
    head = [Egg((0.26, 0, up), (size, size, size * 0.97))]
    hull = [Egg((-0.08, 0, 0.34), (long, fat, 0.30)), Ball((0.14, 0, 0.38), 0.30)]
    lift = make.vary(0.62, 0.76)
    rest = [Bone((-0.36, 0, 0.40), (-0.62, 0, lift), 0.20, 0.05), Bone((0.16, 0, 0.5), (0.24, 0, up), 0.22, 0.18)]
    make.add(flesh([*hull, *rest, *head], 0.08))
    face = Skin(*head)
    at = face.front([0.0], [up - 0.07])[0][0][0]
    wide, reach, open_ = make.vary(0.18, 0.22), make.vary(0.22, 0.28), make.vary(2, 12)
    upper = ellipsoid(reach, wide, 0.075, segments=18).warped(lambda p: p + [[0, 0, 1]] * (0.9 * p[:, :1] ** 2))
    lower = ellipsoid(0.84 * reach, 0.84 * wide, 0.05, segments=16)
    make.add(upper.turned("y", -4).moved(at + 0.05, 0, up - 0.06), paint=APRICOT)
    make.add(lower.turned("y", open_).moved(at + 0.03, 0, up - 0.135), paint=Flat((0.90, 0.66, 0.40)))
    eyes(make, face, 0.50 * size, up + 0.10, 0.092)
    make.add(Skin(*hull).patch(0, 0.40, 0.20, 0.17), paint=Flat(CREAM))
    spread, rise = make.vary(4, 22), make.vary(8, 26)
    wing = leaf(0.34, make.vary(0.52, 0.62), 0.12, 0.6).turned("z", 90).turned("y", -90 + rise).turned("z", -spread)
    make.add(pair(wing.moved(0.12, fat - 0.02, 0.42)), crease=70)
    if make.chance(0.6):
        foot = join(ellipsoid(0.18, 0.13, 0.045, segments=12), cylinder(0.045, 0.24, segments=8).moved(-0.08, 0, 0.1))
        make.add(pair(foot.turned("z", 14).moved(0.20, 0.17, -0.06)), paint=APRICOT)
    if make.chance(0.6):
        curl = sweep(
            [(0.24, 0, up + 0.9 * size), (0.19, 0, up + 1.15 * size), (0.05, 0, up + 1.22 * size)],
            (0.055, 0.05, 0.03),
            sides=8,
        )
        make.add(curl, crease=80)


@kind("bear", front=True, tags=("animal", "toy"), synonyms=("teddy", "teddy bear", "cub"))
def bear(make: Maker) -> None:
    """A sitting teddy bear: round ears, huge pale muzzle, belly patch and soles, arms hanging or raised."""
    wide, up = make.vary(0.36, 0.41), make.vary(0.82, 0.90)
    plump = make.vary(0.31, 0.37)
    head = [Egg((0.03, 0, up), (0.33, wide, 0.32))]
    chest = [Egg((-0.02, 0, 0.34), (plump, plump + 0.02, 0.36))]
    spread = make.vary(0.02, 0.12)
    soles = [(0.47, side * (plump - 0.06 + spread), 0.13) for side in (-1, 1)]
    limbs: list[Blob] = [Bone((0.05, 0.6 * y, 0.15), (x, y, z), 0.14, 0.15) for x, y, z in soles]
    for side in (-1, 1):
        hand = (make.vary(0.12, 0.26), side * (plump + make.vary(0.12, 0.20)), make.pick((0.26, 0.34, 0.66)))
        limbs.append(Bone((0.02, side * (plump - 0.06), 0.54), hand, 0.11, 0.12))
    ear = make.vary(0.13, 0.165)
    place = (0.0, 0.76 * wide, up + 0.25)
    ears = [Egg((place[0], side * place[1], place[2]), (0.075, ear, ear)) for side in (-1, 1)]
    make.add(flesh([*chest, *head, *limbs, *ears], 0.05))
    make.add(pair(ellipsoid(0.04, 0.66 * ear, 0.66 * ear, segments=10).moved(0.075, place[1], place[2])), paint=PINK)
    face = Skin(*head)
    eyes(make, face, 0.40 * wide, up + 0.09, make.vary(0.085, 0.095))
    nose = _muzzle(make, face, up - 0.11, (0.16, make.vary(0.19, 0.22), 0.145), 0.085, make.dark)
    _mouth(make, nose, up - 0.15, 0.09, 0.018)
    make.add(Skin(*chest).patch(0, 0.34, 0.21, 0.21), paint=Flat(CREAM))
    for x, y, z in soles:
        pad = ellipsoid(0.04, 0.105, 0.11, segments=14)
        make.add(pad.moved(x + 0.135, y, z + 0.01), paint=Flat(CREAM))
    if make.chance(0.4):
        bow = cone(0.09, 0.17, 0.02, segments=12).turned("x", 90).scaled(0.6, 1, 1)
        make.add(pair(bow.moved(0.31, 0.08, 0.58)), ellipsoid(0.05, segments=10).moved(0.32, 0, 0.58), paint=make.dark)
    make.add(ellipsoid(0.10, segments=12).moved(-plump - 0.03, 0, 0.14))
