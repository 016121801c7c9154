"""Nats and bits per sample of recordings, beside linear prediction's, and of students' and teachers' own samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from wavedistill.data.baseline import bits_per_sample, linear_prediction_log_prob
from wavedistill.distributions import Gaussian, gaussian_kl
from wavedistill.evaluation.statistics import Statistic, weighted
from wavedistill.evaluation.systems import Clip, LoadedModel
from wavedistill.losses.divergence import first_counted
from wavedistill.models.base import dequantized
from wavedistill.models.parallel_wavenet import ParallelWaveNet
from wavedistill.models.wavenet import WaveNet


def clip_log_probs(loaded: LoadedModel, clip: Clip) -> dict[str, float]:
    """Total log-density in nats of one clip by the model and by both linear predictors, and its ``samples``."""
    mel = loaded.mel(clip)
    with torch.inference_mode():
        model = loaded.model.log_prob(clip.audio[None, None].to(loaded.device), mel, loaded.speaker(clip))
    return {
        "samples": len(clip.audio),
        "model": float(model.double().sum()),
        "linear_prediction_causal": float(linear_prediction_log_prob(clip.audio).sum()),
        "linear_prediction_mel": float(
            linear_prediction_log_prob(clip.audio, mel[0].cpu(), loaded.model.config.mel).sum()
        ),
    }


def bits_by_speaker(clips: Sequence[Clip], results: Sequence[dict[str, float]]) -> dict[str, dict[str, Statistic]]:
    """Bits per 16-bit sample by speaker and "all", by kind of `clip_log_probs`: total bits over total samples."""
    groups = {
        speaker: [i for i, c in enumerate(clips) if c.speaker == speaker]
        for speaker in sorted({c.speaker for c in clips})
    }
    if len(groups) > 1:
        groups["all"] = list(range(len(clips)))
    kinds = ("model", "linear_prediction_causal", "linear_prediction_mel")
    table = {}
    for speaker, members in groups.items():
        samples = [results[i]["samples"] for i in members]
        table[speaker] = {
            kind: weighted([bits_per_sample(results[i][kind] / results[i]["samples"]) for i in members], samples)
            for kind in kinds
        }
    return table


def divergence_applies(student: ParallelWaveNet, teacher: WaveNet) -> bool:
    """Whether `student_divergence` is defined: equal front and mel, and a teacher's density on all of the real line."""
    return (
        teacher.config.distribution != "mulaw"
        and student.config.front == teacher.config.front
        and student.config.mel == teacher.config.mel
    )


@torch.inference_mode()
def student_divergence(
    student: ParallelWaveNet,
    teacher: WaveNet,
    mel: Tensor | None,
    student_speaker: Tensor | None,
    teacher_speaker: Tensor | None,
    seed: int,
    *,
    num_samples: int | None = None,
    skip: int | None = None,
) -> dict[str, float]:
    """One sample of the student under both models, in nats per sample of audio.

    Neither scale is floored nor any value clipped. The density is that of the waveform before a contraction to
    the mel.

    Args:
        mel: (1, n_mels, frames), or None with ``num_samples`` for models without mel.
        seed: of the noise.
        skip: samples at the start that are not counted; None: `wavedistill.losses.divergence.first_counted`.

    Returns:
        ``samples``: how many were counted.
        ``kl``: KL(student || teacher) in closed form; under a mixture of logistics cross-entropy less entropy.
        ``own``: -log q. ``entropy``: of the student in closed form, whose mean is that of ``own``.
        ``cross_entropy``: -log p of the teacher.
        ``std``, ``mean_abs``: of the audio.
    """
    samples = num_samples if mel is None else mel.shape[-1] * student.hop_length
    noise = torch.randn(1, 1, samples, generator=torch.Generator().manual_seed(seed)).to(
        next(student.parameters()).device
    )
    output = student.rsample(noise, mel, student_speaker, in_pieces=True)
    parameters, shift = teacher.predict(output.excitation, mel, teacher_speaker)
    slope = student.front.log_slope(output.loc, output.lpc)
    own = -student.own_log_prob(output)
    entropy = Gaussian.entropy(output.log_scale - slope)
    cross_entropy = -teacher.distribution.log_prob(parameters, shift, output.excitation) - slope
    if isinstance(teacher.distribution, Gaussian):
        kl = gaussian_kl(output.loc, output.log_scale, *teacher.distribution.loc_scale(parameters, shift))
    else:
        kl = cross_entropy - entropy
    skip = first_counted(student, teacher, samples) if skip is None else skip
    nats = {"kl": kl, "own": own, "entropy": entropy, "cross_entropy": cross_entropy}
    return {"samples": samples - skip} | _means(nats, skip) | amplitude(output.audio[0, 0, skip:])


class SampleNats(NamedTuple):
    """A waveform under a teacher, sample by sample, (1, samples) each.

    Attributes:
        own: -log p in nats.
        entropy: of the distribution that the sample was expected from; NaN for a teacher that is not Gaussian.
        noise: the noise z of a Gaussian teacher, (z^2 - 1) / 2 = own - entropy; NaN for another.
    """

    own: Tensor
    entropy: Tensor
    noise: Tensor


@torch.inference_mode()
def sample_nats(teacher: WaveNet, audio: Tensor, mel: Tensor | None, speaker: Tensor | None) -> SampleNats:
    """Nats and noise of every sample of a waveform under a teacher, before its contraction to the mel.

    Shapes: audio (1, 1, samples), mel (1, n_mels, frames), speaker (1,).
    """
    predictor = teacher.front.condition(mel)
    u = teacher.front.forward(audio, predictor).value[:, 0]
    parameters, shift = teacher.predict(u, mel, speaker)
    slope = teacher.front.log_slope(u, predictor)
    entropy = noise = torch.full_like(u, math.nan)
    if isinstance(teacher.distribution, Gaussian):
        loc, log_scale = teacher.distribution.loc_scale(parameters, shift)
        entropy = Gaussian.entropy(log_scale - slope)
        noise = (u - loc) * torch.exp(-log_scale)
    return SampleNats(-teacher.distribution.log_prob(parameters, shift, u) - slope, entropy, noise)


def teacher_nats(
    teacher: WaveNet, audio: Tensor, mel: Tensor | None, speaker: Tensor | None, *, dequantize: bool, skip: int
) -> dict[str, float]:
    """Means of `sample_nats` over the samples from ``skip`` on, in nats per sample, and the waveform's amplitude.

    On the teacher's own samples (as they are, not ``dequantize``) both have the teacher's entropy as their mean; on a
    recording ``own`` is its cost.
    """
    audio = dequantized(audio) if dequantize else audio
    nats = sample_nats(teacher, audio, mel, speaker)
    means = _means({"own": nats.own, "entropy": nats.entropy}, skip)
    return {"samples": audio.shape[-1] - skip} | means | amplitude(audio[0, 0, skip:])


def amplitude(audio: Tensor) -> dict[str, float]:
    """``std`` and ``mean_abs``, mean |x|, of a waveform (samples,)."""
    audio = audio.double()
    return {"std": float(audio.std(correction=0)), "mean_abs": float(audio.abs().mean())}


def _means(nats: dict[str, Tensor], skip: int) -> dict[str, float]:
    return {name: float(values[:, skip:].double().mean()) for name, values in nats.items()}
