"""``import threestudio`` inside an extension, under our own launcher.

Extensions for upstream import their base classes from ``threestudio.*``. While our launcher is the
host, those modules are made from :mod:`.table`; nothing is installed and no file is written.
Modules that the table does not have come from a checkout of upstream, if one is named (:mod:`.checkout`).
Everything else is a named error that says why, so that a plugin which needs more of upstream says so
at once. The hook is inactive unless :func:`install` is called.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from threestudio_redream.runtime.host import STAND_IN_FLAG, resolve
from threestudio_redream.runtime.stand_in import checkout, diffusers_names
from threestudio_redream.runtime.stand_in.table import ABSENT, ABSENT_NAMES, PROVIDED

__all__ = ["VERSION", "debug", "info", "install", "log", "uninstall", "warn"]

VERSION = "0.2.3"  # of the contract we stand in for

log = logging.getLogger("pytorch_lightning")
debug, info, warn = log.debug, log.info, log.warning


def _missing(name: str) -> str:
    reason = _reason(name)
    text = f"'{name}' is not part of the threestudio stand-in of threestudio-redream"
    if reason is None:
        return f"{text}, nor of upstream {VERSION} as we know it. Is the name right? If it is, ask for it in an issue."
    cure = (
        f"Set {checkout.VARIABLE} to a checkout of upstream, and the file is taken from there; or run the extension "
        "inside upstream."
        if _as_name(name) not in ABSENT_NAMES
        else "Run the extension inside upstream, or ask for the name in an issue."
    )
    return f"{text}: {reason}. {cure}"


class _StandInModule(ModuleType):
    """Resolves its names, and the modules below it, when they are first used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        table, path = PROVIDED[self.__name__], f"{self.__name__}.{name}"
        if name in table:
            value = resolve(table[name])
            setattr(self, name, value)
            return value
        if path in PROVIDED or (path in ABSENT and checkout.file_of(path) is not None):
            return importlib.import_module(path)  # upstream imports all of its modules at once
        raise AttributeError(_missing(path))


def _as_name(path: str) -> str:
    """``package.module.name`` as ``package.module:name``."""
    module, _, name = path.rpartition(".")
    return f"{module}:{name}"


def _reason(path: str) -> str | None:
    """Why a module, or a name within one, is absent; None if upstream has no such thing."""
    if path in ABSENT:
        return ABSENT[path]
    return ABSENT_NAMES.get(_as_name(path)) or next(
        (reason for module, reason in ABSENT.items() if path.startswith(f"{module}.")), None
    )


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Attributes: found: names of the modules that came from here."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        top = fullname.partition(".")[0]
        if top not in ("threestudio", "extern"):
            return None
        if fullname in PROVIDED:
            self.found.add(fullname)
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        file = checkout.file_of(fullname)
        if file is not None:
            self.found.add(fullname)
            log.info("'%s' comes from the checkout of upstream: %s", fullname, file)
            below = [str(file.parent)] if file.name == "__init__.py" else None
            return importlib.util.spec_from_file_location(fullname, file, submodule_search_locations=below)
        if top == "extern":  # upstream's folder of other projects' code; without a checkout anybody's name
            return None
        # no name=: Python would take it for a name that is simply not a module, and drop the message
        raise ModuleNotFoundError(_missing(fullname))

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _StandInModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        setattr(module, STAND_IN_FLAG, True)
        if module.__name__ == "threestudio":
            module.__version__ = VERSION  # type: ignore[attr-defined]
        if module.__name__ == "threestudio.utils.typing":
            from threestudio_redream.runtime import typing as names

            module.__dict__.update({name: getattr(names, name) for name in names.__all__})
        else:
            module.__all__ = sorted(PROVIDED[module.__name__])  # type: ignore[attr-defined]


_finder = _Finder()


def install() -> None:
    """Make ``import threestudio`` resolve to this runtime; does nothing if threestudio is imported already."""
    if "threestudio" not in sys.modules and _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
        diffusers_names.restore_names()


def uninstall() -> None:
    """Take the hook and its modules away again; does nothing where it is not set."""
    if _finder not in sys.meta_path:
        return
    sys.meta_path.remove(_finder)
    diffusers_names.undo()
    for name in _finder.found:
        sys.modules.pop(name, None)
    _finder.found.clear()
