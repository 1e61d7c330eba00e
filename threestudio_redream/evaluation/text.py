"""What a CLIP says about a turn of views: likeness to the prompt, rank among other prompts, which side is shown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from threestudio_redream.errors import ConfigError
from threestudio_redream.retrieval.orientation import SCALE, VIEW_WORDS, ClipAligner
from threestudio_redream.retrieval.types import Encoder

__all__ = [
    "clip_score",
    "r_precision",
    "rivals",
    "view_cosines",
    "view_cs",
    "view_entropy",
    "view_probabilities",
    "view_words",
]

Array = NDArray[np.floating]


def _embed(encoder: Encoder, views: Tensor, batch_size: int) -> Array:
    parts = [encoder.encode_images(part.clamp(0.0, 1.0).numpy()) for part in views.split(batch_size)]
    return np.concatenate(parts)


def clip_score(encoder: Encoder, views: Tensor, prompt: str, batch_size: int = 32) -> float:
    """Mean raw cosine of the prompt and views ``[A, H, W, 3]``: no factor of 100 or 2.5, no view words.

    The CLIP score of the text-to-3D literature.
    """
    return float((_embed(encoder, views, batch_size) @ encoder.encode_texts([prompt])[0]).mean())


def rivals(prompt: str, others: Sequence[str]) -> list[str]:
    """Those of ``others``, each once, that are not the prompt in another spelling (case, blanks, a full stop)."""

    def plain(text: str) -> str:
        return " ".join(text.casefold().split()).rstrip(".!")

    return [text for text in dict.fromkeys(others) if plain(text) != plain(prompt)]


def r_precision(encoder: Encoder, views: Tensor, prompt: str, others: Sequence[str], batch_size: int = 32) -> float:
    """Share of the views whose nearest caption is the prompt (CLIP R-Precision, Park et al., 2021).

    Args:
        others: the other prompts of the set; the prompt itself may be among them (see :func:`rivals`). A view that is
            as near to another counts as a miss.

    Raises:
        ConfigError: no other prompts.
    """
    against = rivals(prompt, others)
    if not against:
        raise ConfigError("R-precision needs other prompts", received=list(others), fix="Give the prompts of the set.")
    cosines = _embed(encoder, views, batch_size) @ encoder.encode_texts([prompt, *against]).T
    return float((cosines[:, 0] > cosines[:, 1:].max(axis=1)).mean())


def view_words(azimuth_deg: Array, threshold_deg: float = 45.0) -> NDArray[np.int64]:
    """Which of front (0), side (1) and back (2) each azimuth sees."""
    away = np.abs((np.asarray(azimuth_deg, np.float64) + 180.0) % 360.0 - 180.0)
    return np.where(away <= threshold_deg, 0, np.where(away >= 180.0 - threshold_deg, 2, 1))


def view_cosines(encoder: Encoder, views: Tensor, prompt: str, batch_size: int = 32) -> Array:
    """``[A, 3]`` cosines with the prompt under the words front, side and back."""
    return _embed(encoder, views, batch_size) @ ClipAligner(encoder).view_vectors([prompt])[0].T


def view_cs(cosines: Array, azimuth_deg: Array) -> float:
    """View-CS (after SEGS, 2024): mean cosine of each view with the prompt under the words for its own side.

    Args:
        cosines: of :func:`view_cosines`.
    """
    return float(cosines[np.arange(len(cosines)), view_words(azimuth_deg)].mean())


def view_probabilities(cosines: Array, scale: float = SCALE) -> Array:
    """``[A, 3]``: the softmax of ``scale`` times the cosines of :func:`view_cosines`."""
    logits = scale * np.asarray(cosines, np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def view_entropy(probabilities: Array) -> float:
    """Entropy of the mean view probability over a turn, in units of that of a sound turn.

    A sound turn shows the front for a quarter, the back for a quarter and a side for half of it: 1.04 nats, which is 1
    here. An object that shows one face to all sides has 0.

    Args:
        probabilities: ``[A, 3]`` of any classifier of front, side and back, over an even turn.

    Raises:
        ConfigError: rows that are no probabilities.
    """
    rows = np.asarray(probabilities, np.float64)
    if rows.ndim != 2 or rows.shape[1] != len(VIEW_WORDS) or (rows < 0).any() or (np.abs(rows.sum(1) - 1) > 1e-4).any():
        raise ConfigError("These are no probabilities of three views", received=rows.shape, fix="Apply a softmax.")
    mean = rows.mean(axis=0)
    sound = np.array([0.25, 0.5, 0.25])
    return float(-(mean * np.log(mean.clip(1e-12))).sum() / -(sound * np.log(sound)).sum())
