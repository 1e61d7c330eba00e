"""Stand where our classes would be, and say why they are not there.

Upstream's loader prints the traceback of an extension that fails and goes on; much later, the user meets a bare
``KeyError``. With a placeholder under each name, the error is the reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

from threestudio_redream.hosting.gate import HostError

__all__ = ["FLAG", "leave_placeholders", "reason_left"]

FLAG = "__redream_refusal__"


def leave_placeholders(host: ModuleType, names: Iterable[str], reason: HostError) -> None:
    """Put a class that raises ``reason`` under every name, also where some of ours registered before the failure."""
    table: dict[str, type] = host.__modules__
    for name in names:
        if name not in table or table[name].__module__.startswith("threestudio_redream"):
            table[name] = _placeholder(name, reason)


def reason_left(host: ModuleType, names: Iterable[str]) -> HostError | None:
    """The reason of an earlier refusal in this process."""
    found = (getattr(getattr(host, "__modules__", {}).get(name), FLAG, None) for name in names)
    return next((reason for reason in found if reason is not None), None)


def _placeholder(name: str, reason: HostError) -> type:
    def refuse(*arguments: Any, **keywords: Any) -> Any:
        raise HostError(f"'{name}' is not available. {reason.problem}", fix=reason.fix)

    return type(
        f"Unavailable[{name}]",
        (),
        {FLAG: reason, "__module__": __name__, "__init__": refuse, "create_from": staticmethod(refuse)},
    )
