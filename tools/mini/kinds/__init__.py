"""The kinds of objects in the library, each a function that models one instance.

>>> build("cat", "red", seed=7).name
'red cat'
"""

from __future__ import annotations

import importlib

import numpy as np

from threestudio_redream.assets import Asset
from threestudio_redream.errors import RegistryError
from tools.mini.descriptors import DESCRIPTORS, finish
from tools.mini.kinds.registry import KINDS, Kind, kind
from tools.mini.modelling import Maker

__all__ = ["FAMILIES", "KINDS", "Kind", "build", "kind", "load_kinds"]

#: Modules that hold kinds.
FAMILIES: tuple[str, ...] = (
    "pets",
    "wild",
    "scaly",
    "figures",
    "vehicles",
    "travel",
    "places",
    "plants",
    "screens",
    "household",
    "things",
)


def load_kinds() -> dict[str, Kind]:
    """Import every family; the kinds by name, in alphabetical order."""
    for family in FAMILIES:
        importlib.import_module(f"tools.mini.kinds.{family}")
    return dict(sorted(KINDS.items()))


def build(name: str, descriptor: str, seed: int) -> Asset:
    """One instance in the canonical frame: front +x, up +z, radius 0.5.

    Raises:
        RegistryError: for an unknown kind or descriptor.
    """
    table = load_kinds()
    for what, word, known in (("kind of object", name, table), ("descriptor", descriptor, DESCRIPTORS)):
        if word not in known:
            raise RegistryError(f"There is no such {what}", received=word, fix=f"Use one of {', '.join(known)}.")
    paint_seed, shape_seed = np.random.SeedSequence([seed, DESCRIPTORS.index(descriptor)]).generate_state(2)
    maker = Maker(finish(descriptor, np.random.default_rng(int(paint_seed))), int(shape_seed))
    table[name].model(maker)
    return maker.asset(f"{descriptor} {name}")
