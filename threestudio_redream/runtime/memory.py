"""Keep freed memory in the process: on a CPU, half of a training step can go into page faults.

glibc hands every block above 32 MB (and often smaller ones) back to the kernel when it is freed, and
gets zeroed pages for the next one. Training allocates and frees the same large tensors every step,
so the process keeps them instead. Peak memory stays what it was; it is only returned at exit.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

# parameters of glibc's mallopt(3)
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Tell the allocator; returns whether there was one that understood (glibc on Linux)."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl and others have no mallopt
        return False
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 64 * 2**20}
    return all(mallopt(parameter, value) == 1 for parameter, value in settings.items())
