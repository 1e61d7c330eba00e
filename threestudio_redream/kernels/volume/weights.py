"""From densities along rays to rendering weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from threestudio_redream.kernels.volume import _render_kernels as kernels
from threestudio_redream.kernels.volume.backends import nerfacc_weights, resolve_backend
from threestudio_redream.kernels.volume.packing import check_packed, kernel_output, ray_offsets

__all__ = ["render_weight_from_density"]

Weights = tuple[Tensor, Tensor, Tensor]


def render_weight_from_density(
    t_starts: Tensor,
    t_ends: Tensor,
    sigmas: Tensor,
    ray_indices: Tensor,
    n_rays: int,
    *,
    offsets: Tensor | None = None,
    backend: str = "auto",
) -> Weights:
    """Emission-absorption weights of packed samples (Max, 1995; NeRF, Mildenhall et al. 2020, eq. 3).

    With optical thickness ``x_i = sigma_i * (t_end_i - t_start_i)``::

        T_i = exp(-sum of x_j in front of i)      alpha_i = 1 - exp(-x_i)      w_i = T_i * alpha_i

    A density of 1 over a length of 1, twice on one ray, gives ``w = (0.632, 0.233)``.

    Args:
        t_starts, t_ends: ``[M]`` float, interval of each sample, ``t_end >= t_start``.
        sigmas: ``[M]`` float, densities >= 0 per unit of ``t``; ``inf`` means opaque.
        ray_indices: ``[M]`` integers, sorted (:func:`~threestudio_redream.kernels.volume.packing.ray_offsets`).
        n_rays: number of rays; rays may be without samples and ``M`` may be 0.
        offsets: result of ``ray_offsets`` if it is at hand; saves work when several calls share rays.
        backend: see :mod:`threestudio_redream.kernels.volume.backends`.

    Returns:
        ``(weights, trans, alphas)``, each ``[M]``, in float32 (float64 if an input is). Differentiable
        in densities and distances, twice with ``"torch"`` and ``"numba"``. The weights of a ray add
        up to at most 1.

    Raises:
        ConfigError: if shapes do not match, samples are not sorted, or the backend is unknown.
    """
    check_packed(ray_indices, n_rays=n_rays, offsets=offsets, t_starts=t_starts, t_ends=t_ends, sigmas=sigmas)
    # Half precision cannot hold small differences of distances.
    dtype = torch.promote_types(torch.promote_types(sigmas.dtype, t_starts.dtype), torch.float32)
    t_starts, t_ends, sigmas = t_starts.to(dtype), t_ends.to(dtype), sigmas.to(dtype)
    chosen = resolve_backend(backend, sigmas)
    if chosen == "nerfacc":
        return nerfacc_weights(t_starts, t_ends, sigmas, ray_indices, n_rays)
    optical = sigmas * (t_ends - t_starts)
    if offsets is None:
        offsets = ray_offsets(ray_indices, n_rays)
    if chosen == "numba":
        return _NumbaWeights.apply(optical.contiguous(), ray_indices, offsets)
    return weights_reference(optical, ray_indices, offsets)


def weights_reference(optical: Tensor, ray_indices: Tensor, offsets: Tensor) -> Weights:
    """The same in plain torch: ``[M]`` optical thickness to weights, transmittance and alphas.

    The sum in front of a sample is a scan by doubling (Hillis and Steele, 1986): unlike one
    cumulative sum over all rays it never mixes rays, so a density of 1e8 on one ray costs its
    neighbours no digits.
    """
    wide = optical.double() if optical.device.type != "mps" else optical
    position = torch.arange(optical.shape[0], device=optical.device) - offsets[ray_indices]
    longest = int(offsets.diff().max()) if offsets.shape[0] > 1 else 0
    inclusive, shift = wide, 1
    while shift < longest:
        inclusive = inclusive + _shifted(inclusive, shift, position)
        shift *= 2
    trans = torch.exp(-_shifted(inclusive, 1, position))
    alphas = -torch.expm1(-wide)
    dtype = optical.dtype
    return (trans * alphas).to(dtype), trans.to(dtype), alphas.to(dtype)


def _shifted(values: Tensor, shift: int, position: Tensor) -> Tensor:
    """The value ``shift`` samples in front on the same ray, 0 where there is none."""
    if values.shape[0] <= shift:
        return torch.zeros_like(values)
    moved = functional.pad(values[:-shift], (shift, 0))
    return torch.where(position >= shift, moved, torch.zeros_like(moved))


class _NumbaWeights(torch.autograd.Function):
    """The numba kernels as one differentiable step.

    Backward, with ``g`` the incoming gradients::

        dL/dx_i = (g_w_i * T_i + g_a_i) * exp(-x_i) - sum over j behind i of (g_w_j * w_j + g_T_j * T_j)
    """

    @staticmethod
    def forward(ctx: Any, optical: Tensor, ray_indices: Tensor, offsets: Tensor) -> Weights:
        weights, trans, alphas, decays = (kernel_output(*optical.shape, like=optical) for _ in range(4))
        arrays = (optical.detach(), offsets, weights, trans, alphas, decays)
        kernels.weights_forward(*(array.numpy() for array in arrays))
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(optical, ray_indices, offsets, weights, trans, decays)
        return weights, trans, alphas

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None, None]:
        optical, ray_indices, offsets, weights, trans, decays = ctx.saved_tensors
        if all(grad is None for grad in grads):
            return None, None, None
        if torch.is_grad_enabled():  # create_graph=True: somebody will differentiate this backward again
            outputs = weights_reference(optical, ray_indices, offsets)
            pairs = [(output, grad) for output, grad in zip(outputs, grads, strict=True) if grad is not None]
            wanted = torch.autograd.grad([p[0] for p in pairs], optical, [p[1] for p in pairs], create_graph=True)
            return wanted[0], None, None
        grad_optical = kernel_output(*optical.shape, like=optical)
        given = [optical.new_zeros(0) if grad is None else grad.contiguous() for grad in grads]
        arrays = (weights, trans, decays, offsets, *given, grad_optical)
        kernels.weights_backward(*(array.detach().numpy() for array in arrays))
        return grad_optical, None, None
