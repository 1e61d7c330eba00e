"""Car, bus, truck, tractor, train: rounded hulls with windows laid onto them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from tools.mini.kinds._accents import GLASS, IRON, LAMP, TAIL_LIGHT
from tools.mini.kinds._bodywork import (
    bumper,
    decal,
    frame,
    grille,
    headlights,
    hull,
    mounted,
    pane,
    rounded,
    tail_lights,
    tyre,
    wheels,
    window,
)
from tools.mini.kinds.registry import kind
from tools.mini.modelling import (
    Maker,
    Solid,
    box,
    cylinder,
    disc,
    ellipsoid,
    extrude,
    loft,
    pair,
    revolve,
    sweep,
    torus,
)


@kind("car", front=True, tags=("vehicle",), synonyms=("automobile", "sedan", "hatchback"))
def car(make: Maker) -> None:
    """A plump small car: round cabin behind a bonnet, wings over the wheels, wide windscreen, big headlights."""
    length, half, wheel = make.vary(0.84, 0.96), make.vary(0.43, 0.49), make.vary(0.20, 0.24)
    hood, boot = make.vary(0.52, 0.60), make.vary(0.46, 0.62)
    body = hull((-length, length), half, wheel * 0.75, (boot, boot + 0.02, 0.66, hood, hood - 0.05), end=4.0, power=4.0)
    rear, nose = make.pick(((-0.72, 0.34), (-0.88, 0.30), (-0.58, 0.40)))
    top = make.vary(1.02, 1.14)
    cabin = hull((rear * length, nose * length), half * 0.94, 0.36, top, end=make.vary(2.6, 3.6), power=4.0, lean=0.22)
    axle = 0.60 * length
    guard = hull(
        (-1.42 * wheel, 1.42 * wheel), 0.11, -0.2 * wheel, 1.36 * wheel, end=2.4, power=3.0, rings=7, around=10
    )
    guards = [pair(guard.moved(x, half - 0.085, wheel)) for x in (axle, -axle)]
    make.add(body, cabin, *guards, crease=70)
    shoulder = 0.63
    window(make, cabin, pane((-0.74 * half, 0.74 * half), (shoulder + 0.06, top - 0.09), 0.08, 0.03))
    middle, reach = 0.5 * (rear + nose) * length, 0.5 * (nose - rear) * length
    for u in ((middle - 0.66 * reach, middle - 0.06), (middle + 0.04, middle + 0.68 * reach)):
        window(make, cabin, pane(u, (shoulder + 0.07, top - 0.13), 0.07, 0.03), "y", 0.02)
    handle = box(0.12, 0.05, 0.04)
    make.add(pair(handle.moved(middle - 0.14, half + 0.005, shoulder - 0.11)), paint=make.light)
    wheels(make, [(axle, half - 0.03), (-axle, half - 0.03)], wheel, 0.17, hub=make.pick((None, GLASS)))
    grille(make, body, make.vary(0.16, 0.21), (hood - 0.31, hood - 0.12), 2)
    headlights(make, body, 0.72 * half, hood - 0.15, make.vary(0.09, 0.105))
    bumper(make, length + 0.03, half, wheel * 0.75 + 0.06, 0.045)
    bumper(make, -length - 0.03, half, wheel * 0.75 + 0.06, 0.045)
    tail_lights(make, body, 0.68 * half, boot - 0.13)
    extra = make.pick(("spare", "plate", "rack", "plate"))
    if extra == "spare":
        spare = tyre(0.19, 0.14, 16).turned("z", 90)
        make.add(mounted(body, spare, 0, boot - 0.12, -1.0).moved(-0.03), paint=make.dark, crease=50)
        make.add(mounted(body, disc(0.11, 0.06, segments=14), 0, boot - 0.12, -1.0).moved(-0.09))
    else:
        make.add(mounted(body, box(0.05, 0.24, 0.10), 0, boot - 0.18, -1.0), paint=make.light)
    if extra == "rack":
        rail = box(0.04, 1.2 * half, 0.06, 0.02, steps=1).moved(0, 0, top + 0.01)
        make.add(rail.moved(middle - 0.4 * reach), rail.moved(middle + 0.35 * reach), paint=make.dark)
        make.add(box(0.38, 0.42, 0.14, 0.04).moved(middle, 0.03, top + 0.10), paint=make.light)
    elif make.chance(0.3):
        roof = pane((middle - 0.22, middle + 0.16), (-0.18, 0.18), 0.06)
        make.add(decal(cabin, roof, "z", 1.0, 0.015), paint=make.dark)


@kind("bus", front=True, tags=("vehicle",), synonyms=("coach", "omnibus"))
def bus(make: Maker) -> None:
    """A long tall box on wheels with a row of side windows, a huge windscreen, a destination board and a door."""
    style = make.pick(("city", "city", "double", "school"))
    school, double = style == "school", style == "double"
    length, half, wheel = make.vary(0.92, 1.06), make.vary(0.38, 0.43), make.vary(0.16, 0.19)
    top = make.vary(1.24, 1.32) if double else make.vary(0.96, 1.06)
    front = length - (0.30 if school else 0.0)
    body = nose = hull((-length, front), half, 0.13, top, end=10.0, power=7.0, lean=0.05)
    if school:
        nose = hull((front - 0.3, length), half * 0.84, 0.13, (0.58, 0.58, 0.52), end=5.0, power=5.0)
        make.add(nose, crease=60)
    hatch = box(0.5, 0.9 * half, 0.09, 0.04, steps=1).moved(make.vary(-0.5, -0.1), 0, top + 0.02)
    make.add(*((body, hatch) if make.chance(0.4) else (body,)), crease=60)
    floor = top - 0.50 if double else top - 0.11
    low, high = 0.64 if school else 0.42, floor - 0.09
    window(make, body, pane((-0.84 * half, 0.84 * half), (low, high), 0.07, 0.01))
    make.add(mounted(body, box(0.10, 1.2 * half, 0.13), 0, floor), paint=make.dark)
    words = [(y, size) for y, size in ((-0.36, 0.13), (-0.08, 0.26), (0.28, 0.28))]
    make.add(*(mounted(body, box(0.13, size * half, 0.055), y * half, floor) for y, size in words), paint=LAMP)
    rows = [(0.58, top - 0.18)]
    if double:
        window(make, body, pane((-0.80 * half, 0.80 * half), (floor + 0.13, top - 0.10), 0.06))
        rows = [(0.48, floor - 0.11), (floor + 0.12, top - 0.15)]
    count = make.pick((3, 4))
    edges = np.linspace(-length + 0.16, front - (0.14 if school else 0.40), count + 1)
    panes = [(v, a + 0.035, b - 0.035) for v in rows for a, b in pairwise(edges)]
    if double:
        panes.append((rows[1], front - 0.36, front - 0.12))
    make.add(
        *(
            pair(decal(body, rounded([(a, v[0]), (b, v[0]), (b, v[1]), (a, v[1])], 0.05, 12), "y", 1.0))
            for v, a, b in panes
        ),
        paint=GLASS,
        crease=60,
    )
    if not school:  # entrance on the right, the driver's window on the left
        door = pane((front - 0.35, front - 0.11), (0.20, rows[0][1] + 0.01), 0.04)
        make.add(frame(body, door, "y", -1.0, 0.03), paint=make.dark, crease=60)
        make.add(decal(body, door, "y", -1.0, 0.035), paint=GLASS, crease=60)
        post = box(0.03, 0.04, rows[0][1] - 0.22).moved(front - 0.23, -half - 0.03, 0.5 * (0.21 + rows[0][1]))
        make.add(post, paint=make.dark)
        make.add(decal(body, pane((front - 0.35, front - 0.11), rows[0], 0.05), "y", 1.0), paint=GLASS, crease=60)
    strip = box(length + front - 0.3, 0.04, 0.045).moved(0.5 * (front - length), half, 0.37)
    make.add(pair(strip), paint=make.light)
    axle = 0.58 * length
    wheels(make, [(axle, half - 0.03), (-axle, half - 0.03)], wheel, 0.13)
    grille(make, nose, 0.40 * half, (0.24, 0.44) if school else (0.20, 0.34), 2)
    headlights(make, nose, 0.68 * half, 0.36 if school else 0.28, 0.08)
    bumper(make, length + 0.02, 0.9 * half, 0.14, 0.04)
    bumper(make, -length - 0.02, 0.9 * half, 0.14, 0.04)
    tail_lights(make, body, 0.72 * half, 0.33)
    make.add(*(mounted(body, box(0.05, 0.8 * half, 0.03), 0, z, -1.0) for z in (0.25, 0.31, 0.37)), paint=make.dark)
    mirror = box(0.05, 0.08, 0.16, 0.02, steps=1).moved(front + 0.03, half + 0.05, high - 0.10)
    make.add(pair(mirror), pair(box(0.04, 0.10, 0.03).moved(front + 0.02, half, high - 0.05)), paint=make.dark)


def _tub(x: tuple[float, float], half: float, z: tuple[float, float], wall: float, flare: float) -> Solid:
    """A box without a lid; its rim is wider than its floor by ``flare``."""
    rings = []
    for out, level in ((0.0, z[0]), (flare, z[1]), (flare - wall, z[1]), (-wall, z[0] + wall)):
        a, b, y = x[0] - out, x[1] + out, half + out
        rings.append([(a, -y, level), (b, -y, level), (b, y, level), (a, y, level)])
    return loft(rings)


@kind("truck", front=True, tags=("vehicle",), synonyms=("lorry", "pickup"))
def truck(make: Maker) -> None:
    """A cab with a big windscreen in front, a gap, then a cargo box, a tank or a tipper on a dark frame."""
    cargo = make.pick(("box", "box", "tank", "tipper", "crates"))
    half, wheel, bonnet = make.vary(0.39, 0.44), make.vary(0.19, 0.22), make.chance(0.5)
    rear, gap, top = -make.vary(0.92, 1.04), make.vary(0.24, 0.32), make.vary(0.88, 0.98)
    front = 0.92 if bonnet else 0.86
    screen = front - (0.26 if bonnet else 0.0)
    cab = nose = hull((gap + 0.08, screen), half, 0.20, top, end=7.0, power=5.5, lean=0.10)
    make.add(cab, crease=60)
    if bonnet:
        nose = hull((screen - 0.3, front), half * 0.82, 0.20, (0.60, 0.60, 0.54), end=4.5, power=4.5)
        make.add(nose, crease=60)
    make.add(box(front - rear - 0.14, 0.56 * half * 2, 0.14).moved(0.5 * (front + rear), 0, wheel + 0.08), paint=IRON)
    low = 0.64 if bonnet else 0.54
    window(make, cab, pane((-0.80 * half, 0.80 * half), (low, top - 0.10), 0.07, 0.02))
    window(make, cab, pane((gap + 0.18, screen - 0.10), (0.58, top - 0.13), 0.06, 0.01), "y", 0.02)
    make.add(pair(box(0.10, 0.05, 0.04).moved(gap + 0.22, half, 0.48)), paint=make.light)

    deck = wheel + 0.16
    if cargo == "tank":
        radius = make.vary(0.36, 0.42)
        at = deck + 0.92 * radius
        make.add(
            cylinder(radius, gap - rear, 0.14, segments=20).turned("y", 90).moved(0.5 * (gap + rear), 0, at), crease=50
        )
        for share in (0.22, 0.78):
            ring = torus(radius, 0.03, segments=18, sides=4).turned("y", 90)
            make.add(ring.moved(rear + share * (gap - rear), 0, at), paint=make.dark)
        make.add(cylinder(0.13, 0.12, segments=12).moved(0.5 * (gap + rear), 0, at + radius), paint=make.dark)
        tail = box(0.05, 1.7 * half, 0.14).moved(rear + 0.1, 0, deck - 0.06)
        make.add(tail, paint=IRON)
    elif cargo == "box":
        high = make.vary(1.06, 1.18)
        hold = hull((rear, gap), half + 0.02, deck, high, end=14.0, power=10.0)
        make.add(hold, crease=60)
        seam = (high - deck) * 0.86
        tail = box(0.04, 0.035, seam).moved(rear, 0, 0.5 * (high + deck))
        make.add(tail, *(box(0.05, 0.04, 0.16).moved(rear, y, deck + 0.32) for y in (-0.07, 0.07)), paint=make.dark)
        for z in (deck + 0.08, high - 0.10):
            make.add(
                pair(box(gap - rear - 0.14, 0.04, 0.035).moved(0.5 * (gap + rear), half + 0.02, z)), paint=make.light
            )
    else:
        flare = make.vary(0.04, 0.09) if cargo == "tipper" else 0.0
        rim = deck + (make.vary(0.42, 0.54) if cargo == "tipper" else 0.24)
        bed = _tub((rear + flare, gap - flare - 0.02), half - 0.5 * flare, (deck, rim), 0.05, flare)
        ribs = [
            box(0.05, 0.06, rim - deck).moved(x, half + 0.01, 0.5 * (deck + rim))
            for x in np.linspace(rear + 0.14, gap - 0.14, 4)
        ]
        make.add(
            bed,
            *(
                pair(rib.warped(lambda p: p + np.array([0, flare, 0]) * (p[:, 2:] - deck) / (rim - deck)))
                for rib in ribs
            ),
            crease=30,
        )
        middle = 0.5 * (rear + gap)
        if cargo == "tipper":
            heap = ellipsoid(0.5 * (gap - rear) - 0.06, half - 0.06, 0.24, segments=12)
            make.add(heap.moved(middle, 0, rim - 0.06), paint=make.pick((make.light, IRON)), crease=20)
            make.add(_tub((gap - 0.08, gap + 0.22), half, (rim, rim + 0.06), 0.02, 0.0))
        else:
            sizes = [(make.vary(0.36, 0.48), make.vary(0.30, 0.44)) for _ in range(2)]
            for (edge, tall), x in zip(sizes, (middle - 0.28, middle + 0.28)):
                make.add(
                    box(edge, edge + 0.1, tall, 0.03, steps=1).moved(
                        x, make.vary(-0.06, 0.06), deck + 0.04 + 0.5 * tall
                    )
                )
                make.add(box(edge + 0.03, 0.07, tall + 0.03).moved(x, 0, deck + 0.04 + 0.5 * tall), paint=make.light)
        tail = box(0.05, 1.6 * half, rim - deck).moved(rear, 0, 0.5 * (deck + rim))
        make.add(tail)
        make.add(box(0.04, 0.5 * half, 0.05).moved(rear - 0.03, 0, 0.5 * (deck + rim)), paint=make.dark)
    lamp = box(0.06, 0.09, 0.07, 0.02, steps=1).moved(rear + 0.02, half - 0.10, deck - 0.05)
    make.add(pair(lamp), paint=TAIL_LIGHT)

    y = half - 0.04
    wheels(make, [(0.60, y), (rear + 0.26, y), (rear + 0.28 + 2 * wheel, y)], wheel, 0.15)
    arch = hull((-1.35 * wheel, 1.35 * wheel), 0.10, 0.2 * wheel, 1.36 * wheel, end=2.6, power=3.0, rings=7, around=10)
    make.add(pair(arch.moved(0.60, y - 0.01, wheel)), crease=70)
    grille(make, nose, 0.44 * half, (0.28, 0.48), make.pick((2, 3)), upright=make.chance(0.5))
    headlights(make, nose, 0.72 * half, 0.36, 0.085)
    bumper(make, front + 0.02, half, 0.20, 0.05)
    if make.chance(0.5):
        pipe = cylinder(0.045, top - 0.20, segments=10).moved(
            gap + 0.05, make.pick((-1, 1)) * (half - 0.08), 0.5 * top + 0.24
        )
        make.add(pipe, paint=make.light)
    if make.chance(0.4):
        beacons = [ellipsoid(0.05, 0.05, 0.045, segments=8).moved(screen - 0.16, y, top) for y in (-0.2, 0.0, 0.2)]
        make.add(*beacons, paint=LAMP)


@kind("tractor", front=True, tags=("vehicle", "farm"), synonyms=("farm tractor", "farm machine"))
def tractor(make: Maker) -> None:
    """Huge rear wheels with fenders, small front wheels, a narrow bonnet with a barred grille, a high cab."""
    big, small = make.vary(0.44, 0.50), make.vary(0.24, 0.28)
    nose, half = make.vary(0.80, 0.92), make.vary(0.24, 0.28)
    top = make.vary(0.84, 0.92)
    hood = hull((-0.1, nose), half, 0.36, (top, top, top - 0.06), end=make.vary(4.0, 7.0), power=4.0)
    make.add(hood, crease=65)
    make.add(box(nose - 0.2, 0.22, 0.16).moved(0.5 * nose - 0.1, 0, 0.32), paint=IRON)
    make.add(box(0.16, 0.74, 0.12).moved(nose - 0.26, 0, small), box(0.2, 0.8, 0.16).moved(-0.42, 0, big), paint=IRON)
    wheels(make, [(-0.42, 0.50)], big, 0.24, hub=make.body, rim=0.70)
    wheels(make, [(nose - 0.26, 0.40)], small, 0.16, hub=make.body, rim=0.64)
    angle = np.linspace(np.deg2rad(10), np.deg2rad(150), 9)
    path = [np.stack([-0.42 + r * np.cos(angle), r * np.sin(angle) + big], axis=1) for r in (big + 0.04, big + 0.10)]
    guard = extrude(np.concatenate([path[1], path[0][::-1]]), 0.30).turned("z", -90).moved(0, 0.47)
    make.add(pair(guard), crease=40)

    roof = make.vary(1.36, 1.48)
    if make.chance(0.65):
        cab = hull((-0.66, 0.06), 0.36, 0.42, roof, end=6.0, power=6.0, lean=0.06)
        make.add(cab, crease=60)
        window(make, cab, pane((-0.28, 0.28), (top + 0.06, roof - 0.12), 0.06))
        window(make, cab, pane((-0.52, -0.06), (top + 0.06, roof - 0.12), 0.06), "y")
        make.add(
            hull((-0.74, 0.16), 0.42, roof - 0.05, roof + 0.07, end=5.0, power=3.5, rings=10, around=16), crease=60
        )
        make.add(mounted(cab, box(0.05, 0.36, 0.05), 0, top + 0.12, -1.0), paint=make.dark)
        tail_lights(make, cab, 0.26, top - 0.12)
        if make.chance(0.6):
            lamp = ellipsoid(0.06, 0.07, 0.06, segments=10).moved(0.10, 0.24, roof + 0.08)
            make.add(pair(lamp), paint=LAMP)
    else:
        make.add(hull((-0.66, 0.0), 0.34, 0.36, 0.72, end=5.0, power=5.0), crease=60)
        seat = [
            box(0.32, 0.40, 0.12, 0.05).moved(-0.36, 0, 0.76),
            box(0.12, 0.40, 0.40, 0.05).turned("y", -10).moved(-0.54, 0, 0.94),
        ]
        make.add(*seat, paint=make.light)
        make.add(torus(0.14, 0.03, segments=16, sides=6).turned("y", -35).moved(-0.12, 0, 1.04), paint=make.dark)
        make.add(sweep([(-0.12, 0, 1.04), (0.0, 0, 0.8)], 0.025, sides=6), paint=make.dark)
        posts = [sweep([(x, 0.30, 0.6), (x, 0.30, roof)], 0.03, sides=6) for x in (-0.60, 0.02)]
        make.add(*(pair(post) for post in posts), paint=make.dark, crease=80)
        make.add(
            hull((-0.78, 0.18), 0.42, roof - 0.03, roof + 0.09, end=5.0, power=3.5, rings=10, around=16), crease=60
        )
        panel = box(0.05, 0.56, 0.34, 0.02, steps=1).moved(-0.66, 0, 0.86)
        make.add(panel)
        make.add(pair(box(0.06, 0.08, 0.07).moved(-0.68, 0.2, 0.92)), paint=TAIL_LIGHT)
    bars = make.pick((2, 3))
    grille(make, hood, 0.72 * half, (0.46, top - 0.20), bars, upright=make.chance(0.5))
    headlights(make, hood, 0.64 * half, top - 0.12, 0.085)
    side = make.pick((-1.0, 1.0))
    pipe = [(0, 0, -0.1), (0, 0, 0.2), (0, 0, 0.30), (-0.02, 0, 0.38), (-0.08, 0, 0.42)]
    make.add(sweep(pipe, 0.05, sides=8).moved(0.46 * nose, side * 0.19, top - 0.02), paint=make.dark, crease=70)
    slots = [box(0.22, 0.04, 0.035).moved(0.46, half, z) for z in (0.54, 0.62, 0.70)]
    make.add(*(pair(slot) for slot in slots), paint=make.dark)
    make.add(sweep([(-0.5, 0, 0.46), (-0.8, 0, 0.40)], 0.05, sides=6), paint=IRON, crease=80)


@kind("train", front=True, tags=("vehicle", "railway"), synonyms=("locomotive", "steam engine", "railway engine"))
def train(make: Maker) -> None:
    """A steam locomotive: boiler with a round pale front plate and a lamp, chimney, dome, cab at the back."""
    radius, high = make.vary(0.32, 0.37), make.vary(0.66, 0.72)
    front, back = make.vary(0.78, 0.88), -make.vary(0.40, 0.48)
    make.add(
        cylinder(radius, front - back, segments=24).turned("y", 90).moved(0.5 * (front + back), 0, high),
        crease=50,
    )
    for x in (0.0, 0.5 * front):
        make.add(torus(radius, 0.03, segments=16, sides=4).turned("y", 90).moved(x, 0, high), paint=make.light)
    face = radius * 1.06
    make.add(disc(face, 0.20, segments=20).moved(front, 0, high), crease=50)
    make.add(disc(0.86 * face, 0.08, segments=20).moved(front + 0.08, 0, high), paint=make.dark)
    dome = [(0.74 * face, 0.0), (0.70 * face, 0.05), (0.40 * face, 0.08), (0, 0.09)]
    make.add(revolve(dome, 18).turned("y", 90).moved(front + 0.11, 0, high), paint=make.light, crease=50)
    make.add(disc(0.22 * face, 0.08, segments=12).moved(front + 0.18, 0, high), paint=make.dark)
    handle = box(0.04, 0.8 * face, 0.05).moved(front + 0.20, 0, high)
    turn = make.vary(20, 70)
    make.add(handle.moved(0, 0, -high).turned("x", turn).moved(0, 0, high), paint=make.dark)
    hinge = box(0.06, 0.20, 0.06).moved(front + 0.13, 0.60 * face)
    make.add(hinge.moved(0, 0, high + 0.12), hinge.moved(0, 0, high - 0.12), paint=make.dark)

    deck = 0.34
    make.add(hull((back - 0.5, front + 0.06), 0.42, deck - 0.05, deck + 0.05, end=12.0, power=5.0, rings=8), crease=60)
    make.add(box(front - back + 0.2, 0.44, 0.24).moved(0.5 * (front + back), 0, 0.26), paint=IRON)
    wheel, count = make.pick(((0.23, 3), (0.20, 3), (0.26, 2)))
    axles = np.linspace(front - 0.22, back - 0.20, count)
    wheels(make, [(x, 0.36) for x in axles], wheel, 0.12, hub=make.body, rim=0.66)
    rod = box(axles[0] - axles[-1] + 0.1, 0.05, 0.06).moved(0.5 * (axles[0] + axles[-1]), 0.475, wheel - 0.05)
    make.add(pair(rod), paint=make.light)

    base = high + radius - 0.05
    place = 0.72 * front
    tall = make.vary(0.34, 0.44)
    stack = make.pick(("flared", "diamond", "straight"))
    profile = {
        "flared": [(0.11, 0), (0.11, 0.55), (0.20, 0.95), (0.21, 1.0), (0.13, 1.0), (0.11, 0.8), (0, 0.8)],
        "diamond": [(0.10, 0), (0.10, 0.40), (0.25, 0.72), (0.14, 1.0), (0.10, 1.0), (0.08, 0.85), (0, 0.85)],
        "straight": [(0.15, 0), (0.14, 0.14), (0.13, 0.78), (0.18, 0.80), (0.18, 1.0), (0.11, 1.0), (0, 0.85)],
    }[stack]
    chimney = revolve(np.array(profile) * (1.0, tall), 14).moved(place, 0, base)
    make.add(chimney, paint=make.dark if make.chance(0.4) else None, crease=40)
    hump = revolve([(0.15, 0), (0.14, 0.10), (0.15, 0.16), (0.11, 0.23), (0, 0.26)], 16)
    make.add(hump.moved(0.12, 0, base), paint=make.light if make.chance(0.5) else None, crease=60)
    lamp = base + 0.12
    make.add(disc(0.14, 0.20, segments=16).moved(front + 0.02, 0, lamp), paint=make.dark)
    make.add(ellipsoid(0.06, 0.115, 0.115, segments=14).moved(front + 0.12, 0, lamp), paint=LAMP)

    top, end = make.vary(1.20, 1.32), back - make.vary(0.44, 0.54)
    cab = hull((end, back + 0.06), 0.42, deck, top, end=10.0, power=8.0)
    make.add(cab, crease=60)
    shape = pane((end + 0.13, back - 0.07), (0.78, top - 0.12), make.pick((0.05, 0.16)))
    window(make, cab, shape, "y")
    for y in (-0.28, 0.28):
        glass = rounded(
            [(y - 0.09, top - 0.3), (y + 0.09, top - 0.3), (y + 0.09, top - 0.1), (y - 0.09, top - 0.1)], 0.1, 12
        )
        make.add(decal(cab, glass, "x", 1.0), paint=GLASS, crease=60)
    roof = hull((end - 0.08, back + 0.16), 0.48, top - 0.03, top + 0.12, end=8.0, power=2.6, rings=8)
    make.add(roof, paint=make.dark if make.chance(0.25) else None, crease=50)
    tail_lights(make, cab, 0.30, 0.46)
    bunker = make.chance(0.6)
    if bunker:
        make.add(box(0.20, 0.72, 0.40, 0.04, steps=1).moved(end - 0.06, 0, 0.56))
        coal = [ellipsoid(0.09, 0.11, 0.08, segments=8).moved(end - 0.07, y, 0.77) for y in (-0.22, 0.0, 0.2)]
        make.add(*coal, paint=make.dark, crease=20)
    if make.chance(0.4):
        fan = [(-0.34, 0.05), (0.34, 0.05), (0.26, 0.30), (-0.26, 0.30)]
        plough = extrude(fan, 0.06).warped(
            lambda p: p + np.stack([0.2 - 0.55 * abs(p[:, 1]) - 0.5 * (p[:, 2] - 0.05), 0 * p[:, 1], 0 * p[:, 1]], 1)
        )
        make.add(plough.moved(front + 0.12), paint=make.dark)
    else:
        make.add(box(0.10, 0.84, 0.16, 0.03, steps=1).moved(front + 0.08, 0, 0.28))
        make.add(pair(disc(0.09, 0.06, segments=14).moved(front + 0.18, 0.26, 0.28)), paint=make.light)
        make.add(pair(disc(0.05, 0.10, segments=10).moved(front + 0.14, 0.26, 0.28)), paint=make.dark)
