"""Evenly spaced samples and samples where the density is."""

from __future__ import annotations

import math

import pytest
import torch

from threestudio_redream.errors import ConfigError
from threestudio_redream.kernels.volume import (
    accumulate_along_rays,
    importance_samples,
    pack_intervals,
    render_weight_from_density,
    sample_pdf,
    uniform_samples,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_uniform_edges_of_the_docstring():
    edges = uniform_samples(torch.tensor([2.0, 0.0]), torch.tensor([4.0, 0.0]), 4)
    assert edges.tolist() == [[2.0, 2.5, 3.0, 3.5, 4.0], [0.0] * 5]
    assert uniform_samples(torch.tensor([1.0]), torch.tensor([2.0]), 1, stratified=True).tolist() == [[1.0, 2.0]]


def test_stratified_edges_stay_in_order_and_keep_the_ends():
    t_min, t_max = torch.full((500,), 2.0), torch.full((500,), 4.0)
    edges = uniform_samples(t_min, t_max, 16, stratified=True, generator=seeded())
    assert bool((edges.diff(dim=1) >= 0).all())
    assert torch.equal(edges[:, 0], t_min)
    assert torch.equal(edges[:, -1], t_max)
    even = uniform_samples(t_min, t_max, 16)
    assert float((edges - even).abs().max()) <= 0.5 * 2 / 16 + 1e-6
    assert torch.allclose(edges.mean(dim=0), even[0], atol=0.02)
    assert torch.equal(edges, uniform_samples(t_min, t_max, 16, stratified=True, generator=seeded()))


@pytest.mark.parametrize("call", [uniform_samples, lambda a, b, n: sample_pdf(a[:, None], b[:, None][:, :0], n)])
def test_no_samples_are_refused(call):
    with pytest.raises(ConfigError, match="at least one sample") as caught:
        call(torch.zeros(1), torch.ones(1), 0)
    assert caught.value.fix


def test_pdf_of_the_docstring():
    got = sample_pdf(torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[0.0, 1.0]]), 2)
    torch.testing.assert_close(got, torch.tensor([[1.25, 1.75]]))


def test_pdf_follows_the_histogram():
    edges = torch.tensor([[0.0, 1.0, 3.0, 4.0]])
    weights = torch.tensor([[1.0, 6.0, 3.0]])
    for stratified in (False, True):
        got = sample_pdf(edges, weights, 10_000, stratified, seeded())
        counts = torch.histogram(got[0], edges[0])[0]
        assert counts.tolist() == pytest.approx([1000, 6000, 3000], abs=2)
        assert bool((got.diff(dim=1) >= 0).all())
    # within a bin the distances are even
    assert float(got[0][(got[0] > 1) & (got[0] < 3)].mean()) == pytest.approx(2.0, abs=1e-2)


def test_stratified_pdf_draws_one_distance_from_each_part():
    edges, weights = torch.tensor([[0.0, 1.0]]).expand(200, 2), torch.ones(200, 1)
    got = sample_pdf(edges, weights, 4, stratified=True, generator=seeded())
    part = got * 4 - torch.arange(4)
    assert float(part.min()) >= 0
    assert float(part.max()) <= 1
    assert part.mean().item() == pytest.approx(0.5, abs=0.05)
    assert part.std().item() == pytest.approx(12**-0.5, abs=0.05)
    assert torch.equal(got, sample_pdf(edges, weights, 4, stratified=True, generator=seeded()))


def test_pdf_without_usable_weights_is_even():
    edges = torch.tensor([[0.0, 1.0, 2.0]]).expand(3, 3)
    weights = torch.tensor([[0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0]])
    expected = torch.tensor([[0.25, 0.75, 1.25, 1.75]]).expand(3, 4)
    torch.testing.assert_close(sample_pdf(edges, weights, 4), expected)


def test_pdf_with_empty_bins_never_samples_them():
    edges = torch.arange(9.0)[None]
    weights = torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0]])
    got = sample_pdf(edges, weights, 101, stratified=True, generator=seeded())
    assert bool((((got >= 2) & (got <= 3)) | ((got >= 5) & (got <= 6))).all())


def test_pdf_shapes_are_checked():
    with pytest.raises(ConfigError, match="one edge more") as caught:
        sample_pdf(torch.zeros(2, 3), torch.zeros(2, 3), 4)
    assert "((2, 3), (2, 3))" in str(caught.value)
    assert caught.value.fix


def test_packing_leaves_out_rays():
    edges = torch.tensor([[0.0, 1.0, 2.0], [5.0, 6.0, 7.0], [8.0, 8.5, 9.0]])
    rays, starts, ends = pack_intervals(edges, torch.tensor([True, False, True]))
    assert rays.tolist() == [0, 0, 2, 2]
    assert starts.tolist() == [0.0, 1.0, 8.0, 8.5]
    assert ends.tolist() == [1.0, 2.0, 8.5, 9.0]


def thin_wall(starts: torch.Tensor, ends: torch.Tensor, rays: torch.Tensor) -> torch.Tensor:
    """A wall between 2.4 and 2.5, as share of each interval; threestudio's shape ``[M, 1]``."""
    overlap = (ends.clamp(max=2.5) - starts.clamp(min=2.4)).clamp(min=0)
    return (overlap / (ends - starts).clamp(min=1e-9) * 40.0)[:, None]


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("stratified", [False, True])
def test_two_passes_put_samples_where_the_wall_is(backend, stratified):
    t_min, t_max = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([5.0, 0.0, 3.0])
    rays, starts, ends = importance_samples(
        t_min,
        t_max,
        thin_wall,
        n_proposal=32,
        n_fine=32,
        stratified=stratified,
        generator=seeded(),
        backend=backend,
    )
    assert rays.bincount(minlength=3).tolist() == [64, 0, 64]
    for ray in (0, 2):
        mine = rays == ray
        assert (starts[mine][0], ends[mine][-1]) == (t_min[ray], t_max[ray])
        assert torch.equal(starts[mine][1:], ends[mine][:-1])
        assert bool((ends[mine] >= starts[mine]).all())
    near = (starts[rays == 0] > 2.2) & (starts[rays == 0] < 2.7)
    assert int(near.sum()) >= 30
    weights, _, _ = render_weight_from_density(starts, ends, thin_wall(starts, ends, rays)[:, 0], rays, 3)
    opacity = accumulate_along_rays(weights, None, rays, 3)
    torch.testing.assert_close(opacity[[0, 2], 0], torch.full((2,), 1 - math.exp(-4.0)), atol=1e-4, rtol=0)
    assert opacity[1].item() == 0


def test_two_passes_without_a_hit_do_not_ask_the_field():
    def never(*_: torch.Tensor) -> torch.Tensor:
        raise AssertionError

    rays, starts, ends = importance_samples(torch.ones(2), torch.zeros(2), never, n_proposal=4, n_fine=4)
    assert rays.shape == starts.shape == ends.shape == (0,)
