"""The evaluation report's tables of nats per sample: what students and teachers say of their own samples, of each
other's, and of recordings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wavedistill.distributions import Gaussian
from wavedistill.evaluation.likelihood import (
    Statistic,
    amplitude,
    divergence_applies,
    student_divergence,
    teacher_nats,
    weighted,
)
from wavedistill.evaluation.results_cache import Results, Rows
from wavedistill.evaluation.student_likelihood import (
    BACKWARD_LIMIT,
    FORWARD_LIMIT,
    LATENT_LIMIT,
    PERTURBATION,
    SENSITIVITY_LIMIT,
    student_likelihood,
)
from wavedistill.evaluation.systems import Clip, LoadedModel, System, digest
from wavedistill.evaluation.tables import cell, table
from wavedistill.losses.distillation import first_counted
from wavedistill.models.base import dequantized

NATS = {
    "own": "−log density of its own samples",
    "entropy": "entropy",
    "cross_entropy": "−log p of them, teacher",
    "kl": "KL(student ‖ teacher)",
    "recording": "−log p of the recordings, teacher",
    "std_ratio": "std / recordings'",
    "mean_abs_ratio": "mean abs / recordings'",
}
_VERSION = "1"  # of the numbers' definitions: stored results of another one are not read


@dataclass(frozen=True)
class HeldOut:
    """A model's density of short recordings.

    Attributes:
        nats: -log density per sample, over the clips whose result can be trusted.
        mean_square: of z over these clips; 1 for a model whose noise they could be.
        largest: |z| of any clip; infinite where it diverges.
        backward_error, forward_error, sensitivity: the greatest of any clip (see `StudentLikelihood`); NaN for a
            teacher, which needs no inverse.
        steady_seconds: for how long from the start the inverse keeps within its limits.
        clips: how many there were.
    """

    nats: Statistic
    mean_square: Statistic
    largest: float
    backward_error: float
    forward_error: float
    sensitivity: float
    steady_seconds: Statistic
    clips: int

    @property
    def bits(self) -> Statistic:
        """Per 16-bit sample."""
        return Statistic(15 + self.nats.mean / math.log(2), self.nats.standard_error / math.log(2), self.nats.n)


def nats_rows(results: Results, voices: Sequence[LoadedModel], clips: list[Clip], seed: int) -> Rows:
    """Each student beside each teacher that could be its own, as "student ‖ teacher"."""
    rows: Rows = {}
    for teacher in (v for v in voices if v.is_teacher):
        for student in (v for v in voices if v.is_student and divergence_applies(v.model, teacher.model)):
            rows[f"{student.name} ‖ {teacher.name}"] = _pair(results, student, teacher, clips, seed, None)
    return rows


def excerpt_rows(
    results: Results,
    voices: Sequence[LoadedModel],
    excerpts: list[Clip],
    spoken: Mapping[str, RememberingSystem],
    seed: int,
) -> Rows:
    """The same on the excerpts that the teachers spoke, and each teacher on its own samples; in all rows the same
    samples count.
    """
    rows: Rows = {}
    for teacher in (v for v in voices if v.is_teacher):
        students = [v for v in voices if v.is_student and divergence_applies(v.model, teacher.model)]
        shortest = min(len(clip.audio) for clip in excerpts)
        skip = max(
            (first_counted(s.model, teacher.model, shortest) for s in students),
            default=min(teacher.model.receptive_field - 1, shortest // 2),
        )
        rows[teacher.name] = _alone(results, teacher, excerpts, spoken[teacher.name], skip)
        for student in students:
            rows[f"{student.name} ‖ {teacher.name}"] = _pair(results, student, teacher, excerpts, seed, skip)
    return rows


class RememberingSystem:
    """A system that keeps what it says as it is; files keep it on the 16-bit grid, and no likelihood survives that."""

    def __init__(self, system: System) -> None:
        self.key = system.key
        self.said = {}
        self._speak = system.speak
        self.system = replace(system, speak=self.speak)

    def speak(self, clips: list[Clip]) -> list[Tensor]:
        made = self._speak(clips)
        self.said |= {clip.key: audio for clip, audio in zip(clips, made, strict=True)}
        return made

    def recall(self, clip: Clip, clips: list[Clip]) -> Tensor:
        """What it said for ``clip``; it says all ``clips`` where it has not said this one."""
        if clip.key not in self.said:
            self.speak(clips)
        return self.said[clip.key]


def held_out_rows(results: Results, voices: Sequence[LoadedModel], clips: list[Clip]) -> dict[str, HeldOut]:
    """Every student, by its inverse, and beside them every Gaussian teacher, on recordings of one length; nothing
    without a student.
    """
    rows = {}
    for voice in voices if any(v.is_student for v in voices) else ():
        if voice.is_student:
            measure = _together(lambda chosen, v=voice: _inverted(v, chosen), clips)
        elif voice.is_teacher and isinstance(voice.model.distribution, Gaussian):
            measure = lambda clip, v=voice: _encoded(v, clip)  # noqa: E731
        else:
            continue
        values = results.each(f"{voice.name}-held-out", digest(voice.key, _VERSION), clips, measure)
        good = [v for v in values if v["trusted"]]
        rows[voice.name] = HeldOut(
            *(weighted([v[name] for v in good], [v["samples"] for v in good]) for name in ("nats", "mean_square")),
            *(
                _worst([v[name] for v in values if name in v])
                for name in ("largest", "backward_error", "forward_error", "sensitivity")
            ),
            weighted([v.get("steady_seconds", math.nan) for v in values], [1.0] * len(values)),
            len(values),
        )
    return rows


def nats_table(title: str, rows: Rows) -> str:
    """Models down, `NATS` across."""
    used = [name for name in NATS if any(row[name].n for row in rows.values() if name in row)]
    lines = []
    for name, row in rows.items():
        n = max(value.n for value in row.values())
        lines.append([name, *(cell(row.get(column), n) for column in used), n])
    return table(title, ["model", *(NATS[column] for column in used), "n"], lines)


def held_out_table(rows: Mapping[str, HeldOut]) -> str:
    """−log density of recordings, and the checks of the inverse that it took."""
    lines = []
    for name, row in rows.items():
        nats, bits, square = (cell(value, row.clips) for value in (row.nats, row.bits, row.mean_square))
        if not row.nats.n:
            nats = "not trustworthy"
        checks = [_number(value) for value in (row.largest, row.backward_error, row.forward_error, row.sensitivity)]
        lines.append(
            [name, nats, bits, square, *checks, cell(row.steady_seconds, row.clips), f"{row.nats.n} of {row.clips}"]
        )
    header = [
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
    return table("Nats per sample of recordings under the student", header, lines)


def nats_notes(rows: Rows, held_out: Mapping[str, HeldOut], seconds: float) -> list[str]:
    """How to read the tables."""
    notes = []
    if rows:
        notes.append(
            "Nats per sample: −log of a density over waveforms in [-1, 1), so that lower is more certain and bits "
            "per 16-bit sample are "
            "15 + nats / ln 2; without the first receptive field. KL = −log p of the student's samples less the "
            "student's entropy. "
            "Compare a student's entropy with the teacher's, and both with what real speech costs the teacher; "
            "std and mean abs "
            "of the samples over the recordings' say whether a small KL was bought by a whisper (below 1)."
        )
    if held_out:
        notes.append(
            f"Recordings under the student: the first {seconds:g} s (at most) of "
            f"{next(iter(held_out.values())).clips} clips, dequantised, through the sequential inverse in float64; "
            "z would be standard normal noise if the student could have said them, and a teacher's line is for "
            "comparison. A clip is trusted "
            f"with a backward error of at most {BACKWARD_LIMIT:.0e}, a forward error of {FORWARD_LIMIT:g} "
            f"(rounding's share of z), z moved by at most {SENSITIVITY_LIMIT:g} and no larger than "
            f"{LATENT_LIMIT:g}; "
            "the checks show the worst clip."
        )
    return notes


def _pair(
    results: Results, student: LoadedModel, teacher: LoadedModel, clips: list[Clip], seed: int, skip: int | None
) -> dict[str, Statistic]:
    def one(clip: Clip) -> dict[str, float]:
        mel = teacher.mel(clip)
        speaker = teacher.speaker(clip)
        made = student_divergence(student.model, teacher.model, mel, student.speaker(clip), speaker, seed, skip=skip)
        return made | _recording(teacher, clip, int(made["samples"]))

    values = results.each(
        f"{student.name}-kl", digest(student.key, teacher.key, str(seed), str(skip), _VERSION), clips, one
    )
    return _statistics(values, ("own", "entropy", "cross_entropy", "kl", "recording"))


def _alone(
    results: Results, teacher: LoadedModel, excerpts: list[Clip], system: RememberingSystem, skip: int
) -> dict[str, Statistic]:
    def one(clip: Clip) -> dict[str, float]:
        audio = system.recall(clip, excerpts)[None, None].to(teacher.device)
        made = teacher_nats(teacher.model, audio, teacher.mel(clip), teacher.speaker(clip), dequantize=False, skip=skip)
        return made | _recording(teacher, clip, int(made["samples"]))

    values = results.each(f"{teacher.name}-own", digest(system.key, str(skip), _VERSION), excerpts, one)
    return _statistics(values, ("own", "entropy", "recording"))


def _recording(teacher: LoadedModel, clip: Clip, samples: int) -> dict[str, float]:
    """The recording's last ``samples`` samples under the teacher, and how loud they are."""
    audio = clip.audio[None, None].to(teacher.device)
    skip = len(clip.audio) - samples
    nats = teacher_nats(teacher.model, audio, teacher.mel(clip), teacher.speaker(clip), dequantize=True, skip=skip)[
        "own"
    ]
    return {"recording": nats} | {f"real_{name}": value for name, value in amplitude(clip.audio[skip:]).items()}


def _statistics(values: list[dict[str, float]], names: Sequence[str]) -> dict[str, Statistic]:
    samples = [v["samples"] for v in values]
    ratios = {
        f"{name}_ratio": [v[name] / v[f"real_{name}"] if v[f"real_{name}"] else math.nan for v in values]
        for name in ("std", "mean_abs")
    }
    return {name: weighted([v[name] for v in values], samples) for name in names} | {
        name: weighted(each, samples) for name, each in ratios.items()
    }


def _inverted(student: LoadedModel, clips: list[Clip]) -> list[dict[str, float]]:
    audio = torch.stack([clip.audio for clip in clips]).unsqueeze(1)
    mel = torch.cat([student.mel(clip) for clip in clips])
    speakers = [student.speaker(clip) for clip in clips]
    found = student_likelihood(student.model, audio, mel, None if speakers[0] is None else torch.cat(speakers))
    rate = student.model.sample_rate
    samples = audio.shape[-1]
    return [
        _scored(-float(found.log_prob[i].mean()), found.latent[i], samples)
        | {
            "backward_error": float(found.backward_error[i]),
            "forward_error": float(found.forward_error[i]),
            "sensitivity": float(found.sensitivity[i]),
            "steady_seconds": int(found.steady_samples[i]) / rate,
            "trusted": float(found.trusted[i]),
        }
        for i in range(len(clips))
    ]


@torch.inference_mode()
def _encoded(teacher: LoadedModel, clip: Clip) -> dict[str, float]:
    audio = clip.audio[None, None].to(teacher.device)
    mel = teacher.mel(clip)
    speaker = teacher.speaker(clip)
    nats = -float(teacher.model.log_prob_per_sample(audio, mel, speaker).double().mean())
    z = teacher.model.encode(dequantized(audio), mel, speaker)[0, 0]
    return _scored(nats, z, len(clip.audio)) | {"trusted": 1.0}


def _scored(nats: float, z: Tensor, samples: int) -> dict[str, float]:
    return {
        "samples": samples,
        "nats": nats,
        "mean_square": float(z.double().square().mean()),
        "largest": float(z.abs().max()),
    }


def _together(
    measure: Callable[[list[Clip]], list[dict[str, float]]], clips: list[Clip]
) -> Callable[[Clip], dict[str, float]]:
    """``measure`` of all clips at once when the first is asked for: a sequential inverse takes hardly longer for many
    than for one.
    """
    found: dict[str, dict[str, float]] = {}

    def one(clip: Clip) -> dict[str, float]:
        if not found:
            found.update(zip((c.key for c in clips), measure(clips), strict=True))
        return found[clip.key]

    return one


def _worst(values: list[float]) -> float:
    """The largest; infinity where one is not finite, NaN of nothing."""
    if not all(math.isfinite(value) for value in values):
        return math.inf
    return max(values, default=math.nan)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else "diverges" if math.isinf(value) else f"{value:.2g}"
