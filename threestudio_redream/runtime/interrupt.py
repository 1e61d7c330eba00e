"""Ctrl-C: once ends training and goes on to test and export, twice quits."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl

__all__ = ["graceful_interrupt"]

log = logging.getLogger("pytorch_lightning")


@contextlib.contextmanager
def graceful_interrupt(trainer: pl.Trainer) -> Iterator[None]:
    """While the block runs, the first SIGINT sets ``trainer.should_stop``; the second raises KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():  # signals only reach the main thread
        yield
        return
    previous = signal.getsignal(signal.SIGINT)

    def first(signum: int, frame: Any) -> None:
        log.warning("Interrupted: finishing this step, then test and export. Press Ctrl-C again to quit at once.")
        trainer.should_stop = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
