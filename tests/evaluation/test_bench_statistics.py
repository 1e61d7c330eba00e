"""Intervals of a sweep, against scipy and against a loop that was written without them."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest, norm, t

from threestudio_redream.evaluation.bench import statistics
from threestudio_redream.evaluation.bench.statistics import differences, newcombe, summaries, wilson

HIT = "judge/hit"


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
            made.append(row("prolificdreamer", f"p{i}", seed, clip=value, **{HIT: float(value > 0)}))
            made.append(row("redream", f"p{i}", seed, clip=value + 0.1, **{HIT: 1.0}))
    return made


@pytest.mark.parametrize(("hits", "count"), [(0, 36), (1, 5), (18, 36), (36, 36)])
def test_wilson_is_scipys(hits, count):
    expected = binomtest(hits, count).proportion_ci(0.95, "wilson")
    assert wilson(hits / count, count) == pytest.approx((expected.low, expected.high), abs=1e-4)


def test_wilson_stays_a_share():
    bounds = [wilson(share, count) for count in range(1, 80) for share in (0.0, 1.0)]
    assert all(0.0 <= low <= high <= 1.0 for low, high in bounds)


def test_wilson_of_nothing_says_nothing():
    assert wilson(0.0, 0) == (0.0, 1.0)


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
    level = norm.cdf(-math.sqrt(5 / 4) * t.ppf(0.975, 4))
    np.testing.assert_allclose([found["lo"], found["hi"]], np.quantile(drawn, [level, 1.0 - level]), atol=0.05)
    assert found["prompts"] == 5


@pytest.mark.parametrize("prompts", [6, 12])
def test_intervals_hold_the_truth_as_often_as_they_say(prompts):
    """Means of few prompts, 400 times: a plain percentile interval holds the truth in 86 to 90 %."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        found = summaries(row("redream", f"p{i}", 0, clip=value) for i, value in enumerate(rng.normal(size=prompts)))
        held += found["redream"]["clip"]["lo"] <= 0.0 <= found["redream"]["clip"]["hi"]
    assert 0.91 <= held / 400 <= 0.97


def test_intervals_of_shares_hold_the_truth_where_seeds_agree():
    """Twelve prompts, each always or never Janus: as runs of 36, Wilson's interval would hold it in 66 %."""
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(300):
        janus = rng.random(12) < 0.5
        found = summaries(row("redream", f"p{i}", s, **{HIT: float(v)}) for i, v in enumerate(janus) for s in range(3))
        low, high = found["redream"][HIT]["wilson"]
        held += low <= 0.5 <= high
    assert held / 300 >= 0.92


def test_methods_do_not_change_each_others_intervals(rows):
    """Prompts that a method has no runs of are not drawn for it."""
    alone = [r for r in rows if r["method"] == "redream"]
    others = [row("prolificdreamer", f"q{i}", 0, clip=float(i)) for i in range(20)]
    assert summaries([*alone, *others])["redream"] == summaries(alone)["redream"]


def test_one_prompt_has_no_interval(rows):
    found = summaries(r for r in rows if r["prompt"] == "p0")["redream"]
    assert (found["clip"]["lo"], found["clip"]["hi"], found["clip"]["n"]) == (None, None, 3)
    assert found[HIT]["wilson"] == pytest.approx(wilson(1.0, 1))


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
    hit = table["redream"][HIT]
    assert (hit["count"], hit["n"], hit["mean"]) == (15, 15, 1.0)
    expected = binomtest(5, 5).proportion_ci(0.95, "wilson").low
    assert hit["wilson"][0] == pytest.approx(expected, abs=1e-4), "five prompts, not fifteen runs"
    assert (hit["lo"], hit["hi"]) == (1.0, 1.0)
    assert "count" not in table["redream"]["clip"]
    difference = differences(rows, "prolificdreamer")["redream"][HIT]
    assert "count" not in difference
    low, high = difference["newcombe"]
    assert -1.0 <= low < difference["mean"] < high <= 1.0


def test_newcombe_is_that_of_the_paper():
    """His method 10 (1998): both in 36 pairs, one in 12, the other in 2, neither in none."""
    first = np.array([1.0] * 36 + [1.0] * 12 + [0.0] * 2)
    second = np.array([1.0] * 36 + [0.0] * 12 + [1.0] * 2)
    low, high = newcombe(first, second)
    assert (low, high) == pytest.approx((0.0569, 0.3404), abs=1e-4)
    turned = newcombe(second, first)
    assert turned == pytest.approx((-high, -low))


def test_differences_of_one_sign_may_cross_zero():
    """One prompt of six is better: no evidence, where a bootstrap can only end at 0."""
    rows = [
        row(method, f"p{i}", seed, **{HIT: float(i == 0 and method == "redream")})
        for i in range(6)
        for seed in range(3)
        for method in ("prolificdreamer", "redream")
    ]
    found = differences(rows, "prolificdreamer")["redream"][HIT]
    assert found["lo"] == 0.0
    assert found["newcombe"][0] < -0.1


def test_likeness_to_different_assets_has_no_difference():
    rows = [
        {**row(method, f"p{i}", 0, **{"asset/silhouette_iou": 0.1 * i, "clip": 0.5}), "asset": asset}
        for i in range(3)
        for method, asset in (
            ("prolificdreamer", f"a{i}"),
            ("redream", f"a{i}"),
            ("random-asset", f"b{i}" if i else "a0"),
        )
    ]
    found = differences(rows, "prolificdreamer")
    assert set(found["redream"]) == {"asset/silhouette_iou", "clip"}
    assert set(found["random-asset"]) == {"clip"}


def test_a_rank_that_is_1_everywhere_is_no_share(rows):
    found = summaries([*rows, *(row("redream", f"p{i}", 0, r_precision=1.0) for i in range(3))])
    assert "wilson" not in found["redream"]["r_precision"]


def test_failed_runs_and_missing_metrics_count_nowhere(rows):
    more = [*rows, row("redream", "p0", 5, status="failed"), row("redream", "p9", 0, other=1.0, clip=math.nan)]
    assert summaries(more)["redream"]["clip"]["n"] == 15
    assert summaries(more)["redream"]["other"]["n"] == 1
    assert summaries([]) == {}


def test_intervals_do_not_depend_on_the_order(rows):
    assert summaries(rows) == summaries(rows[::-1])
    assert statistics.LEVEL == 0.95
