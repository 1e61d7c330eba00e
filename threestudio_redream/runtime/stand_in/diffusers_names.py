"""Names that diffusers took away and that extensions for threestudio still use, under our launcher only.

``diffusers.models.attention_processor.LoRAAttnProcessor``: what upstream's VSD and the extensions made from it are
built on. Since 0.31 it refuses its arguments. It is replaced, when that module is imported, by
:class:`threestudio_redream.runtime.stand_in.lora_attention.LoRAAttnProcessor`.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import inspect
import logging
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

__all__ = ["restore_names", "undo"]

log = logging.getLogger("pytorch_lightning")
MODULE = "diffusers.models.attention_processor"
NAMES = ("LoRAAttnProcessor", "LoRAAttnProcessor2_0")
_taken: dict[str, Any] = {}


def restore_names() -> None:
    """From now on the names work; does nothing where diffusers' own still do."""
    if MODULE in sys.modules:
        _patch(sys.modules[MODULE])
    elif _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def undo() -> None:
    """Put back what diffusers had."""
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
    for name in list(_taken):
        setattr(sys.modules[MODULE], name, _taken.pop(name))


def _patch(module: ModuleType) -> None:
    from threestudio_redream.runtime.stand_in.lora_attention import LoRAAttnProcessor

    for name in NAMES:
        found = getattr(module, name, None)
        if found is None or "hidden_size" not in inspect.signature(found).parameters:
            _taken[name] = found
            setattr(module, name, LoRAAttnProcessor)
    if _taken:
        log.debug("%s is ours: that of this diffusers takes no arguments", " and ".join(_taken))


class _Patched(importlib.abc.Loader):
    """The module's own loader, and the names after it."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self.loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        _patch(module)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        if fullname != MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Patched(spec.loader)
        return spec


_finder = _Finder()
