"""The torch reference against a point-by-point oracle, and its derivatives."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from threestudio_redream.kernels.hashgrid import HashGridConfig, encode_reference

SMALL = {"n_levels": 4, "log2_hashmap_size": 7, "base_resolution": 3, "per_level_scale": 1.9}


def oracle(point, table, config, dims):
    """One point in Python numbers and 32-bit unsigned integers, written from the paper and tiny-cuda-nn's rules."""
    features = []
    offset = 0
    for index in range(config.n_levels):
        scale = config.base_resolution * config.per_level_scale**index - 1
        resolution = math.ceil(scale) + 1
        rows = min((resolution**dims + 7) // 8 * 8, 2**config.log2_hashmap_size)
        total = np.zeros(config.n_features_per_level)
        position = [min(max(x, 0.0), 1.0) * scale + 0.5 for x in point]
        for corner in itertools.product((0, 1), repeat=dims):
            cell = [math.floor(p) + bit for p, bit in zip(position, corner)]
            weight = 1.0
            for p, bit in zip(position, corner):
                f = p - math.floor(p)
                f = f * f * (3 - 2 * f) if config.interpolation == "Smoothstep" else f
                weight *= f if bit else 1 - f
            row = 0
            if resolution**dims <= rows:
                row = sum(c * resolution**d for d, c in enumerate(cell))
            else:
                for c, prime in zip(cell, (1, 2654435761, 805459861)):
                    row ^= (c * prime) & 0xFFFFFFFF
            total += weight * table[offset + row % rows]
        features.append(total)
        offset += rows
    return np.concatenate(features)


def make(dims, **keys):
    config = HashGridConfig(**{**SMALL, **keys})
    table = torch.randn(config.n_params(dims), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return config, config.levels(dims), table


def encode(x, table, config, levels):
    return encode_reference(x, table, levels, config.n_features_per_level, config.interpolation == "Smoothstep")


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("keys", [{}, {"interpolation": "Smoothstep"}, {"n_features_per_level": 4}])
def test_reference_equals_oracle(dims, keys):
    config, levels, table = make(dims, **keys)
    assert {level.hashed for level in levels} == {False, True}
    # the last rows: edges, where dense levels wrap into the next row, and points outside
    x = torch.rand(40, dims, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 1.4 - 0.2
    x = torch.cat([x, torch.ones(1, dims), torch.zeros(1, dims), torch.full((1, dims), 0.999)]).double()
    found = encode(x, table, config, levels)
    rows = table.view(-1, config.n_features_per_level).numpy()
    # levels carry float32 scales, hence not to the last bit of float64
    expected = np.stack([oracle(point, rows, config, dims) for point in x.tolist()])
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)


def test_convention_of_positions():
    """Base resolution 16: x = 0.2 is halfway between the grid points 3 and 4; y = 1/30 is on grid point 1."""
    config = HashGridConfig(n_levels=1, n_features_per_level=1)
    table = torch.zeros(config.n_params(2), dtype=torch.float64)
    table[3 + 1 * 16], table[4 + 1 * 16] = 1.0, 3.0
    x = torch.tensor([[0.2, 1 / 30]], dtype=torch.float64)
    assert encode_reference(x, table, config.levels(2), 1).item() == pytest.approx(2.0)


@pytest.mark.parametrize("interpolation", ["Linear", "Smoothstep"])
def test_first_and_second_derivatives(interpolation):
    config, levels, table = make(2, interpolation=interpolation, n_levels=2)
    x = torch.rand(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    table = table.requires_grad_()

    def function(x, table):
        return encode(x, table, config, levels)

    assert torch.autograd.gradcheck(function, (x, table))
    assert torch.autograd.gradgradcheck(function, (x, table))


def test_outside_is_constant_and_nan_is_visible():
    config, levels, table = make(3)
    x = torch.tensor([[1.5, 0.3, -2.0], [1.0, 0.3, 0.0]], dtype=torch.float64, requires_grad=True)
    y = encode(x, table, config, levels)
    torch.testing.assert_close(y[0], y[1])
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert slope[0, 0] == 0
    assert slope[0, 1] != 0
    assert slope[0, 2] == 0
    y = encode(torch.tensor([[float("nan"), 0.3, 0.3], [0.1, 0.2, 0.3]]).double(), table, config, levels)
    assert y[0].isnan().all()
    assert y[1].isfinite().all()


def test_no_points():
    config, levels, table = make(3)
    assert encode(torch.zeros(0, 3, dtype=torch.float64), table, config, levels).shape == (0, 8)
