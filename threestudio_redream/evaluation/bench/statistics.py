"""Means of metrics with 95 % intervals, and differences of two methods on the same prompts and seeds.

Runs of one prompt resemble each other, so prompts are what is counted, not runs. The bootstrap draws prompts with all
their seeds, the same draws for every method that has as many (a paired cluster bootstrap): a difference is of the same
prompts. A plain percentile interval of six to twelve draws is too narrow (it holds the truth in 86 to 90 % of normal
samples); its levels are moved outwards as far as Student's t is wider than the normal law (the expanded percentile
interval; Hesterberg, "What Teachers Should Know About the Bootstrap", 2015), which makes it 93 %.

A bootstrap of shares collapses where they never vary, and cannot cross 0 where all differences have one sign. So shares
also carry Wilson's interval, and differences of shares Newcombe's of two Wilson's for paired samples (1998, without his
correction of the correlation). Their sample size is the number of prompts: seeds of one prompt may agree by necessity,
and are not counted as evidence of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = ["differences", "newcombe", "summaries", "wilson"]

DRAWS, SEED, LEVEL = 10_000, 0, 0.95
Values = Mapping[tuple[str, int], float]


def wilson(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share in [0, 1] of ``count`` independent trials (Wilson, 1927)."""
    if not count:
        return 0.0, 1.0
    z = 1.96
    middle, half = share + z * z / (2 * count), z * math.sqrt(share * (1 - share) / count + z * z / (4 * count**2))
    below, above = (middle - half) / (1 + z * z / count), (middle + half) / (1 + z * z / count)
    return max(below, 0.0), min(above, 1.0)  # rounding alone leaves [0, 1]


def summaries(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """``{method: {metric: {"mean", "lo", "hi", "n", "prompts"}}}`` of finished rows.

    Verdicts of the judge also have ``count`` and ``wilson``. ``lo`` and ``hi`` are None where all runs are of one
    prompt: that says nothing about others.

    Args:
        rows: as :func:`~threestudio_redream.evaluation.bench.runs.run_cell` leaves them; failed ones count nowhere.
    """
    return {
        method: {
            metric: _summary(values, _is_share(metric, values.values())) for metric, values in sorted(metrics.items())
        }
        for method, metrics in _by_method(rows).items()
    }


def newcombe(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of the difference of two paired mean shares ``[prompts]`` in [0, 1] (Newcombe, 1998)."""
    count = len(first)
    one, other = float(first.mean()), float(second.mean())
    (low_1, high_1), (low_2, high_2) = wilson(one, count), wilson(other, count)
    spread = float(first.std() * second.std())
    related = float(((first - one) * (second - other)).mean()) / spread if spread > 0.0 else 0.0

    def reach(mine: float, others: float) -> float:
        return math.sqrt(max(mine**2 - 2.0 * related * mine * others + others**2, 0.0))

    low = one - other - reach(one - low_1, high_2 - other)
    return max(low, -1.0), min(one - other + reach(high_1 - one, other - low_2), 1.0)


def differences(rows: Iterable[Mapping[str, Any]], base: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Every method minus ``base`` on the prompts and seeds that both have, in the form of :func:`summaries`.

    What compares a run with its asset (``asset/...``) is left out where the two methods were given different ones.
    Differences of shares also have ``newcombe``.
    """
    rows = list(rows)
    tables = _by_method(rows)
    assets = {(row["method"], row["prompt"], row["seed"]): row.get("asset") for row in rows}
    against = tables.get(base, {})

    def same_asset(method: str, key: tuple[str, int]) -> bool:
        return assets.get((method, *key)) == assets.get((base, *key))

    found: dict[str, dict[str, dict[str, Any]]] = {}
    for method, metrics in tables.items():
        if method == base:
            continue
        paired = {
            metric: {key: (value, against[metric][key]) for key, value in values.items() if key in against[metric]}
            for metric, values in sorted(metrics.items())
            if metric in against
        }
        paired = {
            metric: pairs
            for metric, pairs in paired.items()
            if not metric.startswith("asset/") or all(same_asset(method, key) for key in pairs)
        }
        found[method] = {metric: _difference(metric, pairs) for metric, pairs in paired.items() if pairs}
    return found


def _is_share(metric: str, values: Iterable[float]) -> bool:
    """Verdicts of the judge are yes or no; a rank or a likeness may happen to be 1 in all runs."""
    return metric.startswith("judge/") and all(value in (0.0, 1.0) for value in values)


def _difference(metric: str, pairs: Mapping[tuple[str, int], tuple[float, float]]) -> dict[str, Any]:
    found = _summary({key: one - other for key, (one, other) in pairs.items()}, share=False)
    if _is_share(metric, (value for pair in pairs.values() for value in pair)):
        by_prompt = {prompt: [pair for key, pair in sorted(pairs.items()) if key[0] == prompt] for prompt, _ in pairs}
        means = np.array([np.mean(by_prompt[prompt], axis=0) for prompt in sorted(by_prompt)])
        found["newcombe"] = list(newcombe(means[:, 0], means[:, 1]))
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


def _summary(values: Values, share: bool) -> dict[str, Any]:
    prompts = sorted({prompt for prompt, _ in values})
    sums, counts = np.zeros(len(prompts)), np.zeros(len(prompts))
    for (prompt, _), value in sorted(values.items()):  # sums do not depend on the order of the rows
        sums[prompts.index(prompt)] += value
        counts[prompts.index(prompt)] += 1
    lo, hi = _interval(sums, counts)
    mean = float(sums.sum() / counts.sum())
    found: dict[str, Any] = {"mean": mean, "lo": lo, "hi": hi, "n": int(counts.sum()), "prompts": len(prompts)}
    if share:
        found |= {"count": round(float(sums.sum())), "wilson": list(wilson(mean, len(prompts)))}
    return found


def _interval(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> tuple[float, float] | tuple[None, None]:
    """Expanded percentiles of the mean over draws of prompts. The draws depend on nothing but the number of prompts."""
    prompts = len(sums)
    if prompts < 2:
        return None, None
    weights = np.random.default_rng(SEED).multinomial(prompts, np.full(prompts, 1.0 / prompts), size=DRAWS)
    means = (weights @ sums) / (weights @ counts)
    wider = math.sqrt(prompts / (prompts - 1)) * stats.t.ppf((1 + LEVEL) / 2, prompts - 1)
    below = float(stats.norm.cdf(-wider))
    lo, hi = np.quantile(means, [below, 1.0 - below])
    return float(lo), float(hi)
