"""Means of metrics with 95 % intervals, and differences of two methods on the same prompts and seeds.

Runs of one prompt resemble each other, so the bootstrap draws prompts with all their seeds, and the same prompts for
every method (a paired cluster bootstrap): differences are of the same draws. An interval of a share that never varies
would collapse to a point; shares also carry Wilson's interval, which does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["differences", "summaries", "wilson"]

DRAWS, SEED, LEVEL = 10_000, 0, 0.95
Values = Mapping[tuple[str, int], float]


def wilson(successes: int, count: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson, 1927)."""
    if not count:
        return 0.0, 1.0
    z, share = 1.96, successes / count
    middle, half = share + z * z / (2 * count), z * math.sqrt(share * (1 - share) / count + z * z / (4 * count**2))
    below, above = (middle - half) / (1 + z * z / count), (middle + half) / (1 + z * z / count)
    return max(below, 0.0), min(above, 1.0)  # rounding alone leaves [0, 1]


def summaries(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """``{method: {metric: {"mean", "lo", "hi", "n"}}}`` of finished rows; shares also have ``count`` and ``wilson``.

    Args:
        rows: as :func:`~threestudio_redream.evaluation.bench.runs.run_cell` leaves them; failed ones count nowhere.
    """
    tables = _by_method(rows)
    prompts = _prompts(tables)
    return {
        method: {metric: _summary(values, prompts) for metric, values in sorted(metrics.items())}
        for method, metrics in tables.items()
    }


def differences(rows: Iterable[Mapping[str, Any]], base: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Every method minus ``base`` on the prompts and seeds that both have, in the form of :func:`summaries`."""
    tables = _by_method(rows)
    prompts, against = _prompts(tables), tables.get(base, {})
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for method, metrics in tables.items():
        if method == base:
            continue
        paired = {
            metric: {key: value - against[metric][key] for key, value in values.items() if key in against[metric]}
            for metric, values in sorted(metrics.items())
            if metric in against
        }
        found[method] = {metric: _summary(values, prompts, share=False) for metric, values in paired.items() if values}
    return found


def _by_method(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, dict[tuple[str, int], float]]]:
    tables: dict[str, dict[str, dict[tuple[str, int], float]]] = {}
    for row in rows:
        if row.get("status") != "ok":
            continue
        for metric, value in row["metrics"].items():
            if math.isfinite(value):
                tables.setdefault(row["method"], {}).setdefault(metric, {})[row["prompt"], row["seed"]] = value
    return tables


def _prompts(tables: Mapping[str, Mapping[str, Values]]) -> list[str]:
    return sorted({prompt for metrics in tables.values() for values in metrics.values() for prompt, _ in values})


def _summary(values: Values, prompts: Sequence[str], share: bool | None = None) -> dict[str, Any]:
    sums, counts = np.zeros(len(prompts)), np.zeros(len(prompts))
    for (prompt, _), value in sorted(values.items()):  # sums do not depend on the order of the rows
        sums[prompts.index(prompt)] += value
        counts[prompts.index(prompt)] += 1
    lo, hi = _interval(sums, counts)
    total = int(counts.sum())
    found: dict[str, Any] = {"mean": float(sums.sum() / total), "lo": lo, "hi": hi, "n": total}
    if share if share is not None else all(value in (0.0, 1.0) for value in values.values()):
        found |= {"count": round(float(sums.sum())), "wilson": list(wilson(round(float(sums.sum())), total))}
    return found


def _interval(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> tuple[float, float]:
    """Percentiles of the mean over draws of prompts. The draws depend on nothing but the number of prompts."""
    weights = np.random.default_rng(SEED).multinomial(len(sums), np.full(len(sums), 1.0 / len(sums)), size=DRAWS)
    drawn = weights @ counts
    means = (weights @ sums)[drawn > 0] / drawn[drawn > 0]
    lo, hi = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(lo), float(hi)
