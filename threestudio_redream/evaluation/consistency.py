"""A-LPIPS: how much adjacent views of one object differ.

The consistency measure of ReDream's and ProlificDreamer's tables: "the average LPIPS between adjacent images" of a
turn. A Janus face changes smoothly from view to view, so this sees floaters and flicker rather than faces, and a
blurred or featureless object does well by it. Read it beside a blurred control, and never alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from threestudio_redream.errors import ConfigError
from threestudio_redream.evaluation.lpips import LPIPS

__all__ = ["a_lpips", "adjacent_lpips"]


def adjacent_lpips(distance: LPIPS, views: Tensor, batch_size: int = 8) -> Tensor:
    """LPIPS of each view with the next, without going round: 119 pairs from 120 frames.

    Args:
        views: ``[A, H, W, 3]`` in [0, 1], in their order around the object. batch_size: pictures at once.

    Returns:
        ``[A - 1]``.

    Raises:
        ConfigError: fewer than two views.
    """
    if len(views) < 2:
        raise ConfigError("A-LPIPS needs two views or more", received=tuple(views.shape), fix="Render a turn.")
    found: list[Tensor] = []
    with torch.no_grad():
        last: list[Tensor] | None = None  # features of the view before: each picture is looked at once
        for chunk in views.split(batch_size):
            features = distance.features(chunk)
            joined = features if last is None else [torch.cat(pair) for pair in zip(last, features)]
            found.append(distance.between([f[:-1] for f in joined], [f[1:] for f in joined]))
            last = [f[-1:] for f in features]
    return torch.cat(found)


def a_lpips(distance: LPIPS, views: Tensor, batch_size: int = 8) -> float:
    """The mean of :func:`adjacent_lpips`."""
    return float(adjacent_lpips(distance, views, batch_size).mean())
