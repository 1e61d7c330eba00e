"""Does it look like a front from where the front should be? Watched during training: a doomed run shows early.

CLIP compares renders with the prompt under the words "front view", "side view" and "back view". The answers are kept
per azimuth, as running means.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from threestudio_redream.errors import ConfigError

__all__ = ["ViewScoreConfig", "ViewScores"]


@dataclass
class ViewScoreConfig:
    """What is watched, and how often.

    Attributes:
        encoder: a CLIP, named as for :func:`threestudio_redream.retrieval.encoders.open_encoder`. every: steps between
            two looks; 0 switches the watch off. bins: of azimuth; the first is centred at the front. scale: factor of
            the cosines before the softmax. memory: share of a bin's old value that a new render leaves.
    """

    encoder: str = "mini"
    every: int = 0
    bins: int = 8
    scale: float = 100.0
    memory: float = 0.8

    def __post_init__(self) -> None:
        if self.every < 0 or self.bins < 4 or not 0.0 <= self.memory < 1.0:
            raise ConfigError(
                "view_scores needs every >= 0, bins >= 4 and memory in [0, 1)",
                received=(self.every, self.bins, self.memory),
                fix="10, 8 and 0.8 are usual.",
            )


class ViewScores:
    """Running probability of "front", "side" and "back" by azimuth.

    Attributes:
        probability: ``[bins, 3]`` float64, NaN where nothing was seen yet; bin ``i`` is centred at ``360 i / bins``
            degrees.
    """

    def __init__(self, cfg: ViewScoreConfig, prompt: str) -> None:
        from threestudio_redream.retrieval.encoders import open_encoder
        from threestudio_redream.retrieval.orientation import ClipAligner

        self.cfg = cfg
        self._encoder = open_encoder(cfg.encoder)
        self._words: NDArray[np.float32] = ClipAligner(self._encoder).view_vectors([prompt])[0]
        self.probability = np.full((cfg.bins, 3), np.nan)

    def due(self, step: int) -> bool:
        """Whether this step's renders should be looked at."""
        return step % self.cfg.every == 0

    def look(self, images: Tensor, azimuth: Tensor) -> None:
        """Take renders ``[B, H, W, 3]`` in [0, 1] from azimuths ``[B]`` in degrees into the means."""
        with torch.no_grad():
            vectors = self._encoder.encode_images(images.detach().float().clamp(0.0, 1.0).cpu().numpy())
        logits = self.cfg.scale * (vectors @ self._words.T).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        now = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        which = np.round(azimuth.detach().cpu().numpy() * self.cfg.bins / 360.0).astype(int) % self.cfg.bins
        for i, row in zip(which, now):
            old = self.probability[i]
            self.probability[i] = row if np.isnan(old[0]) else self.cfg.memory * old + (1.0 - self.cfg.memory) * row

    def figures(self) -> dict[str, float]:
        """For the log: ``front_000`` ... by azimuth, and ``front_margin``.

        ``front_margin`` is the front's probability at the front less that at the back: near 1 for a sound object, near
        0 for one that looks alike from both sides, negative for one that faces away.
        """
        step = 360 // self.cfg.bins
        seen = {i: float(p) for i, p in enumerate(self.probability[:, 0]) if not np.isnan(p)}
        figures = {f"front_{i * step:03d}": p for i, p in seen.items()}
        if 0 in seen and self.cfg.bins // 2 in seen:
            figures["front_margin"] = seen[0] - seen[self.cfg.bins // 2]
        return figures
