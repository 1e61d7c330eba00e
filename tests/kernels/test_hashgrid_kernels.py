"""The numba hash grid against the torch reference: values, gradients, second order, bits, hostile input."""

from __future__ import annotations

import copy
import os
import threading

import numpy as np
import pytest
import torch

from threestudio_redream.kernels import jit
from threestudio_redream.kernels.hashgrid import HashGrid

# two instantiations only, since each costs seconds of compilation: 3-D with 2 features, 2-D with 4
CASES = {
    "3d": (3, {"n_levels": 5, "n_features_per_level": 2, "log2_hashmap_size": 10, "base_resolution": 5}),
    "3d-smooth": (3, {"n_levels": 3, "log2_hashmap_size": 9, "base_resolution": 4, "interpolation": "Smoothstep"}),
    "3d-dense": (3, {"otype": "DenseGrid", "n_levels": 3, "base_resolution": 1, "per_level_scale": 2.3}),
    "2d": (2, {"n_levels": 4, "n_features_per_level": 4, "log2_hashmap_size": 7, "base_resolution": 6}),
    "2d-smooth": (
        2,
        {"n_levels": 2, "n_features_per_level": 4, "base_resolution": 6, "interpolation": "Smoothstep"},
    ),
}
NUMBERS = [0, 1, 255, 700]  # of points: none, less than a block, one short of a block, three tasks


@pytest.fixture(autouse=True)
def _two_threads():
    jit.set_threads(2)
    yield
    jit.set_threads(None)


def make(case: str, count: int = 700):
    dims, config = CASES[case]
    grid = HashGrid(dims, {"per_level_scale": 1.6, **config}, seed=3)
    random = torch.Generator().manual_seed(4)
    with torch.no_grad():
        grid.params.normal_(generator=random)
    x = torch.rand(count, dims, generator=random) * 1.1 - 0.05
    x[::50] = x[::50].round()  # edges: exactly 0 and 1
    return grid, x, torch.randn(count, grid.n_output_dims, generator=random)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative L2 error; compares zeros absolutely."""
    return float((found - expected).norm() / expected.norm().clamp_min(1e-12))


def both_backends(grid, compute):
    results = []
    for backend in ("numba", "torch"):
        grid.backend = backend
        grid.params.grad = None
        results.append(compute())
    return zip(*results)


@pytest.mark.parametrize("count", NUMBERS)
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients(case, count):
    grid, x, weights = make(case, count)
    x.requires_grad_()

    def compute():
        y = grid(x)
        return (y.detach(), *torch.autograd.grad(y, (x, grid.params), weights))

    for found, expected in both_backends(grid, compute):
        assert found.shape == expected.shape
        assert relative(found, expected) <= 1e-6


@pytest.mark.parametrize("case", CASES)
def test_second_order(case):
    """A loss on the gradient by position, as analytic normals have it, and on the gradient by the table.

    The reference runs in float64 here: thousands of points share the few rows of a coarse dense level.
    """
    single, *inputs = make(case)
    double = copy.deepcopy(single).double()
    inputs.append(torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(5)))

    def compute(grid):
        x, weights, direction = (value.to(grid.params.dtype).requires_grad_() for value in inputs)
        y = grid(x)
        (slope,) = torch.autograd.grad(y, x, weights, create_graph=True)
        loss = (slope * direction).sum() + slope.square().mean() + y.square().sum()
        first = torch.autograd.grad(loss, (x, grid.params, weights))
        (table,) = torch.autograd.grad(grid(x), grid.params, weights, create_graph=True)
        return (slope.detach(), *first, *torch.autograd.grad(table.square().sum(), (x, weights)))

    single.backend = "numba"
    for found, expected in zip(compute(single), compute(double)):
        assert found.dtype == torch.float32
        assert relative(found, expected) <= 1e-5


def test_third_order_is_refused_not_wrong():
    grid, x, weights = make("3d")
    x.requires_grad_()
    (slope,) = torch.autograd.grad(grid(x), x, weights, create_graph=True)
    (second,) = torch.autograd.grad(slope.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        second.sum().backward()


def test_gradient_by_position_alone_leaves_the_table_out(monkeypatch):
    grid, x, weights = make("3d")
    monkeypatch.setattr(type(grid._cpu), "scatter", lambda *args: pytest.fail("nobody asked for it"))
    x.requires_grad_()
    torch.autograd.grad(grid(x), x, weights, create_graph=True)


def test_long_tables_are_read_ahead():
    grid = HashGrid(3, {"n_levels": 2, "log2_hashmap_size": 18, "base_resolution": 70, "per_level_scale": 1.5}, seed=1)
    assert max(level.rows for level in grid.levels) * 8 > 2**20
    x = torch.rand(200_000, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ((found, expected),) = both_backends(grid, lambda: (grid(x),))
    assert relative(found, expected) <= 1e-6


def test_results_do_not_depend_on_the_number_of_threads():
    grid, x, weights = make("3d", 5000)
    x.requires_grad_()
    results = []
    for threads in (1, 2):
        jit.set_threads(threads)
        y = grid(x)
        (slope,) = torch.autograd.grad(y, x, weights, create_graph=True)
        results.append((y, slope, *torch.autograd.grad(slope.square().sum() + y.sum(), (x, grid.params))))
    for one, two in zip(*results):
        assert torch.equal(one, two)


def test_python_threads_may_run_it_together():
    grid, x, weights = make("3d", 5000)
    expected = grid(x)
    wrong = []

    def work():
        for _ in range(20):
            y = grid(x)
            y.backward(weights)
            if not torch.equal(y, expected):
                wrong.append(y)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_child_encodes():
    grid, x, _ = make("3d", 5000)
    expected = grid._cpu.gather(x, grid.params).numpy().copy()
    child = os.fork()
    if child == 0:
        try:
            same = np.array_equal(grid._cpu.gather(x, grid.params).numpy(), expected)
            os._exit(7 if same else 8)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


HOSTILE = [float("nan"), float("inf"), -float("inf"), 3e38, -3e38, 1 + 1e-6, -0.0, 1e-45, 2.0**31, -(2.0**33)]


@pytest.mark.parametrize("case", ["3d", "3d-dense", "2d"])
def test_hostile_positions_touch_nothing_outside_the_table(case):
    """The table lies between canaries: NaN would show in what is read, and any change in what is written."""
    from threestudio_redream.kernels.hashgrid.numba_kernels import level_kernel

    grid, _, _ = make(case)
    core, dims = grid._cpu, grid.n_input_dims
    columns = torch.meshgrid(*[torch.tensor([*HOSTILE, 0.5])] * dims, indexing="ij")
    x = torch.stack([column.flatten() for column in columns], dim=-1)
    guard = 4096
    memory = torch.full((grid.params.numel() + 2 * guard,), float("nan"))
    memory[guard:-guard] = grid.params.detach()
    found = core.gather(x, memory[guard:-guard])
    expected = torch.where(x.isnan().any(-1, keepdim=True), float("nan"), found)
    assert torch.equal(found.isnan(), expected.isnan())  # NaN exactly where a coordinate is NaN
    grid.backend = "torch"
    torch.testing.assert_close(found, grid(x).detach(), equal_nan=True)
    slope = core.slope(x, memory[guard:-guard], torch.ones(len(x), core.n_output_dims))
    assert slope[~x.isnan().any(-1)].isfinite().all()

    written = np.full(grid.params.numel() + 2 * guard, 7.0, np.float32)
    inner = written[guard:-guard]
    points = np.zeros((3, -(-len(x) // 256) * 256), np.float32)
    points[:dims, : len(x)] = x.clamp(0, 1).T.numpy()
    nothing, stage = np.zeros((3, 0), np.float32), np.ones(len(x) * core.n_output_dims, np.float32)
    for level in range(len(core.levels)):
        level_kernel(
            core.lanes, core.axes, core.corners, points, nothing, len(x), level, core.layout, core.smooth, inner, stage
        )
    assert (written[:guard] == 7.0).all()
    assert (written[-guard:] == 7.0).all()
