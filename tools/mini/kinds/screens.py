"""Screens, dials and lenses: television, clock, camera."""

from __future__ import annotations

import numpy as np

from tools.mini.kinds._accents import PALE_BLUE
from tools.mini.kinds.registry import kind
from tools.mini.modelling import (
    Maker,
    box,
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


@kind("television", front=True, tags=("electronics",), synonyms=("tv", "telly"))
def television(make: Maker) -> None:
    """An old tube set: deep cabinet, bulging screen, knobs beside or below it, an aerial or a handle on top, feet."""
    width, height, depth = make.vary(1.10, 1.35), make.vary(0.82, 0.98), make.vary(0.50, 0.66)
    make.add(box(depth, width, height, make.vary(0.07, 0.16), steps=3))
    make.add(box(0.3, 0.6 * width, 0.6 * height, 0.12).moved(-0.5 * depth - 0.06))
    slots = [box(0.02, 0.4 * width, 0.03).moved(-0.5 * depth - 0.21, 0, z * height) for z in (-0.1, 0.0, 0.1)]
    front = 0.5 * depth
    beside = make.chance(0.65)
    if beside:
        screen_w, screen_h, shift, rise = make.vary(0.62, 0.68) * width, 0.76 * height, -0.13 * width, 0.0
        knob_y = 0.375 * width
        knobs = [(knob_y, 0.24 * height), (knob_y, 0.0)]
        slots += [box(0.03, 0.16, 0.03).moved(front, knob_y, z * height) for z in (-0.17, -0.24, -0.31)]
    else:
        screen_w, screen_h, shift, rise = 0.82 * width, make.vary(0.60, 0.65) * height, 0.0, 0.11 * height
        low = -0.36 * height
        knobs = [(0.36 * width, low), (0.20 * width, low)]
        slots += [box(0.03, 0.44 * width, 0.03).moved(front, -0.17 * width, low + z) for z in (-0.06, 0.0, 0.06)]
    make.add(*slots, paint=make.dark)
    make.add(box(0.06, screen_w + 0.08, screen_h + 0.08, 0.03).moved(front, shift, rise), paint=make.dark)
    glass = ellipsoid(0.10, 0.5 * screen_w, 0.5 * screen_h).warped(
        lambda p: np.column_stack([p[:, 0], _square(p[:, 1], 0.5 * screen_w), _square(p[:, 2], 0.5 * screen_h)])
    )
    make.add(glass.moved(front + 0.01, shift, rise), paint=PALE_BLUE)
    for y, z in knobs:
        make.add(disc(0.08, 0.09, 0.015, segments=16).moved(front + 0.02, y, z), paint=make.light)
    top = 0.5 * height
    crown = make.pick(("aerial", "aerial", "handle", "bare"))
    if crown == "aerial":
        spread, up = make.vary(0.25, 0.42), make.vary(0.26, 0.38)
        rod = sweep([(0, 0, top), (0, 0.6 * spread, top + 0.6 * up), (0, spread, top + up)], 0.026, sides=6)
        tip = ellipsoid(0.05, segments=8).moved(0, spread, top + up)
        make.add(pair(join(rod, tip)), ellipsoid(0.09, 0.14, 0.06, segments=12).moved(0, 0, top), paint=make.dark)
    elif crown == "handle":
        grip = [(0, -0.26, top - 0.03), (0, -0.22, top + 0.10), (0, 0.22, top + 0.10), (0, 0.26, top - 0.03)]
        make.add(sweep(grip, 0.04, sides=8), paint=make.dark)
    if make.chance(0.6):
        leg = cylinder(0.055, make.vary(0.18, 0.26), segments=12).tapered(1.0, 0.6)
        legs = [leg.turned("x", 10).moved(x * depth, 0.38 * width, -top - 0.07) for x in (-0.3, 0.3)]
        make.add(pair(join(*legs)), paint=make.dark)
    else:
        make.add(box(0.7 * depth, 0.7 * width, 0.14, 0.03).moved(0, 0, -top - 0.03), paint=make.dark)


def _square(values: np.ndarray, half: float) -> np.ndarray:
    """Pushes a round outline towards a rectangle."""
    share = values / half
    return half * np.sign(share) * np.abs(share) ** 0.55


@kind("clock", front=True, tags=("household",), synonyms=("alarm clock", "timepiece"))
def clock(make: Maker) -> None:
    """A round alarm clock on two feet: big cream dial with dark hands in front, two bells and a hammer on top."""
    depth, dial = make.vary(0.34, 0.46), make.vary(0.37, 0.41)
    make.add(disc(0.50, depth, 0.10))
    front = 0.5 * depth
    bezel = torus(dial + 0.045, 0.05, segments=26, sides=8).turned("y", 90)
    make.add(bezel.moved(front))
    make.add(disc(dial, 0.06).moved(front - 0.01), paint=make.light)
    face = front + 0.025
    marks = make.pick((4, 4, 12))
    ticks = []
    for index in range(12):
        large = index % 3 == 0
        if marks == 4 and not large:
            continue
        tick = box(0.025, 0.045 if large else 0.025, 0.09 if large else 0.05).moved(0, 0, 0.84 * dial)
        ticks.append(tick.turned("x", 30 * index).moved(face))
    make.add(*ticks, paint=make.dark)
    hour = 30 * make.pick((1, 2, 3, 4, 8, 9, 10, 11)) + make.vary(-8, 8)
    minute = hour + make.pick((-1, 1)) * make.vary(70, 170)
    for turn, length, wide, lift in ((hour, 0.56, 0.075, 0.0), (minute, 0.80, 0.055, 0.015)):
        hand = extrude(
            [
                (-0.5 * wide, -0.06),
                (0.5 * wide, -0.06),
                (0.5 * wide, 0.75 * length * dial),
                (0, length * dial),
                (-0.5 * wide, 0.75 * length * dial),
            ],
            0.03,
        )
        make.add(hand.turned("x", -turn).moved(face + 0.015 + lift), paint=make.dark)
    make.add(disc(0.055, 0.08, 0.01, segments=14).moved(face + 0.02), paint=make.dark)

    lean, size = make.vary(32, 40), make.vary(0.22, 0.27)
    arc = np.linspace(0.0, 0.5 * np.pi, 6)
    dome = revolve([(0, 0), *np.stack([size * np.cos(arc), 0.03 + 0.72 * size * np.sin(arc)], axis=1)], 20)
    stem = cylinder(0.05, 0.20, segments=10).moved(0, 0, -0.06)
    knob = ellipsoid(0.045, segments=8).moved(0, 0, 0.05 + 0.72 * size)
    for solid, paint in ((dome, make.body), (stem, make.dark), (knob, make.dark)):
        make.add(pair(solid.moved(0, 0, 0.57).turned("x", -lean)), paint=paint)
    hammer = make.vary(-0.05, 0.05)
    make.add(sweep([(0, 0, 0.46), (0, hammer, 0.66)], 0.025, sides=6), paint=make.dark)
    make.add(ellipsoid(0.06, 0.09, 0.06, segments=10).moved(0, hammer, 0.68), paint=make.dark)
    if make.chance(0.6):
        angle = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 9)
        reach = 0.60 * np.sin(np.deg2rad(lean))
        high = 0.57 + 0.55 * size
        arch = np.stack([0 * angle, reach * np.sin(angle), high + 0.26 * np.cos(angle)], axis=1)
        make.add(sweep(arch, 0.035, sides=8))
    foot = sweep([(0, 0.30, -0.34), (0, 0.40, -0.58)], [0.075, 0.05])
    make.add(pair(foot))
    make.add(disc(0.07, 0.06, 0.01, segments=12).moved(-front - 0.02, 0.0, 0.06), paint=make.dark)
    make.add(box(0.10, 0.03, 0.16, 0.01).turned("x", make.vary(0, 90)).moved(-front - 0.08, 0.0, 0.06), paint=make.dark)
    make.add(disc(0.05, 0.06, 0.01, segments=10).moved(-front - 0.02, 0.17, -0.16), paint=make.dark)


@kind("camera", front=True, tags=("electronics",), synonyms=("photo camera", "compact camera"))
def camera(make: Maker) -> None:
    """A chunky camera: huge lens, flash and viewfinder in front, a shutter button on top, a small display behind."""
    width, height, depth = make.vary(1.10, 1.30), make.vary(0.74, 0.90), make.vary(0.40, 0.52)
    make.add(box(depth, width, height, 0.13, steps=3))
    front, top = 0.5 * depth, 0.5 * height
    lens = 0.5 * height * make.vary(0.66, 0.76)
    shift = make.pick((0.0, 0.0, 0.08)) * width
    drop = -0.06 * height
    length = make.vary(0.18, 0.34)
    make.add(disc(lens, length, 0.04).moved(front + 0.5 * length - 0.04, shift, drop))
    end = front + length - 0.04
    make.add(disc(0.86 * lens, 0.06).moved(end, shift, drop), paint=make.dark)
    if make.chance(0.6):
        make.add(
            torus(lens, 0.03, segments=24, sides=6).turned("y", 90).moved(front + 0.4 * length, shift, drop),
            paint=make.dark,
        )
    make.add(ellipsoid(0.10, 0.60 * lens, 0.60 * lens, segments=16).moved(end + 0.01, shift, drop), paint=PALE_BLUE)
    pupil = make.vary(0.30, 0.42) * lens
    make.add(ellipsoid(0.07, pupil, pupil, segments=14).moved(end + 0.06, shift, drop), paint=make.dark)
    glint = ellipsoid(0.03, 0.10 * lens, 0.10 * lens, segments=8)
    make.add(glint.moved(end + 0.115, shift - 0.13 * lens, drop + 0.12 * lens), paint=make.light)

    style = make.pick(("hump", "flat", "instant"))
    if style == "hump":
        hump_w = make.vary(0.36, 0.48)
        hump = box(0.80 * depth, hump_w, 0.34, 0.08).tapered(0.78).moved(0, shift, top + 0.08)
        make.add(hump)
        make.add(box(0.06, 0.60 * hump_w, 0.14, 0.025).moved(0.36 * depth, shift, top + 0.10), paint=make.light)
    else:
        block = box(0.80 * depth, 0.56 * width, 0.16, 0.05).moved(0, 0.14 * width, top + 0.02)
        make.add(block)
    window = 0.5 * width - 0.19
    make.add(box(0.06, 0.25, 0.16, 0.03).moved(front, window, top - 0.16), paint=make.light)
    make.add(box(0.05, 0.17, 0.15, 0.03).moved(front, -window, top - 0.16), paint=make.dark)
    make.add(box(0.03, 0.09, 0.08, 0.01).moved(front + 0.03, -window, top - 0.16), paint=PALE_BLUE)
    make.add(cylinder(0.10, 0.10, segments=14).moved(0, -0.34 * width, top + 0.03), paint=make.dark)
    make.add(cylinder(0.07, 0.10, segments=12).moved(0, -0.34 * width, top + 0.07), paint=make.light)
    if make.chance(0.6):
        make.add(
            cylinder(0.13, 0.12, 0.02, segments=16).moved(-0.02, 0.36 * width, top + 0.03 + 0.06 * (style != "hump"))
        )
    if make.chance(0.5):
        make.add(box(0.22, 0.20, 0.80 * height, 0.09).moved(front, -0.5 * width + 0.14, -0.04))
    back = -front
    make.add(box(0.04, 0.46, 0.34, 0.015).moved(back, 0.10, -0.04), paint=make.dark)
    for z in (0.10, -0.06):
        make.add(disc(0.05, 0.05, segments=12).moved(back, -0.30, z), paint=make.dark)
    lug = torus(0.05, 0.018, segments=12, sides=5).turned("x", 90)
    make.add(pair(lug.moved(0, 0.5 * width + 0.02, 0.5 * top)), paint=make.dark)
