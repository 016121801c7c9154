"""Linear prediction as an invertible map between a waveform and its unit-variance excitation.

    forward (analysis):   u_t = (x_t - sum_k a_k x_{t-k}) / g        all samples at once
    inverse (synthesis):  x_t = g u_t + sum_k a_k x_{t-k}            a time-varying all-pole filter

The coefficients a and the gain g change from block to block and come from the log-mel spectrogram alone, so the map is
a conditional bijection with log|det| = -sum_t log g_t: the filter's Jacobian is triangular with ones on its diagonal. A
neural density on u is an exact density on x, and starts where linear prediction ends.

References:
    Linear Prediction: A Tutorial Review (Makhoul, 1975).
    LPCNet: Improving Neural Speech Synthesis through Linear Prediction (Valin & Skoglund, 2019),
    https://arxiv.org/abs/1810.11846: coefficients from a coarse spectrum by Levinson-Durbin.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wavedistill.audio.mel import MelConfig, mel_filter_bank
from wavedistill.dsp.filters import all_pole, levinson_durbin, predict
from wavedistill.dsp.memory import Past
from wavedistill.errors import WavedistillError
from wavedistill.flows.transform import Transform, require_dtype
from wavedistill.kernels.operators import computes_at_once

PIECE = 64
"""Frames whose predictors are computed at a time."""


class LPC(NamedTuple):
    """coefficients (batch, blocks, order) and log_gain (batch, blocks)."""

    coefficients: Tensor
    log_gain: Tensor


class MelLPC(nn.Module):
    """Linear-prediction coefficients and gain from a log-mel spectrogram.

    Each mel value gives the mean spectral magnitude around its centre frequency; linear interpolation between centres
    gives a power spectrum, its inverse Fourier transform an autocorrelation (one matrix product in all), interpolation
    over time the autocorrelation of each block, and the Levinson-Durbin recursion the predictor.

    Args:
        mel: settings of the spectrogram.
        order: number of coefficients.
        upsample: blocks per frame.
        white_noise: white noise added to the spectrum, relative to its mean: keeps the recursion well-conditioned.
        lag_window: Hz by which a Gaussian window on the autocorrelation widens spectral peaks. 30 smooths pitch
            harmonics away, which suits orders up to 64; 10 lets higher orders follow them where the mel resolves them.

    Shapes:
        log_mel (batch, n_mels, frames) -> `LPC` with frames * upsample blocks.
    """

    def __init__(self, mel: MelConfig, order: int, upsample: int, white_noise: float, lag_window: float = 30.0) -> None:
        super().__init__()
        self.mel = mel
        self.order = order
        self.upsample = upsample
        to_autocorrelation = _mel_to_autocorrelation(mel, order) * _lag_window(mel.sample_rate, order, lag_window)
        to_autocorrelation[:, 0] *= 1.0 + white_noise
        self.register_buffer("to_autocorrelation", to_autocorrelation, persistent=False)

    def forward(self, log_mel: Tensor) -> LPC:
        return self.step(nn.functional.pad(log_mel, (1, 1), mode="replicate"), self.stream_state())

    def stream_state(self) -> Past:
        """What a stream remembers, before its first frame."""
        return Past(2)

    @torch.no_grad()
    def step(self, log_mel: Tensor, state: Past) -> LPC:
        """The predictors of the frames that further ones make final: each needs one on either side."""
        power = (log_mel.double() * (2.0 / self.mel.power)).exp().transpose(1, 2)
        frames = state.join(power @ self.to_autocorrelation.double())
        if not computes_at_once(log_mel):
            return self._predictors(frames, log_mel.dtype)
        # in pieces, whose values in double precision stay in the cache
        starts = range(0, max(frames.shape[1] - 2, 1), PIECE)
        pieces = [self._predictors(frames[:, start : start + PIECE + 2], log_mel.dtype) for start in starts]
        return LPC(*(torch.cat(parts, dim=1) for parts in zip(*pieces, strict=True)))

    def _predictors(self, frames: Tensor, dtype: torch.dtype) -> LPC:
        """Of the autocorrelations (batch, frames + 2, lags) of frames and of one on either side."""
        blocks = self._interpolate(frames)
        blocks[..., 0] += (1.0 / 32768.0) ** 2 / 12.0  # of rounding to 16 bits
        coefficients, error = levinson_durbin(blocks)
        return LPC(coefficients.to(dtype), (0.5 * error.log()).to(dtype))

    def _interpolate(self, frames: Tensor) -> Tensor:
        """(batch, frames + 2, lags) -> (batch, frames * upsample, lags), linear between the frames' centres."""
        count = frames.shape[1] - 2
        positions = (
            torch.arange(count * self.upsample, device=frames.device, dtype=frames.dtype) + 0.5
        ) / self.upsample + (1.0 if self.mel.centered else 0.5)
        left = positions.floor().long()
        weight = (positions - left).unsqueeze(-1)
        return torch.lerp(frames[:, left], frames[:, left + 1], weight)


class LinearPredictionFlow(Transform):
    """Waveform x -> excitation u, given a `LPC` as condition.

    Args:
        differentiable: gradient of the inverse in the condition too, see `wavedistill.dsp.filters.all_pole`.

    Shapes:
        x, u (batch, 1, samples), samples a multiple of the number of blocks.

    Raises:
        WavedistillError: for a condition that is no `LPC`, or whose blocks do not divide the samples.

    Example:
        >>> import torch
        >>> from wavedistill.flows import LinearPredictionFlow, LPC
        >>> cond = LPC(coefficients=torch.tensor([[[0.5]]]), log_gain=torch.zeros(1, 1))
        >>> LinearPredictionFlow().inverse(torch.tensor([[[1.0, 0.0, 0.0]]]), cond).value
        tensor([[[1.0000, 0.5000, 0.2500]]])
    """

    dim = 1
    ranks = (3,)

    def __init__(self, differentiable: bool = False) -> None:
        super().__init__()
        self.differentiable = differentiable

    def _forward(self, x: Tensor, cond: LPC) -> tuple[Tensor, Tensor]:
        self._check_condition(x, cond)
        return self.analyze(x[:, 0], cond, None).unsqueeze(1), -self._log_gain(x, cond)

    def _inverse(self, y: Tensor, cond: LPC) -> tuple[Tensor, Tensor]:
        self._check_condition(y, cond)
        return self.synthesize(y[:, 0], cond, None)[0].unsqueeze(1), self._log_gain(y, cond)

    def analyze(self, x: Tensor, cond: LPC, past: Tensor | None) -> Tensor:
        """The forward map with memory: x (batch, samples) and the samples (batch, order) before it -> u."""
        residual = _by_block(x - predict(x, cond.coefficients, past), cond.log_gain)
        return (residual * torch.exp(-cond.log_gain).unsqueeze(-1)).flatten(1)

    def synthesize(self, u: Tensor, cond: LPC, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """The inverse with memory: u (batch, samples) and the last samples of x -> x and its last samples."""
        scaled = _by_block(u, cond.log_gain) * torch.exp(cond.log_gain).unsqueeze(-1)
        return all_pole(scaled, cond.coefficients, past, differentiable=self.differentiable)

    def _check_condition(self, x: Tensor, cond: LPC) -> None:
        if not isinstance(cond, LPC):
            raise WavedistillError(f"LinearPredictionFlow needs a LPC as condition, got {type(cond).__name__}.")
        require_dtype(x, self, *cond)
        batch, blocks = x.shape[0], cond.log_gain.shape[1]  # not len(), which an export would take for a constant
        fits = cond.coefficients.shape[:2] == (batch, blocks) and cond.log_gain.shape[0] == batch
        if not fits or x.shape[-1] % blocks:
            raise WavedistillError(
                f"LinearPredictionFlow needs coefficients ({batch}, blocks, order) and log_gain ({batch}, blocks) "
                f"with blocks dividing {x.shape[-1]} samples, got {tuple(cond.coefficients.shape)} and "
                f"{tuple(cond.log_gain.shape)}."
            )

    @staticmethod
    def _log_gain(x: Tensor, cond: LPC) -> Tensor:
        """log g_t of every sample, (batch, samples)."""
        return cond.log_gain.repeat_interleave(x.shape[-1] // cond.log_gain.shape[1], dim=1)


def _mel_to_autocorrelation(mel: MelConfig, order: int) -> Tensor:
    """(n_mels, order + 1): squared mel magnitudes times this matrix are the autocorrelation at lags 0..order."""
    filters = mel_filter_bank(mel).double()
    bins = torch.arange(filters.shape[0], dtype=torch.float64)
    weight = filters.sum(0)
    centres = (filters * bins[:, None]).sum(0) / weight.clamp_min(1e-12)
    used = weight > 0
    hats = torch.zeros_like(filters)
    hats[:, used] = _hats(bins, centres[used])
    per_mel = weight.clamp_min(1e-12).pow(-2.0 / mel.power)  # mean magnitude near the centre, squared
    window_power = torch.hann_window(mel.win_length, dtype=torch.float64).square().sum()
    rayleigh = 4.0 / math.pi if mel.power == 1.0 else 1.0  # mean square over squared mean magnitude of noise
    fold = torch.full_like(bins, 2.0)
    fold[0] = fold[-1] = 1.0
    lags = torch.arange(order + 1, dtype=torch.float64)
    cosines = torch.cos(2.0 * math.pi * bins[:, None] * lags / mel.n_fft) * (fold / mel.n_fft)[:, None]
    return (hats.T * per_mel[:, None]) @ cosines * (rayleigh / window_power)


def _hats(bins: Tensor, centres: Tensor) -> Tensor:
    """Linear interpolation weights (bins, centres), constant beyond the first and the last centre."""
    right = torch.searchsorted(centres, bins).clamp(1, len(centres) - 1)
    span = centres[right] - centres[right - 1]
    weight = ((bins - centres[right - 1]) / span).clamp(0.0, 1.0)
    hats = torch.zeros(len(bins), len(centres), dtype=bins.dtype)
    index = torch.arange(len(bins))
    hats[index, right - 1] = 1.0 - weight
    hats[index, right] = weight
    return hats


def _lag_window(sample_rate: int, order: int, width: float) -> Tensor:
    """Gaussian lag window that widens spectral peaks by ``width`` Hz."""
    lags = torch.arange(order + 1, dtype=torch.float64)
    return torch.exp(-0.5 * (2.0 * math.pi * width * lags / sample_rate).square())


def _by_block(x: Tensor, like: Tensor) -> Tensor:
    return x.reshape(x.shape[0], like.shape[1], x.shape[1] // like.shape[1])
