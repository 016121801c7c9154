"""Damped steps of a waveform towards those whose mel spectrogram is a given one.

A generator's waveform has its own mel, which differs from the one it was asked for: by noise, and by what it learned
badly. Each step weighs every bin of its spectrum by the ratio of the two mels, and leaves the phases alone. It goes
only a share of the way, so that different waveforms stay different: the steps are a bijection, of which
`wavedistill.flows.MelContraction` has the inverse and the log-determinant.

A mel of 16-bit audio is that of rounded samples, and where it is so quiet that the rounding shows, steps that bring
every waveform to it would be steps whose inverse throws the recording itself far away. So each tile (a band of a frame)
has its own strength, which depends on the given mel alone.

References:
    Algorithms for Non-negative Matrix Factorization (Lee & Seung, 2001): the weights are one multiplicative step of its
        divergence
    Signal Estimation from Modified Short-Time Fourier Transform (Griffin & Lim, 1984): alternating projections
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from wavedistill.audio.mel import MelConfig, mel_filter_bank
from wavedistill.dsp import prompt_spectra, spectral_stream
from wavedistill.dsp.mel_stft import MelSTFT, power, weighed
from wavedistill.errors import WavedistillError
from wavedistill.kernels.mel_gain import MelGain
from wavedistill.kernels.operators import computes_at_once

MAX_RATIO = 3.0
"""A step weighs no bin by more, so that a band that is nearly silent does not become all noise."""
ROUNDING = 1.0 / 32768.0 / math.sqrt(12.0)
"""Standard deviation of what 16-bit samples are rounded by."""
MAX_ROUNDING_GAIN = 0.3
"""By about so many nats at most the inverse of all steps moves a tile's level because of the rounding."""
TINY = 1e-18
Stream = spectral_stream.SpectralChain | prompt_spectra.PromptChain
"""What a stream of the steps remembers."""


class MelSteps(nn.Module):
    """wave -> wave + STFT^-1(STFT(wave) * h), several times, h = F_n (damping * strength * (ratio - 1)).

    ratio = (mel / F' |STFT(wave)|^p)^(1/p) for each tile; F are the mel filters, F_n the same with rows of sum 1, p the
    power of the spectrogram. A recording with its own mel stays as it is, and so do the bins of no filter.

    Args:
        mel: settings of the spectrogram.
        steps: each lets a sample depend on about one more window on either side.
        damping: share of the way that a step goes, in (0, 1).

    Shapes:
        wave (batch, frames * hop_length), log_mel (batch, n_mels, frames) -> wave of the same shape; differentiable.

    Raises:
        WavedistillError: for other steps or another damping.
    """

    def __init__(self, mel: MelConfig, steps: int, damping: float) -> None:
        super().__init__()
        if steps < 1 or not 0.0 < damping < 1.0:
            raise WavedistillError(
                f"steps towards a mel must be 1 or more and their damping between 0 and 1, got {steps} and {damping}."
            )
        self.mel = mel
        self.steps = steps
        self.damping = damping
        self.stft = MelSTFT(mel, reflect=True)
        filters = mel_filter_bank(mel)
        self.gain = MelGain(filters, mel.floor, max(TINY, mel.epsilon), MAX_RATIO)
        spread = (filters / filters.sum(1, keepdim=True).clamp_min(TINY)).T.contiguous()
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("spread", spread, persistent=False)
        self.register_buffer("rounding", _rounding_level(self.stft.window, filters, mel.power), persistent=False)

    def forward(self, wave: Tensor, log_mel: Tensor) -> Tensor:
        step = self.step(log_mel)
        for _ in range(self.steps):
            wave = step(wave)
        return wave

    def strength(self, log_mel: Tensor) -> Tensor:
        """s in [0, 1] of each tile, of log_mel's shape: min(1, (1 - (1 + 0.3 m / q)^(-1 / steps)) / damping).

        m is the mel and q that of white noise of the size of 16-bit rounding. All steps together shrink the deviation
        of a tile's level by (1 - damping s)^-steps <= 1 + 0.3 m / q.
        """
        loudness = log_mel.exp() / self.rounding.to(log_mel.dtype)[:, None]
        kept = (1.0 + MAX_ROUNDING_GAIN * loudness).pow(-1.0 / self.steps)
        return ((1.0 - kept) / self.damping).clamp_max(1.0)

    def step(self, log_mel: Tensor) -> Callable[[Tensor], Tensor]:
        """One step towards this mel: a map of waves (batch, frames * hop_length) of log_mel's dtype."""
        weight = self.stft.weight(log_mel.shape[-1], log_mel.dtype)
        asked = self._asked(log_mel)

        def step(wave: Tensor) -> Tensor:
            if not wave.numel():
                return wave
            return wave + self.stft.inverse(self._change(self.stft(wave), asked)[0], weight)

        return step

    def look_ahead(self, low_latency: bool = False) -> int:
        """Samples after a whole frame that the frame depends on."""
        if low_latency:
            return prompt_spectra.look_ahead(self.stft)
        return spectral_stream.look_ahead(self.stft, self.steps)

    def stream_state(self, low_latency: bool = False) -> Stream:
        """What a stream remembers, before its first frame; ``low_latency``: see `wavedistill.dsp.prompt_spectra`."""
        chain = prompt_spectra.PromptChain if low_latency else spectral_stream.SpectralChain
        return chain(self.stft, [self._change] * self.steps, add=True)

    def stream_step(self, wave: Tensor, log_mel: Tensor, state: Stream, last: bool) -> Tensor:
        """The samples that a further piece of wave and mel makes final: those `look_ahead` before its end, or all.

        In low latency the result is nearly that of the whole, else it is that.
        """
        return state.push(wave, self._asked(log_mel), last)

    def _asked(self, log_mel: Tensor) -> Tensor:
        """The mel (batch, frames, n_mels) that is wanted, and beside it the share of the way that a step goes."""
        return torch.cat([log_mel.exp(), self.damping * self.strength(log_mel)], dim=1).transpose(1, 2).contiguous()

    def _change(self, spectrum: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
        """By what a step changes the spectrum, and what was asked for."""
        if self.mel.power == 1.0 and computes_at_once(asked):
            return self.gain(spectrum, asked), asked
        dtype = asked.dtype
        wanted, share = asked.chunk(2, dim=-1)
        exponent = self.mel.power
        magnitude = power(spectrum).add_(max(TINY, self.mel.epsilon)).sqrt_()
        given = (magnitude if exponent == 1.0 else magnitude.pow(exponent)) @ self.filters.to(dtype)
        ratio = wanted / given.clamp_min(self.mel.floor)
        if exponent != 1.0:
            ratio = ratio.pow(1.0 / exponent)
        change = (share * (ratio.clamp_max(MAX_RATIO) - 1.0)) @ self.spread.to(dtype)
        return weighed(spectrum, change), asked


def _rounding_level(window: Tensor, filters: Tensor, exponent: float) -> Tensor:
    """Mean mel value (n_mels,) of white noise of standard deviation `ROUNDING`.

    The spectrum of the windowed noise is complex normal, of variance v = ROUNDING^2 sum(window^2), and the mean of its
    magnitude to the power of p is v^(p / 2) Gamma(1 + p / 2).
    """
    deviation = ROUNDING * window.square().sum().sqrt()
    level = deviation.pow(exponent) * math.gamma(1.0 + 0.5 * exponent)
    return (level * filters.sum(0)).clamp_min(TINY)
