"""How many threads torch uses, and how they wait. Imports nothing heavy: the latter must act before torch is there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

__all__ = ["let_threads_wait", "torch_threads"]

#: About a tenth of a millisecond.
SPINS = 50_000


def let_threads_wait() -> None:
    """Let idle threads spin for a moment and then sleep, unless the environment says otherwise.

    A small UNet is thousands of operations of some 10 microseconds: threads that sleep at once (``PASSIVE``) make a
    step take twice as long, threads that spin for good slow a busy machine down many times over. Has no effect once
    torch has been imported.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use ``count`` threads in this block: sums depend on how they are split, in their last bits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
