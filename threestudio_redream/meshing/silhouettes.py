"""Compare the outline of a mesh with that of the field it came from."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from threestudio_redream.errors import ConfigError
from threestudio_redream.meshing.grid import checked_bbox
from threestudio_redream.meshing.types import FloatArray, Mesh

__all__ = ["MaskFn", "Silhouettes", "checked_silhouettes", "projection_scorer", "silhouette_iou"]

MaskFn: TypeAlias = Callable[[Mesh, FloatArray, float, int, int], NDArray[np.floating]]
"""``(mesh, c2w [B, 4, 4], fovy_deg, height, width) -> masks [B, H, W]`` in [0, 1]."""


class Silhouettes(NamedTuple):
    """What the field looks like from outside.

    Attributes:
        masks: ``[B, H, W]`` opacity in [0, 1], row 0 at the top.
        c2w: ``[B, 4, 4]`` camera-to-world matrices (:mod:`threestudio_redream.cameras`).
        fovy_deg: vertical field of view in degrees.
    """

    masks: NDArray[np.floating]
    c2w: NDArray[np.floating]
    fovy_deg: float


def checked_silhouettes(silhouettes: Silhouettes | tuple) -> Silhouettes:
    """The same, float32, with shapes checked; ConfigError if they do not fit."""
    masks, c2w, fovy_deg = silhouettes
    masks, c2w = np.asarray(masks, np.float32), np.asarray(c2w, np.float32)
    if masks.ndim != 3 or c2w.shape != (len(masks), 4, 4) or len(masks) == 0:
        raise ConfigError(
            "Silhouettes must be masks [B, H, W] with as many matrices [B, 4, 4]",
            received=(masks.shape, c2w.shape),
            fix="Pass one camera per mask.",
        )
    return Silhouettes(masks, c2w, float(fovy_deg))


def silhouette_iou(first: ArrayLike, second: ArrayLike) -> float:
    """Soft intersection over union of two stacks of masks in [0, 1]: sum of minima over sum of maxima.

    Taken over all views together, so views in which little is seen weigh little; 1 if both are empty.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    union = np.maximum(first, second).sum()
    return float(np.minimum(first, second).sum() / union) if union > 0.0 else 1.0


def projection_scorer(level: FloatArray, bbox: ArrayLike) -> Callable[[float], float]:
    """``threshold -> silhouette IoU`` between a density grid and its solid, seen along the three axes.

    A parallel ray counts as covered by the field where it is at least half absorbed, and by the solid
    where any node on it lies above the threshold. Needs no camera and no renderer.
    """
    box = checked_bbox(bbox)
    spacing = (box[1] - box[0]) / (np.array(level.shape) - 1)
    density = np.maximum(level, 0.0)
    depth = [density.sum(axis=axis, dtype=np.float64).ravel() * spacing[axis] for axis in range(3)]
    field = np.concatenate(depth) >= math.log(2.0)
    peak = np.concatenate([level.max(axis=axis).ravel() for axis in range(3)])
    return lambda threshold: silhouette_iou(field, peak > threshold)
