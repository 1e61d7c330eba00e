"""Around the house: chair, sofa, mug, teapot, lamp."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tools.mini.kinds._accents import PALE_BLUE
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

Float = NDArray[np.float64]
Radius = Callable[[Float], Float]

PALE_PINK = Flat((0.97, 0.78, 0.79))
WARM = Flat((1.0, 0.94, 0.70))


def _panel(width: float, height: float, arch: float, power: float, count: int = 11) -> Float:
    """Outline (y, z) of a board that stands on z = 0; its top rises by ``arch`` in the middle, ``power`` squares it."""
    y = np.linspace(0.5 * width, -0.5 * width, count)
    top = height - arch + arch * (1.0 - np.abs(2.0 * y / width) ** power)
    return np.concatenate([np.stack([y, top], axis=1), [(-0.47 * width, 0.0), (0.47 * width, 0.0)]])


def _pillow(x: float, y: float, z: float, power: float = 0.5) -> Solid:
    """A cushion with half sizes x, y, z: a rounded rectangle seen along x, thick in the middle."""

    def square(points: Float) -> Float:
        flat = np.sign(points[:, 1:]) * np.abs(points[:, 1:]) ** power
        return np.column_stack([points[:, 0], flat])

    return ellipsoid(1.0, segments=16).turned("y", 90).warped(square).scaled(x, y, z)


def _bands(x: float, y: float, z: float, power: float) -> Solid:
    """Upright stripes on the front of a :func:`_pillow` of that size."""
    stripes = []
    for at in (-0.48, 0.0, 0.48):
        reach = np.linspace(-0.92, 0.92, 7) * (1.0 - abs(at) ** (2 / power)) ** (0.5 * power)
        rise = np.sqrt(np.maximum(1.0 - abs(at) ** (2 / power) - np.abs(reach) ** (2 / power), 0.0))
        path = np.stack([x * rise, np.full_like(rise, y * at), z * reach], axis=1)
        stripes.append(sweep(path, 0.10 * y, sides=6))
    return join(*stripes)


@kind("chair", front=True, tags=("furniture",), synonyms=("dining chair", "seat"))
def chair(make: Maker) -> None:
    """A chunky chair on four splayed legs; a pale buttoned pad on the front of the backrest."""
    width, depth = make.vary(0.64, 0.78), make.vary(0.62, 0.72)
    seat, rise, lean = make.vary(0.40, 0.50), make.vary(0.58, 0.72), make.vary(5, 11)
    make.add(box(depth, width, 0.12, 0.055).moved(0, 0, seat))
    if make.chance(0.6):
        make.add(_pillow(0.07, 0.44 * width, 0.44 * depth, 0.4).turned("y", -90).moved(0.02, 0, seat + 0.07))
    splay = make.vary(4, 10)
    leg = cylinder(0.065, seat + 0.02, 0.02, segments=12).tapered(1.0, make.vary(0.6, 0.9)).moved(0, 0, -0.5 * seat)
    for x, turn in ((0.38 * depth, -splay), (-0.38 * depth, splay)):
        make.add(pair(leg.turned("y", turn).turned("x", splay).moved(x, 0.39 * width, seat)))
    if make.chance(0.5):
        rail = sweep([(-0.40 * depth, 0, 0), (0.40 * depth, 0, 0)], 0.028, sides=8)
        make.add(pair(rail.moved(0, 0.41 * width, 0.45 * seat)))

    style = make.pick(("board", "arch", "oval", "posts"))
    parts: list[Solid] = []
    if style == "posts":
        parts.append(pair(sweep([(0, 0, -0.05), (-0.01, 0, 0.5 * rise), (0, 0, rise)], 0.05).moved(0, 0.42 * width)))
        parts.append(box(0.10, 0.98 * width, 0.16, 0.05).moved(0, 0, rise - 0.06))
        parts.append(box(0.06, 0.62 * width, rise, 0.025).moved(0, 0, 0.5 * rise - 0.05))
        pad_w, pad_h, pad_z = 0.24 * width, 0.27 * rise, 0.46 * rise
    elif style == "oval":
        angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
        oval = np.stack([0.5 * width * np.cos(angle), 0.60 * rise + 0.44 * rise * np.sin(angle)], axis=1)
        parts.append(extrude(oval, 0.12, 0.035))
        parts.append(pair(sweep([(0, 0, -0.05), (0, 0, 0.4 * rise)], 0.05).moved(0, 0.24 * width)))
        pad_w, pad_h, pad_z = 0.36 * width, 0.31 * rise, 0.60 * rise
    else:
        arch, power = (0.10, 2.0) if style == "board" else (0.46 * width, 2.6)
        parts.append(extrude(_panel(width, rise + 0.04, arch, power, 17), 0.12, 0.035))
        pad_w, pad_h, pad_z = 0.34 * width, 0.29 * rise, 0.50 * rise
    square = 1.0 if style == "oval" else 0.6
    pad = _pillow(0.06, pad_w, pad_h, square).moved(0.06, 0, pad_z)
    four = ((0.46, 0.42), (-0.46, 0.42), (0.46, -0.42), (-0.46, -0.42))
    if make.chance(0.6):
        spots = (*four, (0.0, 0.0)) if make.chance(0.5) else four
        tuft = join(
            *(ellipsoid(0.03, 0.04, 0.04, segments=8).moved(0.105, y * pad_w, pad_z + z * pad_h) for y, z in spots)
        )
    else:
        tuft = _bands(0.066, pad_w, pad_h, square).moved(0.06, 0, pad_z)
    x = -0.5 * depth + 0.05
    make.add(*(part.turned("y", -lean).moved(x, 0, seat) for part in parts), crease=50)
    make.add(pad.turned("y", -lean).moved(x, 0, seat), paint=make.pick((make.light, PALE_BLUE)))
    make.add(tuft.turned("y", -lean).moved(x, 0, seat), paint=make.dark)
    if make.chance(0.3):
        path = [(x, 0, 0.26), (0.15 * depth, 0, 0.26), (0.32 * depth, 0, 0.20), (0.34 * depth, 0, 0.0)]
        make.add(pair(sweep(path, 0.042, sides=8).moved(0, 0.47 * width, seat)))


@kind("sofa", front=True, tags=("furniture",), synonyms=("couch", "settee"))
def sofa(make: Maker) -> None:
    """Wide, with plump seat cushions between two armrests, pale throw pillows, dark feet; its back is plain."""
    width, depth = make.vary(1.30, 1.62), make.vary(0.70, 0.82)
    seat, rise = make.vary(0.34, 0.40), make.vary(0.40, 0.52)
    arm = make.vary(0.17, 0.23)
    inner = width - 2 * arm
    make.add(box(depth, width - 0.04, seat - 0.10, 0.05).moved(0, 0, 0.5 * seat - 0.03))
    arch, power = make.pick(((0.03, 4.0), (0.16, 2.0), (0.22, 4.0)))
    back = extrude(_panel(width - 0.05, seat + rise, arch, power, 15), 0.24, 0.05)
    make.add(back.turned("y", -4).moved(-0.5 * depth + 0.07, 0, 0.04), crease=50)
    top = seat + make.vary(0.14, 0.24)
    side = 0.5 * (width - arm)
    style = make.pick(("rolled", "block", "round"))
    if style == "block":
        make.add(pair(box(depth + 0.04, arm, top, 0.06).moved(0, side, 0.5 * top + 0.04)))
    elif style == "rolled":
        make.add(pair(box(depth, 0.85 * arm, top - 0.04, 0.05).moved(0, side, 0.5 * top)))
        roll = disc(0.62 * arm, depth + 0.04, 0.03, segments=18)
        make.add(pair(roll.moved(0, side + 0.03, top)))
        knob = disc(0.28 * arm, 0.03, segments=12)
        make.add(pair(knob.moved(0.5 * depth + 0.025, side + 0.03, top)), paint=make.light)
    else:
        low = _pillow(0.5 * arm, 0.53 * depth, 0.5 * top + 0.02, 0.35).turned("z", 90)
        make.add(pair(low.scaled(1, 1.25, 1).moved(0, side, 0.5 * top + 0.04)))
    count = make.pick((2, 2, 3))
    part = inner / count
    for index in range(count):
        y = (index - 0.5 * (count - 1)) * part
        make.add(box(depth - 0.16, part - 0.015, 0.17, 0.065).moved(0.10, y, seat + 0.01))
        cushion = box(0.16, part - 0.02, rise - 0.12, 0.07)
        make.add(cushion.turned("y", -10).moved(-0.5 * depth + 0.24, y, seat + 0.5 * rise))
    size = make.vary(0.19, 0.22)
    pillow = _pillow(0.085, size, size, 0.45)
    bands = _bands(0.088, size, size, 0.45)
    heart = extrude(_heart(0.55 * size, 20), 0.04).moved(0.075)
    tints = [make.light, make.pick((PALE_BLUE, make.light))]
    for sign, paint, motif in zip((-1.0, 1.0), tints, make.pick(((bands, heart), (heart, bands), (bands, bands)))):
        turn, y = make.vary(-16, 16), sign * (0.5 * inner - size - make.vary(0.02, 0.08))
        for solid, colour in ((pillow, paint), (motif, make.dark)):
            placed = solid.turned("x", turn).turned("y", -16).turned("z", -sign * 12)
            make.add(placed.moved(-0.5 * depth + 0.45, y, seat + 0.06 + 0.94 * size), paint=colour)
    foot = cylinder(0.05, 0.16, segments=10).tapered(1.0, 0.7)
    for x in (-0.38, 0.38):
        make.add(pair(foot.moved(x * depth, 0.42 * width, 0.0)), paint=make.dark)


def _wrap(points: Float, radius: Radius) -> Float:
    """Points (lift, y, z) laid around an upright turned body whose radius at a height is ``radius(z)``."""
    around = radius(points[:, 2])
    angle = points[:, 1] / np.maximum(around, 0.05)
    around = around + points[:, 0]
    return np.stack([around * np.cos(angle), around * np.sin(angle), points[:, 2]], axis=1)


def _sticker(outline: Float, at: tuple[float, float], radius: Radius, lift: float) -> Solid:
    """A thin shape on the front of a turned body: outline (y, z) around its own centre, counter-clockwise."""
    rings = [
        np.column_stack([np.full(len(outline), height), share * outline + at])
        for share, height in ((1.0, -0.03), (1.0, 0.7 * lift), (0.94, lift), (0.6, lift), (0.25, lift))
    ]
    return loft(np.stack(rings)).warped(lambda points: _wrap(points, radius))


def _round(y: float, z: float, count: int = 24, wave: float = 0.0, petals: int = 5) -> Float:
    """Outline of an ellipse, or with ``wave`` of a flower."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    reach = 1.0 + wave * np.cos(petals * (angle - 0.5 * np.pi))
    return np.stack([y * reach * np.cos(angle), z * reach * np.sin(angle)], axis=1)


def _heart(size: float, count: int = 28) -> Float:
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    y = 16 * np.sin(angle) ** 3
    z = 13 * np.cos(angle) - 5 * np.cos(2 * angle) - 2 * np.cos(3 * angle) - np.cos(4 * angle) + 2
    return size / 16 * np.stack([y, z], axis=1)[::-1]


def _emblem(make: Maker, style: str, size: float, height: float, radius: Radius) -> None:
    """A pale badge with a dark rim on the front of a mug or pot: a face, a heart or a flower."""
    spin = make.vary(-6, 6)
    if style == "flower":
        rim, badge = _round(size, size, 40, 0.20), _round(0.88 * size, 0.88 * size, 40, 0.21)
    elif style == "heart face":
        rim, badge = _heart(1.12 * size), _heart(1.0 * size)
    else:
        rim, badge = _round(1.02 * size, size), _round(0.90 * size, 0.88 * size)
    make.add(_sticker(rim, (0, height), radius, 0.018), paint=make.dark)
    make.add(_sticker(badge, (0, height), radius, 0.032), paint=make.light)
    if style == "flower":
        centre = _round(0.36 * size, 0.36 * size, 16)
        make.add(_sticker(centre, (0, height), radius, 0.05), paint=make.pick((make.dark, PALE_PINK)))
    elif style == "heart":
        make.add(_sticker(_heart(0.55 * size), (0, height), radius, 0.048), paint=make.dark)
    else:
        high = height + 0.14 * size
        for sign in (-1.0, 1.0):
            eye = _round(0.14 * size, 0.21 * size, 14)
            make.add(_sticker(eye, (sign * 0.34 * size, high), radius, 0.048), paint=make.dark)
            if style == "face":
                cheek = _round(0.13 * size, 0.09 * size, 10)
                make.add(_sticker(cheek, (sign * 0.60 * size, high - 0.34 * size), radius, 0.045), paint=PALE_PINK)
        angle = np.deg2rad(np.linspace(210 + spin, 330 + spin, 9))
        smile = np.stack(
            [0 * angle + 0.035, 0.36 * size * np.cos(angle), height + size * (-0.04 + 0.36 * np.sin(angle))], axis=1
        )
        make.add(sweep(_wrap(smile, radius), 0.07 * size, sides=6), paint=make.dark)


def _turned(profile: Float) -> Radius:
    """Radius by height of a profile whose heights increase."""
    return lambda z: np.interp(z, profile[:, 1], profile[:, 0])


@kind("mug", front=True, tags=("kitchen",), synonyms=("cup", "coffee cup"))
def mug(make: Maker) -> None:
    """A stout mug with a drink in it, a handle on one side and a pale smiling badge or heart in front."""
    height = make.vary(0.86, 1.05)
    style = make.pick(("straight", "barrel", "cone", "tulip"))
    share = np.linspace(0.0, 1.0, 9)
    waist = {
        "straight": 0 * share,
        "barrel": 0.07 * np.sin(np.pi * share) - 0.01,
        "cone": 0.12 * (share - 0.5),
        "tulip": 0.05 * np.cos(2 * np.pi * share) - 0.03,
    }[style]
    girth = make.vary(0.43, 0.48) + waist
    girth[0] -= 0.05
    z = height * share
    z[1] = 0.05 * height
    wall = np.stack([girth, z], axis=1)
    lip = [(girth[-1] - 0.02, height + 0.03), (girth[-1] - 0.06, height + 0.02), (girth[-1] - 0.075, height - 0.03)]
    inner = [(girth[-1] - 0.085, height - 0.16), (0, height - 0.16)]
    make.add(revolve(np.concatenate([[(0, 0)], wall, lip, inner]), 28), crease=55)
    drink = make.pick((Flat((0.24, 0.16, 0.13)), make.light))
    make.add(cylinder(girth[-1] - 0.07, 0.03).moved(0, 0, height - 0.12), paint=drink)
    radius = _turned(wall)
    side = make.pick((-1.0, 1.0))
    reach, low, high = make.vary(0.26, 0.34), make.vary(0.16, 0.26) * height, make.vary(0.76, 0.84) * height
    if make.chance(0.65):
        angle = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 11)
        out, up = reach * np.cos(angle), 0.5 * (low + high) + 0.5 * (high - low) * np.sin(angle)
    else:
        out, up = (
            np.array([0, 0.6, 0.95, 1, 0.95, 0.6, 0]) * reach,
            low + (high - low) * np.array([0, 0, 0.06, 0.5, 0.94, 1, 1]),
        )
    inside = radius(up) * (out < 1e-6) * -0.04
    path = np.stack([0 * out, side * (radius(np.full_like(up, low)) + out + inside), up], axis=1)
    path[-1, 1] = side * (radius(np.array([high]))[0] - 0.04)
    make.add(sweep(path, make.vary(0.065, 0.085)))
    if make.chance(0.3):
        foot = cylinder(girth[1] - 0.02, 0.10, 0.025).moved(0, 0, -0.02)
        make.add(foot, paint=make.light)
    emblem = make.pick(("face", "face", "heart", "heart face"))
    _emblem(make, emblem, make.vary(0.31, 0.35), 0.48 * height, radius)


@kind("teapot", front=True, tags=("kitchen",), synonyms=("tea kettle", "kettle"))
def teapot(make: Maker) -> None:
    """A plump pot, spout on one side and handle on the other, knobbed lid, a pale flower or face in front."""
    width, high = make.vary(0.50, 0.56), make.vary(0.84, 1.0)
    bulge = make.vary(0.40, 0.55)
    share = np.linspace(0.0, 1.0, 13)
    # Widest at ``bulge``; the exponent makes plumper or rounder shoulders.
    round_ = np.where(share < bulge, (bulge - share) / bulge, (share - bulge) / (1 - bulge))
    girth = width * np.maximum(1.0 - round_ ** make.vary(2.0, 2.8), 0.0) ** 0.5
    girth = np.maximum(girth, np.where(share < bulge, 0.30, 0.24))
    wall = np.stack([girth, high * share], axis=1)
    make.add(revolve(np.concatenate([[(0, -0.05), (0.31, -0.05), (0.31, 0.0)], wall, [(0, high)]]), 28), crease=50)
    radius = _turned(wall)
    lid = np.linspace(0.0, 0.5 * np.pi, 6)
    make.add(torus(0.25, 0.03, segments=20, sides=6).moved(0, 0, high), paint=make.light)
    make.add(
        revolve(
            [(0, 0), *np.stack([0.24 * np.cos(lid), 0.02 + make.vary(0.09, 0.15) * np.sin(lid)], axis=1)], 20
        ).moved(0, 0, high)
    )
    knob = make.vary(0.07, 0.09)
    make.add(ellipsoid(knob, segments=12).moved(0, 0, high + 0.15 + 0.5 * knob), paint=make.light)
    side = make.pick((-1.0, 1.0))
    rise = make.vary(0.80, 0.92)
    bend = np.array([(0.28, 0.30), (0.84, 0.22), (0.62, 0.72), (make.vary(0.84, 0.92), rise)])
    s = np.linspace(0.0, 1.0, 9)[:, None]
    out, up = (
        (1 - s) ** 3 * bend[0] + 3 * s * (1 - s) ** 2 * bend[1] + 3 * s**2 * (1 - s) * bend[2] + s**3 * bend[3]
    ).T
    out, up = out + width - 0.53, up * high
    make.add(sweep(np.stack([0 * out, side * out, up], axis=1), np.linspace(0.20, 0.10, 9)))
    end = np.array([0, side * out[-1], up[-1]])
    away = np.array([0, side * (out[-1] - out[-2]), up[-1] - up[-2]])
    away /= np.linalg.norm(away)
    make.add(cylinder(0.075, 0.04, segments=14).pointed(away).moved(*(end + 0.10 * away)), paint=make.dark)
    angle = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 11)
    reach = make.vary(0.28, 0.34)
    middle, half = make.vary(0.50, 0.56) * high, make.vary(0.26, 0.31) * high
    out = 0.82 * width + reach * np.cos(angle) * (1.0 + 0.18 * np.sin(angle))
    loop = np.stack([0 * angle, -side * out, middle + half * np.sin(angle)], axis=1)
    make.add(sweep(loop, make.vary(0.065, 0.08)))
    style = make.pick(("flower", "flower", "face"))
    _emblem(make, style, make.vary(0.29, 0.32) if style == "flower" else 0.34, (0.17 + 0.70 * bulge) * high, radius)


@kind("lamp", front=False, tags=("furniture", "light"), synonyms=("table lamp", "desk lamp"))
def lamp(make: Maker) -> None:
    """A table lamp: wide open shade with a warm bulb in it, above a turned stand."""
    low, tall = make.vary(0.44, 0.54), make.vary(0.44, 0.58)
    top = low * make.pick((0.45, 0.60, 0.85))
    stand = make.vary(0.60, 0.76)
    style = make.pick(("gourd", "ball", "column", "vase"))
    if style == "gourd":
        turned = [(0.12, 0.10), (0.24, 0.20), (0.20, 0.32), (0.10, 0.37), (0.15, 0.45), (0.11, 0.53), (0.05, 0.58)]
    elif style == "ball":
        angle = np.linspace(-1.2, 1.25, 9)
        turned = [(0.25 * np.cos(a), 0.33 + 0.25 * np.sin(a)) for a in angle]
    elif style == "vase":
        turned = [(0.13, 0.10), (0.20, 0.30), (0.25, 0.42), (0.20, 0.51), (0.08, 0.56)]
    else:
        turned = [(0.20, 0.09), (0.10, 0.16), (0.075, 0.30), (0.11, 0.34), (0.075, 0.38), (0.07, 0.60)]
    profile = np.array([(0.0, 0.04), *turned, (0.05, 0.66), (0.0, 0.66)]) * (1.0, stand / 0.58)
    make.add(revolve(_smooth(profile), 18), crease=60)
    foot = make.vary(0.28, 0.35)
    base_paint = make.dark if make.chance(0.5) else make.body
    make.add(cylinder(foot, 0.10, 0.035).moved(0, 0, 0.05), paint=base_paint)
    z = stand + 0.02
    rise = np.linspace(0.0, 1.0, 6)
    flare = make.pick((0.0, 0.0, 0.05))
    skirt = np.stack([low + (top - low) * rise - flare * np.sin(np.pi * rise), z + tall * rise], axis=1)
    inner = (skirt - (0.03, 0.0))[::-1]
    make.add(revolve(np.concatenate([skirt, inner, skirt[:1]]), 26))
    for radius, height in ((low, z), (top, z + tall)):
        make.add(torus(radius - 0.01, 0.026, segments=26, sides=6).moved(0, 0, height), paint=make.light)
    make.add(cylinder(0.05, 0.12, segments=12).moved(0, 0, z + 0.08), paint=make.dark)
    make.add(ellipsoid(0.13, 0.13, 0.17, segments=14).moved(0, 0, z + 0.26), paint=WARM)
    # The spider that carries the shade, and its knob.
    arm = top - 0.02
    make.add(sweep([(-arm, 0, 0), (arm, 0, 0)], 0.018, sides=6).moved(0, 0, z + tall - 0.03), paint=make.dark)
    make.add(sweep([(0, 0, z + 0.38), (0, 0, z + tall)], 0.018, sides=6), paint=make.dark)
    make.add(ellipsoid(0.055, segments=10).moved(0, 0, z + tall + 0.03), paint=make.dark)


def _smooth(profile: Float) -> Float:
    """Corners of a profile cut twice."""
    for _ in range(2):
        first = 0.75 * profile[:-1] + 0.25 * profile[1:]
        second = 0.25 * profile[:-1] + 0.75 * profile[1:]
        profile = np.concatenate([profile[:1], np.stack([first, second], axis=1).reshape(-1, 2), profile[-1:]])
    return profile
