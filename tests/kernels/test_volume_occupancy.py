"""The occupancy grid: buffers, updates, and what it samples."""

from __future__ import annotations

import math

import pytest
import torch

from threestudio_redream.errors import ConfigError
from threestudio_redream.kernels.volume import OccupancyGrid, occupancy

BOX = [-1.0, -1.0, -1.0, 1.0, 1.0, 1.0]


def ball(points: torch.Tensor) -> torch.Tensor:
    """Opacity 1 within 0.5 of the origin, 0 outside; ``[P, 1]`` as threestudio's geometries answer."""
    return (points.norm(dim=1, keepdim=True) < 0.5).float()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_buffers_have_the_names_and_shapes_of_nerfacc():
    grid = OccupancyGrid(BOX, resolution=[2, 3, 4], levels=2)
    saved = {name: (tuple(t.shape), t.dtype) for name, t in grid.state_dict().items()}
    assert saved == {
        "resolution": ((3,), torch.int32),
        "aabbs": ((2, 6), torch.float32),
        "occs": ((48,), torch.float32),
        "binaries": ((2, 2, 3, 4), torch.bool),
    }
    assert grid.grid_coords.shape == (24, 3)
    assert grid.grid_indices.tolist() == list(range(24))
    assert grid.grid_coords[5].tolist() == [0, 1, 1]
    assert grid.aabbs[0].tolist() == BOX
    assert grid.aabbs[1].tolist() == [2 * x for x in BOX]
    assert OccupancyGrid(torch.tensor(BOX)).binaries.shape == (1, 32, 32, 32)
    assert not bool(grid.binaries.any())


def test_the_cell_of_the_docstring():
    grid = OccupancyGrid(BOX, resolution=4)
    seen = []
    grid.update_every_n_steps(0, lambda x: seen.append(x) or x.new_zeros(len(x)), generator=seeded())
    (points,) = seen
    cell = (grid.grid_coords == torch.tensor([3, 0, 1])).all(dim=1)
    x, y, z = points[cell][0].tolist()
    assert 0.5 <= x <= 1.0
    assert -1.0 <= y <= -0.5
    assert -0.5 <= z <= 0.0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (([0, 0, 0, 1, 1],), "6 finite numbers"),
        (([0, 0, 0, 1, 1, 0],), "min < max"),
        (([0, 0, 0, 1, 1, math.inf],), "finite"),
        ((BOX, 0), "at least one cell"),
        ((BOX, 8, 0), "one level"),
    ],
)
def test_impossible_grids_are_refused(arguments, problem):
    with pytest.raises(ConfigError, match=problem) as caught:
        OccupancyGrid(*arguments)
    assert "got" in str(caught.value)
    assert caught.value.fix


def test_only_every_nth_step_refreshes():
    grid = OccupancyGrid(BOX, resolution=4)
    answers = [grid.update_every_n_steps(step, ball, n=3) for step in range(7)]
    assert answers == [True, False, False, True, False, False, True]


@pytest.mark.parametrize("levels", [1, 2])
def test_warm_up_finds_the_ball(levels):
    grid = OccupancyGrid(BOX, resolution=16, levels=levels)
    for step in range(0, 128, 16):
        grid.update_every_n_steps(step, ball, generator=seeded(step))
    for level in range(levels):
        centre = ((grid.grid_coords + 0.5) / 16 * 2 - 1) * 2**level
        cell = 2 / 16 * 2**level
        found = grid.binaries[level].flatten()
        assert bool(found[centre.norm(dim=1) < 0.5 - cell].all())
        assert not bool(found[centre.norm(dim=1) > 0.5 + cell].any())


def test_occupancy_decays_and_the_threshold_is_at_most_the_mean():
    grid = OccupancyGrid(BOX, resolution=4)
    grid.update_every_n_steps(0, lambda x: torch.full((len(x),), 0.008), ema_decay=0.5)
    assert torch.allclose(grid.occs, torch.tensor(0.008))
    assert not bool(grid.binaries.any())  # nothing is above the mean, which is below 0.01
    half = grid.grid_indices < 32
    grid.update_every_n_steps(0, lambda x: half * 0.006, ema_decay=0.5)
    assert torch.allclose(grid.occs, torch.where(half, 0.006, 0.004))
    assert torch.equal(grid.binaries.flatten(), half)
    grid.update_every_n_steps(0, lambda x: torch.full((len(x),), 3.0), occ_thre=0.01)
    assert bool(grid.binaries.all())


def test_after_warm_up_random_and_occupied_cells_are_looked_at():
    grid = OccupancyGrid(BOX, resolution=8)
    grid.binaries[0, 0] = True  # 64 of 512 cells, fewer than a quarter
    seen: list[torch.Tensor] = []
    grid.update_every_n_steps(256, lambda x: seen.append(x) or x.new_zeros(len(x)), generator=seeded())
    assert seen[0].shape == (128 + 64, 3)
    assert int((seen[0][:, 0] < -0.75).sum()) >= 64
    grid.binaries.fill_(True)
    grid.update_every_n_steps(256, lambda x: seen.append(x) or x.new_zeros(len(x)), generator=seeded())
    assert seen[1].shape == (128 + 128, 3)


def test_a_fixed_seed_gives_a_fixed_grid_and_leaves_the_global_one_alone():
    state = torch.get_rng_state()
    grids = []
    for _ in range(2):
        grid = OccupancyGrid(BOX, resolution=8)
        for step in range(0, 64, 16):
            grid.update_every_n_steps(step, lambda x: ball(x) * x[:, :1].abs(), warmup_steps=32, generator=seeded(step))
        grids.append(grid.occs.clone())
    assert torch.equal(*grids)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(7)
    grid.update_every_n_steps(0, ball)
    assert not torch.equal(torch.get_rng_state(), state)


def test_values_that_are_no_opacities_do_no_lasting_harm():
    grid = OccupancyGrid(BOX, resolution=2)
    values = torch.tensor([math.nan, -1.0, math.inf, 0.5, 0.0, 0.0, 0.0, 0.0])
    grid.update_every_n_steps(0, lambda x: values)
    assert bool(torch.isfinite(grid.occs).all())
    assert grid.occs[:2].tolist() == [0.0, 0.0]
    assert grid.binaries.flatten().tolist() == [False, False, True, True, False, False, False, False]


def test_cells_marked_as_unseen_stay_so():
    grid = OccupancyGrid(BOX, resolution=4)
    grid.occs[:40] = -1.0
    for step in (0, 256):
        grid.update_every_n_steps(step, lambda x: torch.ones(len(x), 1), generator=seeded())
        assert bool((grid.occs[:40] == -1).all())
        assert not bool(grid.binaries.flatten()[:40].any())
        assert bool(grid.binaries.flatten()[40:].all())
    grid.occs.fill_(-1.0)
    grid.update_every_n_steps(0, lambda x: torch.ones(len(x), 1))
    assert not bool(grid.binaries.any())


def test_the_field_is_asked_in_pieces(monkeypatch):
    monkeypatch.setattr(occupancy, "CELLS_AT_ONCE", 100)
    sizes = []
    grid = OccupancyGrid(BOX, resolution=8)
    grid.update_every_n_steps(0, lambda x: sizes.append(len(x)) or ball(x), generator=seeded())
    assert sizes == [100] * 5 + [12]
    assert bool(grid.binaries.any())


def rays(n: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    side = torch.linspace(-0.9, 0.9, n)
    origins = torch.stack([torch.full((n,), 3.0), side, torch.zeros(n)], dim=1)
    return origins, torch.tensor([[-1.0, 0.0, 0.0]]).expand(n, 3)


def filled_grid() -> OccupancyGrid:
    grid = OccupancyGrid(BOX, resolution=16)
    grid.update_every_n_steps(0, ball, generator=seeded())
    return grid


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_sampling_stays_near_the_ball(backend):
    origins, directions = rays()
    index, starts, ends = filled_grid().sampling(origins, directions, render_step_size=0.02, backend=backend)
    middle = origins[index] + ((starts + ends) / 2)[:, None] * directions[index]
    assert len(index) > 500
    assert float(middle.norm(dim=1).max()) < 0.5 + 0.25
    torch.testing.assert_close(ends - starts, torch.full_like(starts, 0.02), rtol=0, atol=1e-6)


def test_both_backends_draw_the_same_jitter():
    origins, directions = rays()
    grid = filled_grid()

    def sample(backend: str, seed: int) -> tuple[torch.Tensor, ...]:
        return grid.sampling(
            origins, directions, render_step_size=0.02, stratified=True, generator=seeded(seed), backend=backend
        )

    for a, b in zip(sample("numba", 1), sample("torch", 1)):
        assert torch.equal(a, b)
    first, other = sample("numba", 1)[1], sample("numba", 2)[1]
    assert first.shape != other.shape or not torch.equal(first, other)
    phase = torch.remainder(first, 0.02)
    assert float(phase.max() - phase.min()) > 0.01


def test_near_and_far_planes():
    origins, directions = rays(2)
    grid = OccupancyGrid(BOX, resolution=4)
    grid.binaries.fill_(True)
    _, starts, ends = grid.sampling(origins, directions, render_step_size=0.1, near_plane=2.55, far_plane=3.05)
    assert starts.min().item() == pytest.approx(2.55)
    assert ends.max().item() == pytest.approx(3.05)


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_hidden_and_transparent_samples_are_dropped(backend):
    origins, directions = rays(1)
    grid = OccupancyGrid(BOX, resolution=4)
    grid.binaries.fill_(True)
    grid.occs.fill_(1.0)

    def wall(starts: torch.Tensor, ends: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        assert starts.shape == ends.shape == index.shape
        middle = (starts + ends) / 2
        return ((middle > 2.5) & (middle < 3.5)).float()[:, None] * 100.0

    def sample(**options: float) -> torch.Tensor:
        return grid.sampling(origins, directions, render_step_size=0.1, sigma_fn=wall, backend=backend, **options)[1]

    assert len(sample(early_stop_eps=0.0)) == 20  # sigma_fn has nothing to decide
    starts = sample(early_stop_eps=1e-4)
    assert starts.tolist() == pytest.approx([2.0, 2.1, 2.2, 2.3, 2.4, 2.5])
    starts = sample(early_stop_eps=1e-4, alpha_thre=0.01)
    assert starts.tolist() == pytest.approx([2.5])
    grid.occs.zero_()  # an empty grid lowers the threshold to its mean: nothing is dropped for being thin
    assert len(sample(early_stop_eps=0.0, alpha_thre=0.01)) == 20


def test_sampling_an_empty_grid_does_not_ask_the_field():
    origins, directions = rays(3)

    def never(*_: torch.Tensor) -> torch.Tensor:
        raise AssertionError

    index, starts, _ = OccupancyGrid(BOX).sampling(origins, directions, render_step_size=0.1, sigma_fn=never)
    assert index.shape == starts.shape == (0,)


def test_a_field_that_answers_the_wrong_number_of_values_is_named():
    origins, directions = rays(3)
    grid = OccupancyGrid(BOX)
    grid.binaries.fill_(True)
    with pytest.raises(ConfigError, match="'sigmas' does not match"):
        grid.sampling(origins, directions, render_step_size=0.1, sigma_fn=lambda a, b, c: torch.ones(1))


def test_state_survives_a_round_trip():
    grid, other = filled_grid(), OccupancyGrid(BOX, resolution=16)
    other.load_state_dict(grid.state_dict())
    assert torch.equal(other.occs, grid.occs)
    assert torch.equal(other.binaries, grid.binaries)
