"""The asset that is used when the user names none: a waving robot, generated and painted here.

It has what a loader, a renderer and a fit can get wrong: a texture atlas with seams, smooth and flat
regions, thin parts, a clear front, and no mirror symmetry (one arm is raised, the antenna sits on one side).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets.assemble import Parsed, Part, assemble
from threestudio_redream.assets.limits import DEFAULT_LIMITS
from threestudio_redream.assets.paint import Canvas, Color, PixelRect
from threestudio_redream.assets.shapes import Rect, capsule_profile, moved, revolve, rounded_box, turn_y_to
from threestudio_redream.assets.types import Asset, Material

__all__ = ["sample_asset", "write_sample"]

_SIZE = 512
_TEAL: Color = (38, 148, 156)
_CREAM: Color = (242, 222, 184)
_ORANGE: Color = (236, 122, 52)
_NIGHT: Color = (30, 36, 52)
_CYAN: Color = (96, 226, 240)
_STEEL: Color = (142, 152, 168)
_YELLOW: Color = (246, 196, 66)
_RED: Color = (214, 62, 66)

_SIDE_NAMES = ("front", "back", "left", "right", "top", "bottom")
#: The atlas: each region in pixels.
_REGIONS: dict[str, PixelRect] = {
    "head front": (0, 0, 160, 120), "head back": (160, 0, 160, 120), "head left": (320, 0, 96, 120),
    "head right": (416, 0, 96, 120), "head top": (0, 120, 160, 96), "head bottom": (160, 120, 160, 96),
    "body front": (0, 216, 160, 136), "body back": (160, 216, 160, 136), "body left": (320, 216, 96, 136),
    "body right": (416, 216, 96, 136), "body top": (320, 120, 96, 96), "body bottom": (416, 120, 96, 96),
    "limb": (0, 352, 256, 80), "metal": (256, 352, 256, 80), "ear": (0, 432, 128, 80), "ball": (128, 432, 64, 80),
    "foot": (192, 432, 160, 80), "tank": (352, 432, 160, 80),
}  # fmt: skip
_MARGIN = 2.0  # pixels kept free at the border of a region, so that filtering never reads a neighbour


def _rect(name: str) -> Rect:
    left, top, width, height = _REGIONS[name]
    return (
        (left + _MARGIN) / _SIZE,
        (top + _MARGIN) / _SIZE,
        (width - 2.0 * _MARGIN) / _SIZE,
        (height - 2.0 * _MARGIN) / _SIZE,
    )


def _paint() -> NDArray[np.uint8]:
    canvas = Canvas(_SIZE)
    for side in _SIDE_NAMES:
        canvas.fill(_REGIONS[f"head {side}"], _CREAM, 0.12)
        canvas.fill(_REGIONS[f"body {side}"], _TEAL, 0.25)
    _paint_head(canvas)
    _paint_body(canvas)

    canvas.fill(_REGIONS["limb"], _STEEL, 0.1)
    canvas.stripes(_REGIONS["limb"], 20.0, 9.0, 0.0, _ORANGE)
    canvas.fill(_REGIONS["metal"], _STEEL)
    canvas.stripes(_REGIONS["metal"], 16.0, 4.0, 0.0, _NIGHT, 0.55)
    canvas.fill(_REGIONS["ear"], _YELLOW, 0.2)
    canvas.stripes(_REGIONS["ear"], 26.0, 5.0, 0.0, _ORANGE)
    canvas.fill(_REGIONS["ball"], _RED, 0.25)
    canvas.fill(_REGIONS["foot"], _NIGHT)
    canvas.stripes(_REGIONS["foot"], 40.0, 10.0, 0.0, _YELLOW)
    canvas.fill(_REGIONS["tank"], _ORANGE, 0.2)
    canvas.stripes(_REGIONS["tank"], 26.0, 9.0, 1.0, _NIGHT, 0.8)
    return canvas.rgba()


def _paint_head(canvas: Canvas) -> None:
    face = _REGIONS["head front"]
    canvas.box(face, (80, 58), (62, 42), 22, _STEEL)
    canvas.box(face, (80, 58), (57, 37), 18, _NIGHT)
    for x, radius in ((55.0, 13.0), (105.0, 13.0)):
        canvas.disc(face, (x, 50), radius, _CYAN)
        canvas.disc(face, (x, 50), radius - 6.0, _NIGHT)
        canvas.disc(face, (x + 5.0, 45), 3.5, (240, 252, 255))
    canvas.arc(face, (80, 58), 20, 5, 12, _CYAN)
    canvas.box(_REGIONS["head back"], (80, 58), (44, 28), 8, _ORANGE)
    canvas.stripes((204, 32, 72, 52), 13.0, 5.0, 0.0, _NIGHT, 0.85)
    canvas.box(_REGIONS["head top"], (80, 48), (12, 40), 3, _ORANGE)
    for side in ("head left", "head right"):
        canvas.box(_REGIONS[side], (48, 100), (40, 3), 1, _ORANGE)


def _paint_body(canvas: Canvas) -> None:
    chest = _REGIONS["body front"]
    canvas.box(chest, (80, 62), (56, 40), 10, _CREAM)
    canvas.disc(chest, (52, 62), 22, _NIGHT)
    canvas.disc(chest, (52, 62), 18, (236, 244, 248))
    canvas.box(chest, (58, 55), (9, 2), 1, _RED)
    canvas.disc(chest, (52, 62), 4, _RED)
    for row, color in enumerate((_RED, _YELLOW, _CYAN)):
        canvas.box(chest, (102, 40 + 22.0 * row), (22, 7), 6, color)
    back = _REGIONS["body back"]
    canvas.box(back, (80, 68), (58, 50), 8, _NIGHT, 0.7)
    for side in ("front", "back", "left", "right"):
        region = _REGIONS[f"body {side}"]
        band = (region[0], region[1] + 112, region[2], 16)
        canvas.fill(band, _YELLOW)
        canvas.stripes(band, 18.0, 9.0, 1.0, _NIGHT)
    for side in ("body left", "body right"):
        canvas.disc(_REGIONS[side], (48, 42), 26, _CREAM)


def _limb(start: tuple[float, float, float], end: tuple[float, float, float], radius: float, region: str) -> Part:
    """A capsule from ``start`` to ``end``, rounded beyond both."""
    a, b = np.array(start), np.array(end)
    length = float(np.linalg.norm(b - a))
    part = revolve(capsule_profile(radius, length + 2.0 * radius, 4, ribs=0.08 * radius), 14, _rect(region))
    return moved(part, 0.5 * (a + b), turn_y_to(a - b))


def _parts() -> list[Part]:
    head = rounded_box((0.66, 0.5, 0.5), 0.14, 10, {side: _rect(f"head {side}") for side in _SIDE_NAMES})
    body = rounded_box((0.6, 0.54, 0.42), 0.1, 8, {side: _rect(f"body {side}") for side in _SIDE_NAMES})
    foot = rounded_box((0.2, 0.12, 0.32), 0.055, 5, dict.fromkeys(_SIDE_NAMES, _rect("foot")))
    ear = revolve(capsule_profile(0.09, 0.2, 4), 18, _rect("ear"))
    ball = revolve(capsule_profile(0.065, 0.13, 6), 14, _rect("ball"))
    hand = revolve(capsule_profile(0.095, 0.19, 5), 14, _rect("ear"))
    tank = revolve(capsule_profile(0.095, 0.44, 5), 18, _rect("tank"))
    sideways = turn_y_to((1.0, 0.0, 0.0))
    parts = [moved(part, (0.0, 0.62, 0.0)) for part in head] + [moved(part, (0.0, 0.02, 0.0)) for part in body]
    for x in (-0.15, 0.15):
        parts += [moved(part, (x, -0.5, 0.06)) for part in foot]
        parts += [_limb((x, -0.24, 0.0), (x, -0.46, 0.0), 0.07, "metal"), moved(tank, (0.8 * x, 0.05, -0.28))]
    parts += [moved(ear, (x, 0.62, 0.0), sideways) for x in (-0.35, 0.35)]
    parts += [_limb((0.0, 0.26, 0.0), (0.0, 0.4, 0.0), 0.1, "metal")]
    parts += [_limb((0.2, 0.84, 0.0), (0.26, 1.06, 0.0), 0.022, "metal"), moved(ball, (0.27, 1.11, 0.0))]
    # +x is on the right of someone who looks at the robot: that arm waves, the other hangs.
    parts += [
        _limb((0.32, 0.2, 0.0), (0.52, 0.24, 0.03), 0.065, "limb"),
        _limb((0.52, 0.24, 0.03), (0.6, 0.5, 0.1), 0.06, "limb"),
    ]
    parts += [moved(hand, (0.62, 0.57, 0.12))]
    parts += [
        _limb((-0.32, 0.2, 0.0), (-0.45, 0.0, 0.02), 0.065, "limb"),
        _limb((-0.45, 0.0, 0.02), (-0.44, -0.2, 0.12), 0.06, "limb"),
    ]
    parts += [moved(hand, (-0.44, -0.26, 0.15))]
    return parts


def sample_asset() -> Asset:
    """A small robot, about 9,000 faces with one 512 px texture.

    Convention
    ----------
    As a glTF file would come out of ``load_asset``: +y up, front +z. The raised hand is at x > 0 and
    the antenna's ball at x = 0.27, y = 1.11; after ``normalise`` the face looks along +x.
    """
    material = Material(texture=_paint(), double_sided=False, wrap="clamp")
    parsed = Parsed(_parts(), lambda: [material], info={"format": "sample"})
    return assemble(parsed, name="sample-robot", source=None, limits=DEFAULT_LIMITS)


def write_sample(path: str | Path) -> Path:
    """Write the sample as a GLB file (atomically) and return its path."""
    from threestudio_redream.assets.glb_writer import encode_glb
    from threestudio_redream.runtime.files import atomic_write_bytes

    path = Path(path)
    atomic_write_bytes(path, encode_glb(sample_asset()))
    return path
