"""Paired differences: their intervals cover, their signs follow the metric, and nothing is claimed without evidence."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wavedistill.errors import WavedistillError
from wavedistill.evaluation.comparison import FEWEST_CLIPS, compare, paired_difference


@pytest.mark.parametrize("n", [8, 40])
@pytest.mark.parametrize("skewed", [False, True])
def test_intervals_cover_the_true_difference(n, skewed):
    """About 95 of 100 intervals hold the truth; the bounds are four standard errors of 400 trials; skew costs some."""
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(400):
        clip = rng.normal(0, 3, n)  # how hard the clip is: common to both systems, so it must not count
        noise = rng.exponential(1.0, n) if skewed else rng.normal(1.0, 1.0, n)
        found = paired_difference(clip + noise, clip, higher_is_better=True, draws=400, seed=trial)
        covered += found.low <= 1.0 <= found.high
    assert (0.86 if skewed else 0.905) <= covered / 400 <= 0.995


def test_no_difference_is_rarely_called_one():
    rng = np.random.default_rng(1)
    verdicts = [
        paired_difference(rng.normal(size=20), rng.normal(size=20), higher_is_better=True, draws=400).verdict
        for _ in range(300)
    ]
    assert verdicts.count("indistinguishable") >= 0.9 * 300


def test_verdict_follows_the_metrics_direction_and_the_order_of_the_systems():
    rng = np.random.default_rng(2)
    a = rng.normal(size=30)
    b = a + 1 + 0.1 * rng.normal(size=30)
    assert paired_difference(a, b, higher_is_better=True).verdict == "worse"
    assert paired_difference(a, b, higher_is_better=False).verdict == "better"
    one = paired_difference(a, b, higher_is_better=True)
    other = paired_difference(b, a, higher_is_better=True)
    assert other.verdict == "better" and other.n == 30
    assert (other.mean, other.low, other.high) == pytest.approx((-one.mean, -one.high, -one.low))


def test_equal_systems_are_indistinguishable():
    a = np.random.default_rng(3).normal(size=10)
    assert paired_difference(a, a, higher_is_better=True) == (0.0, 0.0, 0.0, 10, "indistinguishable")


def test_few_clips_get_no_verdict_and_clips_without_value_are_left_out():
    n = FEWEST_CLIPS
    a = np.arange(n) + 10.0
    b = np.arange(n) * 1.0
    assert paired_difference(a, b, higher_is_better=True).verdict == "better"
    few = paired_difference(a[1:], b[1:], higher_is_better=True)
    assert few.verdict == "too few clips" and few.mean == 10 and math.isnan(few.low)
    holes = paired_difference([*a, math.nan, 5.0], [*b, 1.0, math.nan], higher_is_better=True)
    assert holes == paired_difference(a, b, higher_is_better=True)
    assert paired_difference([], [], higher_is_better=True).n == 0


def test_weights_make_the_ratio_of_totals():
    rng = np.random.default_rng(4)
    words = rng.integers(1, 30, 50)
    first = rng.binomial(words, 0.3)
    second = rng.binomial(words, 0.1)
    found = paired_difference(100 * first / words, 100 * second / words, higher_is_better=False, weights=words)
    assert found.mean == pytest.approx(100 * (first.sum() - second.sum()) / words.sum())
    assert found.verdict == "worse" and found.low < found.mean < found.high


def test_more_confidence_is_a_wider_interval_and_the_seed_decides():
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(2, 25))
    narrow, wide = (paired_difference(a, b, higher_is_better=True, confidence=c) for c in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high
    again = [paired_difference(a, b, higher_is_better=True, seed=seed) for seed in (1, 1, 2)]
    assert again[0] == again[1] != again[2]


def test_wrong_input():
    with pytest.raises(WavedistillError, match="same clips"):
        paired_difference([1, 2], [1, 2, 3], higher_is_better=True)
    with pytest.raises(WavedistillError, match="between 0 and 1, given 95"):
        paired_difference([1, 2], [1, 2], higher_is_better=True, confidence=95)


def test_compare_takes_metrics_with_a_direction_that_both_have():
    values = {
        "a": [{"pesq_wb": 3.0 + 0.1 * i, "mcd": 2.0, "level_db": 0.0, "real_time": 9.0} for i in range(8)],
        "b": [{"pesq_wb": 2.0 + 0.1 * i, "real_time": 1.0} for i in range(8)],
    }
    (one,) = compare(values, [("a", "b")], "all clips")
    assert (one.a, one.b, one.metric, one.clips, one.difference.verdict) == ("a", "b", "pesq_wb", "all clips", "better")
    assert compare(values, [], "all clips") == []
