"""The evaluation report: checkpoints against the recordings and against systems of known quality, on held-out clips."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from wavedistill.audio.mel import MelConfig, whole_frames
from wavedistill.errors import WavedistillError
from wavedistill.evaluation.comparison import FEWEST_CLIPS, Comparison, compare
from wavedistill.evaluation.folders import folder_system
from wavedistill.evaluation.likelihood import Statistic, bits_by_speaker, clip_log_probs
from wavedistill.evaluation.nats import (
    HeldOut,
    RememberingSystem,
    excerpt_rows,
    held_out_rows,
    held_out_table,
    nats_notes,
    nats_rows,
    nats_table,
)
from wavedistill.evaluation.picture import plot_systems
from wavedistill.evaluation.quality import COLUMNS, choose_groups
from wavedistill.evaluation.results_cache import Results, Rows, confidence_interval, means, plain
from wavedistill.evaluation.systems import (
    Clip,
    LoadedModel,
    System,
    anchor_systems,
    load_clips,
    load_voices,
    original,
)
from wavedistill.evaluation.tables import bits_tables, comparison_table, quality_table
from wavedistill.files import write_json, write_text


@dataclass
class EvaluationReport:
    """What `evaluate` found. ``markdown`` for people, ``to_json()`` for programs; means with standard errors over
    clips.

    Attributes:
        title: what was evaluated on what.
        quality: metrics of each system on all clips.
        excerpts: metrics of each system on the excerpts that the teachers spoke; empty without a teacher.
        comparisons: paired differences between systems, with 95 % intervals and verdicts.
        by_speaker: ``quality`` for each speaker, where there are several.
        bits: for each teacher and one-stage flow, bits per sample of each speaker's clips.
        divergences: by "student ‖ teacher", nats per sample of the student's own samples under both, and their loudness
            (`nats.NATS`).
        excerpt_divergences: the same on the excerpts that the teachers spoke, and each teacher's own samples.
        held_out: each student's density of short recordings, by its inverse, beside the Gaussian teachers'.
        notes: what a reader has to know beside the numbers.
    """

    title: str
    quality: Rows
    excerpts: Rows = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)
    by_speaker: dict[str, Rows] = field(default_factory=dict)
    bits: dict[str, dict[str, dict[str, Statistic]]] = field(default_factory=dict)
    divergences: Rows = field(default_factory=dict)
    excerpt_divergences: Rows = field(default_factory=dict)
    held_out: dict[str, HeldOut] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def markdown(self) -> str:
        """All tables."""
        parts = [f"# {self.title}", quality_table("Quality", self.quality)]
        if self.excerpts:
            parts.append(quality_table("Quality on the excerpts the teacher spoke", self.excerpts))
        if self.comparisons:
            parts.append(comparison_table(self.comparisons))
        parts += bits_tables(self.bits)
        if self.divergences:
            parts.append(nats_table("Nats per sample", self.divergences))
        if self.excerpt_divergences:
            parts.append(nats_table("Nats per sample on the excerpts the teacher spoke", self.excerpt_divergences))
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


def evaluate(
    manifest: str | Path,
    checkpoints: str | Path | Sequence[str | Path] = (),
    *,
    folders: Mapping[str, str | Path] | None = None,
    metrics: Sequence[str] | None = None,
    compare_pairs: Sequence[tuple[str, str]] | None = None,
    split: str = "test",
    limit: int | None = None,
    speakers: list[str] | None = None,
    out: str | Path | None = None,
    anchors: bool = True,
    seed: int = 0,
    min_seconds: float = 1.0,
    teacher_clips: int = 24,
    teacher_seconds: float = 3.0,
    inverse_clips: int = 8,
    inverse_seconds: float = 0.5,
    device: str = "cpu",
    progress: bool = False,
) -> EvaluationReport:
    """Measure checkpoints and other systems' recordings on held-out clips, beside the originals, WORLD, Griffin-Lim and
    8-bit mu-law.

    Students and one-stage flows say every clip again. Teachers sample one value after another, so they say
    ``teacher_clips`` excerpts only, of at most ``teacher_seconds`` each; all systems are measured on these too.
    Teachers and one-stage flows are also scored by held-out bits per sample on every clip, beside linear prediction,
    and each student by its divergence from each teacher given and by its density of the beginnings of some clips, for
    which its flows are inverted step by step.

    Args:
        manifest: manifest.jsonl of prepared data, or its folder.
        checkpoints: folders, run folders, bundled names or hub ids.
        folders: name -> folder of another system's recordings, ``<clip id>.wav`` or ``.flac``.
        metrics: names of `quality.GROUPS` to compute; None takes all whose packages are installed.
        compare_pairs: names (A, B) of systems to compare; None takes each student, flow and folder with each other on
            all clips, and with each teacher on the teacher's excerpts.
        split: of the manifest.
        limit: use this many clips (a random choice that is always the same); None takes all.
        speakers: use these speakers only.
        out: folder for report.md, report.json, report.png, the audio, and the results of each clip: a run that was
            interrupted, or that now has more systems or metrics, goes on from them. None keeps nothing.
        anchors: also measure WORLD, Griffin-Lim and mu-law.
        seed: of the voices' noise, of Griffin-Lim's phases and of the bootstrap.
        min_seconds: shorter clips are left out (PESQ wants some speech).
        inverse_clips, inverse_seconds: how many clips' beginnings, at most so long, are scored by the students'
            inverse; 0 clips leave it out. A beginning, because a cut in the middle of speech is an onset that no speech
            has.
        device: where the checkpoints run.
        progress: show bars on stderr.
    """
    groups, missing = choose_groups(metrics)
    names = [str(c) for c in ([checkpoints] if isinstance(checkpoints, (str, Path)) else checkpoints)]
    if not names and not folders:
        raise WavedistillError("there is nothing to evaluate: give a checkpoint, or a folder of recordings.")
    voices = load_voices(names, device)
    quick = [v for v in voices if not v.is_teacher]
    teachers = [v for v in voices if v.is_teacher]
    mel = voices[0].model.config.mel if voices else MelConfig()
    hop = math.lcm(*(v.model.hop_length for v in voices)) if voices else mel.hop_length
    clips = load_clips(
        manifest,
        split,
        limit=limit,
        speakers=speakers,
        min_seconds=min_seconds,
        sample_rate=mel.sample_rate,
        hop_length=hop,
    )
    results = Results(None if out is None else Path(out), groups, progress)
    others = [folder_system(name, path, clips, mel.sample_rate, hop) for name, path in (folders or {}).items()]
    marks = anchor_systems(mel, seed) if anchors else []
    systems = [original(), *(v.system(seed) for v in quick), *others, *marks]
    talkers = [s.name for s in systems[1 : len(systems) - len(marks)]]
    pairs, excerpt_pairs = _pairs(compare_pairs, talkers, [v.name for v in teachers], systems)

    values = results.quality(systems, clips, mel.sample_rate)
    report = EvaluationReport(_title(Path(manifest), split, clips, mel.sample_rate), means(values))
    report.comparisons = compare(values, pairs, "all clips", seed)
    if len(by := sorted({c.speaker for c in clips})) > 1:
        report.by_speaker = {s: means(values, [i for i, c in enumerate(clips) if c.speaker == s]) for s in by}
    if teachers:
        length = whole_frames(teacher_seconds, mel.sample_rate, hop) * hop
        excerpts = [clip.excerpt(length) for clip in sorted(clips, key=lambda clip: clip.key)[:teacher_clips]]
        heard = {v.name: RememberingSystem(v.system(seed)) for v in teachers}
        spoken = [*systems[: 1 + len(talkers)], *(one.system for one in heard.values()), *marks]
        values = results.quality(spoken, excerpts, mel.sample_rate, together={v.name for v in teachers})
        report.excerpts = means(values)
        report.comparisons += compare(values, excerpt_pairs, "excerpts", seed)
        report.excerpt_divergences = excerpt_rows(results, voices, excerpts, heard, seed)
    _add_likelihood(report, results, voices, clips, seed)
    report.notes = [
        *_quality_notes(report, missing, clips, anchors),
        *(note for system in others for note in system.notes),
    ]
    if teachers:
        report.notes.append(
            f"Teachers sample sequentially: {len(excerpts)} excerpts of at most {teacher_seconds:g} s, spoken as "
            "one batch "
            "(their speed is the batch's)."
        )
    if inverse_clips:
        chosen = sorted(clips, key=lambda clip: clip.key)[:inverse_clips]
        length = min(whole_frames(inverse_seconds, mel.sample_rate, hop) * hop, *(len(clip.audio) for clip in chosen))
        report.held_out = held_out_rows(results, voices, [clip.excerpt(length) for clip in chosen])
    report.notes += _likelihood_notes(report, inverse_seconds)
    if out is not None:
        report.save(out)
    return report


def _add_likelihood(
    report: EvaluationReport, results: Results, voices: list[LoadedModel], clips: list[Clip], seed: int
) -> None:
    """Fill in ``bits`` and ``divergences``."""
    for voice in (v for v in voices if v.scores_audio):
        values = results.each(f"{voice.name}-bits", voice.key, clips, lambda clip, v=voice: clip_log_probs(v, clip))
        report.bits[voice.name] = bits_by_speaker(clips, values)
    report.divergences = nats_rows(results, voices, clips, seed)


def _likelihood_notes(report: EvaluationReport, inverse_seconds: float) -> list[str]:
    bits = (
        ["Bits: audio dequantised to the 16-bit grid, total bits over total samples of the same clips."]
        if report.bits
        else []
    )
    return bits + nats_notes(report.divergences | report.excerpt_divergences, report.held_out, inverse_seconds)


def _pairs(
    asked: Sequence[tuple[str, str]] | None, talkers: list[str], teachers: list[str], systems: list[System]
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Pairs to compare on all clips, and pairs with a teacher, which spoke its excerpts only."""
    names = [s.name for s in systems] + teachers
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise WavedistillError(f"two systems are called '{twice}': give the folder another name.")
    if asked is None:
        asked = [*combinations(talkers, 2), *((a, b) for b in teachers for a in talkers), *combinations(teachers, 2)]
    if unknown := [name for pair in asked for name in pair if name not in names]:
        raise WavedistillError(f"no system '{unknown[0]}' to compare. Systems: {', '.join(names)}.")
    return [p for p in asked if not {*p} & {*teachers}], [p for p in asked if {*p} & {*teachers}]


def _title(manifest: Path, split: str, clips: list[Clip], sample_rate: int) -> str:
    folder = manifest if manifest.is_dir() else manifest.parent
    seconds = sum(len(c.audio) for c in clips) / sample_rate
    speakers = ", ".join(sorted({c.speaker for c in clips}))
    return f"{folder.resolve().name}, {split} split: {len(clips)} clips, {seconds:.0f} s, speakers {speakers}"


def _quality_notes(report: EvaluationReport, missing: Mapping[str, str], clips: list[Clip], anchors: bool) -> list[str]:
    used = {metric for row in report.quality.values() for metric in row} & COLUMNS.keys()
    better = {
        way: ", ".join(c.title for m, c in COLUMNS.items() if m in used and c.higher_is_better is way)
        for way in (True, False)
    }
    text = "Means over clips ± standard error."
    text += "".join(f" {'Higher' if way else 'Lower'} is better: {titles}." for way, titles in better.items() if titles)
    notes = [f"{text} x real time: seconds of audio per second of computing."]
    if report.comparisons:
        notes.append(
            "Paired differences: mean over the same clips, bootstrap 95 % interval over clips; better or worse "
            "where it lies off zero "
            f"(one of twenty does so by chance), nothing is said of fewer than {FEWEST_CLIPS} clips."
        )
    if "word_error_percent" in used:
        heard = [c for c in clips if c.text is not None]
        notes.append(
            f"WER: Whisper tiny.en, which knows English only: {len(heard)} clips with a text of "
            f"{', '.join(sorted({c.speaker for c in heard}))}, "
            "total errors over total words; the recogniser's own errors are the original's."
        )
    if missing:
        without = [*missing, *(["WORLD"] if anchors and "mcd" in missing else [])]
        notes.append(
            f'Left out for want of packages: {", ".join(without)}. Install them: pip install "wavedistill[eval]"'
        )
    return notes
