"""Endless training data whose batch number survives a resume.

Batches are sampled in ``collate`` from a generator that depends only on the seed and the batch
number, so two methods with one seed see the same cameras, and a resumed run the same ones as an
uninterrupted run. (Lightning fetches one batch ahead; global random state could not promise that.)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, IterableDataset

from threestudio_redream.runtime.base import Updateable
from threestudio_redream.runtime.rng import step_generator

__all__ = ["SteppedDataModule", "SteppedIterableDataset"]


class SteppedIterableDataset(IterableDataset, Updateable):
    """Yields ``{"step": k}``; ``sample(generator, k)`` makes the batch. Override ``sample``."""

    stream = 0

    def __init__(self) -> None:
        super().__init__()
        self.first_step = 0
        self.seed = 0
        self._unnumbered = 0

    def __iter__(self) -> Iterator[dict[str, int]]:
        step = self.first_step
        while True:
            yield {"step": step}
            step += 1

    def sample(self, generator: torch.Generator, step: int) -> dict[str, Any]:
        raise NotImplementedError(f"{type(self).__name__} must override sample")

    def collate(self, batch: list[dict[str, int]] | dict[str, int]) -> dict[str, Any]:
        """The batch of one item of this dataset, alone or in a list.

        Loaders of third parties may hand in an item of their own, without ``step``: those are counted from 0.
        """
        item = batch[0] if isinstance(batch, list) else batch
        if "step" not in item:
            item = {"step": self._unnumbered}
            self._unnumbered += 1
        step = item["step"]
        return self.sample(step_generator(self.seed, step, self.stream), step)


class SteppedDataModule(pl.LightningDataModule):
    """Stores the next batch number in the checkpoint and hands it to the training dataset."""

    train_dataset: SteppedIterableDataset

    def __init__(self) -> None:
        super().__init__()
        self._first_step = 0

    def train_dataloader(self) -> DataLoader:
        self.train_dataset.first_step = self._first_step
        self.train_dataset.seed = int(torch.initial_seed() & 0xFFFFFFFF)
        # no workers: batches are cheap, and datasets follow the clock through update_step
        return DataLoader(
            self.train_dataset,
            batch_size=1,
            num_workers=0,
            collate_fn=self.train_dataset.collate,
            generator=torch.Generator(),
        )

    def state_dict(self) -> dict[str, Any]:
        trainer = self.trainer
        done = trainer.fit_loop.epoch_loop.batch_progress.total.ready if trainer is not None else 0
        return {"next_step": int(done), "seed": int(torch.initial_seed() & 0xFFFFFFFF)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._first_step = int(state_dict["next_step"])
