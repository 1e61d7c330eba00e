"""Atomic file writes: a reader sees the old file or the new one, never half of one.

Temporary files are hidden, so a reader that lists a folder leaves out hidden names; see :func:`visible`.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["atomic_path", "atomic_write_bytes", "atomic_write_text", "remove_leftovers", "visible"]

_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.tmp(\.[^.]+)?")  # as mkstemp makes them below


@contextlib.contextmanager
def atomic_path(path: str | Path, *, sync: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it when the block ends without an error.

    Args:
        sync: also flush the data to disk first, for files that must survive a power cut.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=f".tmp{path.suffix}", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        if sync:
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes private files
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write_bytes(path: str | Path, data: bytes) -> None:
    """Replace the content of ``path`` by ``data``."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def atomic_write_text(path: str | Path, text: str) -> None:
    """Replace the content of ``path`` by ``text`` in UTF-8."""
    atomic_write_bytes(path, text.encode())


def visible(paths: Iterable[Path]) -> list[Path]:
    """Those of ``paths`` that are not hidden: what a writer has finished, not what a killed one has left."""
    return [path for path in paths if not path.name.startswith(".")]


def remove_leftovers(folder: str | Path) -> int:
    """Delete the temporary files that killed writers left below ``folder``, which nobody may be writing to.

    Links are not followed.

    Returns:
        How many files were deleted.
    """
    removed = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            if _TEMPORARY.fullmatch(name):
                Path(parent, name).unlink(missing_ok=True)
                removed += 1
    return removed
