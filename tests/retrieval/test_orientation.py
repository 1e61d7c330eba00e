"""Orientation: the score finds a front that is there, at any yaw, and none where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from threestudio_redream.errors import ConfigError
from threestudio_redream.retrieval.orientation import (
    ALIGN_VIEWS,
    VIEW_WORDS,
    ClipAligner,
    score_azimuths,
    wrap_degrees,
)

AZIMUTHS = np.array(ALIGN_VIEWS.azimuths_deg)


def cosines(front_deg: float, noise: float = 0.0, strength: float = 0.04, seed: int = 0) -> np.ndarray:
    """``[24, 3]``: what a CLIP would say about pictures of an object, with a bias of each prompt for the object."""
    turned = np.abs((AZIMUTHS - front_deg + 180.0) % 360.0 - 180.0)
    bucket = np.where(turned <= 45.0, 0, np.where(turned >= 135.0, 2, 1))
    values = np.array([0.29, 0.22, 0.25])[None] + strength * np.eye(3)[bucket]
    return values + noise * np.random.default_rng(seed).standard_normal(values.shape)


class Viewer:
    """An encoder for pictures that hold their azimuth in a pixel, of an object whose front is at ``front_deg``."""

    dim, image_size, name, fingerprint, preprocessing = 6, 4, "viewer", "0" * 64, {}

    def __init__(self, front_deg: float | None) -> None:
        self.front_deg, self.texts = front_deg, []

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        self.texts += texts
        rows = [np.eye(6)[[word in text for word in VIEW_WORDS].index(True)] for text in texts]
        return np.array(rows, np.float32)

    def encode_images(self, images: np.ndarray) -> np.ndarray:
        azimuths = images[:, 0, 0, 0] * 360.0
        rows = np.full((len(images), 3), 0.25)
        if self.front_deg is not None:
            turned = np.abs((azimuths - self.front_deg + 180.0) % 360.0 - 180.0)
            rows += 0.05 * np.stack(
                [np.cos(np.deg2rad(turned)), np.sin(np.deg2rad(turned)), -np.cos(np.deg2rad(turned))], 1
            )
        full = np.concatenate([rows, np.sqrt(1.0 - (rows**2).sum(1, keepdims=True)), np.zeros((len(rows), 2))], 1)
        return full.astype(np.float32)


def pictures() -> np.ndarray:
    images = np.zeros((24, 4, 4, 3), np.float32)
    images[:, 0, 0, 0] = AZIMUTHS / 360.0
    return images


@pytest.mark.parametrize("front", [0.0, 15.0, 90.0, 180.0, 270.0, 345.0])
def test_a_front_is_found(front: float) -> None:
    found = ClipAligner(Viewer(front)).align(pictures(), "a chair")
    assert found.front_deg == wrap_degrees(front)
    assert found.margin > 0.5
    assert len(found.scores) == len(found.azimuths_deg) == 24
    assert found.scores[int(front / 15)] == max(found.scores)
    assert found.to_json()["front_deg"] == wrap_degrees(front)


def test_no_front_is_found_where_there_is_none() -> None:
    found = ClipAligner(Viewer(None)).align(pictures(), "a vase")
    assert found.front_deg is None
    assert found.margin == pytest.approx(0.0, abs=1e-3)


def test_prompts_name_the_view_and_the_object() -> None:
    viewer = Viewer(0.0)
    vectors = ClipAligner(viewer).view_vectors(["a chair", "a boat"])
    assert vectors.shape == (2, 3, 6)
    np.testing.assert_allclose(vectors[1], np.eye(6)[:3], atol=1e-6)
    assert all(caption in text for text, caption in zip(viewer.texts, ["a chair"] * 9 + ["a boat"] * 9))


def test_the_margin_is_the_users() -> None:
    eager, shy = (ClipAligner(Viewer(30.0), margin=margin) for margin in (0.0, 50.0))
    assert eager.align(pictures(), "x").front_deg == 30.0
    assert shy.align(pictures(), "x").front_deg is None
    assert shy.settings["margin"] == 50.0
    assert shy.settings["views"]["shading"] == "headlight"


@given(st.integers(0, 23), st.integers(0, 10_000))
def test_noise_moves_the_front_little(step: int, seed: int) -> None:
    front = 15.0 * step
    scores = score_azimuths(cosines(front, noise=0.01, seed=seed), AZIMUTHS)
    assert abs(wrap_degrees(AZIMUTHS[np.argmax(scores)] - front)) <= 30.0


@given(st.integers(0, 23), st.integers(0, 10_000))
def test_turning_the_object_turns_the_scores(step: int, seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal((24, 3)) * 0.02
    np.testing.assert_allclose(
        score_azimuths(np.roll(values, step, axis=0), AZIMUTHS),
        np.roll(score_azimuths(values, AZIMUTHS), step),
        atol=1e-9,
    )


def test_a_prompt_that_fits_the_object_from_everywhere_does_not_win() -> None:
    values = cosines(90.0)
    np.testing.assert_allclose(
        score_azimuths(values + np.array([0.5, 0.0, -0.3]), AZIMUTHS), score_azimuths(values, AZIMUTHS), atol=1e-9
    )


def test_the_convention() -> None:
    """A camera at 60 degrees sees the side of an object whose front is at 0."""
    one = np.zeros((24, 3))
    one[4, 1] = 1.0  # the picture from 60 degrees looks like a side
    scores = score_azimuths(one, AZIMUTHS, scale=1.0)
    assert scores[0] > scores[4]  # a front at 0 explains it, a front at 60 does not
    assert wrap_degrees(270.0) == -90.0
    assert wrap_degrees(-180.0) == wrap_degrees(180.0) == -180.0


@pytest.mark.parametrize("values", [np.zeros((24, 2)), np.zeros((23, 3)), np.full((24, 3), np.nan)])
def test_scores_that_make_no_sense(values: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="at least 8 azimuths"):
        score_azimuths(values, AZIMUTHS)
    with pytest.raises(ConfigError, match="at least 8 azimuths"):
        score_azimuths(np.zeros((4, 3)), AZIMUTHS[:4])
