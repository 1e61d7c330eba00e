"""One writer at a time, on POSIX systems: a lock that the system itself gives back when its holder dies."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from threestudio_redream.retrieval.errors import IndexBusyError
from threestudio_redream.runtime.locks import lock_file

__all__ = ["write_lock"]

log = logging.getLogger(__name__)
_POLL_S = 0.05
_ATTEMPTS = 20
_POSIX_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)


@contextlib.contextmanager
def write_lock(path: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock file ``path`` for the block.

    Args:
        path: made if absent, removed afterwards; it holds the process id of the holder.
        wait_s: seconds to wait for another holder.

    Raises:
        IndexBusyError: another living process holds it.
    """
    deadline = time.monotonic() + wait_s
    while (handle := _try_to_lock(path)) is None:
        if time.monotonic() >= deadline:
            raise IndexBusyError(
                "another process is writing to this index",
                received=_holder(path),
                fix="Wait until it is done, or stop it; a lock whose holder died opens by itself",
            )
        time.sleep(_POLL_S)
    try:
        if _holder(path):
            log.warning("process %s died while it wrote to %s; cleaning up after it", _holder(path), path.parent.parent)
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        yield
        path.unlink(missing_ok=True)
    finally:
        with contextlib.suppress(OSError):
            os.ftruncate(handle, 0)  # whoever finds the file knows that its holder did not die
        os.close(handle)


def _try_to_lock(path: Path) -> int | None:
    """A descriptor that holds the lock, or None if somebody else does."""
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(FileNotFoundError):  # the folder or the file was tidied away in between
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | _POSIX_FLAGS, 0o666)
            if not lock_file(handle):
                os.close(handle)
                return None
            # The holder before may have removed the file: then this is a lock on a file that nobody else will find.
            if path.exists() and os.fstat(handle).st_ino == path.stat().st_ino:
                return handle
            os.close(handle)
    return None


def _holder(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace")[:20]
    return ""
