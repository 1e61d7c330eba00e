"""Locks on open files. The system gives one back when its holder dies, however it dies."""

from __future__ import annotations

import sys

from threestudio_redream.errors import ConfigError

__all__ = ["lock_file", "require_locks"]


def require_locks() -> None:
    """Raise ConfigError where there are none, before work that will need one."""
    try:
        import fcntl  # noqa: F401
    except ImportError as cause:
        raise ConfigError(
            "Locks on files need a POSIX system", received=sys.platform, fix="Use Linux, macOS, or WSL on Windows."
        ) from cause


def lock_file(handle: int, *, wait: bool = False) -> bool:
    """Lock an open file for this process and those that inherit the descriptor; False if somebody else holds it.

    Args:
        wait: until it is free.

    Raises:
        ConfigError: this system has no such locks (Windows).
        OSError: the file system has none.
    """
    require_locks()
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True
