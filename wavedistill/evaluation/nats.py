"""Nats per sample of students' and teachers' own samples, of each other's, and of recordings under teachers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from wavedistill.evaluation.likelihood import (
    amplitude,
    divergence_applies,
    sample_nats,
    student_divergence,
    teacher_nats,
)
from wavedistill.evaluation.results_cache import Results
from wavedistill.evaluation.statistics import Rows, Statistic, weighted
from wavedistill.evaluation.systems import Clip, LoadedModel, System, digest
from wavedistill.losses.divergence import first_counted
from wavedistill.models.base import dequantized

_VERSION = "1"  # of the numbers' definitions: stored results of another one are not read


class SampleStore:
    """A system that keeps its waveforms as they are; files keep them on the 16-bit grid, which changes likelihoods."""

    def __init__(self, system: System) -> None:
        self.key = system.key
        self.samples: dict[str, Tensor] = {}
        self._generate = system.generate
        self.system = replace(system, generate=self.generate)

    def generate(self, clips: list[Clip]) -> list[Tensor]:
        made = self._generate(clips)
        self.samples |= {clip.key: audio for clip, audio in zip(clips, made, strict=True)}
        return made

    def sample(self, clip: Clip, clips: list[Clip]) -> Tensor:
        """The waveform (samples,) of ``clip``; all ``clips`` are generated where there is none yet."""
        if clip.key not in self.samples:
            self.generate(clips)
        return self.samples[clip.key]


class Recordings:
    """Recordings under one teacher: each passes through it once, however many students it is compared with."""

    def __init__(self, teacher: LoadedModel) -> None:
        self.teacher = teacher
        self._nats: dict[str, Tensor] = {}

    def nats(self, clip: Clip, samples: int) -> dict[str, float]:
        """``recording``, -log p of the last ``samples`` samples, and ``real_std`` and ``real_mean_abs`` of them."""
        if clip.key not in self._nats:
            teacher = self.teacher
            audio = dequantized(clip.audio[None, None].to(teacher.device))
            nats = sample_nats(teacher.model, audio, teacher.mel(clip), teacher.speaker(clip))
            self._nats[clip.key] = nats.own[0].cpu()
        skip = len(clip.audio) - samples
        loudness = {f"real_{name}": value for name, value in amplitude(clip.audio[skip:]).items()}
        return {"recording": float(self._nats[clip.key][skip:].double().mean())} | loudness


def nats_rows(results: Results, models: Sequence[LoadedModel], clips: list[Clip], seed: int) -> Rows:
    """Each student beside each teacher that could be its own, as "student ‖ teacher"."""
    rows: Rows = {}
    for teacher in (m for m in models if m.is_teacher):
        recordings = Recordings(teacher)
        for student in _students_of(teacher, models):
            rows[f"{student.name} ‖ {teacher.name}"] = _pair(results, student, recordings, clips, seed, None)
    return rows


def excerpt_rows(
    results: Results,
    models: Sequence[LoadedModel],
    excerpts: list[Clip],
    stores: Mapping[str, SampleStore],
    seed: int,
) -> Rows:
    """The same on the teachers' excerpts, and each teacher on its own samples; all rows count the same samples.

    Args:
        stores: each teacher's samples by its name.
    """
    rows: Rows = {}
    for teacher in (m for m in models if m.is_teacher):
        recordings = Recordings(teacher)
        students = _students_of(teacher, models)
        shortest = min(len(clip.audio) for clip in excerpts)
        skip = max(
            (first_counted(s.model, teacher.model, shortest) for s in students),
            default=min(teacher.model.receptive_field - 1, shortest // 2),
        )
        rows[teacher.name] = _alone(results, recordings, excerpts, stores[teacher.name], skip)
        for student in students:
            rows[f"{student.name} ‖ {teacher.name}"] = _pair(results, student, recordings, excerpts, seed, skip)
    return rows


def _students_of(teacher: LoadedModel, models: Sequence[LoadedModel]) -> list[LoadedModel]:
    return [m for m in models if m.is_student and divergence_applies(m.model, teacher.model)]


def _pair(
    results: Results, student: LoadedModel, recordings: Recordings, clips: list[Clip], seed: int, skip: int | None
) -> dict[str, Statistic]:
    teacher = recordings.teacher

    def one(clip: Clip) -> dict[str, float]:
        mel = teacher.mel(clip)
        speaker = teacher.speaker(clip)
        made = student_divergence(student.model, teacher.model, mel, student.speaker(clip), speaker, seed, skip=skip)
        return made | recordings.nats(clip, int(made["samples"]))

    key = digest(student.key, teacher.key, str(seed), str(skip), _VERSION)
    values = results.each(f"{student.name}-kl", key, clips, one)
    return _statistics(values, ("own", "entropy", "cross_entropy", "kl", "recording"))


def _alone(
    results: Results, recordings: Recordings, excerpts: list[Clip], store: SampleStore, skip: int
) -> dict[str, Statistic]:
    teacher = recordings.teacher

    def one(clip: Clip) -> dict[str, float]:
        audio = store.sample(clip, excerpts)[None, None].to(teacher.device)
        made = teacher_nats(teacher.model, audio, teacher.mel(clip), teacher.speaker(clip), dequantize=False, skip=skip)
        return made | recordings.nats(clip, int(made["samples"]))

    values = results.each(f"{teacher.name}-own", digest(store.key, str(skip), _VERSION), excerpts, one)
    return _statistics(values, ("own", "entropy", "recording"))


def _statistics(values: list[dict[str, float]], names: Sequence[str]) -> dict[str, Statistic]:
    """Means over clips by their samples, and those of the amplitudes over the recordings'."""
    samples = [v["samples"] for v in values]
    found = {name: weighted([v[name] for v in values], samples) for name in names}
    for name in ("std", "mean_abs"):
        ratios = [v[name] / v[f"real_{name}"] if v[f"real_{name}"] else math.nan for v in values]
        found[f"{name}_ratio"] = weighted(ratios, samples)
    return found
