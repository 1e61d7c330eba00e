"""Make every ``redream-*`` name known to upstream threestudio, or say once and for all why not."""

from __future__ import annotations

import importlib
import logging
import sys
from pathlib import Path
from types import ModuleType

from threestudio_redream.catalog import REDREAM_MODULES
from threestudio_redream.errors import RedreamError
from threestudio_redream.hosting.gate import HostError, check_host
from threestudio_redream.hosting.placeholders import leave_placeholders, reason_left

__all__ = ["enter"]

log = logging.getLogger("pytorch_lightning")


def enter(host: ModuleType) -> None:
    """Check the environment and import the modules that register our classes in ``host``.

    All or nothing: after a failure each of our names stands for the reason of it. Calling it again changes nothing.

    Raises:
        HostError: the environment lacks something, or a module of ours does not import or came before the host.
    """
    earlier = reason_left(host, REDREAM_MODULES)
    if earlier is not None:  # tried before in this process, on another way in
        raise earlier
    if set(REDREAM_MODULES) <= set(host.__modules__):
        return
    try:
        check_host(host)
        _check_order()
        _share_device()
        for module in sorted(set(REDREAM_MODULES.values())):
            importlib.import_module(module)
    except Exception as cause:  # of a module: anything
        reason = cause if isinstance(cause, HostError) else _wrapped(cause)
        leave_placeholders(host, REDREAM_MODULES, reason)
        if reason is cause:
            raise
        raise reason from cause
    log.info("threestudio-redream: %d names registered, from %s", len(REDREAM_MODULES), Path(__file__).parents[1])


def _wrapped(cause: Exception) -> HostError:
    if isinstance(cause, RedreamError):
        return HostError(f"threestudio-redream could not be loaded: {cause.problem}", fix=cause.fix)
    return HostError(
        f"threestudio-redream could not be loaded: {type(cause).__name__}: {cause}",
        fix="In the environment that runs threestudio: redream doctor",
    )


def _check_order() -> None:
    """Classes that were made before the host was imported have our own base classes for good."""
    early = sorted(set(REDREAM_MODULES.values()) & set(sys.modules))
    if early:
        raise HostError(
            "threestudio-redream was used in this process before threestudio was imported",
            received=early,
            fix="Import threestudio first.",
        )


def _share_device() -> None:
    """The device is the host's choice, also for the parts of ours that ask our own runtime."""
    from threestudio_redream.runtime.device import set_device
    from threestudio_redream.runtime.host import resolve

    set_device(resolve("threestudio.utils.misc:get_device")())
