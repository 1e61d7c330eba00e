"""Random numbers from a given generator, on whatever device they are needed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["randint", "uniform"]


def uniform(shape: Sequence[int], like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Numbers in ``[0, 1)`` with the device and dtype of ``like``.

    Drawn on the device of ``generator``, so a CPU generator gives the same numbers for a GPU. Without
    one, the global generator of the device of ``like`` is used.
    """
    device = like.device if generator is None else generator.device
    return torch.rand(tuple(shape), generator=generator, device=device, dtype=like.dtype).to(like.device)


def randint(below: int, count: int, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """``[count]`` int64 in ``[0, below)`` on ``device``, with repetition."""
    where = device if generator is None else generator.device
    return torch.randint(below, (count,), generator=generator, device=where).to(device)
