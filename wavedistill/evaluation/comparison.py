"""Which of two systems is better on the same clips: paired differences with bootstrap confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from wavedistill.errors import WavedistillError
from wavedistill.evaluation.statistics import bootstrap_interval, clip_weights
from wavedistill.metrics.registry import COLUMNS

Verdict = Literal["better", "worse", "indistinguishable", "too few clips"]
FEWEST_CLIPS = 6
"""Below this many clips no system is called better or worse."""


class Difference(NamedTuple):
    """Mean of a − b over ``n`` clips, its confidence interval from ``low`` to ``high``, and the verdict on a."""

    mean: float
    low: float
    high: float
    n: int
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """The difference of systems ``a`` and ``b`` in one metric, on "all clips" or on the teachers' "excerpts"."""

    a: str
    b: str
    clips: str
    metric: str
    difference: Difference


def paired_difference(
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    *,
    higher_is_better: bool,
    weights: Sequence[float] | np.ndarray | None = None,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Difference:
    """Whether system a is better than system b on the same clips, by the bootstrap interval of their differences.

    Args:
        a: a's metric, clip by clip; clips where either is NaN are left out.
        b: b's, on the same clips.
        higher_is_better: the metric's direction.
        weights: of the clips in the mean, sum(w (a - b)) / sum(w), for example words for a share of word errors; None:
            all equal.
        confidence: of the interval, between 0 and 1.
        draws: of the bootstrap.
        seed: of the draws.

    Returns:
        `Difference`: "better" or "worse" where the interval lies wholly on one side of zero, "too few clips" below 6.

    Raises:
        WavedistillError: the lengths differ, or confidence is no probability.

    Example:
        >>> paired_difference([3, 4, 3, 4, 3, 4], [2, 3, 2, 3, 2, 3], higher_is_better=True)
        Difference(mean=1.0, low=1.0, high=1.0, n=6, verdict='better')
    """
    a = np.asarray(a, np.float64)
    b = np.asarray(b, np.float64)
    weights = np.ones(a.shape) if weights is None else np.asarray(weights, np.float64)
    if not (a.ndim == 1 and a.shape == b.shape == weights.shape):
        raise WavedistillError(
            f"the metric of both systems and the weights must be of the same clips: given {a.shape}, {b.shape} "
            f"and {weights.shape} values."
        )
    if not 0 < confidence < 1:
        raise WavedistillError(f"confidence is a probability between 0 and 1, given {confidence}.")
    known = np.isfinite(a - b) & (weights > 0)
    differences = (a - b)[known]
    weights = weights[known]
    n = len(differences)
    if n == 0:
        return Difference(math.nan, math.nan, math.nan, 0, "too few clips")
    mean = float(differences @ weights / weights.sum())
    if n < FEWEST_CLIPS:
        return Difference(mean, math.nan, math.nan, n, "too few clips")
    low, high = bootstrap_interval(differences, weights, confidence=confidence, draws=draws, seed=seed)
    if low <= 0 <= high:
        return Difference(mean, low, high, n, "indistinguishable")
    return Difference(mean, low, high, n, "better" if (low > 0) == higher_is_better else "worse")


def compare(
    values: Mapping[str, Sequence[Mapping[str, float]]], pairs: Iterable[tuple[str, str]], clips: str, seed: int = 0
) -> list[Comparison]:
    """Paired differences of each pair of systems in every metric that has a direction.

    Args:
        values: system -> metrics of each clip, all systems on the same clips.
        pairs: names (a, b).
        clips: what these clips are, for the reader.
        seed: of the bootstrap.
    """
    found = []
    for a, b in pairs:
        for metric, column in COLUMNS.items():
            both = all(any(metric in clip for clip in values[name]) for name in (a, b))
            if column.higher_is_better is None or not both:
                continue
            first, second = ([clip.get(metric, math.nan) for clip in values[name]] for name in (a, b))
            difference = paired_difference(
                first,
                second,
                higher_is_better=column.higher_is_better,
                weights=clip_weights(metric, values[a]),
                seed=seed,
            )
            if difference.n:
                found.append(Comparison(a, b, clips, metric, difference))
    return found
