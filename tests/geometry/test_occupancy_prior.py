"""Form C of the prior: dense inside the asset, empty outside."""

import math

import pytest
import torch

from threestudio_redream.assets import normalise, sample_asset
from threestudio_redream.errors import ConfigError
from threestudio_redream.geometry.occupancy_prior import OccupancyConfig, OccupancyPrior, occupancy_loss

BOX = torch.tensor([[-0.6] * 3, [0.6] * 3])


@pytest.fixture(scope="module")
def prior():
    return OccupancyPrior([normalise(sample_asset())], OccupancyConfig(points=2000, resolution=48))


def points_of(seed):
    return torch.Generator().manual_seed(seed)


def test_the_loss_is_the_weighted_cross_entropy():
    density = torch.tensor([0.0, 1.0, 30.0, 5.0, 0.5], dtype=torch.float64).clamp(min=1e-9)
    occupancy = torch.tensor([0.0, 0.0, 1.0, 0.25, 1.0], dtype=torch.float64)
    distance = torch.tensor([0.4, 0.1, 0.05, 0.0, 0.2], dtype=torch.float64)
    total = 0.0
    for s, o, d in zip(density.tolist(), occupancy.tolist(), distance.tolist()):
        p = 1.0 - math.exp(-0.2 * s)
        entropy = -((o * math.log(p)) if o else 0.0) - (1.0 - o) * math.log(1.0 - p)
        total += (1.0 - math.exp(-(d**2) / (2.0 * 0.3**2))) * entropy / 5
    assert float(occupancy_loss(density, occupancy, distance, reach=0.2, surface=0.3)) == pytest.approx(total, rel=1e-6)
    free = occupancy_loss(density[3:4], occupancy[3:4], distance[3:4], reach=0.2, surface=0.3)
    assert float(free) == 0.0  # on the surface anything goes
    exact = occupancy_loss(density[3:4], occupancy[3:4], distance[3:4], reach=0.2, surface=0.0)
    assert float(exact) > 0.1


def test_gradients_are_finite_where_the_field_is_empty():
    raw = torch.tensor([-80.0, -20.0, 0.0, 50.0], requires_grad=True)
    ones = torch.ones(4)
    occupancy_loss(torch.nn.functional.softplus(raw), ones, ones, reach=0.2, surface=0.3).backward()
    assert bool(raw.grad.isfinite().all())
    assert bool((raw.grad[1:3] < -0.05).all())  # an empty place that should be full is still pulled


def test_look_up_is_trilinear_inside_and_measured_from_the_box_outside(prior):
    volume = prior._volumes[0]
    index = torch.tensor([[10, 20, 30], [24, 24, 24], [5, 40, 11]])
    nodes = -volume.radius + index * volume.cell
    occupancy, distance = prior.look_up(0, nodes)
    wanted = [torch.tensor([array[tuple(i)] for i in index.tolist()]) for array in (volume.occupancy, volume.distance)]
    torch.testing.assert_close(occupancy, wanted[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(distance, wanted[1], atol=1e-4, rtol=0)
    far, away = prior.look_up(0, torch.tensor([[2.0, 0.0, 0.0]]))
    assert float(far) == 0.0
    assert 1.4 < float(away) < 1.9


def test_a_field_like_the_asset_costs_less_than_a_ball_or_nothing(prior):
    def cost(density):
        return float(prior(0, density, BOX, points_of(1)))

    like = cost(lambda points: 100.0 * prior.look_up(0, points)[0][:, None])
    ball = cost(lambda points: 100.0 * (points.norm(dim=-1, keepdim=True) < 0.4))
    nothing = cost(lambda points: torch.full((len(points), 1), 1e-6))
    assert like < 0.3 * ball
    assert like < 0.3 * nothing


def test_points_come_from_the_generator_and_fill_the_box(prior):
    seen = []

    def density(points):
        seen.append(points)
        return points.square().sum(-1, keepdim=True)

    first, again, other = (prior(0, density, BOX, points_of(seed)) for seed in (3, 3, 4))
    assert float(first) == float(again) != float(other)
    assert seen[0].shape == (2000, 3)
    assert float(seen[0].abs().max()) <= 0.6
    assert float(seen[0].std(0).min()) == pytest.approx(1.2 / 12**0.5, rel=0.05)


def test_bad_settings_are_named():
    for keys in ({"points": 0}, {"reach": 0.0}, {"surface": -1.0}):
        with pytest.raises(ConfigError, match="occupancy needs"):
            OccupancyConfig(**keys)
    with pytest.raises(ConfigError, match="no asset"):
        OccupancyPrior([], OccupancyConfig())
