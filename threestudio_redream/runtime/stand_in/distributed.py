"""Steps that all processes of a run take together; alone, each does nothing."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["barrier", "broadcast"]


def _together() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def barrier() -> None:
    """Wait until every process is here."""
    if _together():
        torch.distributed.barrier()


def broadcast(tensor: Tensor, src: int = 0) -> Tensor:
    """``tensor`` with the values of process ``src``, written in place and returned."""
    if _together():
        torch.distributed.broadcast(tensor, src=src)
    return tensor
