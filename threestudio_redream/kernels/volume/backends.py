"""Which implementation computes a volume-rendering primitive, and the thin door to nerfacc.

``"torch"`` is the reference: any device, any number of derivatives. ``"numba"`` is the fast path on
a CPU. ``"nerfacc"`` is the fast path on CUDA, used only where the package works.
``"auto"`` takes the fastest one that works for the tensor at hand (on the CPU the environment
variable ``REDREAM_KERNELS`` has a say, see :mod:`threestudio_redream.kernels.jit`).
"""

from __future__ import annotations

import functools
import importlib
import logging
from typing import Any

import torch
from torch import Tensor

from threestudio_redream.errors import ConfigError, MissingExtraError
from threestudio_redream.kernels.jit import use_numba

__all__ = ["BACKENDS", "nerfacc_march", "nerfacc_weights", "resolve_backend"]

BACKENDS = ("auto", "numba", "torch", "nerfacc")

logger = logging.getLogger(__name__)


def resolve_backend(backend: str, like: Tensor) -> str:
    """The implementation for ``like``: ``"numba"``, ``"torch"`` or ``"nerfacc"``.

    Args:
        backend: one of :data:`BACKENDS`.
        like: the floating-point tensor to be worked on; its device and dtype decide.

    Raises:
        ConfigError: if the name is unknown or cannot serve that device and dtype.
        MissingExtraError: if nerfacc is asked for by name and does not import or does not work.
    """
    device = like.device.type
    if backend == "auto":
        if device == "cpu":
            return "numba" if use_numba(device) else "torch"
        # nerfacc computes in single precision only.
        usable = device == "cuda" and like.dtype == torch.float32 and not _nerfacc_failure_logged()
        return "nerfacc" if usable else "torch"
    if backend == "torch":
        return backend
    if backend == "numba":
        if device != "cpu":
            raise ConfigError(
                "The volume backend 'numba' works on CPU tensors only",
                received=str(like.device),
                fix="Use backend='auto'.",
            )
        return backend
    if backend == "nerfacc":
        if device != "cuda" or like.dtype != torch.float32:
            raise ConfigError(
                "The volume backend 'nerfacc' works on float32 CUDA tensors only",
                received=f"{like.dtype} on {like.device}",
                fix="Use backend='auto'.",
            )
        failure = _nerfacc_failure()
        if failure:
            raise MissingExtraError("nerfacc", "cuda", "The nerfacc volume backend", failure)
        return backend
    raise ConfigError("Unknown volume backend", received=backend, fix=f"Use one of {', '.join(BACKENDS)}.")


@functools.cache
def _nerfacc_failure() -> BaseException | None:
    """Why nerfacc cannot be used, or None.

    The package imports without a CUDA toolkit and fails at first use, so a three-sample ray with a
    known answer is rendered. The first call may build nerfacc's CUDA extension.
    """
    try:
        edges = torch.tensor([0.0, 1.0, 2.0, 3.0], device="cuda")
        index = torch.zeros(3, dtype=torch.int64, device="cuda")
        weights, _, _ = nerfacc_weights(edges[:-1], edges[1:], torch.ones_like(edges[1:]), index, 1)
        expected = torch.exp(-edges[:-1]) * (1.0 - torch.exp(torch.tensor(-1.0)).item())
        if not torch.allclose(weights, expected, atol=1e-5):
            return RuntimeError(f"wrong weights {weights.tolist()}, expected {expected.tolist()}")
    except Exception as error:  # a CUDA extension can fail to build or load in any way
        return error
    return None


@functools.cache
def _nerfacc_failure_logged() -> bool:
    failure = _nerfacc_failure()
    if failure is not None:
        logger.info("nerfacc is not used (%s: %s); volume rendering runs in torch", type(failure).__name__, failure)
    return failure is not None


def nerfacc_weights(
    t_starts: Tensor, t_ends: Tensor, sigmas: Tensor, ray_indices: Tensor, n_rays: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, transmittance and alphas by nerfacc; arguments as in ``render_weight_from_density``."""
    nerfacc: Any = importlib.import_module("nerfacc")
    return nerfacc.render_weight_from_density(t_starts, t_ends, sigmas, ray_indices=ray_indices, n_rays=n_rays)


def nerfacc_march(
    rays_o: Tensor, rays_d: Tensor, binaries: Tensor, aabbs: Tensor, t_first: Tensor, far: float, step: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Samples in occupied cells by nerfacc; arguments as in ``march_rays``."""
    grid: Any = importlib.import_module("nerfacc.grid")
    intervals, samples, _ = grid.traverse_grids(
        rays_o,
        rays_d,
        binaries,
        aabbs,
        near_planes=t_first,
        far_planes=torch.full_like(t_first, far),
        step_size=step,
        cone_angle=0.0,
    )
    return samples.ray_indices.long(), intervals.vals[intervals.is_left], intervals.vals[intervals.is_right]
