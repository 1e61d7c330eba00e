"""The numba kernels as autograd functions, differentiable twice.

The table enters the encoding linearly, so its second derivative is zero and all other second-order
terms are the same three kernels with a tangent (a loss on analytic normals needs them).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from threestudio_redream.kernels.hashgrid.cpu import CpuGrid

__all__ = ["encode_cpu"]


def encode_cpu(x: Tensor, params: Tensor, grid: CpuGrid) -> Tensor:
    """Encode ``x`` [N, D] with the flat table ``params``; both float32 on the CPU. Returns ``[N, L * F]``.

    Gradients reach ``x`` and ``params``, and can be differentiated once more.
    """
    return _Encode.apply(x, params, _TableEdge.apply(params, (x,), grid), grid)


class _TableEdge(torch.autograd.Function):
    """Where gradients leave for the table: its output has no values, its gradient is that of the features.

    A node of its own, because autograd skips a node that nobody asked for but not half of one: the
    gradient by position alone (analytic normals) then does not pay for the one by the table.
    """

    @staticmethod
    def forward(ctx: Any, params: Tensor, x: tuple[Tensor], grid: CpuGrid) -> Tensor:
        ctx.x, ctx.grid = x, grid
        return params.new_zeros(1).expand(x[0].shape[0], grid.n_output_dims)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _TableGrad.apply(*ctx.x, grad, ctx.grid), None, None


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, params: Tensor, edge: Tensor, grid: CpuGrid) -> Tensor:
        ctx.save_for_backward(x, params)
        ctx.grid = grid
        return grid.gather(x, params)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor, None]:
        x, params = ctx.saved_tensors
        x_grad = _SlopeX.apply(x, params, grad, ctx.grid) if ctx.needs_input_grad[0] else None
        return x_grad, None, grad, None


class _SlopeX(torch.autograd.Function):
    """``<grad, d encode / d x>`` per point."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, params: Tensor, grad: Tensor, grid: CpuGrid) -> Tensor:
        ctx.save_for_backward(x, params, grad)
        ctx.grid = grid
        return grid.slope(x, params, grad)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, direction: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, params, grad = ctx.saved_tensors
        need_x, need_params, need_grad, _ = ctx.needs_input_grad
        return (
            ctx.grid.slope(x, params, grad, direction) if need_x else None,
            ctx.grid.scatter(x, grad, direction) if need_params else None,
            ctx.grid.gather(x, params, direction) if need_grad else None,
            None,
        )


class _TableGrad(torch.autograd.Function):
    """``<grad, d encode / d params>``, flat."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, grad: Tensor, grid: CpuGrid) -> Tensor:
        ctx.save_for_backward(x, grad)
        ctx.grid = grid
        return grid.scatter(x, grad)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, direction: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, grad = ctx.saved_tensors
        need_x, need_grad, _ = ctx.needs_input_grad
        x_grad = ctx.grid.slope(x, direction, grad) if need_x else None
        return x_grad, ctx.grid.gather(x, direction) if need_grad else None, None
