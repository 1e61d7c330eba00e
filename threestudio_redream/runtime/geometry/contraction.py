"""From world points to the unit cube in which encodings live."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["contract_to_unisphere"]


def contract_to_unisphere(points: Tensor, bbox: Tensor, unbounded: bool = False) -> Tensor:
    """Map the box ``bbox`` to [0, 1], or all of space if ``unbounded``.

    Unbounded (mip-NeRF 360, Barron et al. 2022, eq. 10): with the box scaled to [-1, 1], points of
    norm m > 1 move to norm ``2 - 1/m``, and the ball of radius 2 is scaled to [0, 1].

    Convention: for the box from -1 to 1, the point ``(1, 0, 0)`` goes to ``(1, 0.5, 0.5)``; unbounded,
    to ``(0.75, 0.5, 0.5)``, and ``(2, 0, 0)`` to ``(0.875, 0.5, 0.5)``.

    Args:
        points: ``[..., 3]`` float, world units. bbox: ``[2, 3]`` lower and upper corner.

    Returns:
        ``[..., 3]``; bounded, points outside the box fall outside [0, 1].
    """
    size = bbox[1] - bbox[0]
    unit = (points - bbox[0]) / size
    if not unbounded:
        return unit
    centred = unit * 2.0 - 1.0
    norm = centred.norm(dim=-1, keepdim=True)
    far = norm.clamp(min=1.0)  # 1 inside, where the factor below is then 1
    return torch.addcmul(torch.full_like(centred, 0.5), centred, (2.0 - 1.0 / far) / far, value=0.25)
