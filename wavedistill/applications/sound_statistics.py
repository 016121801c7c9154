"""How a Gaussian teacher sees a sound: nats over time, and what its noise should be and is not.

A teacher turns a sound into noise, z_t = (u_t - loc(u_<t)) / scale(u_<t), where u is the waveform after its front. Of a
sound from its own distribution z is white and standard normal, whatever the sound is, which raw likelihood is not: that
follows how smooth and how loud a sound is, and is best for a constant. Per sample

    -log p(x_t | x_<t) - H(x_t | x_<t) = (z_t^2 - 1) / 2

so that a typical sound's mean of z^2 is 1: its negative log-likelihood is the entropy along its own path.

All is of the density before a teacher's contraction to the mel, whose fixed point a recording with its own mel is.

References:
    Do Deep Generative Models Know What They Don't Know? (Nalisnick et al., 2019), https://arxiv.org/abs/1810.09136
    Detecting Out-of-Distribution Inputs to Deep Generative Models Using Typicality (Nalisnick et al., 2019),
        https://arxiv.org/abs/1906.02994
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wavedistill.data.baseline import bits_per_sample, linear_prediction_log_prob
from wavedistill.evaluation.likelihood import SampleNats, sample_nats
from wavedistill.models.base import dequantized
from wavedistill.models.wavenet import WaveNet

PIECE_SECONDS = 10.0
"""A longer sound passes through the teacher in pieces of this length, so that memory does not grow with it."""
LAGS = 32
"""Of the autocorrelation of z."""
_FLOOR = 1e-6  # of a mean z^2: digital silence has none


@dataclass(frozen=True)
class SoundStatistics:
    """A sound under a teacher.

    Attributes:
        bits: per 16-bit sample, 15 + mean nats / ln 2: an upper bound on the code length of the samples.
        linear_prediction_bits: of the causal linear predictor of `wavedistill.data.baseline` on the same samples.
        typicality: |-log p - entropy| in nats per sample, |mean z^2 - 1| / 2.
        mean, variance, kurtosis: of z; 0, 1 and 3 for noise.
        autocorrelation: of z, the one of largest size among lags 1 to `LAGS`.
        kolmogorov_smirnov: largest distance of z's distribution function from that of N(0, 1).
        features: what a detector looks at, by `feature_names`.
        own, entropy, linear_prediction: of every frame in nats per sample, (frames,) each.
        energy: mean z^2 of every frame, (frames,).
    """

    bits: float
    linear_prediction_bits: float
    typicality: float
    mean: float
    variance: float
    kurtosis: float
    autocorrelation: float
    kolmogorov_smirnov: float
    features: np.ndarray
    own: np.ndarray
    entropy: np.ndarray
    linear_prediction: np.ndarray
    energy: np.ndarray


def sound_statistics(teacher: WaveNet, audio: Tensor, mel: Tensor, speaker: Tensor | None = None) -> SoundStatistics:
    """Statistics of a sound under a Gaussian teacher.

    Shapes: audio (samples,) on the 16-bit grid, samples = frames * hop_length; mel (1, n_mels, frames); speaker (1,).

    Raises:
        WavedistillError: for a teacher that is not Gaussian.
    """
    teacher.need_gaussian("score")
    nats = nats_in_pieces(teacher, audio, mel, speaker)
    hop = teacher.hop_length
    own, entropy, z = (values[0].double().cpu().numpy() for values in nats)
    predicted = -linear_prediction_log_prob(audio)
    moments = _moments(z)
    excess = float(np.mean(z**2)) - 1.0
    bits = float(bits_per_sample(-own.mean()))
    predicted_bits = float(bits_per_sample(-predicted.mean()))
    return SoundStatistics(
        bits=bits,
        linear_prediction_bits=predicted_bits,
        typicality=abs(excess) / 2,
        **moments._asdict(),
        features=_features(z, teacher.step_size, hop, bits - predicted_bits),
        own=_frame_means(own, hop),
        entropy=_frame_means(entropy, hop),
        linear_prediction=_frame_means(predicted, hop),
        energy=_frame_means(z**2, hop),
    )


def nats_in_pieces(
    teacher: WaveNet, audio: Tensor, mel: Tensor, speaker: Tensor | None, piece_seconds: float = PIECE_SECONDS
) -> SampleNats:
    """`sample_nats` of a dequantised sound of any length, in pieces that see all that their samples depend on.

    Shapes: as in `sound_statistics` -> (1, samples) each.
    """
    hop = teacher.hop_length
    frames = mel.shape[-1]
    piece = max(1, round(piece_seconds * teacher.sample_rate / hop))
    order = teacher.config.front.mel_prediction_order
    past = -(-(teacher.receptive_field + order) // hop) + teacher.conditioning.context_frames
    whole = dequantized(audio[None, None].to(teacher.device))
    parts = []
    for start in range(0, frames, piece):
        end = min(start + piece, frames)
        first = max(0, start - past)
        last = min(frames, end + teacher.conditioning.context_frames)
        nats = sample_nats(teacher, whole[..., first * hop : last * hop], mel[..., first:last], speaker)
        parts.append([values[:, (start - first) * hop : (end - first) * hop] for values in nats])
    return SampleNats(*(torch.cat(values, dim=1) for values in zip(*parts, strict=True)))


def feature_names(step_size: int) -> list[str]:
    """What the values of ``features`` are, for a teacher that makes ``step_size`` sub-bands a step."""
    kinds = ("log energy", "its deviation", "log kurtosis", "autocorrelation")
    return [f"{kind}, band {band}" for kind in kinds for band in range(step_size)] + ["bits beyond linear prediction"]


class _Moments(NamedTuple):
    mean: float
    variance: float
    kurtosis: float
    autocorrelation: float
    kolmogorov_smirnov: float


def _moments(z: np.ndarray) -> _Moments:
    from scipy.stats import kstest

    centred = z - z.mean()
    variance = float(np.mean(centred**2))
    correlations = [float(np.mean(centred[lag:] * centred[:-lag])) for lag in range(1, LAGS + 1)]
    return _Moments(
        float(z.mean()),
        variance,
        float(np.mean(centred**4)) / max(variance, _FLOOR) ** 2,
        max(correlations, key=abs) / max(variance, _FLOOR),
        float(kstest(z, "norm").statistic),
    )


def _features(z: np.ndarray, bands: int, hop: int, beyond: float) -> np.ndarray:
    """Of each sub-band over the sound: log energy, its deviation over frames, kurtosis and autocorrelation."""
    steps = z.reshape(-1, bands)
    energy = np.log(np.maximum((steps**2).reshape(-1, hop // bands, bands).mean(1), _FLOOR))
    variance = np.maximum((steps**2).mean(0), _FLOOR)
    kurtosis = np.maximum((steps**4).mean(0), _FLOOR) / variance**2
    correlation = (steps[1:] * steps[:-1]).mean(0) / variance
    return np.concatenate([energy.mean(0), energy.std(0), np.log(kurtosis), correlation, [beyond]])


def _frame_means(values: np.ndarray, hop: int) -> np.ndarray:
    return values.reshape(-1, hop).mean(1)
