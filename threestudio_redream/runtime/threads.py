"""How OpenMP's threads wait for their next piece of work. Imports nothing heavy: it must act before torch is there."""

from __future__ import annotations

import os

__all__ = ["let_threads_wait"]

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
