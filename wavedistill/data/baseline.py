"""What linear prediction already knows: the bits per sample any teacher has to beat.

Two 32nd-order predictors with the same adaptive noise model:

* *causal*: the coefficients of each block come from the samples before it (windowed autocorrelation, Levinson-Durbin),
  as a lossless codec with backward adaptation would do;
* *from the mel*: the coefficients of each frame come from its log-mel spectrum (power spectrum -> autocorrelation ->
  Levinson-Durbin), as in LPCNet (Valin & Skoglund, 2019, https://arxiv.org/abs/1810.11846).

The prediction error is coded by a Student-t density whose scale follows the recent errors. Results are in the teacher's
units: nats of a density over samples in [-1, 1), of audio dequantised to the 16-bit grid by uniform noise, so that
bits per 16-bit sample = 15 - log_prob / ln 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from wavedistill.audio.mel import MelConfig
from wavedistill.errors import WavedistillError
from wavedistill.flows.linear_prediction import MelLPC, levinson_durbin

ORDER = 32
_BLOCK = 32  # samples after which the causal predictor adapts
_WINDOW = 640  # samples it looks back on
# Chosen on training clips; results move by less than 0.02 bit for neighbouring values.
_STUDENT_FREEDOM = 6.0
_STUDENT_SCALE = 0.9
_DECAY = 0.95
_VARIANCE_START = 64.0**2  # in 16-bit steps squared
_VARIANCE_FLOOR = 1 / 12  # the dequantisation's own
_WHITE_NOISE = 1e-9  # relative to the power: keeps Levinson-Durbin stable on band-limited speech


def bits_per_sample(log_prob: float | Tensor) -> float | Tensor:
    """Bits per 16-bit sample of a mean log density (nats per sample, samples in [-1, 1))."""
    return 15 - log_prob / math.log(2)


def linear_prediction_bits(
    clips: Sequence[Tensor | np.ndarray],
    mels: Sequence[Tensor | np.ndarray] | None = None,
    mel_config: MelConfig | None = None,
    *,
    order: int = ORDER,
    seed: int = 0,
) -> float:
    """Bits per 16-bit sample of linear prediction over all clips together (total bits / total samples).

    Args:
        clips: waveforms (samples,) in [-1, 1).
        mels: log-mel spectrograms (n_mels, frames) of the clips; without them the predictor is the causal one.
        mel_config: settings of ``mels`` (the default `MelConfig` if not given).
        order: coefficients per frame.
        seed: of the dequantisation noise.
    """
    if not len(clips):
        raise WavedistillError("linear prediction needs at least one clip to measure bits per sample.")
    total = 0.0
    samples = 0
    for index, clip in enumerate(clips):
        mel = None if mels is None else mels[index]
        log_prob = linear_prediction_log_prob(clip, mel, mel_config, order=order, seed=seed + index)
        total = total + float(log_prob.sum())
        samples = samples + len(log_prob)
    return bits_per_sample(total / samples)


def linear_prediction_log_prob(
    audio: Tensor | np.ndarray,
    mel: Tensor | np.ndarray | None = None,
    mel_config: MelConfig | None = None,
    *,
    order: int = ORDER,
    seed: int = 0,
) -> np.ndarray:
    """Log density of each sample given those before it (and the mel): (samples,) -> (samples,), nats."""
    audio = np.asarray(audio, dtype=np.float64)
    if audio.ndim != 1 or not len(audio):
        raise WavedistillError(f"linear prediction needs a waveform of shape (samples,), got {audio.shape}.")
    steps = np.round(audio * 32768) + np.random.default_rng(seed).random(len(audio)) - 0.5
    if mel is None:
        coefficients = _causal_coefficients(steps, order)
        block = _BLOCK
    else:
        mel_config = mel_config or MelConfig()
        log_mel = torch.as_tensor(np.asarray(mel)).unsqueeze(0)
        predictor = MelLPC(mel_config, order, upsample=1, white_noise=_WHITE_NOISE)
        coefficients = predictor(log_mel).coefficients[0].double().numpy()
        block = mel_config.hop_length
    errors = _prediction_errors(steps, coefficients, block)
    return _student_log_density(errors) + math.log(32768)


def _causal_coefficients(signal: np.ndarray, order: int) -> np.ndarray:
    """Coefficients of block i from the `_WINDOW` samples before it: (samples,) -> (blocks, order)."""
    padded = np.concatenate([np.zeros(_WINDOW), signal])
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[:-1:_BLOCK]
    rise = round(0.9 * _WINDOW)  # a window that leans on the newest samples, as in backward-adaptive speech codecs
    window = np.concatenate(
        [
            np.sin(np.pi / 2 * (np.arange(rise) + 0.5) / rise) ** 2,
            np.cos(np.pi / 2 * (np.arange(_WINDOW - rise) + 0.5) / (_WINDOW - rise)),
        ]
    )
    spectrum = np.abs(np.fft.rfft(frames * window, 2 ** math.ceil(math.log2(_WINDOW + order)))) ** 2
    autocorrelation = np.fft.irfft(spectrum)[:, : order + 1]
    autocorrelation[:, 0] = autocorrelation[:, 0] * (1 + _WHITE_NOISE) + 1e-9
    return levinson_durbin(torch.from_numpy(autocorrelation))[0].numpy()


def _prediction_errors(signal: np.ndarray, coefficients: np.ndarray, block: int) -> np.ndarray:
    """signal minus its prediction; block i of ``block`` samples uses row i (the last row serves the rest)."""
    order = coefficients.shape[1]
    padded = np.concatenate([np.zeros(order), signal])
    past = np.lib.stride_tricks.sliding_window_view(padded[:-1], order)[:, ::-1]
    rows = np.minimum(np.arange(len(signal)) // block, len(coefficients) - 1)
    return signal - np.einsum("tk,tk->t", past, coefficients[rows])


def _student_log_density(errors: np.ndarray) -> np.ndarray:
    """Student-t log density of each error, its variance a decaying mean of the squared errors before it."""
    from scipy.signal import lfilter

    variance, _ = lfilter([0, 1 - _DECAY], [1, -_DECAY], errors**2, zi=[_DECAY * _VARIANCE_START])
    scale_squared = _STUDENT_SCALE**2 * variance + _VARIANCE_FLOOR
    nu = _STUDENT_FREEDOM
    constant = math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2) - 0.5 * math.log(nu * math.pi)
    return constant - 0.5 * np.log(scale_squared) - (nu + 1) / 2 * np.log1p(errors**2 / (nu * scale_squared))
