"""A small modelling kit: solids, smooth blends, paint, and the model that collects them into an asset.

Convention: the canonical frame of :mod:`threestudio_redream.cameras`. An object faces **+x**, its left is
**+y**, up is **+z**. Units are free: the finished model is centred and scaled to radius 0.5.
"""

from __future__ import annotations

from tools.mini.modelling.blend import Ball, Blob, Bone, Egg, blend
from tools.mini.modelling.model import Maker
from tools.mini.modelling.paint import Flat, Gradient, Metal, Paint, Picture, Texture
from tools.mini.modelling.shapes import (
    box,
    cone,
    cylinder,
    disc,
    ellipsoid,
    extrude,
    loft,
    plate,
    revolve,
    sweep,
    torus,
)
from tools.mini.modelling.solid import Solid, join, pair

__all__ = [
    "Ball",
    "Blob",
    "Bone",
    "Egg",
    "Flat",
    "Gradient",
    "Maker",
    "Metal",
    "Paint",
    "Picture",
    "Solid",
    "Texture",
    "blend",
    "box",
    "cone",
    "cylinder",
    "disc",
    "ellipsoid",
    "extrude",
    "join",
    "loft",
    "pair",
    "plate",
    "revolve",
    "sweep",
    "torus",
]
