"""Find cameras that are no cameras before they are trained on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from threestudio_redream.errors import ConfigError

__all__ = ["check_cameras"]


def check_cameras(batch: Any, tolerance: float = 1e-2) -> None:
    """Raise if the camera-to-world matrices ``c2w [B, 3 or 4, 4]`` of a batch are not orthonormal.

    Upstream's random cameras leave ``dim`` of ``torch.cross`` to torch, which takes the first axis of size 3: with
    three cameras in a batch, that is the batch.

    Raises:
        ConfigError: naming the batch size.
    """
    c2w = batch.get("c2w") if isinstance(batch, dict) else None
    if not isinstance(c2w, Tensor) or c2w.ndim != 3 or c2w.shape[0] != 3:
        return
    turn = c2w[:, :3, :3].detach().double().cpu()
    error = float((turn.transpose(1, 2) @ turn - torch.eye(3, dtype=torch.float64)).abs().max())
    if error > tolerance:
        raise ConfigError(
            f"The cameras of this batch are distorted (off by {error:.2f}): upstream's random cameras are wrong for "
            "batches of 3",
            received=c2w.shape[0],
            fix="Set data.batch_size to another number, for example 4.",
        )
