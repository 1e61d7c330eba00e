"""Rays and boxes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from threestudio_redream.kernels.volume import ray_aabb_intersect

BOX = torch.tensor([-1.0, -1.0, -1.0, 1.0, 1.0, 1.0])


def shoot(origin, direction, near=0.0, far=1e10):
    t_min, t_max, hit = ray_aabb_intersect(torch.tensor([origin]), torch.tensor([direction]), BOX, near, far)
    return t_min.item(), t_max.item(), hit.item()


@pytest.mark.parametrize(
    ("origin", "direction", "expected"),
    [
        ((3.0, 0.0, 0.0), (-1.0, 0.0, 0.0), (2.0, 4.0, True)),  # the number of the docstring
        ((3.0, 0.0, 0.0), (-2.0, 0.0, 0.0), (1.0, 2.0, True)),  # distances count directions
        ((0.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 1.0, True)),  # from inside
        ((0.5, 0.0, 0.0), (-0.0, -1.0, 0.0), (0.0, 1.0, True)),  # negative zero
        ((3.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, False)),  # box behind
        ((3.0, 2.0, 0.0), (-1.0, 0.0, 0.0), (0.0, 0.0, False)),  # passes by
        ((1.0, 3.0, 0.0), (0.0, -1.0, 0.0), (2.0, 4.0, True)),  # along a face
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, False)),  # no direction
        ((math.nan, 0.0, 0.0), (-1.0, 0.0, 0.0), (0.0, 0.0, False)),
        ((3.0, 0.0, 0.0), (-1.0, math.nan, 0.0), (0.0, 0.0, False)),
    ],
)
def test_known_rays(origin, direction, expected):
    assert shoot(origin, direction) == expected


def test_near_and_far_cut_the_interval():
    ray = (3.0, 0.0, 0.0), (-1.0, 0.0, 0.0)
    assert shoot(*ray, near=2.5, far=3.5) == (2.5, 3.5, True)
    assert shoot(*ray, near=4.5) == (4.5, 4.5, False)
    assert shoot(*ray, far=1.5) == (0.0, 0.0, False)


def test_no_rays_and_gradients():
    t_min, t_max, hit = ray_aabb_intersect(torch.zeros(0, 3), torch.zeros(0, 3), BOX)
    assert t_min.shape == t_max.shape == hit.shape == (0,)
    origins = torch.tensor([[3.0, 0.2, 0.0], [3.0, 5.0, 0.0]], requires_grad=True)
    t_min, _, _ = ray_aabb_intersect(origins, torch.tensor([[-1.0, 0.0, 0.0]]).expand(2, 3), BOX)
    t_min.sum().backward()
    assert origins.grad is not None
    assert origins.grad.tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


coordinate = st.one_of(st.sampled_from([0.0, -0.0, 1.0, -1.0]), st.floats(-3, 3, width=32))


@settings(max_examples=200, deadline=None)
@given(st.tuples(coordinate, coordinate, coordinate), st.tuples(coordinate, coordinate, coordinate))
def test_the_interval_is_where_the_ray_is_inside(origin, direction):
    length = math.hypot(*direction)
    if length < 1e-3:
        return
    direction = tuple(d / length for d in direction)
    t_min, t_max, hit = shoot(origin, direction)
    for i in range(81):  # the ray leaves the neighbourhood of the box within 8 units
        t = i * 0.1
        outmost = max(abs(o + t * d) for o, d in zip(origin, direction))
        if outmost < 1 - 1e-4:
            assert hit
            assert t_min <= t <= t_max
        elif outmost > 1 + 1e-4:
            assert not (hit and t_min + 1e-3 < t < t_max - 1e-3)
