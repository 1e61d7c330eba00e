"""Ctrl-C: once ends training and goes on to test and export, twice (or before the first step) quits."""

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


class _Began(pl.Callback):
    training = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.training = True


@contextlib.contextmanager
def graceful_interrupt(trainer: pl.Trainer) -> Iterator[None]:
    """While the block runs, the first SIGINT sets ``trainer.should_stop``; the second raises KeyboardInterrupt.

    Before training starts (assets are retrieved, the prior is adapted) the first one does: there is nothing to export.
    """
    if threading.current_thread() is not threading.main_thread():  # signals only reach the main thread
        yield
        return
    previous = signal.getsignal(signal.SIGINT)

    began = _Began()
    trainer.callbacks.append(began)  # type: ignore[attr-defined]

    def first(signum: int, frame: Any) -> None:
        if not began.training:
            raise KeyboardInterrupt
        log.warning("Interrupted: finishing this step, then test and export. Press Ctrl-C again to quit at once.")
        trainer.should_stop = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        trainer.callbacks.remove(began)  # type: ignore[attr-defined]
