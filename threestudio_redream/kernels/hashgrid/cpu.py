"""Run the numba kernels on torch tensors: buffers, splitting over threads, one function per kernel."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from threestudio_redream.kernels.hashgrid.config import HASH_PRIMES, HashGridConfig
from threestudio_redream.kernels.jit import get_threads
from threestudio_redream.kernels.tasks import run_tasks

__all__ = ["CpuGrid", "zeros_in_large_pages"]

_RUN = 4096  # points per task where each level fits a core's own cache
_KEPT = 1 << 18  # floats of scratch that a thread keeps
_scratch = threading.local()


def zeros_in_large_pages(size: int) -> NDArray[np.float32]:
    """Zeroed float32 buffer. numpy asks the kernel for large pages where torch does not: random
    accesses to a 4 MB level then stop missing the TLB, and a fresh 50 MB gradient costs tens of page
    faults instead of thousands."""
    return np.zeros(size, np.float32)


class CpuGrid:
    """The three CPU kernels for one configuration. All tensors float32, on the CPU.

    ``x`` is ``[N, D]``; ``table`` and the table gradient are flat; ``features`` are ``[N, L * F]``.
    ``tangent`` ``[N, D]`` replaces every corner weight by its derivative along that direction.
    """

    def __init__(self, config: HashGridConfig, n_input_dims: int) -> None:
        self.levels = config.levels(n_input_dims)
        self.width, self.dims = config.n_features_per_level, n_input_dims
        self.n_params, self.n_output_dims = config.n_params(n_input_dims), config.n_output_dims
        self.smooth = config.interpolation == "Smoothstep"
        self.lanes, self.axes, self.corners = (0,) * self.width, (0,) * n_input_dims, (0,) * 2**n_input_dims

    @cached_property
    def layout(self) -> tuple[NDArray[Any], ...]:
        """Scales, per-axis factors, rows, offsets, hashed: one entry per level, as the kernels take them."""
        dense = [[level.resolution**d for d in range(self.dims)] for level in self.levels]
        factors = [HASH_PRIMES[: self.dims] if level.hashed else row for level, row in zip(self.levels, dense)]
        return (
            np.array([level.scale for level in self.levels], np.float32),
            np.array(factors, np.uint64).astype(np.uint32),
            np.array([level.rows for level in self.levels], np.uint32),
            np.array([level.offset for level in self.levels], np.int64),
            np.array([level.hashed for level in self.levels], np.bool_),
        )

    def gather(self, x: Tensor, table: Tensor, tangent: Tensor | None = None) -> Tensor:
        """The encoding ``[N, L * F]``, or its derivative along ``tangent``."""
        features = zeros_in_large_pages(x.shape[0] * self.n_output_dims)
        self._over_points(False, x, table, tangent, features, self._no_points)
        return torch.from_numpy(features).view(-1, self.n_output_dims)

    def slope(self, x: Tensor, table: Tensor, features: Tensor, tangent: Tensor | None = None) -> Tensor:
        """Gradient ``[N, D]`` by ``x`` of ``<features, gather(x, table, tangent)>``."""
        x_grad = np.zeros((x.shape[0], self.dims), np.float32)
        self._over_points(True, x, table, tangent, _flat(features), x_grad)
        return torch.from_numpy(x_grad)

    def scatter(self, x: Tensor, features: Tensor, tangent: Tensor | None = None) -> Tensor:
        """Gradient (flat) by ``table`` of ``<features, gather(x, table, tangent)>``."""
        from threestudio_redream.kernels.hashgrid.numba_kernels import BLOCK, columns_kernel, level_kernel

        count = x.shape[0]
        positions, along, values = _rows(x), self._tangent(tangent), _flat(features)
        padded = -(-count // BLOCK) * BLOCK
        points = np.zeros((3, padded), np.float32)
        directions = np.zeros((3, padded if tangent is not None else 0), np.float32)
        stage = zeros_in_large_pages(values.size)
        result = zeros_in_large_pages(self.n_params)

        def prepare(task: int) -> None:
            first = task * _RUN
            run = min(_RUN, count - first)
            columns_kernel(self.lanes, self.axes, positions, along, first, run, values, points, directions, stage)

        order = sorted(range(len(self.levels)), key=lambda k: -self.levels[k].rows)  # the longest tasks first

        def accumulate(task: int) -> None:
            level_kernel(
                self.lanes, self.axes, self.corners, points, directions, count, order[task], self.layout, self.smooth,
                result, stage,
            )  # fmt: skip

        run_tasks(prepare, -(-count // _RUN))
        run_tasks(accumulate, len(order))
        return torch.from_numpy(result)

    @cached_property
    def _no_points(self) -> NDArray[np.float32]:
        return np.zeros((0, self.dims), np.float32)

    def _tangent(self, tangent: Tensor | None) -> NDArray[np.float32]:
        return self._no_points if tangent is None else _rows(tangent)

    def _over_points(
        self, slope: bool, x: Tensor, table: Tensor, tangent: Tensor | None, features: NDArray[np.float32],
        x_grad: NDArray[np.float32],
    ) -> None:  # fmt: skip
        from threestudio_redream.kernels.hashgrid.numba_kernels import GATHER, OWN_CACHE, SLOPE, points_kernel

        mode = SLOPE if slope else GATHER
        count, values = x.shape[0], _flat(table)
        positions, along = _rows(x), self._tangent(tangent)
        run = -(-count // get_threads())
        if max(level.rows for level in self.levels) * self.width * 4 <= OWN_CACHE:
            run = min(run, _RUN)  # otherwise long runs, since each reads every level into the cache anew
        run = max(run, 256)

        def task(number: int) -> None:
            first = number * run
            here = min(run, count - first)
            points_kernel(
                mode, self.lanes, self.axes, self.corners, positions, along, first, here, self.layout, self.smooth,
                values, features, _stage(here * self.n_output_dims), x_grad,
            )  # fmt: skip

        run_tasks(task, -(-count // run))


def _stage(size: int) -> NDArray[np.float32]:
    """Scratch for one task; small ones are kept per thread."""
    if size > _KEPT:
        return zeros_in_large_pages(size)
    kept: NDArray[np.float32] | None = getattr(_scratch, "stage", None)
    if kept is None or kept.size < size:
        kept = _scratch.stage = np.zeros(size, np.float32)
    return kept


def _rows(tensor: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(tensor.detach().numpy())


def _flat(tensor: Tensor) -> NDArray[np.float32]:
    return _rows(tensor).reshape(-1)
