"""Fish and dinosaur."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tools.mini.kinds._skin import Skin, eyes
from tools.mini.kinds.registry import kind
from tools.mini.modelling import (
    Blob,
    Bone,
    Egg,
    Flat,
    Maker,
    Solid,
    blend,
    cone,
    disc,
    ellipsoid,
    extrude,
    loft,
    pair,
    torus,
)

Float = NDArray[np.float64]

LIPS = Flat((0.96, 0.74, 0.70))


def _fan(reach: ArrayLike, degrees: tuple[float, float], thick: float, ridges: int = 0) -> Solid:
    """A fin in the plane y = 0 that spreads from the origin.

    Args:
        reach: length along rays at equal steps of the angle. degrees: first and last ray, 0 is +x and 90 is +z.
        ridges: folds that run along it.
    """
    knots = np.atleast_1d(np.asarray(reach, np.float64))
    share = np.linspace(0.0, 1.0, 15)
    length = np.interp(share, np.linspace(0.0, 1.0, len(knots)), knots)
    angle = np.deg2rad(degrees[0] + (degrees[1] - degrees[0]) * share)
    rings = []
    for out in (0.1, 0.55, 0.93, 1.0):
        swell = (
            thick * (1.15 - out) * (1.0 + 0.45 * np.cos(2.0 * np.pi * ridges * share)) * np.sin(np.pi * share) ** 0.3
        )
        if out == 1.0:
            swell = 0.25 * swell
        x, z = out * length * np.cos(angle), out * length * np.sin(angle)
        left, right = np.stack([x, swell, z], axis=1), np.stack([x, -swell, z], axis=1)[::-1]
        rings.append(np.concatenate([left, right]))
    fin = loft(np.stack(rings))
    return fin if degrees[1] > degrees[0] else Solid(fin.vertices, fin.faces[:, ::-1])


def _reach(skin: Skin, inside: ArrayLike, outwards: ArrayLike) -> Float:
    """The outermost points of a skin on rays, ``[N, 3]``."""
    way = np.asarray(outwards, np.float64)
    way = way / np.linalg.norm(way, axis=1, keepdims=True)
    points = np.asarray(inside, np.float64) + 0.7 * way
    for _ in range(10):
        points = points - 0.95 * skin.level(points)[:, None] * way
    return points


@kind("fish", front=True, tags=("animal", "sea"), synonyms=("goldfish", "carp"))
def fish(make: Maker) -> None:
    """Plump, big bulging eyes and a pouting mouth in front, a fan of a tail, a comb on the back, side fins."""
    long, fat, high = make.vary(0.50, 0.62), make.vary(0.34, 0.42), make.vary(0.42, 0.52)
    head = [Egg((0.0, 0, 0), (long, fat, high)), Egg((0.20, 0, -0.02), (long - 0.10, fat + 0.02, 0.34))]
    stem = [Bone((-0.3, 0, 0), (-long - 0.14, 0, 0.02), 0.22, 0.10)]
    make.add(blend([*head, *stem], 0.10, cells=22), crease=80)
    face = Skin(*head, smooth=0.10)
    eyes(make, face, 0.60 * fat, make.vary(0.10, 0.15), make.vary(0.135, 0.165))

    mouth = make.pick(("pout", "pout", "smile"))
    low = -0.13
    if mouth == "pout":
        wide = make.vary(0.12, 0.15)
        ring = torus(wide, 0.055, segments=18, sides=8).turned("y", 90).scaled(1, 1, make.vary(0.75, 1.0))
        make.add(face.place(disc(0.95 * wide, 0.05, segments=14), 0, low), paint=make.dark)
        make.add(face.place(ring.moved(0.02), 0, low), paint=LIPS, crease=80)
    else:
        y = np.linspace(-0.24, 0.24, 9)
        make.add(face.stroke(y, low - 0.05 + 1.6 * y**2, 0.032), paint=make.dark, crease=80)
        cheek = ellipsoid(0.02, 0.075, 0.06, segments=10)
        make.add(pair(face.place(cheek, 0.27, low - 0.02)), paint=LIPS)
    if make.chance(0.6):
        make.add(face.patch(0, -0.5 * high - 0.06, 0.62 * fat, 0.13, 0.02), paint=make.light, crease=80)

    tail, spread = make.vary(0.50, 0.62), make.vary(40, 58)
    lobes = {
        "fork": (1.0, 1.05, 0.8, 0.58, 0.8, 1.05, 1.0),
        "round": (0.75, 0.95, 1.0, 1.04, 1.0, 0.95, 0.75),
        "scallop": (0.9, 1.05, 0.85, 1.0, 0.85, 1.05, 0.9),
    }[make.pick(("fork", "fork", "round", "scallop"))]
    fins = [_fan(tail * np.array(lobes), (180 + spread, 180 - spread), 0.07, 4).moved(-long - 0.08, 0, 0.02)]
    comb = make.pick(((0.50, 0.56, 0.46, 0.40), (0.46, 0.56, 0.42, 0.50, 0.42), (0.40, 0.50, 0.56, 0.58, 0.52)))
    fins.append(_fan(np.array(comb) + (high - 0.42), (82, 156), 0.07, 4).moved(-0.02, 0, 0.14))
    fins.append(_fan((0.26, 0.34, 0.30), (-150, -100), 0.06, 2).moved(-0.12, 0, -0.55 * high))
    side = _fan((0.30, 0.36, 0.34, 0.28), (215, 140), 0.06, 3).turned("z", make.vary(-50, -30)).turned("x", 15)
    make.add(*fins, pair(side.moved(0.06, 0.86 * fat, -0.10)), crease=60)


@kind("dinosaur", front=True, tags=("animal", "reptile"), synonyms=("dino", "tyrannosaurus"))
def dinosaur(make: Maker) -> None:
    """Upright on two stout legs with tiny arms: a big jaw with teeth, a comb of plates down to a thick tail."""
    up, plump = make.vary(0.98, 1.08), make.vary(0.30, 0.36)
    wide, snout = make.vary(0.25, 0.29), make.vary(0.22, 0.32)
    skull = [Egg((0.20, 0, up), (0.30, wide, 0.26)), Egg((0.26 + snout, 0, up - 0.09), (snout, wide - 0.03, 0.165))]
    chest = [
        Egg((-0.04, 0, 0.46), (plump + 0.04, plump, 0.42), 12.0),
        Bone((-0.02, 0, 0.6), (0.12, 0, up - 0.1), 0.24, 0.2),
    ]
    sway, lift = make.vary(-0.18, 0.18), make.vary(0.08, 0.34)
    tail = [
        Bone((-0.15, 0, 0.34), (-0.55, 0.4 * sway, 0.20), 0.27, 0.17),
        Bone((-0.55, 0.4 * sway, 0.20), (-0.86, sway, lift), 0.16, 0.05),
    ]
    limbs: list[Blob] = [Egg((0.0, y * (plump - 0.06), 0.26), (0.22, 0.16, 0.25)) for y in (-1, 1)]
    limbs += [Bone((0.02, y * plump * 0.9, 0.09), (0.20, y * plump, 0.08), 0.12, 0.115) for y in (-1, 1)]
    hand = make.vary(0.50, 0.66)
    limbs += [Bone((0.16, y * 0.26, 0.64), (0.40, y * 0.22, hand), 0.085, 0.075) for y in (-1, 1)]
    make.add(blend([*skull, *chest, *tail, *limbs], 0.07, cells=26), crease=80)
    face, front = Skin(*skull, smooth=0.07), Skin(*chest, smooth=0.07)
    eyes(make, face, 0.62 * wide, up + 0.12, make.vary(0.105, 0.125))
    nostril = ellipsoid(0.03, 0.032, 0.028, segments=8)
    make.add(pair(face.place(nostril, 0.08, up + 0.0)), paint=make.dark)
    y = np.linspace(-0.86, 0.86, 11) * (wide - 0.03)
    level = up - 0.15 + 0.4 * y**2
    make.add(face.stroke(y, level, 0.028), paint=make.dark, crease=80)
    tooth = cone(0.042, 0.10, segments=6).turned("y", 180)
    at = np.linspace(-0.72, 0.72, 6) * (wide - 0.03)
    bite = face.front(at, up - 0.18 + 0.4 * at**2)[0] + (0.005, 0, -0.02)
    make.add(*(tooth.moved(*point) for point in bite), paint=make.light)
    make.add(front.patch(0, 0.40, 0.62 * plump, 0.24, 0.025), paint=make.light, crease=80)

    whole = Skin(skull[0], *chest, *tail, smooth=0.07)
    # Where the comb sits: a point inside, the way out, the size of the plate.
    spots = [
        ((0.12, 0, up), (-0.35, 0, 1), 0.8),
        ((0.05, 0, up - 0.05), (-1, 0, 0.45), 0.95),
        ((0.0, 0, 0.70), (-1, 0, 0.25), 1.1),
        ((-0.05, 0, 0.48), (-1, 0, 0.35), 1.2),
        ((-0.36, 0.2 * sway, 0.27), (-0.55, 0, 1), 1.0),
        ((-0.62, 0.5 * sway, 0.22 + 0.2 * (lift - 0.2)), (-0.2, 0, 1), 0.75),
    ]
    size = make.vary(0.13, 0.17)
    outline = {
        "spike": [(-0.8, -0.6), (0.8, -0.6), (0.1, 1.25), (-0.1, 1.25)],
        "plate": [(-0.5, -0.6), (0.5, -0.6), (0.85, 0.35), (0.4, 0.95), (0.0, 1.2), (-0.4, 0.95), (-0.85, 0.35)],
        "round": [(-0.8, -0.6), (0.8, -0.6), (0.8, 0.3), (0.45, 0.8), (0.0, 0.95), (-0.45, 0.8), (-0.8, 0.3)],
    }[make.pick(("spike", "plate", "round"))]
    plates = []
    points = _reach(whole, [inside for inside, _, _ in spots], [way for _, way, _ in spots])
    for point, (_, way, scale) in zip(points, spots):
        plate = extrude(np.array(outline) * size * scale, 0.09, 0.025).turned("z", -90)
        plates.append(plate.turned("y", float(np.rad2deg(np.arctan2(way[0], way[2])))).moved(*point))
    make.add(*plates, paint=make.pick((make.dark, make.light)), crease=30)
    claw = cone(0.04, 0.10, segments=6).turned("y", 90)
    toes = [pair(claw.moved(0.33, plump + offset, 0.05)) for offset in (-0.06, 0.02, 0.09)]
    make.add(*toes, paint=make.light)
