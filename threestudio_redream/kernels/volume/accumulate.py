"""Weighted sums along rays: colour, depth, opacity, normals."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from threestudio_redream.kernels.volume import _render_kernels as kernels
from threestudio_redream.kernels.volume.backends import resolve_backend
from threestudio_redream.kernels.volume.packing import check_packed, kernel_output, ray_offsets

__all__ = ["accumulate_along_rays"]


def accumulate_along_rays(
    weights: Tensor,
    values: Tensor | None,
    ray_indices: Tensor,
    n_rays: int,
    *,
    offsets: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Sum ``weights * values`` over the samples of each ray.

    Weights ``(0.5, 0.25)`` on one ray and values ``(1, 3)`` give 1.25; without values, the opacity 0.75.

    Args:
        weights: ``[M]`` float, from ``render_weight_from_density``.
        values: ``[M, C]`` float, or None for the plain sum of weights (``C = 1``).
        ray_indices: ``[M]`` integers, sorted. n_rays: number of rays; rays without samples sum to 0.
        offsets: result of ``ray_offsets`` if it is at hand.
        backend: ``"auto"``, ``"numba"`` or ``"torch"`` (``"nerfacc"`` means torch here: its sum is torch, too).

    Returns:
        ``[n_rays, C]`` in the wider dtype of weights and values, float32 at least. Differentiable in
        both, any number of times.

    Raises:
        ConfigError: if shapes do not match, samples are not sorted, or the backend is unknown.
    """
    given = {} if values is None else {"values": values}
    check_packed(ray_indices, n_rays=n_rays, offsets=offsets, weights=weights, **given)
    dtype = torch.promote_types(weights.dtype, torch.float32)
    if values is None:
        values = torch.ones(weights.shape[0], 1, dtype=dtype, device=weights.device)
    dtype = torch.promote_types(dtype, values.dtype)
    weights, values = weights.to(dtype), values.to(dtype)
    if offsets is None:
        offsets = ray_offsets(ray_indices, n_rays)  # checks the order on every backend
    if resolve_backend(backend, weights) == "numba":
        return _NumbaAccumulate.apply(weights.contiguous(), values.contiguous(), ray_indices, offsets)
    return accumulate_reference(weights, values, ray_indices, n_rays)


def accumulate_reference(weights: Tensor, values: Tensor, ray_indices: Tensor, n_rays: int) -> Tensor:
    """The same in plain torch: ``[M]`` and ``[M, C]`` to ``[n_rays, C]``."""
    return values.new_zeros(n_rays, values.shape[1]).index_add(0, ray_indices, weights[:, None] * values)


class _NumbaAccumulate(torch.autograd.Function):
    """The numba kernels as one differentiable step; the backward of the backward is plain torch."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, values: Tensor, ray_indices: Tensor, offsets: Tensor) -> Tensor:
        out = kernel_output(offsets.shape[0] - 1, values.shape[1], like=weights)
        kernels.accumulate_forward(*(array.detach().numpy() for array in (weights, values, offsets, out)))
        ctx.save_for_backward(weights, values, ray_indices, offsets)
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        weights, values, ray_indices, offsets = ctx.saved_tensors
        want_weights, want_values = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():  # create_graph=True: somebody will differentiate this backward again
            seen = grad_out[ray_indices]
            grad_weights = (seen * values).sum(dim=1) if want_weights else None
            return grad_weights, weights[:, None] * seen if want_values else None, None, None
        grad_weights = kernel_output(weights.shape[0] if want_weights else 0, like=weights)
        grad_values = kernel_output(values.shape[0] if want_values else 0, values.shape[1], like=values)
        arrays = (weights, values, offsets, grad_out.contiguous(), grad_weights, grad_values)
        kernels.accumulate_backward(*(array.detach().numpy() for array in arrays))
        return grad_weights if want_weights else None, grad_values if want_values else None, None, None
