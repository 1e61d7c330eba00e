"""Find the density at which the surface of a field matches its silhouettes.

There is no threshold that suits every field: densities scale with training. So thresholds are swept, each
mesh is compared with what the field looks like from outside, and the table is kept for the report.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from threestudio_redream.errors import ConfigError, EmptySceneError
from threestudio_redream.meshing.types import FloatArray

__all__ = ["ThresholdSearch", "choose_threshold", "density_candidates"]

Candidate = TypeVar("Candidate")
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


@dataclass(frozen=True)
class ThresholdSearch:
    """The outcome of a sweep.

    Attributes:
        threshold: the best one; the middle one of several that tie.
        iou: its silhouette IoU.
        table: ``(threshold, iou)`` of everything tried, by rising threshold; iou 0 where nothing was left.
    """

    threshold: float
    iou: float
    table: tuple[tuple[float, float], ...]


def choose_threshold(
    candidates: Sequence[float],
    mesh_at: Callable[[float], Candidate],
    silhouette_iou: Callable[[Candidate], float],
    *,
    refine: int = 4,
) -> ThresholdSearch:
    """Sweep ``candidates``, then narrow down around the best one by golden-section search.

    The search runs on the logarithm if all candidates are positive. It is deterministic, and keeps the
    best of everything tried, so refining never makes the result worse.

    Args:
        mesh_at: the mesh at a threshold (or whatever ``silhouette_iou`` takes); may raise
            EmptySceneError, which counts as IoU 0.
        silhouette_iou: mesh -> [0, 1].
        refine: rounds of narrowing between the neighbours of the best candidate; they cost ``refine + 1`` meshes.

    Raises:
        ConfigError: no candidates, or a non-finite one. EmptySceneError: every candidate gave IoU 0.
    """
    ordered = sorted({float(value) for value in candidates})
    if not ordered or not all(math.isfinite(value) for value in ordered):
        raise ConfigError(
            "A threshold sweep needs at least one finite candidate", received=list(candidates), fix="Pass numbers."
        )
    scores: dict[float, float] = {}

    def score(threshold: float) -> float:
        if threshold not in scores:
            try:
                scores[threshold] = float(silhouette_iou(mesh_at(threshold)))
            except EmptySceneError:
                scores[threshold] = 0.0
        return scores[threshold]

    for value in ordered:
        score(value)
    start = _best(scores)
    if scores[start] > 0.0 and refine > 0 and len(ordered) > 1:
        place = ordered.index(start)
        bounds = ordered[max(place - 1, 0)], ordered[min(place + 1, len(ordered) - 1)]
        if ordered[0] > 0.0:
            _golden(lambda x: score(math.exp(x)), math.log(bounds[0]), math.log(bounds[1]), refine)
        else:
            _golden(score, bounds[0], bounds[1], refine)
    best = _best(scores)
    table = tuple(sorted(scores.items()))
    if scores[best] <= 0.0:
        raise EmptySceneError(
            "No threshold gives a mesh that covers any of the silhouettes",
            received=table,
            fix="Check that the field holds an object inside the box, or pass a threshold yourself.",
        )
    return ThresholdSearch(best, scores[best], table)


def _best(scores: dict[float, float]) -> float:
    top = max(scores.values())
    tied = sorted(threshold for threshold, value in scores.items() if value == top)
    return tied[len(tied) // 2]


def _golden(score: Callable[[float], float], low: float, high: float, rounds: int) -> None:
    """Golden-section search for a maximum; ``score`` remembers what it saw, so a round costs one new mesh."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    for _ in range(rounds):
        if score(left) >= score(right):
            high, right = right, left
            left = high - _GOLDEN * (high - low)
        else:
            low, left = left, right
            right = low + _GOLDEN * (high - low)


def density_candidates(level: FloatArray, bbox: ArrayLike, cell: float, count: int = 9) -> list[float]:
    """Thresholds worth trying for a density in inverse world units, evenly spaced in the logarithm.

    The lowest is the density at which a ray through the whole box is half absorbed (``ln 2 / diagonal``):
    nothing thinner can be seen. The highest absorbs all but ``exp(-10)`` within one ``cell``, or is 0.9 of
    the largest density.

    Raises:
        EmptySceneError: no density reaches the lowest one.
    """
    box = np.asarray(bbox, np.float64)
    low = math.log(2.0) / float(np.linalg.norm(box[1] - box[0]))
    high = min(0.9 * float(level.max()), 10.0 / cell)
    if high <= low:
        raise EmptySceneError(
            "The field is transparent everywhere",
            received={"max density": float(level.max()), "visible from": low},
            fix="Train for longer, or check that the object lies in the box.",
        )
    return [float(value) for value in np.geomspace(low, high, count)]
