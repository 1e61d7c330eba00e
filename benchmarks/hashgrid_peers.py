"""The hash-grid implementations that ``hashgrid.py`` compares, each behind the same three calls.

``Implementation(log2_size, problem)`` builds the grid; ``forward()`` encodes; ``step()`` encodes and
computes the gradient by the table, from nothing kept of an earlier call. ``outputs()`` and
``gradient()`` return those of the last step as numpy arrays, for the check against the reference, where
the implementation has tiny-cuda-nn's semantics (``COMPARABLE``), else None. Constructors may raise: the
reason is recorded.

Own kernels in warp and taichi ("same algorithm") show what those frameworks do with a plain
parallel-over-points kernel and atomic additions, written with their usual means.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

LEVELS, FEATURES, BASE, FINEST = 16, 2, 16, 2048
PER_LEVEL_SCALE = 2 ** (math.log2(FINEST / BASE) / (LEVELS - 1))


@dataclass
class Problem:
    """Positions [N, 3], table rows [R, 2], cotangent [N, 32], levels (see HashGridConfig), threads."""

    x: np.ndarray
    table: np.ndarray
    cotangent: np.ndarray
    levels: tuple[Any, ...]
    threads: int
    extras: dict[str, str]


def make_problem(log2_size: int, points: int, threads: int, extras: dict[str, str]) -> Problem:
    from threestudio_redream.kernels.hashgrid import HashGridConfig

    config = HashGridConfig(log2_hashmap_size=log2_size, per_level_scale=PER_LEVEL_SCALE)
    random = np.random.default_rng(0)
    rows = config.n_params(3) // FEATURES
    table = random.standard_normal((rows, FEATURES), np.float32)
    cotangent = random.standard_normal((points, LEVELS * FEATURES), np.float32)
    return Problem(random.random((points, 3), np.float32), table, cotangent, config.levels(3), threads, extras)


class TorchModule:
    """Any torch module that encodes ``x``; subclasses build it."""

    COMPARABLE = False
    PACKAGES: tuple[str, ...] = ("torch",)

    def __init__(self, log2_size: int, problem: Problem) -> None:
        import torch

        torch.set_num_threads(problem.threads)
        self.x, self.cotangent = torch.from_numpy(problem.x), torch.from_numpy(problem.cotangent)
        self.module = self.build(log2_size, problem)

    def build(self, log2_size: int, problem: Problem) -> Any:
        raise NotImplementedError

    def forward(self) -> Any:
        return self.module(self.x)

    def step(self) -> None:
        self.module.zero_grad(set_to_none=True)
        self.last = self.forward()
        self.last.backward(self.cotangent)

    def outputs(self) -> np.ndarray | None:
        return self.last.detach().numpy() if self.COMPARABLE else None

    def gradient(self) -> np.ndarray | None:
        return self.module.params.grad.numpy() if self.COMPARABLE else None


class Ours(TorchModule):
    """threestudio-redream, numba kernels."""

    COMPARABLE, BACKEND, PACKAGES = True, "numba", ("torch", "numba")

    def build(self, log2_size: int, problem: Problem) -> Any:
        import torch

        from threestudio_redream.kernels.hashgrid import HashGrid
        from threestudio_redream.kernels.jit import set_threads

        if self.BACKEND == "numba":
            set_threads(problem.threads)
        config = {"n_levels": LEVELS, "log2_hashmap_size": log2_size, "per_level_scale": PER_LEVEL_SCALE}
        grid = HashGrid(3, config, backend=self.BACKEND)
        with torch.no_grad():
            grid.params.copy_(torch.from_numpy(problem.table.reshape(-1)))
        return grid


class Reference(Ours):
    """threestudio-redream, torch reference."""

    BACKEND, PACKAGES = "torch", ("torch",)


class Compiled(Reference):
    """The torch reference under torch.compile."""

    def build(self, log2_size: int, problem: Problem) -> Any:
        import torch

        grid = super().build(log2_size, problem)
        self.call = torch.compile(grid.forward, fullgraph=True, dynamic=False)
        return grid

    def forward(self) -> Any:
        return self.call(self.x)


class Nerfstudio(TorchModule):
    """nerfstudio, HashEncoding(implementation='torch')."""

    PACKAGES = ("nerfstudio", "torch")

    def build(self, log2_size: int, problem: Problem) -> Any:
        from nerfstudio.field_components.encodings import HashEncoding

        return HashEncoding(LEVELS, BASE, FINEST, log2_size, FEATURES, implementation="torch")


class FastNgp(TorchModule):
    """fast-ngp, MultiresHashEncoding."""

    PACKAGES = ("fast-ngp", "torch")

    def build(self, log2_size: int, problem: Problem) -> Any:
        from fast_ngp.encoding.multi_hash_enc import MultiresHashEncoding

        return MultiresHashEncoding(LEVELS, FEATURES, log2_size, BASE, FINEST)


class TaichiNerfs(TorchModule):
    """taichi-nerfs, HashEncoder (source tree given with --taichi-nerfs)."""

    PACKAGES = ("taichi", "torch")

    def build(self, log2_size: int, problem: Problem) -> Any:
        if "taichi_nerfs" not in problem.extras:
            raise ImportError("give a checkout of taichi-nerfs with --taichi-nerfs DIR")
        import taichi

        taichi.init(arch=taichi.cpu, cpu_max_num_threads=problem.threads, log_level=taichi.ERROR)
        sys.path.insert(0, problem.extras["taichi_nerfs"])
        from modules.hash_encoder import HashEncoder

        return HashEncoder(2**log2_size, LEVELS, float(BASE), float(FINEST), FEATURES)


class DrJit:
    """Dr.Jit (LLVM), nn.HashGridEncoding."""

    COMPARABLE, PACKAGES = True, ("drjit",)

    def __init__(self, log2_size: int, problem: Problem) -> None:
        import drjit as dr
        from drjit import nn
        from drjit.llvm.ad import Float, TensorXf

        dr.set_thread_count(problem.threads)
        self.dr, self.kind = dr, Float
        self.grid = nn.HashGridEncoding(
            Float, 3, n_levels=LEVELS, n_features_per_level=FEATURES, hashmap_size=2**log2_size,
            base_resolution=BASE, per_level_scale=PER_LEVEL_SCALE, torchngp_compat=True,
        )  # fmt: skip
        if self.grid.n_params == problem.table.size:
            self.grid.data = Float(problem.table.reshape(-1))
        else:
            self.COMPARABLE = False
        self.x = [Float(column.copy()) for column in problem.x.T]
        self.cotangent = [Float(column.copy()) for column in problem.cotangent.T]
        self.tensor = TensorXf
        dr.eval(self.x, self.cotangent, self.grid.data)

    def forward(self) -> Any:
        values = self.grid(self.x)
        self.dr.eval(values)
        self.dr.sync_thread()
        return values

    def step(self) -> Any:
        dr = self.dr
        dr.enable_grad(self.grid.data)
        values = self.grid(self.x)
        loss = self.kind(0)
        for value, weight in zip(values, self.cotangent):
            loss = dr.fma(value, weight, loss)
        dr.backward(dr.sum(loss))
        gradient = dr.grad(self.grid.data)
        dr.eval(gradient)
        dr.sync_thread()
        dr.disable_grad(self.grid.data)
        return gradient

    def outputs(self) -> np.ndarray | None:
        return np.stack([np.array(value) for value in self.forward()], axis=-1) if self.COMPARABLE else None

    def gradient(self) -> np.ndarray | None:
        return np.array(self.step()) if self.COMPARABLE else None


class Taichi:
    """Taichi, the same algorithm."""

    COMPARABLE, PACKAGES = True, ("taichi",)

    def __init__(self, log2_size: int, problem: Problem) -> None:
        import taichi as ti

        ti.init(arch=ti.cpu, cpu_max_num_threads=problem.threads, log_level=ti.ERROR)
        from hashgrid_taichi import make_kernels

        self.encode, self.scatter = make_kernels(problem.levels)
        self.problem = problem
        self.out, self.table_grad = np.zeros_like(problem.cotangent), np.zeros_like(problem.table)

    def forward(self) -> None:
        self.encode(self.problem.x, self.problem.table, self.out)

    def step(self) -> None:
        self.forward()
        self.table_grad[:] = 0
        self.scatter(self.problem.x, self.problem.cotangent, self.table_grad)

    def outputs(self) -> np.ndarray:
        return self.out

    def gradient(self) -> np.ndarray:
        return self.table_grad.reshape(-1)


class Warp:
    """warp-lang, the same algorithm (its CPU backend runs on one thread)."""

    COMPARABLE, PACKAGES = True, ("warp-lang",)

    def __init__(self, log2_size: int, problem: Problem) -> None:
        import warp as wp
        from hashgrid_warp import encode, scatter

        wp.config.quiet = True
        wp.init()
        self.wp, self.n, self.kernels = wp, len(problem.x), (encode, scatter)
        levels = problem.levels
        self.x = wp.array(problem.x, dtype=wp.vec3, device="cpu")
        self.table = wp.array(problem.table, dtype=wp.vec2, device="cpu")
        self.cotangent = wp.array(problem.cotangent.reshape(self.n, LEVELS, 2), dtype=wp.vec2, device="cpu")
        self.out = wp.zeros((self.n, LEVELS), dtype=wp.vec2, device="cpu")
        self.table_grad = wp.zeros_like(self.table)
        self.scales = wp.array([level.scale for level in levels], dtype=wp.float32, device="cpu")
        numbers = [[level.resolution, level.rows, level.offset, int(level.hashed)] for level in levels]
        self.shape = wp.array(np.array(numbers, np.uint32), dtype=wp.uint32, device="cpu")

    def forward(self) -> None:
        encode, _ = self.kernels
        inputs = [self.x, self.table, self.scales, self.shape, self.out]
        self.wp.launch(encode, dim=(LEVELS, self.n), inputs=inputs, device="cpu")

    def step(self) -> None:
        _, scatter = self.kernels
        self.forward()
        self.table_grad.zero_()
        inputs = [self.x, self.cotangent, self.scales, self.shape, self.table_grad]
        self.wp.launch(scatter, dim=(LEVELS, self.n), inputs=inputs, device="cpu")

    def outputs(self) -> np.ndarray:
        return self.out.numpy().reshape(self.n, -1)

    def gradient(self) -> np.ndarray:
        return self.table_grad.numpy().reshape(-1)


IMPLEMENTATIONS: dict[str, type] = {
    "redream": Ours,
    "reference": Reference,
    "torch.compile": Compiled,
    "drjit": DrJit,
    "nerfstudio": Nerfstudio,
    "fast-ngp": FastNgp,
    "taichi-nerfs": TaichiNerfs,
    "taichi": Taichi,
    "warp": Warp,
}
