"""Weights and sums along rays: numba, torch and a direct dense computation agree, gradients included."""

from __future__ import annotations

import math

import pytest
import torch

from threestudio_redream.errors import ConfigError
from threestudio_redream.kernels import jit
from threestudio_redream.kernels.volume import accumulate_along_rays, ray_offsets, render_weight_from_density

BACKENDS = ["numba", "torch"]


def make_samples(counts: list[int], seed: int = 0, scale: float = 5.0, dtype: torch.dtype = torch.float32):
    """Packed samples with gaps between them; ``counts`` per ray."""
    generator = torch.Generator().manual_seed(seed)
    total = sum(counts)
    rays = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts, dtype=torch.int64))
    starts = torch.cat([torch.arange(count) * 0.05 + 1.0 for count in counts])
    ends = starts + torch.rand(total, generator=generator) * 0.05
    sigmas = torch.rand(total, generator=generator) * scale
    return rays, starts.to(dtype), ends.to(dtype), sigmas.to(dtype)


def dense_weights(rays, starts, ends, sigmas, n_rays):
    """Straight from the definition, one sample after the other, in Python floats."""
    weights, trans, alphas = [], [], []
    for ray in range(n_rays):
        tau = 0.0
        for i in (rays == ray).nonzero()[:, 0].tolist():
            x = float(sigmas[i]) * float(ends[i] - starts[i])
            trans.append(math.exp(-tau))
            alphas.append(-math.expm1(-x))
            weights.append(trans[-1] * alphas[-1])
            tau += x
    return torch.tensor(weights), torch.tensor(trans), torch.tensor(alphas)


def relative_l2(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-30))


COUNTS = [
    [3],
    [1, 1, 1],
    [0, 5, 0, 0, 2, 0],
    [700],
    [33, 0, 1, 64, 65, 2, 127],
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("scale", [0.0, 1e-6, 5.0, 1e8])
def test_weights_match_the_definition(backend, counts, scale):
    rays, starts, ends, sigmas = make_samples(counts, scale=scale)
    got = render_weight_from_density(starts, ends, sigmas, rays, len(counts), backend=backend)
    for tensor, expected in zip(got, dense_weights(rays, starts, ends, sigmas, len(counts))):
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, expected, rtol=2e-6, atol=1e-12)
    opacity = accumulate_along_rays(got[0], None, rays, len(counts), backend=backend)
    assert opacity.shape == (len(counts), 1)
    assert bool((opacity <= 1 + 1e-6).all())


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 0.1, 5.0])
def test_double_precision_is_kept(scale):
    rays, starts, ends, sigmas = make_samples([9, 0, 40], scale=scale, dtype=torch.float64)
    fast = render_weight_from_density(starts, ends, sigmas, rays, 3, backend="numba")
    for tensor, expected in zip(fast, render_weight_from_density(starts, ends, sigmas, rays, 3, backend="torch")):
        assert tensor.dtype == torch.float64
        torch.testing.assert_close(tensor, expected, rtol=3e-13, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_numbers_of_the_docstrings(backend):
    rays = torch.tensor([0, 0])
    t = torch.tensor([0.0, 1.0])
    weights, _, _ = render_weight_from_density(t, t + 1, torch.ones(2), rays, 1, backend=backend)
    torch.testing.assert_close(weights, torch.tensor([0.632, 0.233]), atol=5e-4, rtol=0)
    half = torch.tensor([0.5, 0.25])
    colour = accumulate_along_rays(half, torch.tensor([[1.0], [3.0]]), rays, 1, backend=backend)
    assert colour.item() == 1.25
    assert accumulate_along_rays(half, None, rays, 1, backend=backend).item() == 0.75


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_wall_hides_what_is_behind_it_and_nothing_on_other_rays(backend):
    rays = torch.tensor([0, 0, 0, 1, 1])
    starts = torch.tensor([0.0, 1.0, 2.0, 0.0, 1.0])
    sigmas = torch.tensor([0.0, math.inf, 7.0, 1.0, 1.0], requires_grad=True)
    weights, trans, alphas = render_weight_from_density(starts, starts + 1, sigmas, rays, 2, backend=backend)
    e = math.exp(-1)
    torch.testing.assert_close(weights, torch.tensor([0.0, 1.0, 0.0, 1 - e, e * (1 - e)]))
    assert trans.tolist()[:3] == [1.0, 1.0, 0.0]
    assert alphas.tolist()[1] == 1.0
    weights.sum().backward()
    assert sigmas.grad is not None
    assert bool(torch.isfinite(sigmas.grad).all())


def gradients(backend: str, counts: list[int], scale: float, dtype: torch.dtype = torch.float32):
    """Gradients of a loss that uses every output, to densities, distances and values."""
    rays, starts, ends, sigmas = make_samples(counts, scale=scale, dtype=dtype)
    generator = torch.Generator().manual_seed(1)
    values = torch.rand(len(rays), 3, generator=generator).to(dtype)
    factors = torch.rand(2, len(rays), generator=generator).to(dtype)
    leaves = [tensor.requires_grad_() for tensor in (starts, ends, sigmas, values)]
    weights, trans, alphas = render_weight_from_density(starts, ends, sigmas, rays, len(counts), backend=backend)
    colour = accumulate_along_rays(weights, values, rays, len(counts), backend=backend)
    depth = accumulate_along_rays(weights, ends[:, None], rays, len(counts), backend=backend)
    loss = (colour**2).sum() + depth.sum() + (factors[0] * trans).sum() + (factors[1] * alphas).sum()
    return torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("scale", [1e-6, 5.0, 1e3])
def test_gradients_of_numba_equal_the_reference(counts, scale):
    exact = gradients("torch", counts, scale, torch.float64)
    for backend in BACKENDS:
        for got, expected in zip(gradients(backend, counts, scale), exact):
            # Inputs are rounded to single precision, which is what most of the difference is.
            assert relative_l2(got, expected) <= 1e-5 or float(expected.norm()) < 1e-12
    for got, expected in zip(gradients("numba", counts, scale, torch.float64), exact):
        assert relative_l2(got, expected) <= 1e-12 or float(expected.norm()) < 1e-12


@pytest.mark.parametrize("output", [0, 1, 2])
def test_each_output_alone_has_the_gradient_of_the_reference(output):
    grads = []
    for backend in BACKENDS:
        rays, starts, ends, sigmas = make_samples([4, 0, 9], dtype=torch.float64)
        sigmas.requires_grad_()
        outputs = render_weight_from_density(starts, ends, sigmas, rays, 3, backend=backend)
        grads.append(torch.autograd.grad((outputs[output] ** 2).sum(), sigmas)[0])
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("backend", BACKENDS)
def test_first_and_second_derivatives_by_finite_differences(backend):
    rays, starts, ends, sigmas = make_samples([3, 0, 1, 4], dtype=torch.float64)
    values = torch.rand(len(rays), 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def render(starts, ends, sigmas, values):
        weights, trans, alphas = render_weight_from_density(starts, ends, sigmas, rays, 4, backend=backend)
        return accumulate_along_rays(weights, values, rays, 4, backend=backend), trans, alphas

    inputs = tuple(tensor.clone().requires_grad_() for tensor in (starts, ends, sigmas, values))
    assert torch.autograd.gradcheck(render, inputs)
    assert torch.autograd.gradgradcheck(render, inputs)


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_wanted_gradients_are_made(backend):
    rays = torch.tensor([0, 0, 1])
    weights, values = torch.rand(3), torch.rand(3, 2)
    for want_weights, want_values in ((True, False), (False, True)):
        w, v = weights.clone().requires_grad_(want_weights), values.clone().requires_grad_(want_values)
        accumulate_along_rays(w, v, rays, 2, backend=backend).sum().backward()
        assert (w.grad is not None) == want_weights
        assert (v.grad is not None) == want_values
        if w.grad is not None:
            torch.testing.assert_close(w.grad, values.sum(dim=1))
        if v.grad is not None:
            torch.testing.assert_close(v.grad, weights[:, None].expand(3, 2))
    w = weights.clone().requires_grad_()
    (grad,) = torch.autograd.grad(
        accumulate_along_rays(w, values, rays, 2, backend=backend).sum(), w, create_graph=True
    )
    torch.testing.assert_close(grad, values.sum(dim=1))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n_rays", [0, 3])
def test_no_samples_at_all(backend, n_rays):
    none = torch.zeros(0)
    rays = torch.zeros(0, dtype=torch.int64)
    sigmas, values = torch.zeros(0, requires_grad=True), torch.zeros(0, 3, requires_grad=True)
    weights, trans, alphas = render_weight_from_density(none, none, sigmas, rays, n_rays, backend=backend)
    assert weights.shape == trans.shape == alphas.shape == (0,)
    colour = accumulate_along_rays(weights, values, rays, n_rays, backend=backend)
    assert torch.equal(colour, torch.zeros(n_rays, 3))
    (colour.sum() + trans.sum()).backward()
    assert sigmas.grad is not None
    assert sigmas.grad.shape == (0,)
    assert values.grad is not None
    assert values.grad.shape == (0, 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_half_precision_inputs_and_strided_inputs(backend):
    rays, starts, ends, sigmas = make_samples([5, 6])
    wide = torch.stack([sigmas, sigmas], dim=1)
    weights, _, _ = render_weight_from_density(starts, ends, wide[:, 0], rays, 2, backend=backend)
    expected, _, _ = render_weight_from_density(starts, ends, sigmas, rays, 2, backend="torch")
    torch.testing.assert_close(weights, expected)
    half, _, _ = render_weight_from_density(starts, ends, sigmas.bfloat16(), rays, 2, backend=backend)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, expected, rtol=2e-2, atol=1e-3)
    values = torch.rand(3, 11).T
    colour = accumulate_along_rays(weights, values, rays, 2, backend=backend)
    assert colour.dtype == torch.float32
    torch.testing.assert_close(colour, accumulate_along_rays(expected, values.contiguous(), rays, 2, backend="torch"))
    assert accumulate_along_rays(weights.half(), values.half(), rays, 2, backend=backend).dtype == torch.float32


def test_results_do_not_depend_on_the_number_of_threads():
    counts = [int(n) for n in torch.randint(0, 90, (200,), generator=torch.Generator().manual_seed(3))]
    results = []
    for threads in (1, 2):
        if threads > 1 and (torch.get_num_threads() < 2 or not jit.numba_available()):
            pytest.skip("one core only")
        try:
            jit.set_threads(threads)
        except ConfigError:
            pytest.skip("numba was started with one thread")
        results.append(gradients("numba", counts, 5.0))
    jit.set_threads(None)
    for one, two in zip(*results):
        assert torch.equal(one, two)


def test_offsets_can_be_shared():
    rays, starts, ends, sigmas = make_samples([4, 0, 3])
    offsets = ray_offsets(rays, 3)
    assert offsets.tolist() == [0, 4, 4, 7]
    assert ray_offsets(torch.tensor([0, 0, 2]), 3).tolist() == [0, 2, 2, 3]
    for backend in BACKENDS:
        shared = render_weight_from_density(starts, ends, sigmas, rays, 3, offsets=offsets, backend=backend)
        alone = render_weight_from_density(starts, ends, sigmas, rays, 3, backend=backend)
        assert torch.equal(shared[0], alone[0])
        assert torch.equal(
            accumulate_along_rays(shared[0], None, rays, 3, offsets=offsets, backend=backend),
            accumulate_along_rays(shared[0], None, rays, 3, backend=backend),
        )


@pytest.mark.parametrize(
    ("change", "problem", "received"),
    [
        ({"ray_indices": torch.tensor([0, 1, 0])}, "not sorted", "[0, 1, 0]"),
        ({"ray_indices": torch.tensor([0, 1, 2])}, "do not fit 2 rays", "(0, 2)"),
        ({"ray_indices": torch.tensor([-1, 0, 1])}, "do not fit 2 rays", "(-1, 1)"),
        ({"ray_indices": torch.zeros(3)}, "row of integers", "torch.float32"),
        ({"ray_indices": torch.zeros(3, 1, dtype=torch.int64)}, "row of integers", "(3, 1)"),
        ({"sigmas": torch.zeros(3, 1)}, "'sigmas' does not match 3 samples", "(3, 1)"),
        ({"t_ends": torch.zeros(2)}, "'t_ends' does not match 3 samples", "(2,)"),
        ({"offsets": torch.zeros(2, dtype=torch.int64)}, "'offsets' does not match 2 rays", "(2,)"),
        ({"offsets": torch.tensor([0, 2, 4])}, "does not match 2 rays and 3 samples", "(3,)"),
        ({"offsets": torch.tensor([0.0, 2.0, 3.0])}, "'offsets' does not match", "torch.float32"),
        ({"backend": "cuda"}, "Unknown volume backend", "'cuda'"),
    ],
)
def test_wrong_arguments_of_weights_are_named(change, problem, received):
    arguments = {
        "t_starts": torch.zeros(3),
        "t_ends": torch.ones(3),
        "sigmas": torch.ones(3),
        "ray_indices": torch.tensor([0, 0, 1]),
        "n_rays": 2,
    }
    with pytest.raises(ConfigError) as caught:
        render_weight_from_density(**{**arguments, **change})
    assert problem in str(caught.value)
    assert received in str(caught.value)
    assert caught.value.fix


def test_wrong_arguments_of_sums_are_named():
    rays = torch.tensor([0, 0, 1])
    with pytest.raises(ConfigError, match=r"'values' does not match 3 samples \(got \(3,\)\). Pass shape \[3, C\]"):
        accumulate_along_rays(torch.ones(3), torch.ones(3), rays, 2)
    with pytest.raises(ConfigError, match="not sorted"):
        accumulate_along_rays(torch.ones(3), None, rays.flip(0), 2, backend="torch")
