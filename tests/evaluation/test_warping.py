"""Warp consistency on objects whose depth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from threestudio_redream.assets import normalise, sample_asset
from threestudio_redream.assets.rasteriser import AssetRenderer
from threestudio_redream.cameras import orbit_c2w
from threestudio_redream.errors import ConfigError
from threestudio_redream.evaluation.warping import warp_error

CAMERA: dict[str, Any] = {"elevation_deg": 15.0, "distance": 1.5, "fovy_deg": 40.0}


def turn(count=25, size=96):
    azimuth = np.linspace(0.0, 360.0, count)
    c2w = orbit_c2w(azimuth, [15.0] * count, [1.5] * count)
    shot = AssetRenderer(normalise(sample_asset()), supersample=2)(c2w, np.full(count, 40.0), size, size)
    rgba, depth = torch.from_numpy(shot.rgba), torch.from_numpy(shot.depth[..., 0])
    return rgba[..., :3] + (1 - rgba[..., 3:]) * 0.6, rgba[..., 3], depth


@pytest.fixture(scope="module")
def sound():
    return turn()


def test_an_object_that_does_not_change_is_consistent(sound):
    error, seen = warp_error(*sound, CAMERA)
    assert error < 0.03  # what resampling loses at texture edges
    assert 0.7 < seen < 1.0


def test_one_colour_is_perfectly_consistent(sound):
    views, opacity, depth = sound
    assert warp_error(torch.full_like(views, 0.3), opacity, depth, CAMERA)[0] < 1e-6


def test_colours_that_change_with_the_view_are_seen(sound):
    views, opacity, depth = sound
    flicker = views.clone()
    flicker[::2] = (flicker[::2] + 0.2).clamp(max=1.0)
    error, seen = warp_error(flicker, opacity, depth, CAMERA)
    assert error > 0.1
    assert seen == warp_error(views, opacity, depth, CAMERA)[1]


def test_a_shift_of_brightness_is_measured_exactly(sound):
    views, opacity, depth = sound
    plain = torch.full_like(views, 0.25)
    plain[1::2] = 0.375
    assert warp_error(plain, opacity, depth, CAMERA)[0] == pytest.approx(0.125, abs=1e-6)


def test_pictures_painted_one_by_one_are_not_consistent(sound):
    views, opacity, depth = sound
    painted = torch.where(opacity[..., None] > 0.5, views.roll(views.shape[0] // 2, 0), views)
    assert warp_error(painted, opacity, depth, CAMERA)[0] > 3 * warp_error(views, opacity, depth, CAMERA)[0]


def test_wrong_depth_leaves_less_to_compare(sound):
    views, opacity, depth = sound
    assert warp_error(views, opacity, depth + 0.1, CAMERA)[1] < 0.8 * warp_error(views, opacity, depth, CAMERA)[1]


def test_nothing_visible():
    empty = torch.zeros(3, 8, 8)
    error, seen = warp_error(torch.zeros(3, 8, 8, 3), empty, empty, CAMERA)
    assert np.isnan(error)
    assert seen == 0.0


@pytest.mark.parametrize("bad", [(1, 8, 8), (3, 8, 9)])
def test_shapes_that_do_not_fit(bad):
    with pytest.raises(ConfigError, match="do not fit"):
        warp_error(
            torch.zeros(*((1, 8, 8) if bad[0] == 1 else (3, 8, 8)), 3), torch.zeros(bad), torch.zeros(bad), CAMERA
        )
