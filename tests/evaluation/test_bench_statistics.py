"""Intervals of a sweep, against scipy and against a loop that was written without them."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from threestudio_redream.evaluation.bench import statistics
from threestudio_redream.evaluation.bench.statistics import differences, summaries, wilson


def row(method, prompt, seed, status="ok", **metrics):
    return {"method": method, "prompt": prompt, "seed": seed, "status": status, "metrics": metrics}


@pytest.fixture
def rows():
    """Two methods on five prompts and three seeds; the second is better by 0.1 everywhere, and prompts differ a lot."""
    rng = np.random.default_rng(7)
    levels = rng.normal(0.0, 1.0, 5)
    made = []
    for i, level in enumerate(levels):
        for seed in range(3):
            value = level + 0.01 * rng.normal()
            made.append(row("prolificdreamer", f"p{i}", seed, clip=value, hit=float(value > 0)))
            made.append(row("redream", f"p{i}", seed, clip=value + 0.1, hit=1.0))
    return made


@pytest.mark.parametrize(("hits", "count"), [(0, 36), (1, 5), (18, 36), (36, 36)])
def test_wilson_is_scipys(hits, count):
    expected = binomtest(hits, count).proportion_ci(0.95, "wilson")
    assert wilson(hits, count) == pytest.approx((expected.low, expected.high), abs=1e-4)


def test_wilson_stays_a_share():
    bounds = [wilson(hits, count) for count in range(1, 80) for hits in (0, count)]
    assert all(0.0 <= low <= high <= 1.0 for low, high in bounds)


def test_wilson_of_nothing_says_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


def test_means_and_intervals(rows):
    found = summaries(rows)["prolificdreamer"]["clip"]
    by_prompt = {}
    for r in rows:
        if r["method"] == "prolificdreamer":
            by_prompt.setdefault(r["prompt"], []).append(r["metrics"]["clip"])
    everything = [value for values in by_prompt.values() for value in values]
    assert found["mean"] == pytest.approx(np.mean(everything))
    assert found["n"] == 15
    rng = np.random.default_rng(123)
    drawn = []
    for _ in range(20_000):
        chosen = rng.choice(sorted(by_prompt), len(by_prompt))
        drawn.append(np.mean([value for prompt in chosen for value in by_prompt[prompt]]))
    np.testing.assert_allclose([found["lo"], found["hi"]], np.quantile(drawn, [0.025, 0.975]), atol=0.05)


def test_prompts_are_drawn_and_not_runs(rows):
    """Three equal seeds of a prompt are one observation: the interval does not shrink."""
    once = [r for r in rows if r["seed"] == 0]
    thrice = [{**r, "seed": seed} for r in once for seed in range(3)]
    one, three = summaries(once)["redream"]["clip"], summaries(thrice)["redream"]["clip"]
    assert (one["lo"], one["hi"]) == pytest.approx((three["lo"], three["hi"]))


def test_differences_are_paired(rows):
    found = differences(rows, "prolificdreamer")
    assert set(found) == {"redream"}
    clip = found["redream"]["clip"]
    assert clip["mean"] == pytest.approx(0.1)
    assert clip["hi"] - clip["lo"] < 1e-9, "prompts differ by far more than that, and cancel"
    alone = summaries(rows)["redream"]["clip"]
    assert alone["hi"] - alone["lo"] > 0.5


def test_only_common_runs_are_compared(rows):
    fewer = [r for r in rows if r["method"] == "redream" or r["prompt"] in ("p0", "p1")]
    fewer.append(row("redream", "p0", 9, clip=100.0))
    assert differences(fewer, "prolificdreamer")["redream"]["clip"]["n"] == 6
    assert differences(fewer, "prolificdreamer")["redream"]["clip"]["mean"] == pytest.approx(0.1)
    assert differences(fewer, "dreamfusion")["redream"] == {}


def test_shares_carry_counts(rows):
    table = summaries(rows)
    hit = table["redream"]["hit"]
    assert (hit["count"], hit["n"], hit["mean"]) == (15, 15, 1.0)
    assert hit["wilson"][0] == pytest.approx(binomtest(15, 15).proportion_ci(0.95, "wilson").low, abs=1e-4)
    assert (hit["lo"], hit["hi"]) == (1.0, 1.0)
    assert "count" not in table["redream"]["clip"]
    assert "count" not in differences(rows, "prolificdreamer")["redream"]["hit"]


def test_failed_runs_and_missing_metrics_count_nowhere(rows):
    more = [*rows, row("redream", "p0", 5, status="failed"), row("redream", "p9", 0, other=1.0, clip=math.nan)]
    assert summaries(more)["redream"]["clip"]["n"] == 15
    assert summaries(more)["redream"]["other"]["n"] == 1
    assert summaries([]) == {}


def test_intervals_do_not_depend_on_the_order(rows):
    assert summaries(rows) == summaries(rows[::-1])
    assert statistics.LEVEL == 0.95
