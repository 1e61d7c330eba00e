"""3D assets: load them safely, bring them into the canonical frame, look at them.

>>> from threestudio_redream.assets import load_asset, normalise
>>> asset = normalise(load_asset("chair.glb"))  # centred, front +x, up +z, radius 0.5
"""

from __future__ import annotations

from threestudio_redream.assets.limits import DEFAULT_LIMITS, Limits
from threestudio_redream.assets.loading import load_asset
from threestudio_redream.assets.normalise import normalise
from threestudio_redream.assets.sample import sample_asset, write_sample
from threestudio_redream.assets.types import Asset, Material

__all__ = [
    "DEFAULT_LIMITS",
    "Asset",
    "Limits",
    "Material",
    "load_asset",
    "normalise",
    "sample_asset",
    "write_sample",
]
