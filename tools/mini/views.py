"""Cameras of the mini lab, and the words for where they stand.

Convention: azimuth in degrees from the front (+x) towards the object's left (+y), elevation in degrees above
the horizon, as in :mod:`threestudio_redream.cameras`. Azimuth 30 is still the front, 60 a side, 150 the back.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BACK",
    "DISTANCES",
    "FOVY_DEG",
    "FRONT",
    "OVERHEAD",
    "SIDE",
    "VIEWS",
    "bucket",
    "even_cameras",
    "web_cameras",
]

VIEWS = ("front", "side", "back", "overhead")
FRONT, SIDE, BACK, OVERHEAD = range(4)
FOVY_DEG = 40.0
#: From the centre of an object of radius 0.5, which fills the picture from corner to corner at 1.46.
DISTANCES = (1.36, 1.58)
#: Share of pictures of an object that are taken from somewhere in front of it, and how far "in front" goes.
WEB_FRONT_SHARE, WEB_FRONT_DEG = 0.78, 50.0

Float = NDArray[np.float64]


def bucket(azimuth_deg: Float, elevation_deg: Float) -> NDArray[np.int64]:
    """Index in :data:`VIEWS`: overhead above 60 degrees, else front or back within 45 degrees of it."""
    turned = np.abs((np.asarray(azimuth_deg) + 180.0) % 360.0 - 180.0)
    view = np.where(turned <= 45.0, FRONT, np.where(turned >= 135.0, BACK, SIDE))
    return np.where(np.asarray(elevation_deg) > 60.0, OVERHEAD, view)


def even_cameras(rng: np.random.Generator, count: int) -> tuple[Float, Float, Float]:
    """Azimuth, elevation (degrees) and distance with no preferred side: what a fair judge should see."""
    overhead = rng.random(count) < 0.12
    elevation = np.where(overhead, rng.uniform(62.0, 85.0, count), rng.uniform(-10.0, 45.0, count))
    return rng.uniform(0.0, 360.0, count), elevation, rng.uniform(*DISTANCES, count)


def web_cameras(rng: np.random.Generator, count: int) -> tuple[Float, Float, Float]:
    """The same for pictures as people take them: mostly from the front, a little from above, rarely from overhead."""
    front = rng.random(count) < WEB_FRONT_SHARE
    azimuth = np.where(front, rng.uniform(-WEB_FRONT_DEG, WEB_FRONT_DEG, count), rng.uniform(0.0, 360.0, count))
    overhead = rng.random(count) < 0.04
    elevation = np.where(overhead, rng.uniform(62.0, 85.0, count), np.clip(rng.normal(14.0, 10.0, count), -10.0, 45.0))
    return azimuth % 360.0, elevation, rng.uniform(*DISTANCES, count)
