"""The evaluation report's tables in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from wavedistill.evaluation.comparison import Comparison
from wavedistill.evaluation.held_out import HeldOutNats
from wavedistill.evaluation.statistics import Rows, Statistic
from wavedistill.evaluation.student_likelihood import PERTURBATION
from wavedistill.metrics.registry import COLUMNS
from wavedistill.text import markdown_table

NATS = {
    "own": "−log density of its own samples",
    "entropy": "entropy",
    "cross_entropy": "−log p of them, teacher",
    "kl": "KL(student ‖ teacher)",
    "recording": "−log p of the recordings, teacher",
    "std_ratio": "std / recordings'",
    "mean_abs_ratio": "mean abs / recordings'",
}
"""Columns of the tables of nats per sample."""


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A heading and a table."""
    return f"## {title}\n\n{markdown_table(head, rows)}"


def quality_table(title: str, rows: Rows) -> str:
    """Systems down, the main metrics across, mean ± standard error."""
    titles = {name: column.title for name, column in COLUMNS.items()}
    return _statistics_table(title, "system", titles, rows)


def speaker_table(title: str, by_speaker: Mapping[str, Rows]) -> str:
    """Speakers and systems down, the main metrics across, mean ± standard error."""
    names = [name for name in COLUMNS if any(name in row for rows in by_speaker.values() for row in rows.values())]
    lines = [
        [speaker, system, *(row.get(name, "-") for name in names), max(one.n for one in row.values())]
        for speaker, rows in by_speaker.items()
        for system, row in rows.items()
    ]
    head = ["speaker", "system", *(COLUMNS[name].title for name in names), "n"]
    return f"## {title}\n\n{markdown_table(head, lines, left=2)}"


def nats_table(title: str, rows: Rows) -> str:
    """Models down, `NATS` across."""
    known = {name: head for name, head in NATS.items() if any(row[name].n for row in rows.values() if name in row)}
    return _statistics_table(title, "model", known, rows)


def bits_tables(bits: Mapping[str, Mapping[str, Mapping[str, Statistic]]]) -> list[str]:
    """One table for the models of each mel, which linear prediction from the mel therefore codes alike."""
    groups: dict[tuple[float, ...], list[str]] = {}
    for name, speakers in bits.items():
        groups.setdefault(tuple(v["linear_prediction_mel"].mean for v in speakers.values()), []).append(name)
    return [_bits_table({name: bits[name] for name in names}) for names in groups.values()]


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """Pairs of systems, metric by metric; a pair is named in its first row."""
    rows = []
    before = None
    for one in comparisons:
        pair = f"{one.a} − {one.b} ({one.clips})"
        d = one.difference
        digits = 3 if abs(d.mean) < 1 else 2
        interval = "-" if math.isnan(d.low) else f"{d.low:+.{digits}f} … {d.high:+.{digits}f}"
        cells = [COLUMNS[one.metric].title, f"{d.mean:+.{digits}f}", interval, d.verdict, d.n]
        rows.append(["" if pair == before else pair, *cells])
        before = pair
    return table("Paired differences", ["A − B", "metric", "difference", "95 % interval", "A is", "n"], rows)


def held_out_table(rows: Mapping[str, HeldOutNats]) -> str:
    """−log density of recordings, and the checks of the inverse that it took."""
    lines = []
    for name, row in rows.items():
        nats, bits, square = (_cell(value, row.clips) for value in (row.nats, row.bits, row.mean_square))
        if not row.nats.n:
            nats = "not trustworthy"
        checks = [_number(value) for value in (row.largest, row.backward_error, row.forward_error, row.sensitivity)]
        steady = _cell(row.steady_seconds, row.clips)
        lines.append([name, nats, bits, square, *checks, steady, f"{row.nats.n} of {row.clips}"])
    head = [
        "model",
        "−log density of recordings",
        "bits",
        "mean z²",
        "largest abs z",
        "backward error",
        "forward error",
        f"z moves for {PERTURBATION:.0e} of noise",
        "steady for, s",
        "trusted",
    ]
    return table("Nats per sample of recordings under the student", head, lines)


def _statistics_table(title: str, corner: str, titles: Mapping[str, str], rows: Rows) -> str:
    """Rows down, those of the ``titles`` across that any row has, and the number of clips."""
    used = [name for name in titles if any(name in row for row in rows.values())]
    lines = []
    for name, row in rows.items():
        n = max(value.n for value in row.values())
        lines.append([name, *(_cell(row.get(column), n) for column in used), n])
    return table(title, [corner, *(titles[column] for column in used), "n"], lines)


def _bits_table(bits: Mapping[str, Mapping[str, Mapping[str, Statistic]]]) -> str:
    rows = []
    for speaker, first in next(iter(bits.values())).items():
        models = [speakers[speaker]["model"] for speakers in bits.values()]
        rows.append(
            [speaker, *models, first["linear_prediction_causal"], first["linear_prediction_mel"], first["model"].n]
        )
    head = ["speaker", *bits, "linear prediction, causal", "linear prediction, from the mel", "n"]
    return table("Held-out bits per 16-bit sample", head, rows)


def _cell(value: Statistic | None, n: int) -> str:
    """The number; with its own n where the metric could not be computed for every clip."""
    if value is None or value.n == 0:
        return "-"
    return f"{value}" if value.n == n else f"{value} (n {value.n})"


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return "diverges" if math.isinf(value) else f"{value:.2g}"
