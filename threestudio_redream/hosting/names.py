"""Upstream's registry, for our classes: a second registration of the same class is harmless, a miss says more."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from threestudio_redream.errors import RegistryError
from threestudio_redream.hosting.placeholders import FLAG
from threestudio_redream.runtime.host import upstream

__all__ = ["find", "register"]

T = TypeVar("T", bound=type)


def register(name: str) -> Callable[[T], T]:
    """As ``threestudio.register``; a class of ours that is there already is replaced by its newer self.

    Raises:
        RegistryError: somebody else's class has the name.
    """

    def decorator(cls: T) -> T:
        table: dict[str, type] = _host().__modules__
        known = table.get(name)
        if known is not None and not hasattr(known, FLAG) and _identity(known) != _identity(cls):
            raise RegistryError(
                f"The name is registered in threestudio by {'.'.join(_identity(known))}",
                received=name,
                fix="Disable one of the two extensions: add '_disabled' to its name in custom/.",
            )
        table[name] = cls
        return cls

    return decorator


def find(name: str) -> Any:
    """As ``threestudio.find``.

    Raises:
        RegistryError: nothing has the name; near ones are listed.
    """
    host = _host()
    try:
        return host.find(name)
    except KeyError as cause:
        near = difflib.get_close_matches(str(cause.args[0]), host.__modules__, n=4, cutoff=0.5)
        hint = f"Near names: {', '.join(near)}. " if near else ""
        raise RegistryError(
            "Nothing is registered in threestudio under this name",
            received=name,
            fix=f"{hint}Look for IMPORT FAILED at the top of the log.",
        ) from cause


def _host() -> Any:
    host = upstream()
    return sys.modules["threestudio"] if host is None else host


def _identity(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__
