"""Renders of retrieved assets, balanced by view."""

import numpy as np
import pytest
import torch

from threestudio_redream.adaptation.references import ReferenceConfig, render_references
from threestudio_redream.assets import normalise, sample_asset
from threestudio_redream.errors import ConfigError

CFG = ReferenceConfig(views_per_asset=24, resolution=32, elevation_range=(-10.0, 75.0))


@pytest.fixture(scope="module")
def asset():
    return normalise(sample_asset())


@pytest.fixture(scope="module")
def references(asset):
    return render_references([asset, asset], ["a red cat", "a cat"], CFG, seed=3)


def test_every_asset_is_seen_from_all_sides(references):
    assert references.rgba.shape == (48, 32, 32, 4)
    assert references.asset.tolist() == [0] * 24 + [1] * 24
    assert references.views == ("side", "front", "back", "overhead")
    assert (references.rgba[..., :3].max(-1) <= references.rgba[..., 3]).all()
    cover = (references.rgba[..., 3] > 127).mean((1, 2))
    assert 0.1 < cover.min() < cover.max() < 0.9


def test_views_are_named_as_by_the_prompt_processor(asset):
    cfg = ReferenceConfig(views_per_asset=8, resolution=8, elevation_range=(0.0, 0.0), front_threshold=30.0)
    found = render_references([asset], ["x"], cfg, seed=0)
    rng = np.random.default_rng([0, 0])
    azimuth = (np.arange(8) + rng.random(8)) / 8 * 360
    away = np.abs((azimuth + 180) % 360 - 180)
    assert found.view.tolist() == [1 if a < 30 else 2 if a > 135 else 0 for a in away]


def test_a_batch_holds_every_view_equally_often_on_random_grounds(references):
    images, rows = references.draw(400, torch.Generator().manual_seed(1))
    assert images.shape == (400, 32, 32, 3)
    assert np.bincount(references.view[rows]).tolist() == [100] * 4
    assert 0.4 < references.asset[rows].mean() < 0.6
    corner = images[:, 0, 0]
    assert ((corner >= 0.42) & (corner <= 0.8)).all()
    assert corner.std(0).min() > 0.05
    again, _ = references.draw(400, torch.Generator().manual_seed(1))
    assert torch.equal(images, again)


def test_the_seed_decides(asset, references):
    again = render_references([asset, asset], ["a red cat", "a cat"], CFG, seed=3)
    assert np.array_equal(again.rgba, references.rgba)
    other = render_references([asset, asset], ["a red cat", "a cat"], CFG, seed=4)
    assert not np.array_equal(other.rgba, references.rgba)


def test_bad_settings_are_named(asset):
    with pytest.raises(ConfigError, match="views_per_asset"):
        ReferenceConfig(views_per_asset=3)
    with pytest.raises(ConfigError, match="elevation_range"):
        ReferenceConfig(elevation_range=(10.0, 0.0))
    for assets, captions in (([], []), ([asset], [])):
        with pytest.raises(ConfigError, match="caption for each"):
            render_references(assets, captions, CFG)
