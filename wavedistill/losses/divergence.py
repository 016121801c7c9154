"""How far the student's density lies from the teacher's, in closed form or from draws; terms that ask the teacher.

The divergences are taken on the front's signal, where they are the waveform's: the front is a bijection.

References:
    Parallel WaveNet (van den Oord et al., 2017), https://arxiv.org/abs/1711.10433
    ClariNet (Ping et al., 2018), https://arxiv.org/abs/1807.07281, equations 5-7
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from wavedistill.distributions import Gaussian, MixtureOfLogistics, gaussian_kl
from wavedistill.errors import WavedistillError
from wavedistill.flows.linear_prediction import LPC
from wavedistill.models.parallel_wavenet import ParallelWaveNet, StudentOutput
from wavedistill.models.wavenet import WaveNet


class Divergence(NamedTuple):
    """How far the student is from the teacher.

    Attributes:
        kl: KL(student || teacher) of each counted sample, (batch, samples) in nats.
        regularizer: mean squared difference of the log-scales; None where the teacher has no log-scale.
    """

    kl: Tensor
    regularizer: Tensor | None


def first_counted(student: ParallelWaveNet, teacher: WaveNet, samples: int) -> int:
    """Samples at the start of a crop that the divergence leaves out: their past is cut off (at most half the crop)."""
    return min(max(student.receptive_field, teacher.receptive_field) - 1, samples // 2)


def first_clips(value: Tensor | LPC | None, count: int) -> Tensor | LPC | None:
    """The first ``count`` clips of a batch."""
    if isinstance(value, LPC):
        return LPC(*(part[:count] for part in value))
    return None if value is None else value[:count]


def divergence(
    teacher: WaveNet,
    output: StudentOutput,
    mel: Tensor | None,
    speaker: Tensor | None,
    skip: int,
    log_scale_floor: float,
    num_draws: int,
) -> Divergence:
    """The divergence of the student's samples, in closed form for a Gaussian teacher.

    Args:
        skip: samples at the start that are not counted.
        log_scale_floor: both log-scales are floored here inside the KL.
        num_draws: for each sample, where there is no closed form.
    """
    parameters, shift = teacher.predict(output.excitation, mel, speaker)
    if not isinstance(teacher.distribution, Gaussian):
        return Divergence(monte_carlo_kl(teacher.distribution, output, parameters, shift, num_draws)[:, skip:], None)
    loc, log_scale = teacher.distribution.loc_scale(parameters, shift)
    floored = output.log_scale.clamp_min(log_scale_floor)
    kl = gaussian_kl(output.loc, floored, loc, log_scale.clamp_min(log_scale_floor))
    return Divergence(kl[:, skip:], (output.log_scale - log_scale)[:, skip:].square().mean())


def monte_carlo_kl(
    distribution: Gaussian | MixtureOfLogistics,
    output: StudentOutput,
    parameters: Tensor,
    shift: Tensor,
    num_draws: int,
) -> Tensor:
    """E_q[log q - log p] per sample, (batch, samples): q's entropy exact, the cross-entropy a mean over draws.

    Args:
        distribution: the teacher's p, with what `WaveNet.predict` gives: ``parameters`` and ``shift``.
    """
    draws = torch.randn(num_draws, *output.loc.shape, device=output.loc.device)
    values = output.loc + torch.exp(output.log_scale) * draws
    cross = torch.stack([distribution.log_prob(parameters, shift, value) for value in values]).mean(0)
    return -Gaussian.entropy(output.log_scale) - cross


def contrastive_divergence(
    teacher: WaveNet, output: StudentOutput, mel: Tensor | None, speaker: Tensor | None, limit: float
) -> Tensor:
    """Minus the divergence from the teacher that is told another clip's condition; ``limit`` bounds each sample's.

    Raises:
        WavedistillError: for a model without a condition, or with ``front.bands`` above 1.
    """
    if mel is None and speaker is None:
        raise WavedistillError("loss.weights: 'contrastive' needs a conditional model.")
    if teacher.config.front.bands > 1:
        raise WavedistillError(
            "loss.weights: 'contrastive' compares single samples under two conditions; it needs front.bands: 1."
        )
    other_mel = None if mel is None else mel.roll(1, 0)
    other_speaker = None if speaker is None else speaker.roll(1, 0)
    front = teacher.front
    other = front.condition(other_mel)
    u = front.forward(output.audio, other).value[:, 0]
    loc_p, log_scale_p = teacher.distribution.loc_scale(*teacher.predict(u, other_mel, other_speaker))
    # in the waveform's domain, since the two conditions have different fronts
    slope_q = front.log_slope(u, output.lpc)
    slope_p = front.log_slope(u, other)
    wave = output.audio[:, 0]
    loc_q = wave + (output.loc - output.excitation) * torch.exp(-slope_q)
    loc_p = wave + (loc_p - u) * torch.exp(-slope_p)
    kl = gaussian_kl(loc_q, output.log_scale - slope_q, loc_p, log_scale_p - slope_p)
    return -kl.clamp_max(limit).mean()


def instructive_distance(
    student: ParallelWaveNet, teacher: WaveNet, audio: Tensor, mel: Tensor | None, speaker: Tensor | None
) -> Tensor:
    """Distance of the student from the recording when it is fed the noise that the teacher encodes that to."""
    with torch.no_grad():
        noise = teacher.encode_before_contraction(audio, mel, speaker)
        target = teacher.front.forward(audio, teacher.front.condition(mel)).value[:, 0]
    output = student.rsample(noise, mel, speaker)
    skip = first_counted(student, teacher, target.shape[1])
    return nn.functional.smooth_l1_loss(output.excitation[:, skip:], target[:, skip:])
