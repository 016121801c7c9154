"""What an evaluation found: tables, JSON, a picture, and notes on how to read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wavedistill.evaluation.comparison import FEWEST_CLIPS, Comparison
from wavedistill.evaluation.held_out import HeldOutNats
from wavedistill.evaluation.picture import plot_systems
from wavedistill.evaluation.statistics import Rows, Statistic, confidence_interval, plain
from wavedistill.evaluation.student_likelihood import (
    BACKWARD_LIMIT,
    FORWARD_LIMIT,
    LATENT_LIMIT,
    SENSITIVITY_LIMIT,
)
from wavedistill.evaluation.systems import Clip
from wavedistill.evaluation.tables import (
    bits_tables,
    comparison_table,
    held_out_table,
    nats_table,
    quality_table,
    speaker_table,
)
from wavedistill.files import write_json, write_text
from wavedistill.metrics.registry import COLUMNS


@dataclass
class EvaluationReport:
    """What `evaluate` found: ``markdown`` for people, ``to_json()`` for programs.

    Means with standard errors over clips.

    Attributes:
        title: what was evaluated on what.
        quality: metrics of each system on all clips.
        excerpts: metrics of each system on the teachers' excerpts; empty without a teacher.
        comparisons: paired differences between systems, with 95 % intervals and verdicts.
        by_speaker: ``quality`` for each speaker, where there are several.
        bits: for each teacher and one-stage flow, bits per sample of each speaker's clips.
        divergences: by "student ‖ teacher", nats per sample of the student's own samples under both, and their loudness
            (`tables.NATS`).
        excerpt_divergences: the same on the teachers' excerpts, and each teacher's own samples.
        held_out: each student's density of short recordings, by its inverse, beside the Gaussian teachers'.
        notes: what a reader has to know beside the numbers.
    """

    title: str
    quality: Rows = field(default_factory=dict)
    excerpts: Rows = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)
    by_speaker: dict[str, Rows] = field(default_factory=dict)
    bits: dict[str, dict[str, dict[str, Statistic]]] = field(default_factory=dict)
    divergences: Rows = field(default_factory=dict)
    excerpt_divergences: Rows = field(default_factory=dict)
    held_out: dict[str, HeldOutNats] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def markdown(self) -> str:
        """All tables."""
        parts = [f"# {self.title}", quality_table("Quality", self.quality)]
        if self.excerpts:
            parts.append(quality_table("Quality on the teachers' excerpts", self.excerpts))
        if self.comparisons:
            parts.append(comparison_table(self.comparisons))
        if self.by_speaker:
            parts.append(speaker_table("Quality by speaker", self.by_speaker))
        parts += bits_tables(self.bits)
        if self.divergences:
            parts.append(nats_table("Nats per sample", self.divergences))
        if self.excerpt_divergences:
            parts.append(nats_table("Nats per sample on the teachers' excerpts", self.excerpt_divergences))
        if self.held_out:
            parts.append(held_out_table(self.held_out))
        parts.append("\n".join(f"* {note}" for note in self.notes))
        return "\n\n".join(parts) + "\n"

    def to_json(self) -> dict[str, Any]:
        """Nested dictionaries; a `Statistic` is {mean, standard_error, n, interval (95 %)}, NaN is null."""
        return plain(self)

    def plot(self, path: str | Path) -> None:
        """Draw every system's main metrics with 95 % intervals; teachers on their excerpts."""
        rows = self.quality | {
            f"{name} (excerpts)": row for name, row in self.excerpts.items() if name not in self.quality
        }
        panels = {
            column.title: {
                name: (row[metric].mean, *confidence_interval(row[metric]))
                for name, row in rows.items()
                if metric in row
            }
            for metric, column in COLUMNS.items()
            if column.higher_is_better is not None
        }
        plot_systems({title: points for title, points in panels.items() if points}, list(rows), path)

    def save(self, folder: str | Path) -> Path:
        """Write ``report.json``, ``report.png`` and ``report.md``; returns the latter's path."""
        write_json(Path(folder) / "report.json", self.to_json())
        self.plot(Path(folder) / "report.png")
        write_text(Path(folder) / "report.md", self.markdown)
        return Path(folder) / "report.md"


def quality_notes(report: EvaluationReport, clips: Sequence[Clip], left_out: Sequence[str]) -> list[str]:
    """How to read the tables of quality, and what is not in them.

    Args:
        clips: that were evaluated.
        left_out: metrics and anchors whose packages are missing.
    """
    used = {metric for row in report.quality.values() for metric in row} & COLUMNS.keys()
    text = "Means over clips ± standard error."
    for direction, higher in (("Higher", True), ("Lower", False)):
        titles = [c.title for metric, c in COLUMNS.items() if metric in used and c.higher_is_better is higher]
        text += f" {direction} is better: {', '.join(titles)}." if titles else ""
    notes = [f"{text} x real time: seconds of audio per second of computing."]
    if len(clips) < FEWEST_CLIPS:
        notes.append(few_clips_note(len(clips)))
    if report.comparisons:
        notes.append(
            "Paired differences: mean over the same clips, bootstrap 95 % interval over clips; better or worse where "
            "it lies off zero (one of twenty does so by chance), nothing is said of fewer than "
            f"{FEWEST_CLIPS} clips."
        )
    if {"f0_cents", "pitch_cents"} <= used:
        notes.append(
            "F0 cents and V/UV % are measured by SwiftF0, pitch cents and pitch V/UV % by this package's own "
            "estimator: compare each with its like only."
        )
    if "word_error_percent" in used:
        english = [c for c in clips if c.text is not None]
        notes.append(
            f"WER: Whisper tiny.en, which knows English only: {len(english)} clips with a text of "
            f"{', '.join(sorted({c.speaker for c in english}))}, total errors over total words; the recogniser's own "
            "errors are the original's."
        )
    if left_out:
        names = ", ".join(left_out)
        notes.append(f'Left out, since packages are missing: {names}. Install them: pip install "wavedistill[eval]"')
    return notes


def few_clips_note(count: int) -> str:
    """Why nothing follows from so few clips, and what to type."""
    clips = "1 clip is" if count == 1 else f"{count} clips are"
    return (
        f"{clips} too few for a conclusion, which needs at least {FEWEST_CLIPS}: give a larger --limit or none, "
        "another --split, or hold out more recordings (wavedistill prepare FOLDER --out DIR --test-clips 20)."
    )


def teacher_notes(excerpts: Sequence[Clip], seconds: float) -> list[str]:
    """What the teachers made.

    Args:
        seconds: the longest excerpt.
    """
    return [
        f"Teachers sample sequentially: {len(excerpts)} excerpts of at most {seconds:g} s, made as one batch (their "
        "speed is the batch's)."
    ]


def likelihood_notes(report: EvaluationReport, inverse_seconds: float) -> list[str]:
    """How to read the tables of bits and nats; nothing where there are none.

    Args:
        inverse_seconds: the longest recording that the students' flows were inverted for.
    """
    notes = []
    if report.bits:
        notes.append("Bits: audio dequantised to the 16-bit grid, total bits over total samples of the same clips.")
    if report.divergences or report.excerpt_divergences:
        notes.append(
            "Nats per sample: −log of a density over waveforms in [-1, 1), so that lower is more certain and bits per "
            "16-bit sample are 15 + nats / ln 2; without the first receptive field. KL = −log p of the student's "
            "samples less the student's entropy. Compare a student's entropy with the teacher's, and both with what "
            "real speech costs the teacher; std and mean abs of the samples over the recordings' say whether a small "
            "KL was bought by a whisper (below 1)."
        )
    if report.held_out:
        clips = next(iter(report.held_out.values())).clips
        notes.append(
            f"Recordings under the student: the first {inverse_seconds:g} s (at most) of {clips} clips, dequantised, "
            "through the sequential inverse in float64; z would be standard normal noise if the student could have "
            "made them, and a teacher's line is for comparison. A clip is trusted with a backward error of at most "
            f"{BACKWARD_LIMIT:.0e}, a forward error of {FORWARD_LIMIT:g} (rounding's share of z), z moved by at most "
            f"{SENSITIVITY_LIMIT:g} and no larger than {LATENT_LIMIT:g}; the checks show the worst clip."
        )
    return notes
