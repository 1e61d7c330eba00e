"""Progress on the terminal: steps, rate, time left, loss. Lines in a log file instead of a bar."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["StepProgress"]

log = logging.getLogger("pytorch_lightning")


class StepProgress(ProgressBar):
    """One bar per stage, with the total taken from ``trainer.max_steps`` for training.

    Args:
        quiet_seconds: interval of the log lines that replace the bar where there is no terminal.
    """

    def __init__(self, quiet_seconds: float = 15.0) -> None:
        super().__init__()
        self.quiet_seconds = quiet_seconds
        self._console = Console(stderr=True)
        self._progress: Progress | None = None
        self._started = self._last_line = 0.0
        self._first = 0
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    # ------------------------------------------------------------------ the bar
    def _begin(self, label: str, total: int | None, completed: int = 0) -> None:
        self._finish()
        self._started = self._last_line = time.perf_counter()
        self._first, self._total, self._label, self._done = completed, total, label, completed
        if self._enabled and self._console.is_terminal:
            self._progress = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=self._console,
            )
            self._task = self._progress.add_task(label, total=total, completed=completed, rate="", note="")
            self._progress.start()

    def _advance(self, done: int, note: str = "") -> None:
        now = time.perf_counter()
        self._done = done
        rate = (done - self._first) / max(now - self._started, 1e-9)
        text = f"{rate:.1f} it/s" if rate >= 1 or rate == 0 else f"{1 / rate:.1f} s/it"
        if self._progress is not None:
            self._progress.update(self._task, completed=done, rate=text, note=note)
        elif self._enabled and now - self._last_line >= self.quiet_seconds:
            self._last_line = now
            left = f", {(self._total - done) / rate:.0f} s left" if self._total and rate else ""
            log.info("%s %d/%s, %s%s %s", self._label, done, self._total or "?", text, left, note)

    def _finish(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    # ------------------------------------------------------------------ hooks
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        total = trainer.max_steps if trainer.max_steps and trainer.max_steps > 0 else None
        self._begin("train", total, trainer.global_step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        note = f"loss {float(loss):.4g}" if loss is not None and trainer.global_step % 10 == 0 else None
        self._note = note if note is not None else getattr(self, "_note", "")
        self._advance(trainer.global_step, self._note)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._finish()
        seconds = time.perf_counter() - self._started
        log.info(
            "Training ended at step %d: %d steps in %.1f s", trainer.global_step, self._done - self._first, seconds
        )

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._finish()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin("test", int(sum(trainer.num_test_batches)))

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._advance(batch_idx + 1)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._finish()

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        log.info("Exporting")
