"""Held-out likelihood: bits per sample of teachers and one-stage flows beside linear prediction's, and how far a student is from its teacher."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from wavedistill.data.baseline import bits_per_sample, linear_prediction_log_prob
from wavedistill.distributions import Gaussian, gaussian_kl
from wavedistill.evaluation.systems import Clip, Voice
from wavedistill.losses import first_counted
from wavedistill.models.parallel_wavenet import ParallelWaveNet
from wavedistill.models.wavenet import WaveNet


class Statistic(NamedTuple):
    """A mean, its standard error (NaN for one clip) and the number of clips."""

    mean: float
    standard_error: float
    n: int

    def __str__(self) -> str:
        if self.n == 0:
            return "-"
        digits = next((d for limit, d in ((1, 3), (10, 2), (100, 1)) if abs(self.mean) < limit), 0)
        error = "" if math.isnan(self.standard_error) else f" ± {self.standard_error:.{digits}f}"
        return f"{self.mean:.{digits}f}{error}"


def clip_log_probs(voice: Voice, clip: Clip) -> dict[str, float]:
    """Total log-density in nats of one clip by the voice's model and by both linear predictors, and its ``samples``."""
    mel = voice.mel(clip)
    with torch.inference_mode():
        model = voice.model.log_prob(clip.audio[None, None].to(voice.device), mel, voice.speaker(clip))
    return {
        "samples": len(clip.audio),
        "model": float(model.double().sum()),
        "linear_prediction_causal": float(linear_prediction_log_prob(clip.audio).sum()),
        "linear_prediction_mel": float(
            linear_prediction_log_prob(clip.audio, mel[0].cpu(), voice.model.config.mel).sum()
        ),
    }


def bits_by_speaker(clips: Sequence[Clip], results: Sequence[dict[str, float]]) -> dict[str, dict[str, Statistic]]:
    """Bits per 16-bit sample for each speaker and "all", each kind of `clip_log_probs`: total bits over total samples."""
    groups = {speaker: [i for i, c in enumerate(clips) if c.speaker == speaker] for speaker in sorted({c.speaker for c in clips})}
    if len(groups) > 1:
        groups["all"] = list(range(len(clips)))
    kinds = ("model", "linear_prediction_causal", "linear_prediction_mel")
    table = {}
    for speaker, members in groups.items():
        samples = [results[i]["samples"] for i in members]
        table[speaker] = {
            kind: weighted([bits_per_sample(results[i][kind] / results[i]["samples"]) for i in members], samples) for kind in kinds
        }
    return table


def divergence_applies(student: ParallelWaveNet, teacher: WaveNet) -> bool:
    """Whether KL(student || teacher) has its closed form: a Gaussian teacher with the student's front and mel."""
    return (
        isinstance(teacher.distribution, Gaussian)
        and student.config.front == teacher.config.front
        and student.config.mel == teacher.config.mel
    )


@torch.inference_mode()
def student_divergence(
    student: ParallelWaveNet, teacher: WaveNet, mel: Tensor, student_speaker: Tensor | None, teacher_speaker: Tensor | None,
    seed: int,
) -> dict[str, float]:
    """KL(student || teacher) and the student's entropy on one sample of it, in nats per sample of audio; how many ``samples``.

    The KL between the two Gaussians of every sample, neither scale floored nor the value clipped, without the first
    receptive field.

    Shapes: mel (1, n_mels, frames).
    """
    samples = mel.shape[-1] * student.hop_length
    noise = torch.randn(1, 1, samples, generator=torch.Generator().manual_seed(seed)).to(mel.device)
    output = student.rsample(noise, mel, student_speaker)
    loc, log_scale = teacher.distribution.loc_scale(*teacher.predict(output.excitation, mel, teacher_speaker))
    skip = first_counted(student, teacher, samples)
    kl = gaussian_kl(output.loc, output.log_scale, loc, log_scale)[:, skip:]
    entropy = Gaussian.entropy(output.log_scale - student.front.log_slope(output.loc, output.predictor))[:, skip:]
    return {"samples": samples - skip, "kl": float(kl.double().mean()), "entropy": float(entropy.double().mean())}


def weighted(values: Sequence[float], weights: Sequence[float]) -> Statistic:
    """Weighted mean over clips and the standard error of that ratio; values that are NaN are left out."""
    pairs = [(v, w) for v, w in zip(values, weights, strict=True) if not math.isnan(v)]
    if not pairs:
        return Statistic(math.nan, math.nan, 0)
    total, n = sum(w for _, w in pairs), len(pairs)
    mean = sum(v * w for v, w in pairs) / total
    if n == 1:
        return Statistic(mean, math.nan, 1)
    spread = sum((w * (v - mean)) ** 2 for v, w in pairs)
    return Statistic(mean, math.sqrt(spread * n / (n - 1)) / total, n)
