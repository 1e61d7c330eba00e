"""Normals of a density field by finite differences."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["NORMAL_TYPES", "finite_difference_normal"]

NORMAL_TYPES = ("finite_difference", "finite_difference_laplacian", "analytic", "pred", "none")


def finite_difference_normal(
    field: Callable[[Tensor], Tensor],
    points: Tensor,
    value: Tensor,
    eps: float,
    *,
    bound: float | None = None,
    central: bool = False,
) -> Tensor:
    """Unit vectors against the gradient of a field that is larger inside.

    Convention: for the field ``-|p|`` the normal at ``(0.5, 0, 0)`` is ``(1, 0, 0)``.

    Args:
        field: points ``[..., 3]`` to values ``[..., 1]``.
        points: ``[..., 3]``, world units. value: ``[..., 1]``, the field there.
        eps: step in world units.
        bound: the field is not asked beyond ``-bound`` and ``bound``; steps that would leave are
            taken inwards (forward differences) or shortened (central ones).
        central: two evaluations per axis instead of one; twice the cost, error of second order.

    Returns:
        ``[..., 3]``; the zero vector where the field is constant.
    """
    axes = torch.eye(3, dtype=points.dtype, device=points.device)
    ahead = torch.full_like(points, eps)
    if bound is not None and not central:
        ahead = torch.where(points + eps > bound, -eps, ahead)
    elif bound is not None:
        ahead = (bound - points).clamp(min=0.0, max=eps)
    forward = points[..., None, :] + ahead[..., None] * axes  # [..., 3 steps, 3]
    if not central:
        slope = (field(forward)[..., 0] - value) / ahead
        return functional.normalize(-slope, dim=-1)
    back = torch.full_like(points, -eps) if bound is None else (-bound - points).clamp(min=-eps, max=0.0)
    both = torch.cat([forward, points[..., None, :] + back[..., None] * axes], dim=-2)
    values = field(both)[..., 0]
    slope = (values[..., :3] - values[..., 3:]) / (ahead - back).clamp(min=1e-3 * eps)
    return functional.normalize(-slope, dim=-1)
