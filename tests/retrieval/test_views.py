"""The fixed set of views, and thumbnails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from threestudio_redream.assets import load_asset, normalise, write_sample
from threestudio_redream.cameras import camera_positions
from threestudio_redream.errors import ConfigError
from threestudio_redream.retrieval.types import AssetRecord
from threestudio_redream.retrieval.views import DEFAULT_VIEWS, ViewSpec, open_record, render_views, thumbnail


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(write_sample(tmp_path_factory.mktemp("sample") / "sample.glb"))


def test_the_default_set() -> None:
    assert DEFAULT_VIEWS.count == 8
    assert DEFAULT_VIEWS.azimuths_deg == (0.0, 45.0, 90.0, 135.0, 180.0, 225.0, 270.0, 315.0)
    first = camera_positions(DEFAULT_VIEWS.azimuths_deg[0], DEFAULT_VIEWS.elevation_deg, DEFAULT_VIEWS.distance)
    np.testing.assert_allclose(first, (1.4095, 0.0, 0.5130), atol=1e-4)
    assert ViewSpec.from_json(DEFAULT_VIEWS.to_json()) == DEFAULT_VIEWS


def test_views_look_at_the_asset_from_where_they_say(sample: Path) -> None:
    asset = normalise(load_asset(sample))
    spec = replace(DEFAULT_VIEWS, supersample=1)
    views = render_views(asset, spec, 48)
    assert views.images.shape == (8, 48, 48, 3)
    assert views.masks.shape == (8, 48, 48)
    assert views.images.dtype == np.float32
    assert 0.0 <= views.images.min() <= views.images.max() <= 1.0
    np.testing.assert_allclose(views.images[views.masks == 0], 0.5, atol=1e-6)  # the grey behind
    border = np.concatenate([views.masks[:, 0].ravel(), views.masks[:, -1].ravel(), views.masks[:, :, 0].ravel()])
    assert border.max() == 0.0  # the asset is whole in every view
    # turning the object by 45 degrees is looking from 45 degrees less
    turned = render_views(normalise(load_asset(sample), yaw_deg=45.0), replace(spec, shading="none"), 48).images
    straight = render_views(asset, replace(spec, shading="none"), 48).images
    assert np.abs(turned[1] - straight[0]).mean() < 0.01 < np.abs(turned[0] - straight[0]).mean()


def test_axes_of_a_record(sample: Path) -> None:
    record = AssetRecord("a", "a", "a")
    plain = open_record(sample, record)
    np.testing.assert_array_equal(plain.vertices, normalise(load_asset(sample)).vertices)
    other = open_record(sample, replace(record, up="+z", front="+x"))
    np.testing.assert_array_equal(other.vertices, normalise(load_asset(sample), up="+z", front="+x").vertices)


def test_thumbnails() -> None:
    picture = np.linspace(0.0, 1.0, 128 * 128 * 3, dtype=np.float32).reshape(128, 128, 3)
    small = thumbnail(picture)
    assert small.shape == (64, 64, 3)
    assert small.dtype == np.uint8
    assert abs(int(small[0, 0, 0]) - round(float(picture[:2, :2, 0].mean()) * 255)) <= 1
    same = np.zeros((64, 64, 3), np.uint8)
    assert thumbnail(same) is same


@pytest.mark.parametrize(
    "change",
    [
        {"azimuths_deg": ()},
        {"azimuths_deg": (float("nan"),)},
        {"azimuths_deg": ("0",)},
        {"elevation_deg": 91.0},
        {"fovy_deg": 0.0},
        {"distance": 0.5},
        {"background": 1.5},
        {"shading": "toon"},
        {"supersample": 0},
        {"supersample": 2.0},
    ],
)
def test_views_that_make_no_sense(change: dict) -> None:
    with pytest.raises(ConfigError, match="makes no sense") as caught:
        ViewSpec.from_json({**DEFAULT_VIEWS.to_json(), **change})
    assert caught.value.received["distance"] == change.get("distance", 1.5)
    assert caught.value.fix


@pytest.mark.parametrize(
    "values", [{}, {**DEFAULT_VIEWS.to_json(), "lens": 1}, {**DEFAULT_VIEWS.to_json(), "azimuths_deg": 8}]
)
def test_descriptions_with_other_keys(values: dict) -> None:
    with pytest.raises(ConfigError, match="other keys"):
        ViewSpec.from_json(values)
