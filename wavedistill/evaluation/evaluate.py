"""Checkpoints against the recordings and against systems of known quality, on held-out clips."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from wavedistill.audio.mel import MelConfig, whole_frames
from wavedistill.errors import WavedistillError
from wavedistill.evaluation.comparison import compare
from wavedistill.evaluation.folders import folder_system
from wavedistill.evaluation.held_out import held_out_rows
from wavedistill.evaluation.likelihood import bits_by_speaker, clip_log_probs
from wavedistill.evaluation.nats import SampleStore, excerpt_rows, nats_rows
from wavedistill.evaluation.report import EvaluationReport, likelihood_notes, quality_notes, teacher_notes
from wavedistill.evaluation.results_cache import Results
from wavedistill.evaluation.statistics import means
from wavedistill.evaluation.systems import (
    Clip,
    LoadedModel,
    System,
    anchor_systems,
    load_clips,
    load_models,
    original,
)
from wavedistill.metrics.registry import choose_metrics, missing_packages

Pairs = list[tuple[str, str]]
"""Names (A, B) of systems to compare."""


@dataclass(frozen=True)
class EvaluateConfig:
    """What to measure, and on which clips.

    Attributes:
        split: of the manifest.
        limit: use this many clips (a random choice that is always the same); None takes all.
        speakers: use these speakers only; None takes all.
        min_seconds: shorter clips are left out (PESQ wants some speech).
        metrics: names of `wavedistill.metrics.registry.METRICS`; None takes all whose packages are installed.
        pairs: names (A, B) of systems to compare; None takes each student, flow and folder with each other on all
            clips, and with each teacher on the teacher's excerpts.
        anchors: also measure WORLD, Griffin-Lim and 8-bit mu-law.
        teacher_clips, teacher_seconds: how many excerpts a teacher makes, and how long they are at most.
        inverse_clips, inverse_seconds: how many clips' beginnings, at most so long, are scored by the students'
            inverse; 0 clips leave it out. A beginning, because a cut in the middle of speech is an onset that no speech
            has.
        seed: of the models' noise, of Griffin-Lim's phases and of the bootstrap.
    """

    split: str = "test"
    limit: int | None = None
    speakers: Sequence[str] | None = None
    min_seconds: float = 1.0
    metrics: Sequence[str] | None = None
    pairs: Sequence[tuple[str, str]] | None = None
    anchors: bool = True
    teacher_clips: int = 24
    teacher_seconds: float = 3.0
    inverse_clips: int = 8
    inverse_seconds: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.teacher_clips < 1 or self.inverse_clips < 0:
            raise WavedistillError(
                "teacher_clips is a number of clips, at least 1, and inverse_clips at least 0: given "
                f"{self.teacher_clips} and {self.inverse_clips}."
            )
        if not (self.teacher_seconds > 0 and self.inverse_seconds > 0):
            raise WavedistillError(
                "teacher_seconds and inverse_seconds are lengths above 0: given "
                f"{self.teacher_seconds:g} and {self.inverse_seconds:g}."
            )


def evaluate(
    manifest: str | Path,
    checkpoints: str | Path | Sequence[str | Path] = (),
    config: EvaluateConfig | None = None,
    *,
    folders: Mapping[str, str | Path] | None = None,
    out: str | Path | None = None,
    device: str = "cpu",
    progress: bool = False,
) -> EvaluationReport:
    """Measure checkpoints and other systems' recordings on held-out clips, beside the originals and the anchors.

    Students and one-stage flows make every clip again. Teachers sample one value after another, so they make a few
    short excerpts only; all systems are measured on these too. Teachers and one-stage flows are also scored by held-out
    bits per sample on every clip, beside linear prediction, and each student by its divergence from each teacher given
    and by its density of the beginnings of some clips, for which its flows are inverted step by step.

    Args:
        manifest: manifest.jsonl of prepared data, or its folder.
        checkpoints: folders, run folders, bundled names or hub ids.
        config: what to measure, and on which clips; None: `EvaluateConfig()`.
        folders: name -> folder of another system's recordings, ``<clip id>.wav`` or ``.flac``.
        out: folder for report.md, report.json, report.png, the audio, and the results of each clip: a run that was
            interrupted, or that now has more systems or metrics, goes on from them. None keeps nothing.
        device: where the checkpoints run.
        progress: show bars on stderr.

    Raises:
        WavedistillError: nothing to evaluate, an unknown name, or a package missing that was asked for.

    Example:
        >>> from wavedistill import EvaluateConfig, evaluate
        >>> report = evaluate("data/mine", ["runs/student"], EvaluateConfig(limit=8))  # doctest: +SKIP
        >>> print(report.markdown)  # doctest: +SKIP
    """
    config = config or EvaluateConfig()
    metrics = choose_metrics(config.metrics)
    names = [str(c) for c in ([checkpoints] if isinstance(checkpoints, (str, Path)) else checkpoints)]
    if not names and not folders:
        raise WavedistillError("there is nothing to evaluate: give a checkpoint, or a folder of recordings.")
    inputs = _load_inputs(manifest, load_models(names, device), folders or {}, config)
    compared = [s.name for s in inputs.compared]
    everywhere, on_excerpts = _pairs(config.pairs, compared, [m.name for m in inputs.teachers], inputs.systems)
    results = Results(None if out is None else Path(out), metrics, progress)
    report = EvaluationReport(_title(Path(manifest), inputs))
    _add_quality(report, inputs, results, everywhere)
    if inputs.teachers:
        _add_excerpts(report, inputs, results, on_excerpts)
    _add_likelihood(report, inputs, results)
    left_out = [*missing_packages(config.metrics)]
    if config.anchors and "mcd" in left_out:  # the anchor's package is that of this metric
        left_out.append("WORLD")
    report.notes = [
        *quality_notes(report, inputs.clips, left_out),
        *(note for system in inputs.folders for note in system.notes),
        *(teacher_notes(inputs.excerpts, config.teacher_seconds) if inputs.teachers else []),
        *likelihood_notes(report, config.inverse_seconds),
    ]
    if out is not None:
        report.save(out)
    return report


@dataclass(frozen=True)
class _Inputs:
    """Clips, models and other systems of one evaluation, all at one sample rate and with whole frames of every model.

    Attributes:
        models: the checkpoints: teachers, students and one-stage flows.
        folders, anchors: systems beside them.
    """

    config: EvaluateConfig
    clips: list[Clip]
    models: list[LoadedModel]
    folders: list[System]
    anchors: list[System]
    sample_rate: int
    hop_length: int

    @property
    def teachers(self) -> list[LoadedModel]:
        return [m for m in self.models if m.is_teacher]

    @cached_property
    def compared(self) -> list[System]:
        """Students, one-stage flows and folders."""
        return [*(m.system(self.config.seed) for m in self.models if not m.is_teacher), *self.folders]

    @property
    def systems(self) -> list[System]:
        """All systems that make every clip."""
        return [original(), *self.compared, *self.anchors]

    @cached_property
    def excerpts(self) -> list[Clip]:
        """What the teachers make."""
        length = whole_frames(self.config.teacher_seconds, self.sample_rate, self.hop_length) * self.hop_length
        return [clip.excerpt(length) for clip in self._drawn(self.config.teacher_clips)]

    @cached_property
    def beginnings(self) -> list[Clip]:
        """What the students' flows are inverted for, all of one length."""
        chosen = self._drawn(self.config.inverse_clips)
        length = whole_frames(self.config.inverse_seconds, self.sample_rate, self.hop_length) * self.hop_length
        length = min(length, *(len(clip.audio) for clip in chosen))
        return [clip.excerpt(length) for clip in chosen]

    def _drawn(self, count: int) -> list[Clip]:
        """A random choice of clips that is always the same."""
        return sorted(self.clips, key=lambda clip: clip.key)[:count]


def _load_inputs(
    manifest: str | Path, models: list[LoadedModel], folders: Mapping[str, str | Path], config: EvaluateConfig
) -> _Inputs:
    mel = models[0].model.config.mel if models else MelConfig()
    hop_length = math.lcm(*(m.model.hop_length for m in models)) if models else mel.hop_length
    clips = load_clips(
        manifest,
        config.split,
        limit=config.limit,
        speakers=config.speakers,
        min_seconds=config.min_seconds,
        sample_rate=mel.sample_rate,
        hop_length=hop_length,
    )
    others = [folder_system(name, path, clips, mel.sample_rate, hop_length) for name, path in folders.items()]
    anchors = anchor_systems(mel, config.seed) if config.anchors else []
    return _Inputs(config, clips, models, others, anchors, mel.sample_rate, hop_length)


def _add_quality(report: EvaluationReport, inputs: _Inputs, results: Results, pairs: Pairs) -> None:
    """Fill in ``quality``, ``comparisons`` and ``by_speaker``."""
    values = results.quality(inputs.systems, inputs.clips, inputs.sample_rate)
    report.quality = means(values)
    report.comparisons = compare(values, pairs, "all clips", inputs.config.seed)
    speakers = sorted({clip.speaker for clip in inputs.clips})
    if len(speakers) > 1:
        for speaker in speakers:
            members = [i for i, clip in enumerate(inputs.clips) if clip.speaker == speaker]
            report.by_speaker[speaker] = means(values, members)


def _add_excerpts(report: EvaluationReport, inputs: _Inputs, results: Results, pairs: Pairs) -> None:
    """Fill in ``excerpts`` and ``excerpt_divergences``, and add to ``comparisons``."""
    seed = inputs.config.seed
    stores = {m.name: SampleStore(m.system(seed)) for m in inputs.teachers}
    systems = [original(), *inputs.compared, *(store.system for store in stores.values()), *inputs.anchors]
    values = results.quality(systems, inputs.excerpts, inputs.sample_rate, together=stores)
    report.excerpts = means(values)
    report.comparisons += compare(values, pairs, "excerpts", seed)
    report.excerpt_divergences = excerpt_rows(results, inputs.models, inputs.excerpts, stores, seed)


def _add_likelihood(report: EvaluationReport, inputs: _Inputs, results: Results) -> None:
    """Fill in ``bits``, ``divergences`` and ``held_out``."""
    for loaded in (m for m in inputs.models if m.scores_audio):
        values = results.each(
            f"{loaded.name}-bits", loaded.key, inputs.clips, lambda clip, m=loaded: clip_log_probs(m, clip)
        )
        report.bits[loaded.name] = bits_by_speaker(inputs.clips, values)
    report.divergences = nats_rows(results, inputs.models, inputs.clips, inputs.config.seed)
    if inputs.config.inverse_clips:
        report.held_out = held_out_rows(results, inputs.models, inputs.beginnings)


class _ChosenPairs(NamedTuple):
    """Pairs to compare on all clips, and those with a teacher, which makes its excerpts only."""

    everywhere: Pairs
    on_excerpts: Pairs


def _pairs(
    asked: Sequence[tuple[str, str]] | None, compared: list[str], teachers: list[str], systems: list[System]
) -> _ChosenPairs:
    names = [s.name for s in systems] + teachers
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise WavedistillError(f"two systems are called '{twice}': give the folder another name.")
    if asked is None:
        asked = [*combinations(compared, 2), *((a, b) for b in teachers for a in compared), *combinations(teachers, 2)]
    if unknown := [name for pair in asked for name in pair if name not in names]:
        raise WavedistillError(f"no system '{unknown[0]}' to compare. Systems: {', '.join(names)}.")
    with_teacher = [pair for pair in asked if {*pair} & {*teachers}]
    return _ChosenPairs([pair for pair in asked if pair not in with_teacher], with_teacher)


def _title(manifest: Path, inputs: _Inputs) -> str:
    folder = manifest if manifest.is_dir() else manifest.parent
    clips = inputs.clips
    seconds = sum(len(clip.audio) for clip in clips) / inputs.sample_rate
    speakers = ", ".join(sorted({clip.speaker for clip in clips}))
    name = f"{folder.resolve().name}, {inputs.config.split} split"
    return f"{name}: {len(clips)} clips, {seconds:.0f} s, speakers {speakers}"
