"""Names for classes: ``@register("name")`` and ``find("name")``, with errors that help.

Names listed in :mod:`threestudio_redream.catalog` are known before their module is imported; the
module loads when the name is first looked up. That keeps ``import threestudio_redream`` cheap.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from typing import Any, TypeVar

from threestudio_redream.catalog import ALIASES, BUILTIN_MODULES, REDREAM_MODULES
from threestudio_redream.errors import RegistryError
from threestudio_redream.runtime.stand_in.checkout import VARIABLE, file_of
from threestudio_redream.runtime.stand_in.table import REGISTERED_UPSTREAM

__all__ = ["find", "record_failed_extension", "register", "registered_names"]

T = TypeVar("T", bound=type)

_classes: dict[str, type] = {}
_failed_extensions: dict[str, str] = {}


def register(name: str) -> Callable[[T], T]:
    """Class decorator that makes a class known by ``name``.

    Raises:
        RegistryError: if another class already has the name. The same class imported a second time
            through another path (same module and qualified name) replaces itself silently.
    """

    def decorator(cls: T) -> T:
        known = _classes.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise RegistryError(
                f"The name '{name}' is registered twice: by {known.__module__}.{known.__qualname__} and by "
                f"{cls.__module__}.{cls.__qualname__}. Names of extensions conflict",
                received=name,
                fix="Rename one of them, or disable one extension by adding '_disabled' to its folder name.",
            )
        owner = BUILTIN_MODULES.get(name) or REDREAM_MODULES.get(name)
        if known is None and owner is not None and owner != cls.__module__:
            raise RegistryError(
                f"The name '{name}' belongs to {owner}; {cls.__module__}.{cls.__qualname__} cannot take it. "
                "Names of extensions conflict",
                received=name,
                fix="Choose another name for the extension's class.",
            )
        _classes[name] = cls
        return cls

    return decorator


def find(name: str) -> Any:
    """The class registered under ``name``.

    ``"main:sub"`` or ``"main:sub1,sub2"`` builds a class with bases ``(sub1, sub2, main)``.

    Raises:
        RegistryError: if nothing has the name. The message lists near names and every extension
            that failed to import, with its reason.
    """
    main, _, mixins = name.partition(":")
    if not mixins:
        return _find_one(name)
    bases = [_find_one(part.strip()) for part in mixins.split(",")]
    return type(f"{main}.{mixins}", (*bases, _find_one(main)), {})


def registered_names() -> list[str]:
    """Every name that :func:`find` accepts, sorted, loaded or not."""
    return sorted({*_classes, *BUILTIN_MODULES, *REDREAM_MODULES, *ALIASES})


def record_failed_extension(path: str, reason: str) -> None:
    """Remember that an extension did not import, to be shown where one of its names is looked up."""
    _failed_extensions[path] = reason


def _find_one(name: str) -> type:
    if name not in _classes:
        module = BUILTIN_MODULES.get(name) or REDREAM_MODULES.get(name)
        if module is not None:
            importlib.import_module(module)
        elif name in REGISTERED_UPSTREAM and file_of(f"threestudio.{REGISTERED_UPSTREAM[name][0]}") is not None:
            importlib.import_module(f"threestudio.{REGISTERED_UPSTREAM[name][0]}")
    if name not in _classes and name in ALIASES:
        return _find_one(ALIASES[name])
    if name in _classes:
        return _classes[name]
    near = difflib.get_close_matches(name, registered_names(), n=4, cutoff=0.5)
    hints = [f"Near names: {', '.join(near)}."] if near else ["No registered name is near to it."]
    for path, reason in _failed_extensions.items():
        hints.append(f"The extension {path} failed to import and may have held it: {reason}.")
    if name in REGISTERED_UPSTREAM:
        module, instead = REGISTERED_UPSTREAM[name]
        hints.append(
            f"Upstream registers it in threestudio.{module}, which this runtime does not have: set {VARIABLE} to a "
            "checkout of upstream and it is taken from there"
            + (f", or use {instead}, whose keys are its own." if instead else ".")
        )
    if not name:
        hints = ["Set the matching *_type key in the configuration."]
    raise RegistryError("Nothing is registered under this name", received=name, fix=" ".join(hints))
