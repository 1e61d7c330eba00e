"""Run independent pieces of one job on the kernel threads, without numba's parallel regions.

A kernel compiled with ``nogil=True`` runs beside other Python threads. Next to ``prange`` this way
compiles in half the time, may be entered from several threads at once, hands out pieces as threads
become free (a busy neighbour on one core delays one piece, not the whole launch), and has nothing to
break in a forked child, which starts its own threads.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from threestudio_redream.kernels.jit import get_threads

__all__ = ["run_tasks"]

_pool: ThreadPoolExecutor | None = None
_pool_size = 0


def run_tasks(task: Callable[[int], object], count: int) -> None:
    """Call ``task(0) ... task(count - 1)`` on up to ``get_threads()`` threads; returns when all are done.

    Tasks begin in order but end in any, so no two may write to the same memory. The calling thread
    works too. After an exception no further task begins, and the first one is raised here.

    Args:
        task: usually a lambda around a ``nogil`` kernel.
        count: number of tasks; 0 is allowed.
    """
    numbers = itertools.count()  # next() on it is atomic: each number is handed out once
    stop = False

    def work() -> None:
        nonlocal stop
        while not stop and (number := next(numbers)) < count:
            try:
                task(number)
            except BaseException:
                stop = True
                raise

    helpers = min(get_threads(), count) - 1
    futures = [_threads(helpers).submit(work) for _ in range(helpers)]
    errors: list[BaseException] = []
    try:
        work()
    finally:
        for future in futures:
            if not future.cancel() and (error := future.exception()) is not None:
                errors.append(error)
    if errors:
        raise errors[0]


def _threads(wanted: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    if _pool is None or _pool_size < wanted:
        _pool, _pool_size = ThreadPoolExecutor(wanted, thread_name_prefix="redream-kernel"), wanted
    return _pool


def _forget_threads() -> None:
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_threads)
