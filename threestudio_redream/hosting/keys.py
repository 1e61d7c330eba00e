"""Keys that only our own runtime's parts know, in configurations that upstream's parts are made from."""

from __future__ import annotations

import dataclasses
import importlib
import logging
from collections.abc import Iterable
from typing import Any

from threestudio_redream.catalog import BUILTIN_MODULES
from threestudio_redream.runtime import find
from threestudio_redream.runtime.registry import find as find_ours

__all__ = ["drop_own_keys"]

log = logging.getLogger("pytorch_lightning")

PARTS = ("geometry", "material", "background", "renderer")


def drop_own_keys(system: Any, parts: Iterable[str] = PARTS) -> None:
    """Take out of a system's configuration what upstream's class of a name does not know and ours does.

    Such keys set the pace or the quality of our implementation, for example ``renderer.grid_update_interval``. A key
    that neither knows stays, and upstream refuses it.

    Args:
        system: the structured configuration; changed in place. parts: those with ``<part>_type``.
    """
    for part in parts:
        kind, block = system[f"{part}_type"], system[part]
        if kind not in BUILTIN_MODULES:
            continue
        unknown = set(block) - _keys(find(kind))
        if not unknown:
            continue
        importlib.import_module(BUILTIN_MODULES[kind])
        dropped = sorted(unknown & _keys(find_ours(kind)))
        for key in dropped:
            del block[key]
        if dropped:
            log.warning(
                "system.%s.%s: only the runtime of threestudio-redream knows it; upstream's %s goes without",
                part,
                ", ".join(dropped),
                kind,
            )


def _keys(kind: Any) -> set[str]:
    config: Any = getattr(kind, "Config", None)
    return {field.name for field in dataclasses.fields(config)} if dataclasses.is_dataclass(config) else set()
