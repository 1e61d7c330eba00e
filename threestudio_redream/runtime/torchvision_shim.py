"""Keep a torchvision whose compiled half does not fit torch from taking other packages down.

PyPI's torchvision beside a CPU build of torch fails on import ("operator torchvision::nms does not exist"). Lightning,
transformers, diffusers and open_clip import it when it is installed, so they fail too. None of them needs the compiled
half, only an import that succeeds, and for that two operators have to be declared.

The package calls :func:`guard_torchvision` when it is imported, which costs nothing and loads nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Literal

__all__ = ["ensure_torchvision", "guard_torchvision"]

log = logging.getLogger(__name__)

#: The operators that torchvision's Python half describes without asking whether its compiled half is there.
_OPERATORS = ("nms", "qnms")
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

_library: Any = None  # the declarations live as long as this object


def guard_torchvision() -> None:
    """From now on, an import of torchvision that fails for want of its operators is tried again with them declared.

    Nothing is declared before such a failure, as an operator cannot be declared twice and a compiled half that loads
    declares its own. Repeating the call does nothing.
    """
    if not any(_is_ours(finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def ensure_torchvision() -> Literal["absent", "native", "patched", "broken"]:
    """Import torchvision if it is installed, and tell what came of it.

    Returns:
        ``absent``: not installed, which suits everything but open_clip. ``native``: works by itself. ``patched``:
        works except for its compiled operators (non-maximum suppression, region pooling), which raise when called.
        ``broken``: fails for another reason, which is logged.
    """
    guard_torchvision()
    if sys.modules.get("torchvision") is None and importlib.util.find_spec("torchvision") is None:
        return "absent"
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # a foreign package: anything can come out of it
        log.warning(
            "torchvision does not import (%s: %s), nor will packages that use it. Reinstall it to match torch, or "
            "remove it: pip uninstall torchvision",
            type(error).__name__,
            error,
        )
        return "broken"
    return "native" if _library is None else "patched"


def _is_ours(finder: Any) -> bool:
    """By name, as tools that import modules anew (coverage does) make another class of the same name."""
    return (type(finder).__module__, type(finder).__name__) == (__name__, "_Finder")


class _Finder(MetaPathFinder):
    """Finds torchvision as the other finders do, and puts :class:`_Loader` around its loader."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "torchvision":
            return None
        for finder in sys.meta_path:
            spec = None if _is_ours(finder) else finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:  # None: a folder without code
                    spec.loader = _Loader(spec.loader)
                return spec
        return None


class _Loader(Loader):
    def __init__(self, real: Loader) -> None:
        self._real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._real
        if module.__spec__ is not None:
            module.__spec__.loader = self._real
        try:
            self._real.exec_module(module)
        except RuntimeError as error:
            if "torchvision::" not in str(error) or _library is not None:
                raise
            _declare_operators()
            for name in [name for name in sys.modules if name.startswith("torchvision.")]:
                del sys.modules[name]  # half-loaded
            self._real.exec_module(module)


def _declare_operators() -> None:
    global _library
    import torch

    _library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _OPERATORS:
        if not hasattr(torch.ops.torchvision, name):
            _library.define(name + _SIGNATURE)
