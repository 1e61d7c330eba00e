"""CLIP's figures on a turn, with encoders whose answers are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from threestudio_redream.errors import ConfigError
from threestudio_redream.evaluation.text import (
    clip_score,
    r_precision,
    view_cosines,
    view_cs,
    view_entropy,
    view_probabilities,
    view_words,
)
from threestudio_redream.retrieval.encoders import open_encoder


class Say:
    """A text is the axis of its colour word (or of its view word); a picture is the direction of its first pixel."""

    axes = ("red", "green", "blue")

    def encode_texts(self, texts: Sequence[str]) -> Any:
        rows = [[float(word in text) for word in self.axes] for text in texts]
        return np.asarray(rows, np.float32)

    def encode_images(self, images: Any) -> Any:
        pixels = images[:, 0, 0].astype(np.float32)
        return pixels / np.linalg.norm(pixels, axis=1, keepdims=True)


def views(*colours: tuple[float, float, float]) -> torch.Tensor:
    return torch.tensor(colours).view(-1, 1, 1, 3).expand(-1, 2, 2, 3).contiguous()


def test_clip_score_is_the_mean_cosine_whatever_the_batch() -> None:
    turn = views((0.0, 1.0, 0.0), (0.0, 0.5, 0.0), (0.6, 0.8, 0.0), (1.0, 0.0, 0.0))
    score = clip_score(Say(), turn, "a green cat")
    assert score == pytest.approx((1.0 + 1.0 + 0.8 + 0.0) / 4)
    for size in (1, 2, 3):
        assert clip_score(Say(), turn, "a green cat", batch_size=size) == pytest.approx(score)
    assert clip_score(Say(), turn.flip(0), "a green cat") == pytest.approx(score)


def test_clip_score_by_the_mini_clip_does_not_depend_on_the_batch() -> None:
    encoder, turn = open_encoder("mini"), torch.rand(5, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    whole = clip_score(encoder, turn, "a red robot")
    assert clip_score(encoder, turn, "a red robot", batch_size=2) == pytest.approx(whole, abs=1e-6)
    vectors = encoder.encode_images(turn.numpy())
    assert whole == pytest.approx(float((vectors @ encoder.encode_texts(["a red robot"])[0]).mean()), abs=1e-6)


def test_r_precision_counts_views_that_are_nearest_to_their_prompt() -> None:
    turn = views((1.0, 0.1, 0.0), (0.9, 1.0, 0.0), (0.5, 0.5, 0.0), (1.0, 0.0, 0.9))
    prompts = ["a red cat", "a green cat", "a blue cat"]
    assert r_precision(Say(), turn, "a red cat", prompts) == 0.5  # the third is as near to green
    assert r_precision(Say(), turn, "a red cat", prompts[2:]) == 1.0
    with pytest.raises(ConfigError, match="other prompts"):
        r_precision(Say(), turn, "a red cat", ["a red cat"])


class SayViews(Say):
    axes = ("front", "side", "back")


def test_sides_by_azimuth() -> None:
    seen = view_words(np.array([0.0, 45.0, 46.0, 90.0, 134.0, 135.0, 180.0, 250.0, 315.0, 360.0, -30.0]))
    assert seen.tolist() == [0, 0, 1, 1, 1, 2, 2, 1, 0, 0, 0]


def test_view_cs_asks_each_view_for_its_own_side() -> None:
    azimuth = np.array([0.0, 90.0, 180.0, 270.0])
    front, side, back = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
    sound = view_cosines(SayViews(), views(front, side, back, side), "a cat")
    assert view_cs(sound, azimuth) == pytest.approx(1.0)
    janus = view_cosines(SayViews(), views(front, front, front, front), "a cat")
    assert view_cs(janus, azimuth) == pytest.approx(0.25)
    assert view_entropy(view_probabilities(sound)) == pytest.approx(1.0, abs=1e-6)
    assert view_entropy(view_probabilities(janus)) == pytest.approx(0.0, abs=1e-6)


def test_probabilities_are_a_softmax() -> None:
    cosines = np.array([[0.30, 0.28, 0.25], [0.1, 0.1, 0.1]])
    found = view_probabilities(cosines, scale=50.0)
    wanted = np.exp(50.0 * cosines) / np.exp(50.0 * cosines).sum(1, keepdims=True)
    np.testing.assert_allclose(found, wanted)
    for bad in (np.ones((4, 3)), np.array([[0.5, 0.7, -0.2]]), np.array([[0.5, 0.5]])):
        with pytest.raises(ConfigError, match="no probabilities"):
            view_entropy(bad)
