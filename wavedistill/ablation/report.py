"""The results of ablations: table.md, table.json, curves.png, and a sample of every variant."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from wavedistill.ablation.table import AblationTable
from wavedistill.audio.io import save_audio
from wavedistill.errors import WavedistillError
from wavedistill.evaluation.comparison import Difference, paired_difference
from wavedistill.evaluation.statistics import Statistic, plain, weighted
from wavedistill.evaluation.systems import Clip
from wavedistill.evaluation.tables import table
from wavedistill.files import write_json, write_text
from wavedistill.metrics.registry import COLUMNS, Column
from wavedistill.training.curves import Curve, plot_curves, read_curve

QUALITY = ("level", "pesq_wb", "mcd", "f0", "distillmos")
"""Metrics that are computed, as far as their packages are installed; the first needs none."""
OWN = {
    "kl": Column("KL nats", False),
    "entropy": Column("entropy nats", None),
    "amplitude_ratio": Column("amplitude / recording's", None),
}
METRICS = OWN | {name: COLUMNS[name] for name in ("pesq_wb", "mcd", "f0_cents", "voicing_percent", "distillmos")}


@dataclass
class Outcome:
    """A finished variant.

    Attributes:
        clips: its metrics, clip by clip.
        audio: its waveform of the first clip, (samples,).
        training: metrics.jsonl of its run.
    """

    clips: list[dict[str, float]]
    audio: Tensor
    training: Path

    @property
    def steps(self) -> int:
        """Steps trained."""
        return read_curve(self.training, "loss")[-1][0]

    def values(self, metric: str) -> list[float]:
        return [clip.get(metric, math.nan) for clip in self.clips]

    def mean(self, metric: str) -> Statistic:
        return weighted(self.values(metric), [1.0] * len(self.clips))


def write_ablation_report(
    plan: AblationTable, outcomes: Mapping[str, Outcome], clips: Sequence[Clip], rate: int, out: str | Path
) -> Path:
    """Write everything into ``out``; returns the path of table.md."""
    out = Path(out)
    used = [name for name in METRICS if any(outcome.mean(name).n for outcome in outcomes.values())]
    differences = {title: _differences(plan, title, outcomes, used) for title in plan.questions}
    write_text(out / "table.md", _markdown(plan, outcomes, differences, used, clips))
    write_json(out / "table.json", _record(plan, outcomes, differences, used, clips))
    if panels := _panels(plan, outcomes):
        plot_curves(panels, out / "curves.png")
    save_audio(out / "samples" / "recording.wav", clips[0].audio, rate)
    for name, outcome in outcomes.items():
        save_audio(out / "samples" / f"{name}.wav", outcome.audio, rate)
    return out / "table.md"


def _differences(
    plan: AblationTable, title: str, outcomes: Mapping[str, Outcome], used: list[str]
) -> dict[str, dict[str, Difference]]:
    """Of a question's finished variants from its reference, by metric; empty where the reference is not finished."""
    reference = plan.reference_of(title)
    if reference not in outcomes:
        return {}
    return {
        name: {metric: _difference(outcomes[name], outcomes[reference], metric) for metric in used}
        for name in plan.members(title)
        if name in outcomes and name != reference
    }


def _difference(outcome: Outcome, reference: Outcome, metric: str) -> Difference:
    better = METRICS[metric].higher_is_better
    difference = paired_difference(outcome.values(metric), reference.values(metric), higher_is_better=bool(better))
    if better is None and difference.verdict in ("better", "worse"):
        return difference._replace(verdict="higher" if difference.mean > 0 else "lower")
    return difference


def _markdown(
    plan: AblationTable,
    outcomes: Mapping[str, Outcome],
    differences: Mapping[str, Mapping[str, Mapping[str, Difference]]],
    used: list[str],
    clips: Sequence[Clip],
) -> str:
    titles = [METRICS[name].title for name in used]
    parts = []
    for title in plan.questions:
        reference = plan.reference_of(title)
        shown = [name for name in plan.members(title) if name in outcomes]
        if not set(shown) - {reference}:
            continue
        rows = []
        for name in shown:
            outcome = outcomes[name]
            about = plan.variants[name].about
            label = f"**{about}**" if name == reference else about
            rows.append([label, outcome.mean("teacher_bits"), outcome.steps, *map(outcome.mean, used)])
        parts.append(table(title, ["variant", "teacher's bits", "steps", *titles], rows))
        changes = [
            [plan.variants[name].about, *(_change(found[metric]) for metric in used)]
            for name, found in differences[title].items()
        ]
        if changes:
            heading = f"{title} Differences from: {plan.variants[reference].about}"
            parts.append(table(heading, ["variant", *titles], changes))
    seconds = sum(len(clip.audio) for clip in clips)
    parts.append(
        f"Means over {len(clips)} held-out clips ({seconds:,} samples) ± standard error; differences with 95 % "
        "paired bootstrap intervals, bold "
        "where the interval leaves out zero. KL: of the student from its own teacher."
    )
    return "\n\n".join(parts) + "\n"


def _change(difference: Difference) -> str:
    if not difference.n:
        return "-"
    digits = 3 if abs(difference.mean) < 1 else 2
    text = f"{difference.mean:+.{digits}f}"
    if difference.verdict in ("better", "worse", "higher", "lower"):
        text = f"**{text}**"
    if math.isnan(difference.low):
        return text
    return f"{text} [{difference.low:+.{digits}f}, {difference.high:+.{digits}f}]"


def _record(
    plan: AblationTable,
    outcomes: Mapping[str, Outcome],
    differences: Mapping[str, Mapping[str, Mapping[str, Difference]]],
    used: list[str],
    clips: Sequence[Clip],
) -> dict[str, Any]:
    return {
        "questions": {
            title: {"reference": plan.reference_of(title), "differences": plain(differences[title])}
            for title in plan.questions
        },
        "clips": [clip.id for clip in clips],
        "variants": {
            name: {
                "about": plan.variants[name].about,
                "teacher": plan.variants[name].teacher,
                "steps": outcome.steps,
                "means": plain({metric: outcome.mean(metric) for metric in ("teacher_bits", *used)}),
            }
            for name, outcome in outcomes.items()
        },
    }


def _panels(plan: AblationTable, outcomes: Mapping[str, Outcome]) -> dict[str, dict[str, Curve]]:
    """KL over training for each question, and the amplitude for the first."""
    panels: dict[str, dict[str, Curve]] = {}
    for number, question in enumerate(plan.questions):
        members = {name: outcomes[name].training for name in plan.members(question) if name in outcomes}
        if not members.keys() - {plan.reference_of(question)}:
            continue
        if curves := {name: curve for name, path in members.items() if (curve := _curve(path, "kl_nats"))}:
            panels[f"{question} KL, nats"] = curves
        if number == 0 and members:
            panels[f"{question} amplitude / recording's"] = {name: _amplitude(path) for name, path in members.items()}
    return panels


def _amplitude(path: Path) -> Curve:
    ours = read_curve(path, "amplitude_std")
    real = dict(read_curve(path, "real_std"))
    return [(step, value / real[step]) for step, value in ours if real.get(step)]


def _curve(path: Path, name: str) -> Curve | None:
    try:
        return read_curve(path, name)
    except WavedistillError:  # a variant without this term
        return None
