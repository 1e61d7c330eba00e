"""The words a prompt can put before an object, colours, materials and patterns, and the paint each stands for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tools.mini.modelling.paint import CREAM, Color, Flat, Metal, Paint, Texture, shade

__all__ = ["COLORS", "DESCRIPTORS", "MATERIALS", "PATTERNS", "finish"]

COLORS: dict[str, Color] = {
    "red": (0.82, 0.14, 0.13),
    "orange": (0.95, 0.50, 0.10),
    "yellow": (0.97, 0.85, 0.20),
    "green": (0.20, 0.60, 0.24),
    "blue": (0.15, 0.36, 0.82),
    "purple": (0.50, 0.21, 0.68),
    "pink": (0.97, 0.56, 0.72),
    "brown": (0.42, 0.24, 0.12),
}
MATERIALS = ("wooden", "golden", "stone")
PATTERNS = ("striped", "dotted", "checkered")
DESCRIPTORS = (*COLORS, *MATERIALS, *PATTERNS)

_SIZE = 64


def finish(descriptor: str, rng: np.random.Generator) -> Paint:
    """Paint for the main surface of an object; the same word never looks quite the same twice.

    Raises:
        KeyError: for a word that is not in :data:`DESCRIPTORS`.
    """
    if descriptor in COLORS:
        return Flat(_jittered(COLORS[descriptor], rng))
    painters: dict[str, Callable[[np.random.Generator], Paint]] = {
        "wooden": _wooden,
        "golden": _golden,
        "stone": _stone,
        "striped": _striped,
        "dotted": _dotted,
        "checkered": _checkered,
    }
    return painters[descriptor](rng)


def _jittered(color: Color, rng: np.random.Generator, amount: float = 0.035) -> Color:
    red, green, blue = np.clip(np.asarray(color) * rng.uniform(0.92, 1.06) + rng.normal(0.0, amount, 3), 0.03, 0.98)
    return (float(red), float(green), float(blue))


def _to_bytes(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.round(np.clip(values, 0.0, 1.0) * 255.0).astype(np.uint8)


def _two_tone(share: NDArray[np.float64], first: Color, second: Color) -> NDArray[np.uint8]:
    return _to_bytes(np.asarray(first) + share[..., None] * (np.asarray(second) - np.asarray(first)))


def _pixels() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Column and row in [0, 1), at texel centres."""
    centre = (np.arange(_SIZE) + 0.5) / _SIZE
    columns, rows = np.meshgrid(centre, centre)
    return columns, rows


def _noise(rng: np.random.Generator, waves: int, highest: int) -> NDArray[np.float64]:
    """Tiling noise in about [-1, 1]: random plane waves with whole frequencies."""
    columns, rows = _pixels()
    total = np.zeros_like(columns)
    for _ in range(waves):
        fx, fy = rng.integers(-highest, highest + 1, 2)
        total += np.cos(2.0 * np.pi * (fx * columns + fy * rows + rng.random()))
    return total / np.sqrt(waves)


def _wooden(rng: np.random.Generator) -> Texture:
    columns, rows = _pixels()
    grain = np.sin(2.0 * np.pi * (4.0 * rows + 0.35 * _noise(rng, 6, 1) + 0.1 * np.sin(2.0 * np.pi * columns)))
    light = _jittered((0.80, 0.58, 0.34), rng, 0.02)
    return Texture(_two_tone(np.clip(0.5 + 0.6 * grain, 0.0, 1.0), light, shade(light, 0.56)), 0.42)


def _golden(rng: np.random.Generator) -> Metal:
    gold = _jittered((0.80, 0.60, 0.14), rng, 0.015)
    return Metal(shade(gold, 0.45), gold, (1.0, 0.95, 0.62))


def _stone(rng: np.random.Generator) -> Texture:
    # Lumps and single-texel specks; the specks must survive the mip levels, so they are blocks of 4.
    specks = np.kron(rng.normal(0.0, 1.0, (_SIZE // 4, _SIZE // 4)), np.ones((4, 4)))
    share = np.clip(0.5 + 0.2 * _noise(rng, 10, 4) + 0.24 * specks, 0.0, 1.0)
    light = _jittered((0.76, 0.76, 0.74), rng, 0.012)
    return Texture(_two_tone(share, light, shade(light, 0.60)), 0.42)


def _pattern_colors(rng: np.random.Generator) -> tuple[Color, Color]:
    return _jittered(COLORS[list(COLORS)[rng.integers(len(COLORS))]], rng), shade(CREAM, rng.uniform(0.97, 1.03))


def _striped(rng: np.random.Generator) -> Texture:
    _, rows = _pixels()
    first, second = _pattern_colors(rng)
    return Texture(_two_tone((rows > 0.5).astype(np.float64), first, second), rng.uniform(0.15, 0.19))


def _dotted(rng: np.random.Generator) -> Texture:
    columns, rows = _pixels()
    first, second = _pattern_colors(rng)
    dots = np.zeros_like(rows)
    for x, y in ((0.25, 0.25), (0.75, 0.75)):
        dots += np.hypot(columns - x, rows - y) < 0.185
    return Texture(_two_tone(dots, first, second), rng.uniform(0.26, 0.32))


def _checkered(rng: np.random.Generator) -> Texture:
    columns, rows = _pixels()
    first, second = _pattern_colors(rng)
    return Texture(
        _two_tone(((columns > 0.5) ^ (rows > 0.5)).astype(np.float64), first, second), rng.uniform(0.22, 0.28)
    )
