"""Cactus and mushroom."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tools.mini.kinds._accents import BARK, SLATE, STRAW
from tools.mini.kinds.registry import kind
from tools.mini.modelling import (
    Flat,
    Maker,
    Paint,
    Solid,
    cylinder,
    ellipsoid,
    join,
    loft,
    revolve,
    sweep,
)


def _ribbed(path: Sequence[tuple[float, float, float]], radius: ArrayLike, ribs: int, depth: float) -> Solid:
    """A tube with ribs along it."""
    crests, troughs = (sweep(path, np.asarray(radius) * factor, sides=2 * ribs) for factor in (1.0, 1.0 - depth))
    odd = np.arange(len(crests.vertices)) % 2 == 1
    return Solid(np.where(odd[:, None], crests.vertices, troughs.vertices), crests.faces)


def _bloom(size: float) -> tuple[Solid, Solid]:
    """Petals and heart of a flower that opens upwards."""
    petal = ellipsoid(0.55 * size, 0.34 * size, 0.16 * size, segments=8).turned("y", -30)
    petal = petal.moved(0.5 * size, 0, 0.12 * size)
    petals = join(*(petal.turned("z", 72.0 * index) for index in range(5)))
    return petals, ellipsoid(0.26 * size, segments=8).moved(0, 0, 0.15 * size)


def _gourd(radius: float, height: float, share: NDArray[np.float64], ribs: int) -> Solid:
    """A barrel with ribs from pole to pole."""
    angle = np.linspace(0.0, 2.0 * np.pi, 4 * ribs, endpoint=False)
    wave = 1.0 - 0.18 * (0.5 - 0.5 * np.cos(ribs * angle))
    curves = []
    for a in share:
        r = max(radius * np.sin(a) ** 0.85, 0.01) if 0 < a < np.pi else 0.01
        z = np.full_like(angle, -0.5 * height * np.cos(a))
        curves.append(np.column_stack([r * wave * np.cos(angle), r * wave * np.sin(angle), z]))
    return loft(curves)


@kind("cactus", front=False, tags=("plant",), synonyms=("saguaro", "succulent"))
def cactus(make: Maker) -> None:
    """A ribbed column with upturned arms, or a ribbed barrel with offsets, in a round pot."""
    pot_r, pot_h = make.vary(0.32, 0.36), make.vary(0.26, 0.32)
    pot_paint: Paint = make.pick((make.light, make.light, SLATE))
    flare = make.vary(0.68, 0.8)
    body = [(0, 0), (flare * pot_r, 0), (0.94 * pot_r, pot_h - 0.1)]
    lip = [(1.1 * pot_r, pot_h - 0.1), (1.12 * pot_r, pot_h), (0.95 * pot_r, pot_h), (0.92 * pot_r, pot_h - 0.04)]
    make.add(revolve([*body, *lip, (0, pot_h - 0.04)], 22), paint=pot_paint, crease=35)
    make.add(cylinder(0.93 * pot_r, 0.03, segments=18).moved(0, 0, pot_h - 0.035), paint=BARK)

    ribs = make.pick((7, 8, 9))
    form = make.pick(("column", "column", "column", "barrel"))
    if form == "column":
        thick, top = make.vary(0.24, 0.28), pot_h + make.vary(0.86, 1.0)
        heights = np.linspace(pot_h - 0.05, top - thick, 5)
        stem = _ribbed([(0, 0, z) for z in heights], thick * np.array([0.86, 0.97, 1.0, 1.0, 0.94]), ribs, 0.2)
        make.add(stem, crease=28)
        start = make.vary(0, 360)
        count = make.pick((2, 3, 3, 4))
        for index in range(count):
            arm_r, out = make.vary(0.125, 0.15), make.vary(0.44, 0.50)
            low, up = pot_h + make.vary(0.22, 0.46), make.vary(0.22, 0.36)
            path = [(0.1, 0, low), (0.7 * out, 0, low), (0.92 * out, 0, low + 0.05), (out, 0, low + 0.14)]
            path += [(out, 0, low + 0.14 + 0.6 * up), (out, 0, low + 0.14 + up)]
            arm = _ribbed(path, [*[arm_r] * 5, 0.92 * arm_r], 6, 0.2)
            make.add(arm.turned("z", start + 360.0 * index / count + make.vary(-15, 15)), crease=28)
    else:
        fat, tall = make.vary(0.34, 0.38), make.vary(0.94, 1.08)
        share = np.linspace(0.0, np.pi, 11)
        make.add(_gourd(fat, tall, share, ribs + 2).moved(0, 0, pot_h + 0.36 * tall))
        top = pot_h + 0.83 * tall
        for turn in (make.vary(0, 180), make.vary(180, 360)):
            pup = _gourd(0.17, 0.44, share, 7).moved(fat + 0.08, 0, pot_h + make.vary(0.48, 0.60) * tall)
            make.add(pup.turned("z", turn))
    if make.chance(0.7) or form == "barrel":
        petals, heart = _bloom(make.vary(0.19, 0.25))
        make.add(petals.moved(0, 0, top - 0.02), paint=Flat((0.96, 0.80, 0.84)))
        make.add(heart.moved(0, 0, top - 0.01), paint=make.light)


def _cap(make: Maker, cap_r: float, cap_h: float, shape: str, lumps: int) -> tuple[Solid, Solid]:
    """Cap and the gills below it; the middle of its rim is the origin."""
    angle = np.linspace(0.0, 0.5 * np.pi, 9)
    radius, height = np.cos(angle), np.sin(angle)
    if shape == "bell":
        radius, height = radius**1.15, height**1.25
    if shape == "flat":
        radius = radius**0.8
    dome = np.column_stack([cap_r * radius, cap_h * height])
    dome[-1, 0] = 0.0
    rim = [(0.80 * cap_r, -0.03 * cap_r), (0.93 * cap_r, -0.07 * cap_r), (0.985 * cap_r, -0.05 * cap_r)]
    cap = [revolve([*rim, *dome], 26 if lumps or cap_r > 0.4 else 18)]
    gills = revolve([(0.0, 0.03 * cap_r), (0.3 * cap_r, 0.0), (0.92 * cap_r, -0.055 * cap_r)], 22)
    for index in range(lumps):
        turn = 2.4 * index + make.vary(-0.3, 0.3)
        up = (0.22, 0.6, 0.42)[index % 3] * 0.5 * np.pi if index else 0.5 * np.pi
        at_r, at_z = float(np.interp(up, angle, dome[:, 0])), float(np.interp(up, angle, dome[:, 1]))
        size = make.vary(0.10, 0.15)
        lump = ellipsoid(size, size, 0.4 * size, segments=10)
        slope = (np.cos(up) / cap_r * np.cos(turn), np.cos(up) / cap_r * np.sin(turn), np.sin(up) / cap_h)
        cap.append(lump.pointed(slope).moved(at_r * np.cos(turn), at_r * np.sin(turn), at_z))
    return join(*cap), gills


@kind("mushroom", front=False, tags=("plant",), synonyms=("toadstool", "fungus"))
def mushroom(make: Maker) -> None:
    """A huge rounded cap with raised lumps on a short cream stem, often with a small one at its foot."""
    cap_r, cap_h, stem_h = make.vary(0.56, 0.66), make.vary(0.46, 0.58), make.vary(0.52, 0.66)
    shape = make.pick(("dome", "dome", "bell", "flat"))
    if shape == "flat":
        cap_h *= 0.82
    lumps = make.pick((0, 0, 7, 9))
    cap, gills = _cap(make, cap_r, cap_h, shape, lumps)
    lean = make.vary(0, 12)
    tilt, spin = make.vary(0, lean), make.vary(0, 360)
    stem_r = make.vary(0.20, 0.25)
    foot = make.vary(1.2, 1.6) * stem_r
    rows = [(0, 0), (0.85 * foot, 0), (foot, 0.1 * stem_h), (0.96 * foot, 0.25 * stem_h), (1.05 * stem_r, 0.6 * stem_h)]
    stem = revolve([*rows, (0.95 * stem_r, 0.85 * stem_h), (1.05 * stem_r, stem_h + 0.06), (0, stem_h + 0.06)], 18)
    for solid, paint in ((cap, None), (gills, STRAW)):
        make.add(solid.turned("y", tilt).moved(0, 0, stem_h).turned("z", spin), paint=paint, crease=60)
    make.add(stem, paint=make.light, crease=60)
    if make.chance(0.4):
        z = 0.72 * stem_h
        skirt = np.array([(0.95, -0.09), (1.4, -0.13), (1.42, -0.10), (0.95, 0.03)]) * (stem_r, 1.0) + (0.0, z)
        make.add(revolve(skirt, 18), paint=make.light, crease=60)
    if make.chance(0.6):  # a young one at the foot
        small, out = make.vary(0.40, 0.48), make.vary(0.48, 0.58)
        cap, gills = _cap(make, small * cap_r, small * cap_h, shape, 0)
        turn, high = make.vary(0, 360), 0.5 * stem_h
        path = [(0.1, 0, 0.09), (0.6 * out, 0, 0.10), (0.93 * out, 0, 0.55 * high + 0.03), (out, 0, high + 0.02)]
        make.add(sweep(path, 0.085, sides=10).turned("z", turn), paint=make.light)
        for solid, paint in ((cap, None), (gills, STRAW)):
            make.add(solid.turned("y", 8).moved(out, 0, high).turned("z", turn), paint=paint, crease=60)
