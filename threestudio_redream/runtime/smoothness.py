"""Total variation of pictures."""

from __future__ import annotations

from torch import Tensor

__all__ = ["tv_loss"]


def tv_loss(x: Tensor) -> Tensor:
    """Twice the sum of the mean squared differences of neighbours, downwards and to the right.

    Args:
        x: pictures or grids of features ``[B, C, H, W]``, H and W at least 2.

    Returns:
        A scalar.
    """
    return 2.0 * (x.diff(dim=2).square().mean() + x.diff(dim=3).square().mean())
