"""Samples without a grid: evenly spaced, and then more of them where the density is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from threestudio_redream.errors import ConfigError
from threestudio_redream.kernels.volume.random import uniform
from threestudio_redream.kernels.volume.weights import render_weight_from_density

__all__ = ["importance_samples", "pack_intervals", "sample_pdf", "uniform_samples"]

SigmaFn = Callable[[Tensor, Tensor, Tensor], Tensor]


def uniform_samples(
    t_min: Tensor, t_max: Tensor, n: int, stratified: bool = False, generator: torch.Generator | None = None
) -> Tensor:
    """Edges of ``n`` intervals that fill ``[t_min, t_max]`` without gaps.

    ``t_min = 2``, ``t_max = 4``, ``n = 4`` give the edges 2, 2.5, 3, 3.5, 4.

    Args:
        t_min, t_max: ``[N]`` float, ``t_max >= t_min``. n: intervals per ray, at least 1.
        stratified: move each inner edge by up to half an interval, uniformly; edges stay in order.
        generator: source of the random numbers; the global one if None.

    Returns:
        ``[N, n + 1]``, never decreasing along the last axis.
    """
    _check_count(n)
    share = torch.arange(n + 1, device=t_min.device, dtype=t_min.dtype).expand(t_min.shape[0], n + 1)
    if stratified and n > 1:
        shift = uniform((t_min.shape[0], n - 1), t_min, generator) - 0.5
        share = torch.cat([share[:, :1], share[:, 1:-1] + shift, share[:, -1:]], dim=1)
    return torch.lerp(t_min[:, None], t_max[:, None], share / n)


def sample_pdf(
    edges: Tensor, weights: Tensor, n: int, stratified: bool = False, generator: torch.Generator | None = None
) -> Tensor:
    """Distances distributed as a histogram, by inverting its cumulative sum (NeRF, section 5.2).

    Edges 0, 1, 2 with weights 0 and 1 and ``n = 2`` give about 1.25 and 1.75.

    Args:
        edges: ``[N, K + 1]`` float, never decreasing. weights: ``[N, K]`` float >= 0, of any sum; a
            ray whose weights are all 0 (or not finite) is sampled evenly.
        n: distances per ray, at least 1: one in each n-th part of the probability, in its middle,
            or anywhere in it if ``stratified``.
        generator: source of the random numbers; the global one if None.

    Returns:
        ``[N, n]``, never decreasing along the last axis. Not differentiable.
    """
    _check_count(n)
    if weights.ndim != 2 or edges.shape != (weights.shape[0], weights.shape[1] + 1):
        raise ConfigError(
            "A histogram needs one edge more than it has weights",
            received=(tuple(edges.shape), tuple(weights.shape)),
            fix="Pass edges [N, K + 1] and weights [N, K].",
        )
    edges, weights = edges.detach(), weights.detach()
    total = weights.sum(dim=1, keepdim=True)
    usable = torch.isfinite(total) & (total > 0)
    weights = torch.where(
        usable, weights / torch.where(usable, total, torch.ones_like(total)), torch.ones_like(weights)
    )
    cdf = torch.cat([torch.zeros_like(total), weights.cumsum(dim=1)], dim=1)
    cdf = cdf / cdf[:, -1:]

    inside = uniform((edges.shape[0], n), edges, generator) if stratified else torch.full_like(edges[:, :1], 0.5)
    u = (torch.arange(n, device=edges.device, dtype=edges.dtype) + inside) / n
    above = torch.searchsorted(cdf, u.contiguous(), right=True).clamp(min=1, max=weights.shape[1])
    cdf_low, cdf_high = cdf.gather(1, above - 1), cdf.gather(1, above)
    width = cdf_high - cdf_low
    share = torch.where(width > 0, (u - cdf_low) / torch.where(width > 0, width, torch.ones_like(width)), 0.5)
    low, high = edges.gather(1, above - 1), edges.gather(1, above)
    return torch.lerp(low, high, share.clamp(0.0, 1.0))


def pack_intervals(edges: Tensor, keep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Edges ``[N, K + 1]`` of the rays with ``keep`` ``[N]`` True, as packed samples.

    Returns:
        ``ray_indices`` ``[M]`` int64 sorted, ``t_starts`` ``[M]``, ``t_ends`` ``[M]``, with ``M = K * keep.sum()``.
    """
    rays = keep.nonzero()[:, 0].repeat_interleave(edges.shape[1] - 1)
    return rays, edges[keep, :-1].reshape(-1), edges[keep, 1:].reshape(-1)


@torch.no_grad()
def importance_samples(
    t_min: Tensor,
    t_max: Tensor,
    sigma_fn: SigmaFn,
    *,
    n_proposal: int,
    n_fine: int,
    stratified: bool = False,
    generator: torch.Generator | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """Two passes: weights at even intervals, then further edges where the weights are.

    Args:
        t_min, t_max: ``[N]`` float, for instance from ``ray_aabb_intersect``; a ray with
            ``t_max <= t_min`` has no samples.
        sigma_fn: ``(t_starts, t_ends, ray_indices)`` to densities ``[M]`` or ``[M, 1]``.
        n_proposal: intervals of the first pass. n_fine: edges that the second pass adds.
        stratified, generator: see :func:`uniform_samples`.

    Returns:
        ``ray_indices``, ``t_starts``, ``t_ends``, each ``[M]``, packed: ``n_proposal + n_fine``
        intervals per ray, which fill ``[t_min, t_max]`` without gaps.
    """
    keep = t_max > t_min
    edges = uniform_samples(t_min, t_max, n_proposal, stratified, generator)
    rays, starts, ends = pack_intervals(edges, keep)
    if rays.numel() == 0:
        return rays, starts, ends
    sigmas = sigma_fn(starts, ends, rays).reshape(-1)
    weights, _, _ = render_weight_from_density(starts, ends, sigmas, rays, t_min.shape[0], backend=backend)
    dense = edges.new_zeros(t_min.shape[0], n_proposal)
    dense[keep] = weights.view(-1, n_proposal).to(edges)
    fine = sample_pdf(edges, dense, n_fine, stratified, generator)
    return pack_intervals(torch.cat([edges, fine], dim=1).sort(dim=1).values, keep)


def _check_count(n: int) -> None:
    if n < 1:
        raise ConfigError("A ray needs at least one sample", received=n, fix="Pass n = 1 or more.")
