"""Density of short recordings under students, by the inverse of their flows, beside Gaussian teachers'."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wavedistill.distributions import Gaussian
from wavedistill.evaluation.results_cache import Results
from wavedistill.evaluation.statistics import Statistic, weighted
from wavedistill.evaluation.student_likelihood import student_likelihood
from wavedistill.evaluation.systems import Clip, LoadedModel, digest
from wavedistill.models.base import dequantized

_VERSION = "1"  # of the numbers' definitions: stored results of another one are not read


@dataclass(frozen=True)
class HeldOutNats:
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


def held_out_rows(results: Results, models: Sequence[LoadedModel], clips: list[Clip]) -> dict[str, HeldOutNats]:
    """Every student and every Gaussian teacher on recordings of one length; nothing without a student."""
    if not any(m.is_student for m in models):
        return {}
    rows = {}
    for loaded in models:
        if loaded.is_student:
            measure = _together(lambda chosen, m=loaded: _inverted(m, chosen), clips)
        elif loaded.is_teacher and isinstance(loaded.model.distribution, Gaussian):
            measure = lambda clip, m=loaded: _encoded(m, clip)  # noqa: E731
        else:
            continue
        values = results.each(f"{loaded.name}-held-out", digest(loaded.key, _VERSION), clips, measure)
        rows[loaded.name] = _summary(values)
    return rows


def _summary(values: list[dict[str, float]]) -> HeldOutNats:
    trusted = [v for v in values if v["trusted"]]
    samples = [v["samples"] for v in trusted]

    def worst(name: str) -> float:
        """The largest; infinity where one is not finite, NaN of nothing."""
        found = [v[name] for v in values if name in v]
        return max(found, default=math.nan) if all(map(math.isfinite, found)) else math.inf

    return HeldOutNats(
        nats=weighted([v["nats"] for v in trusted], samples),
        mean_square=weighted([v["mean_square"] for v in trusted], samples),
        largest=worst("largest"),
        backward_error=worst("backward_error"),
        forward_error=worst("forward_error"),
        sensitivity=worst("sensitivity"),
        steady_seconds=weighted([v.get("steady_seconds", math.nan) for v in values], [1.0] * len(values)),
        clips=len(values),
    )


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
    z = teacher.model.encode_before_contraction(dequantized(audio), mel, speaker)[0, 0]
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
    """``measure`` of one clip, computed for all ``clips`` at the first call.

    A sequential inverse takes hardly longer for many clips than for one.
    """
    found: dict[str, dict[str, float]] = {}

    def one(clip: Clip) -> dict[str, float]:
        if not found:
            found.update(zip((c.key for c in clips), measure(clips), strict=True))
        return found[clip.key]

    return one
