"""The evaluation report's tables in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from wavedistill.evaluation.comparison import Comparison
from wavedistill.evaluation.likelihood import Statistic
from wavedistill.evaluation.quality import COLUMNS
from wavedistill.evaluation.results_cache import Rows
from wavedistill.text import markdown_table


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A heading and a table; the first column to the left, the others to the right."""
    return f"## {title}\n\n{markdown_table(header, rows)}"


def quality_table(title: str, rows: Rows) -> str:
    """Systems down, the main metrics across, mean ± standard error."""
    used = [name for name in COLUMNS if any(name in row for row in rows.values())]
    lines = []
    for name, row in rows.items():
        n = max(value.n for value in row.values())
        lines.append([name, *(cell(row.get(column), n) for column in used), n])
    return table(title, ["system", *(COLUMNS[c].title for c in used), "n"], lines)


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
        rows.append(
            [
                pair if pair != before else "",
                COLUMNS[one.metric].title,
                f"{d.mean:+.{digits}f}",
                interval,
                d.verdict,
                d.n,
            ]
        )
        before = pair
    return table("Paired differences", ["A − B", "metric", "difference", "95 % interval", "A is", "n"], rows)


def _bits_table(bits: Mapping[str, Mapping[str, Mapping[str, Statistic]]]) -> str:
    rows = []
    for speaker, first in next(iter(bits.values())).items():
        models = [speakers[speaker]["model"] for speakers in bits.values()]
        rows.append(
            [speaker, *models, first["linear_prediction_causal"], first["linear_prediction_mel"], first["model"].n]
        )
    header = ["speaker", *bits, "linear prediction, causal", "linear prediction, from the mel", "n"]
    return table("Held-out bits per 16-bit sample", header, rows)


def cell(value: Statistic | None, n: int) -> str:
    """The number; with its own n where the metric could not be computed for every clip."""
    if value is None or value.n == 0:
        return "-"
    return f"{value}" if value.n == n else f"{value} (n {value.n})"
