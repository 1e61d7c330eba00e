"""Packed samples: all samples of all rays in one row, sorted by ray and then by distance."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from threestudio_redream.errors import ConfigError

__all__ = ["check_packed", "kernel_output", "ray_offsets"]


def ray_offsets(ray_indices: Tensor, n_rays: int) -> Tensor:
    """Where the samples of each ray start.

    Args:
        ray_indices: ``[M]`` integers in ``[0, n_rays)``, never decreasing. Order and range are
            checked on the CPU; other devices are trusted, a check would stall them.
        n_rays: number of rays, including those without samples.

    Returns:
        ``[n_rays + 1]`` int64 on the same device: ray ``r`` owns samples ``offsets[r]`` up to,
        not including, ``offsets[r + 1]``. For ``ray_indices = [0, 0, 2]`` and 3 rays: ``[0, 2, 2, 3]``.

    Raises:
        ConfigError: if the indices are not sorted or out of range.
    """
    ray_indices = ray_indices.detach()
    if ray_indices.device.type == "cpu" and ray_indices.numel():
        if bool((ray_indices[1:] < ray_indices[:-1]).any()):
            raise ConfigError(
                "Samples are not sorted by ray: ray_indices decreases",
                received=ray_indices[:16].tolist(),
                fix="Sort the samples by ray and distance first.",
            )
        low, high = int(ray_indices[0]), int(ray_indices[-1])
        if low < 0 or high >= n_rays:
            raise ConfigError(
                f"Ray indices do not fit {n_rays} rays",
                received=(low, high),
                fix="Pass the number of rays as n_rays; indices run from 0 to n_rays - 1.",
            )
    rays = torch.arange(n_rays + 1, device=ray_indices.device, dtype=ray_indices.dtype)
    return torch.searchsorted(ray_indices.contiguous(), rays)


def check_packed(ray_indices: Tensor, *, n_rays: int, offsets: Tensor | None = None, **tensors: Tensor) -> None:
    """Check that every tensor has one row per sample and that ``offsets``, if given, fits.

    Raises:
        ConfigError: naming the argument and its shape.
    """
    if ray_indices.ndim != 1 or ray_indices.is_floating_point():
        raise ConfigError(
            "ray_indices must be a row of integers",
            received=(tuple(ray_indices.shape), ray_indices.dtype),
            fix="Pass one int64 ray index per sample, shape [M].",
        )
    for name, tensor in tensors.items():
        expected_ndim = 2 if name == "values" else 1
        if tensor.ndim != expected_ndim or tensor.shape[0] != ray_indices.shape[0]:
            raise ConfigError(
                f"'{name}' does not match {ray_indices.shape[0]} samples",
                received=tuple(tensor.shape),
                fix=f"Pass shape [{ray_indices.shape[0]}{', C' if expected_ndim == 2 else ''}].",
            )
    if offsets is None:
        return
    fits = tuple(offsets.shape) == (n_rays + 1,) and offsets.dtype == torch.int64
    if fits and offsets.device.type == "cpu":  # a kernel would read past the end of the samples
        fits = int(offsets[-1]) == ray_indices.shape[0]
    if not fits:
        raise ConfigError(
            f"'offsets' does not match {n_rays} rays and {ray_indices.shape[0]} samples",
            received=(tuple(offsets.shape), offsets.dtype),
            fix="Pass the result of ray_offsets(ray_indices, n_rays), or leave it out.",
        )


def kernel_output(*shape: int, like: Tensor) -> Tensor:
    """Zeros of the dtype of ``like`` on the CPU, for a numba kernel to fill.

    Made by numpy: ``torch.zeros`` wakes torch's own threads for large arrays, and on a busy machine
    that handover costs more than the kernel.
    """
    return torch.from_numpy(np.zeros(shape, dtype=like.detach().new_zeros(0).numpy().dtype))
