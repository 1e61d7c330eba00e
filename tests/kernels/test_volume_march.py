"""Marching through the grid: numba and torch give the same samples, and they are the right ones."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from threestudio_redream.errors import ConfigError
from threestudio_redream.kernels import jit
from threestudio_redream.kernels.volume import _march_kernels, _render_kernels, march, march_rays
from threestudio_redream.kernels.volume import render_weight_from_density as render_weights

BACKENDS = ["numba", "torch"]
BOX = torch.tensor([[-1.0, -1.0, -1.0, 1.0, 1.0, 1.0]])


def random_rays(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rays from outside and inside the box, most of which hit it."""
    generator = torch.Generator().manual_seed(seed)
    origins = torch.randn(n, 3, generator=generator) * 1.5
    directions = torch.rand(n, 3, generator=generator) * 1.6 - 0.8 - origins
    return origins, directions / directions.norm(dim=1, keepdim=True)


def random_grid(shape: tuple[int, ...], share: float, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


def both(origins, directions, binaries, aabbs=BOX, t_first=None, far_plane=1e10, step_size=0.05):
    """Samples of both backends, which must be equal to the bit."""
    t_first = torch.zeros(len(origins)) if t_first is None else t_first
    results = [
        march_rays(
            origins,
            directions,
            binaries,
            aabbs,
            t_first=t_first,
            far_plane=far_plane,
            step_size=step_size,
            backend=backend,
        )
        for backend in BACKENDS
    ]
    for fast, reference in zip(*results):
        assert fast.dtype == reference.dtype
        assert torch.equal(fast, reference)
    return results[0]


def brute_force(origins, directions, binaries, t_first, far_plane, step_size):
    """Every lattice point, one by one, in world units: the definition in the docstring."""
    samples = []
    for ray in range(len(origins)):
        for k in range(int(8 / step_size)):
            t = float(t_first[ray]) + (k + 0.5) * step_size
            cell = []
            for axis in range(3):
                place = float(origins[ray, axis]) + t * float(directions[ray, axis])
                cell.append(math.floor((place + 1.0) / 2.0 * binaries.shape[axis + 1]))
            inside = all(0 <= c < n for c, n in zip(cell, binaries.shape[1:]))
            if inside and t < far_plane and bool(binaries[0, cell[0], cell[1], cell[2]]):
                samples.append((ray, t - step_size / 2, t + step_size / 2))
    return samples


@pytest.mark.parametrize("shape", [(1, 4, 4, 4), (1, 3, 5, 8), (1, 1, 1, 1)])
@pytest.mark.parametrize(("share", "step_size"), [(0.5, 0.11), (1.1, 0.3), (0.3, 0.9)])
def test_samples_are_the_lattice_points_in_occupied_cells(shape, share, step_size):
    origins, directions = random_rays(40)
    binaries = random_grid(shape, share)
    t_first = torch.rand(40, generator=torch.Generator().manual_seed(1)) * step_size + 0.1
    rays, starts, ends = both(origins, directions, binaries, t_first=t_first, far_plane=2.5, step_size=step_size)
    expected = brute_force(origins, directions, binaries, t_first, 2.5, step_size)
    assert rays.tolist() == [sample[0] for sample in expected]
    torch.testing.assert_close(starts, torch.tensor([sample[1] for sample in expected]), rtol=0, atol=1e-6)
    torch.testing.assert_close(ends, torch.tensor([sample[2] for sample in expected]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_numbers_of_the_docstring(backend):
    rays, starts, ends = march_rays(
        torch.tensor([[3.0, 0.0, 0.0]]),
        torch.tensor([[-1.0, 0.0, 0.0]]),
        torch.ones(1, 2, 2, 2, dtype=torch.bool),
        BOX,
        t_first=torch.zeros(1),
        far_plane=1e10,
        step_size=0.5,
        backend=backend,
    )
    assert rays.dtype == torch.int64
    assert rays.tolist() == [0, 0, 0, 0]
    assert starts.tolist() == [2.0, 2.5, 3.0, 3.5]
    assert ends.tolist() == [2.5, 3.0, 3.5, 4.0]


def test_grid_axes_are_x_y_z():
    binaries = torch.zeros(1, 4, 4, 4, dtype=torch.bool)
    binaries[0, 3, 0, 1] = True  # x 0.5 to 1, y -1 to -0.5, z -0.5 to 0
    origins = torch.tensor([[3.0, -0.75, -0.25], [-0.75, 3.0, -0.25], [0.75, 3.0, -0.25]])
    directions = torch.tensor([[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, -1.0, 0.0]])
    rays, starts, ends = both(origins, directions, binaries, step_size=0.125)
    assert rays.tolist() == [0] * 4 + [2] * 4
    assert (starts[0].item(), ends[3].item()) == (2.0, 2.5)
    assert (starts[4].item(), ends[7].item()) == (3.5, 4.0)


@pytest.mark.parametrize("share", [0.02, 0.5, 1.1])
@pytest.mark.parametrize("step_size", [0.007, 0.06, 2.0])
def test_many_random_rays_agree_to_the_bit(share, step_size):
    origins, directions = random_rays(1500)
    t_first = torch.rand(1500, generator=torch.Generator().manual_seed(4)) * step_size
    rays, starts, ends = both(
        origins, directions, random_grid((1, 16, 16, 16), share), t_first=t_first, step_size=step_size
    )
    assert bool((rays.diff() >= 0).all())
    assert bool((ends > starts).all())
    same = rays[1:] == rays[:-1]
    assert bool((starts[1:][same] >= ends[:-1][same]).all())
    if share > 1:
        assert len(rays) > 1000 or step_size > 1


@pytest.mark.parametrize("shape", [(3, 8, 8, 8), (2, 5, 6, 7)])  # odd ones put the finer box inside a cell
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_nested_grids_are_judged_by_the_finest(shape, share):
    origins, directions = random_rays(400)
    aabbs = torch.cat([BOX * 2**level for level in range(shape[0])])
    binaries = random_grid(shape, share)
    rays, starts, ends = both(origins, directions, binaries, aabbs, step_size=0.05)
    middle = origins[rays] + ((starts + ends) / 2)[:, None] * directions[rays]
    beyond = middle.abs().amax(dim=1) > 1
    assert bool(beyond.any())
    assert not bool(beyond.all())
    binaries[0] = False
    rays, starts, ends = both(origins, directions, binaries, aabbs, step_size=0.05)
    middle = origins[rays] + ((starts + ends) / 2)[:, None] * directions[rays]
    assert bool((middle.abs().amax(dim=1) > 1 - 1e-5).all())


grid_number = st.sampled_from([-1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 1e-12, -1e-9, 0.25, 3.0, -3.0])
vector = st.tuples(grid_number, grid_number, grid_number)


@settings(max_examples=150, deadline=None)
@given(vector, vector, st.sampled_from([0.05, 0.25, 0.5, 0.3]), st.integers(0, 5), st.sampled_from([1, 2]))
def test_rays_along_faces_edges_and_diagonals_agree(origin, direction, step_size, seed, levels):
    aabbs = torch.cat([BOX * 2**level for level in range(levels)])
    binaries = random_grid((levels, 4, 4, 4), 0.5, seed)
    both(torch.tensor([origin]), torch.tensor([direction]), binaries, aabbs, step_size=step_size, far_plane=20.0)


def test_rays_that_cannot_be_marched_have_no_samples():
    nan, inf = math.nan, math.inf
    origins = torch.tensor([[nan, 0.0, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 0.0], [inf, 0.0, 0.0], [3.0, 0.0, 0.0]])
    directions = torch.tensor([[-1.0, 0.0, 0.0], [nan, 0.0, 0.0], [0.0, 0.0, 0.0], [-1.0, 0, 0], [-1e-9, 0.0, 0.0]])
    full = torch.ones(1, 2, 2, 2, dtype=torch.bool)
    rays, _, _ = both(origins, directions, full)
    assert rays.tolist() == []
    origins, directions = torch.tensor([[3.0, 0.0, 0.0]]).expand(4, 3), torch.tensor([[-1.0, 0.0, 0.0]]).expand(4, 3)
    rays, _, _ = both(origins, directions, full, t_first=torch.tensor([nan, inf, -inf, -1e30]))
    assert rays.tolist() == []


def test_far_plane_and_first_distance_bound_the_samples():
    origins, directions = torch.tensor([[3.0, 0.1, 0.1]]), torch.tensor([[-1.0, 0.0, 0.0]])
    full = torch.ones(1, 2, 2, 2, dtype=torch.bool)
    _, starts, ends = both(origins, directions, full, t_first=torch.tensor([2.6]), far_plane=3.2, step_size=0.1)
    assert starts[0].item() == pytest.approx(2.6)
    assert ends[-1].item() == pytest.approx(3.2)
    rays, _, _ = both(origins, directions, full, t_first=torch.tensor([5.0]), step_size=0.1)
    assert rays.tolist() == []


@pytest.mark.parametrize("n_rays", [0, 5])
def test_empty_grids_and_no_rays(n_rays):
    origins, directions = random_rays(n_rays)
    rays, starts, ends = both(origins, directions, torch.zeros(1, 4, 4, 4, dtype=torch.bool))
    assert rays.shape == starts.shape == ends.shape == (0,)
    assert rays.dtype == torch.int64
    assert starts.dtype == torch.float32


def test_double_precision_rays_give_double_precision_samples():
    origins, directions = random_rays(50)
    rays, starts, _ = both(origins.double(), directions.double(), random_grid((1, 8, 8, 8), 0.5))
    assert starts.dtype == torch.float64
    assert len(rays) > 100


def test_the_reference_in_chunks_is_the_same(monkeypatch):
    origins, directions = random_rays(100)
    binaries = random_grid((1, 8, 8, 8), 0.4)
    whole = both(origins, directions, binaries)
    monkeypatch.setattr(march, "CANDIDATES_AT_ONCE", 50)
    for a, b in zip(whole, both(origins, directions, binaries)):
        assert torch.equal(a, b)


def test_samples_do_not_depend_on_the_number_of_threads():
    origins, directions = random_rays(300)
    binaries = random_grid((1, 8, 8, 8), 0.4)
    many = both(origins, directions, binaries)
    jit.set_threads(1)
    try:
        one = both(origins, directions, binaries)
    finally:
        jit.set_threads(None)
    for a, b in zip(many, one):
        assert torch.equal(a, b)


def test_kernels_do_the_same_as_plain_python(monkeypatch):
    """The undecorated functions, which a debugger can step through, are the compiled ones."""
    origins, directions = random_rays(25)
    aabbs, binaries = torch.cat([BOX, BOX * 2]), random_grid((2, 4, 4, 4), 0.4)
    binaries[:, :2] = True
    compiled = both(origins, directions, binaries, aabbs)
    sigmas = torch.rand(len(compiled[0]))
    sigmas[:3] = 1e-3  # the branch for thin samples

    def gradient() -> torch.Tensor:
        leaf = sigmas.clone().requires_grad_()
        weights, trans, alphas = render_weights(compiled[1], compiled[2], leaf, compiled[0], 25, backend="numba")
        (weights.sum() + (trans * alphas).sum()).backward()
        assert leaf.grad is not None
        return leaf.grad

    expected = gradient()
    for module in (_march_kernels, _render_kernels):
        for name, kernel in list(vars(module).items()):
            if isinstance(kernel, jit.LazyKernel):
                monkeypatch.setattr(module, name, kernel.py_func)
    for a, b in zip(compiled, both(origins, directions, binaries, aabbs)):
        assert torch.equal(a, b)
    torch.testing.assert_close(gradient(), expected)


@pytest.mark.parametrize(
    ("change", "problem", "received"),
    [
        ({"rays_o": torch.zeros(2, 2)}, "'rays_o' has the wrong shape", "(2, 2)"),
        ({"rays_d": torch.zeros(3, 3)}, "'rays_d' has the wrong shape", "(3, 3)"),
        ({"t_first": torch.zeros(2, 1)}, "'t_first' has the wrong shape", "(2, 1)"),
        ({"aabbs": torch.zeros(6)}, "'aabbs' has the wrong shape", "(6,)"),
        ({"step_size": 0.0}, "step along rays", "0.0"),
        ({"step_size": math.nan}, "step along rays", "nan"),
        ({"step_size": 1e-9}, "step along rays", "1e-09"),
        ({"backend": "magic"}, "Unknown volume backend", "'magic'"),
    ],
)
def test_wrong_arguments_are_named(change, problem, received):
    arguments = {
        "rays_o": torch.zeros(2, 3),
        "rays_d": torch.ones(2, 3),
        "binaries": torch.ones(1, 2, 2, 2, dtype=torch.bool),
        "aabbs": BOX,
        "t_first": torch.zeros(2),
        "far_plane": 1e10,
        "step_size": 0.1,
    }
    with pytest.raises(ConfigError) as caught:
        march_rays(**{**arguments, **change})
    assert problem in str(caught.value)
    assert received in str(caught.value)
    assert caught.value.fix
