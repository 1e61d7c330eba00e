"""Near-duplicates: assets whose views a model cannot tell apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.errors import ConfigError

__all__ = ["near_duplicates"]

_BLOCK = 2048
_EXACT_ROWS = 50_000
_TABLES, _BITS = 12, 14


def near_duplicates(
    views: NDArray[np.floating], threshold: float = 0.995, *, exact_rows: int = _EXACT_ROWS
) -> list[tuple[int, int]]:
    """Rows that repeat an earlier row.

    A row is compared with the rows that are kept, in their order, so the outcome is the same on every run and
    chains of similar assets do not swallow each other. Up to ``exact_rows`` rows all pairs are compared; beyond,
    only pairs that share one of twelve random-hyperplane codes of 14 bits, which can miss some.

    Args:
        views: ``[R, D]`` embeddings (the mean over the views), or ``[R, V, D]``, of which the mean is taken.
            They need not be normalised; a zero or non-finite row is nobody's duplicate.
        threshold: cosine from which two assets count as the same.

    Returns:
        ``(row, kept row)`` with ``kept row < row``, in the order of rows.

    Raises:
        ConfigError: another shape, or a threshold outside (0, 1].
    """
    if views.ndim not in (2, 3) or not 0.0 < threshold <= 1.0:
        raise ConfigError(
            "near-duplicates need embeddings [R, D] or [R, V, D] and a threshold in (0, 1]",
            received=(views.shape, threshold),
            fix="Pass the view embeddings of an index",
        )
    rows = _unit(views)
    if len(rows) == 0:
        return []
    return _all_pairs(rows, threshold) if len(rows) <= exact_rows else _hashed_pairs(rows, threshold)


def _unit(views: NDArray[np.floating]) -> NDArray[np.float32]:
    means = np.zeros((views.shape[0], views.shape[-1]), np.float32)
    for start in range(0, len(views), _BLOCK):
        block = views[start : start + _BLOCK].astype(np.float32)
        means[start : start + _BLOCK] = block.mean(axis=1) if block.ndim == 3 else block
    means[~np.isfinite(means).all(axis=1)] = 0.0
    norms = np.linalg.norm(means, axis=1, keepdims=True)
    return np.divide(means, norms, out=np.zeros_like(means), where=norms > 0.0)


def _all_pairs(rows: NDArray[np.float32], threshold: float) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    kept = np.ones(len(rows), np.bool_)
    for start in range(0, len(rows), _BLOCK):
        stop = min(start + _BLOCK, len(rows))
        candidates: dict[int, list[int]] = {}
        for first in range(0, stop, _BLOCK):
            last = min(first + _BLOCK, stop)
            for row, column in np.argwhere(rows[start:stop] @ rows[first:last].T >= threshold):
                if first + column < start + row:
                    candidates.setdefault(start + int(row), []).append(first + int(column))
        for row in sorted(candidates):
            match = next((column for column in candidates[row] if kept[column]), None)
            if match is not None:
                kept[row] = False
                found.append((row, match))
    return found


def _hashed_pairs(rows: NDArray[np.float32], threshold: float) -> list[tuple[int, int]]:
    rng = np.random.default_rng(0)
    # Embeddings of one model share a direction; without their mean the codes spread over all values.
    centred = rows - rows.mean(axis=0)
    codes = np.zeros((_TABLES, len(rows)), np.int64)
    for table in range(_TABLES):
        planes = rng.standard_normal((rows.shape[1], _BITS)).astype(np.float32)
        codes[table] = (centred @ planes > 0.0) @ (1 << np.arange(_BITS))
    buckets: list[dict[int, list[int]]] = [{} for _ in range(_TABLES)]
    found: list[tuple[int, int]] = []
    for row in range(len(rows)):
        lists = [buckets[table].setdefault(int(codes[table, row]), []) for table in range(_TABLES)]
        candidates = np.array(sorted(set().union(*lists)), np.int64)
        near = candidates[rows[candidates] @ rows[row] >= threshold] if len(candidates) else candidates
        if len(near):
            found.append((row, int(near[0])))
        else:
            for members in lists:
                members.append(row)
    return found
