"""Numbers over clips: means with standard errors, confidence intervals, the bootstrap, and their form in JSON.

References:
    What Teachers Should Know about the Bootstrap (Hesterberg, 2015), section 5.3, https://arxiv.org/abs/1411.5279
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, NamedTuple

import numpy as np

from wavedistill.text import mean_and_error

Values = dict[str, list[dict[str, float]]]
"""system -> metrics of each clip"""


class Statistic(NamedTuple):
    """A mean, its standard error (NaN for one clip) and the number of clips."""

    mean: float
    standard_error: float
    n: int

    def __str__(self) -> str:
        return mean_and_error(self.mean, self.standard_error)


Rows = dict[str, dict[str, Statistic]]
"""system -> metric -> mean over clips"""


class Interval(NamedTuple):
    """Bounds; NaN where there are too few clips for any."""

    low: float
    high: float


def weighted(values: Sequence[float], weights: Sequence[float]) -> Statistic:
    """Weighted mean over clips and the standard error of that ratio; values that are NaN are left out."""
    pairs = [(v, w) for v, w in zip(values, weights, strict=True) if not math.isnan(v)]
    if not pairs:
        return Statistic(math.nan, math.nan, 0)
    total = sum(w for _, w in pairs)
    n = len(pairs)
    mean = sum(v * w for v, w in pairs) / total
    if n == 1:
        return Statistic(mean, math.nan, 1)
    spread = sum((w * (v - mean)) ** 2 for v, w in pairs)
    return Statistic(mean, math.sqrt(spread * n / (n - 1)) / total, n)


def clip_weights(metric: str, values: Sequence[Mapping[str, float]]) -> list[float]:
    """Weights of the clips in a metric's mean: words for word errors, equal for all others."""
    return [v.get("words", 0.0) if metric == "word_error_percent" else 1.0 for v in values]


def means(values: Values, members: Sequence[int] | None = None) -> Rows:
    """Each system's means over the clips, or over those with the indices ``members``."""
    rows: Rows = {}
    for system, each in values.items():
        chosen = each if members is None else [each[i] for i in members]
        metrics = dict.fromkeys(metric for one in chosen for metric in one if metric != "words")
        rows[system] = {m: weighted([v.get(m, math.nan) for v in chosen], clip_weights(m, chosen)) for m in metrics}
    return rows


def confidence_interval(value: Statistic, confidence: float = 0.95) -> Interval:
    """Student's interval of a mean: mean ± t_{n-1} standard errors; NaN for one clip."""
    from scipy.special import stdtrit

    if value.n < 2:
        return Interval(math.nan, math.nan)
    half = float(stdtrit(value.n - 1, (1 + confidence) / 2)) * value.standard_error
    return Interval(value.mean - half, value.mean + half)


def bootstrap_interval(
    values: np.ndarray, weights: np.ndarray, *, confidence: float = 0.95, draws: int = 2000, seed: int = 0
) -> Interval:
    """Interval of a weighted mean of at least two values, drawn with replacement ``draws`` times.

    The percentile interval is too narrow for few values, so its quantiles lie further out: at level
    Phi(-sqrt(n / (n - 1)) t_{n-1}) instead of (1 - confidence) / 2 (Hesterberg's expanded percentile interval).

    Shapes: values (n,), weights (n,).
    """
    from scipy.special import ndtr, stdtrit

    n = len(values)
    times = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws)  # how often each value is drawn
    drawn = (times @ (values * weights)) / (times @ weights)
    tail = float(ndtr(math.sqrt(n / (n - 1)) * stdtrit(n - 1, (1 - confidence) / 2)))
    low, high = (float(x) for x in np.quantile(drawn, [tail, 1 - tail]))
    return Interval(low, high)


def plain(value: Any) -> Any:
    """For JSON: a `Statistic` as {mean, standard_error, n, interval}, records as dictionaries, no NaN or infinity."""
    if is_dataclass(value):
        return plain(vars(value))
    if isinstance(value, Statistic):
        return plain(value._asdict() | {"interval": [*confidence_interval(value)]})
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
