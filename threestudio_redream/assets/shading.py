"""Colour encoding and the three light models, in plain numpy; every backend follows these formulas.

All light factors multiply sRGB-encoded colour. That is not physical light transport: it is a cheap
cue of shape whose brightest value leaves the base colour as it is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from threestudio_redream.errors import ConfigError

__all__ = [
    "HEADLIGHT_AMBIENT",
    "SHADINGS",
    "WORLD_AMBIENT",
    "WORLD_LIGHT",
    "decode_srgb",
    "encode_srgb",
    "light_factor",
    "shading_code",
]

SHADINGS = ("none", "headlight", "world")
HEADLIGHT_AMBIENT = 0.35
WORLD_AMBIENT = 0.45
#: Unit vector from the object to the fixed light: in front (+x), to the object's left (+y), above (+z).
WORLD_LIGHT = (0.48, 0.36, 0.8)


def decode_srgb(encoded: ArrayLike) -> NDArray[np.float64]:
    """sRGB-encoded values in [0, 1] to linear light (IEC 61966-2-1): ``decode_srgb(0.5) -> 0.2140``."""
    encoded = np.asarray(encoded, np.float64)
    return np.where(encoded <= 0.04045, encoded / 12.92, ((np.maximum(encoded, 0.04045) + 0.055) / 1.055) ** 2.4)


def encode_srgb(linear: ArrayLike) -> NDArray[np.float64]:
    """Linear light in [0, 1] to sRGB-encoded values: ``encode_srgb(0.2140) -> 0.5``."""
    linear = np.asarray(linear, np.float64)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055)


def shading_code(shading: str) -> int:
    """Index of a light model in :data:`SHADINGS`.

    Raises:
        ConfigError: for any other name.
    """
    if shading not in SHADINGS:
        raise ConfigError("The shading mode is unknown", received=shading, fix=f"Use one of {', '.join(SHADINGS)}.")
    return SHADINGS.index(shading)


def light_factor(normal: NDArray[np.float64], to_camera: NDArray[np.float64], shading: int) -> NDArray[np.float64]:
    """The factor, in (0, 1], by which light scales the encoded base colour.

    ``none``: 1. ``headlight``: ``0.35 + 0.65 max(0, n.v)``, light from the camera. ``world``:
    ``0.45 + 0.55 (1 + n.l) / 2`` with the fixed :data:`WORLD_LIGHT`; the same surface point looks
    the same from everywhere, so a radiance field can be fitted to it.

    Convention: world axes of :mod:`threestudio_redream.cameras`; with ``world``, a surface facing the
    light ``(0.48, 0.36, 0.8)`` has factor 1.0 and one facing straight up ``(0, 0, 1)`` has 0.945.

    Args:
        normal: ``[N, 3]`` unit vectors. to_camera: ``[N, 3]`` unit vectors from the surface to the
            camera. shading: index in :data:`SHADINGS`.

    Returns:
        ``[N]``.
    """
    if shading == 1:
        return HEADLIGHT_AMBIENT + (1.0 - HEADLIGHT_AMBIENT) * np.maximum((normal * to_camera).sum(-1), 0.0)
    if shading == 2:
        return WORLD_AMBIENT + (1.0 - WORLD_AMBIENT) * 0.5 * (1.0 + normal @ np.asarray(WORLD_LIGHT))
    return np.ones(normal.shape[:-1])
