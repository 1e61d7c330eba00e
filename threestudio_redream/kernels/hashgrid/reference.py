"""The hash grid in plain differentiable torch: the definition that the kernels are tested against.

It runs on every device, in float32 and float64, and can be differentiated any number of times.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from threestudio_redream.kernels.hashgrid.config import HASH_PRIMES, Level

__all__ = ["clamped", "encode_reference"]


def encode_reference(
    x: Tensor, params: Tensor, levels: Sequence[Level], n_features: int, smoothstep: bool = False
) -> Tensor:
    """Multi-resolution grid encoding.

    Args:
        x: ``[N, D]`` positions in [0, 1], D = 2 or 3, float32 or float64. Values outside are clamped,
            with zero gradient there (:func:`clamped`); a NaN makes the features of its point NaN.
        params: flat table, level after level, grid point after grid point, features together; the
            dtype of ``x``.
        levels: :meth:`HashGridConfig.levels` for D dimensions.
        smoothstep: weights ``3 f^2 - 2 f^3`` instead of the linear ``f``.

    Returns:
        ``[N, len(levels) * n_features]``, the coarsest level first.
    """
    tables = params.view(-1, n_features).split([level.rows for level in levels])
    x = clamped(x)
    return torch.cat([_encode_level(x, *pair, smoothstep) for pair in zip(tables, levels)], dim=-1)


def clamped(x: Tensor) -> Tensor:
    """Clamp to [0, 1], with a gradient of 1 there, both ends included, and of 0 outside and at NaN.

    That of ``torch.clamp`` at the ends depends on the version: 1 before torch 2.14, 0 since.
    """
    return torch.where((x >= 0.0) & (x <= 1.0), x, x.detach().clamp(0.0, 1.0))


def _encode_level(x: Tensor, table: Tensor, level: Level, smoothstep: bool) -> Tensor:
    position = x * level.scale + 0.5
    cell = position.detach().nan_to_num(0.5).floor()
    fraction = position - cell
    if smoothstep:
        fraction = fraction * fraction * (3.0 - 2.0 * fraction)
    axes, upper = cell.long().unbind(-1), fraction.unbind(-1)
    rows, weights = [], []
    for bits in itertools.product((0, 1), repeat=x.shape[-1]):
        rows.append(_row([axis + bit for axis, bit in zip(axes, bits)], level))
        weight = torch.ones_like(upper[0])
        for share, bit in zip(upper, bits):
            weight = weight * (share if bit else 1.0 - share)
        weights.append(weight)
    values = table.index_select(0, torch.cat(rows)).view(len(rows), x.shape[0], table.shape[1])
    return (torch.stack(weights)[..., None] * values).sum(0)


def _row(corner: Sequence[Tensor], level: Level) -> Tensor:
    """Row of a grid point within its level. A dense index one past an edge wraps, as in tiny-cuda-nn."""
    row = torch.zeros_like(corner[0])
    if level.hashed:
        for coordinate, prime in zip(corner, HASH_PRIMES):
            row = row ^ (coordinate * prime)
        return row & (level.rows - 1)
    for d, coordinate in enumerate(corner):
        row = row + coordinate * level.resolution**d
    return torch.where(row >= level.rows, row - level.rows, row)
