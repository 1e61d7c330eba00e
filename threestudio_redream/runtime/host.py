"""Which threestudio are we inside?

The host is whoever launched us: when upstream's ``launch.py`` loads this package, ``threestudio``
is already imported and its own base classes must be used, so that registries, hooks and
``isinstance`` checks are shared. Otherwise the classes of this package stand in for them.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

__all__ = ["resolve", "upstream"]

#: Set on a module that stands in for ``threestudio`` but is ours, so that it is not taken for upstream.
STAND_IN_FLAG = "__redream_runtime__"


def upstream() -> ModuleType | None:
    """The upstream ``threestudio`` package if it is the host of this process, else None."""
    module = sys.modules.get("threestudio")
    if module is None or getattr(module, STAND_IN_FLAG, False) or not hasattr(module, "register"):
        return None
    return module


def resolve(path: str) -> Any:
    """Import ``"package.module:attribute"`` and return the attribute (``"package.module"``: the module)."""
    module_name, _, attribute = path.partition(":")
    module = importlib.import_module(module_name)
    return getattr(module, attribute) if attribute else module
