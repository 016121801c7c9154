"""A deterministic harmonic source from the mel: pulses at its pitch, given the mel's own spectrum.

Noise alone must invent the phase coherence of voiced speech. A pulse train at the right pitch has it, and a few
projections onto the magnitudes that the mel asks for give each harmonic its level. The result is a function of the
condition only, so that a flow that adds it to its location stays an exact density.

References:
    Neural Source-Filter Waveform Models (Wang et al., 2019), https://arxiv.org/abs/1904.12088
    Signal Estimation from Modified Short-Time Fourier Transform (Griffin & Lim, 1984): the projections
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wavedistill.audio.mel import MelConfig, mel_filter_bank
from wavedistill.dsp import prompt_spectra, spectral_stream
from wavedistill.dsp.mel_inversion import MelInversion
from wavedistill.dsp.mel_stft import MelSTFT, power, weighed
from wavedistill.dsp.memory import Past, Queue
from wavedistill.kernels.magnitude import with_magnitude
from wavedistill.kernels.operators import computes_at_once

TINY = 1e-18
"""Squared magnitude of a bin that has no phase."""


class Pitch(NamedTuple):
    """f0 in Hz (batch, frames) and the probability of voicing (batch, frames)."""

    f0: Tensor
    voicing: Tensor


@dataclass
class SourceState:
    """What a stream of `HarmonicSource` remembers: the pitch of two frames, the phase (batch,) in cycles after the last
    pulse, the projections, and the voicing of the samples that are not final.
    """

    pitch: Past
    phase: Tensor | None
    chain: spectral_stream.SpectralChain | prompt_spectra.PromptChain
    voicing: Queue


class HarmonicSource(nn.Module):
    """Pulse train -> waveform whose magnitudes fit the mel, times the probability of voicing.

    Args:
        mel: settings of the spectrogram.
        iterations: further projections after the first; each lets the result look ceil(n_fft / hop_length) frames
            further to both sides.

    Attributes:
        context_frames: frames on either side that a sample depends on, at most.

    Shapes:
        pitch (batch, frames + 2) with one more frame on either side, log_mel (batch, n_mels, frames) -> waveform
        (batch, frames * hop_length). The pulses begin at phase 0. Beyond the ends there is silence, so that the outer
        `context_frames` frames of either side are not those of a longer signal.
    """

    def __init__(self, mel: MelConfig, iterations: int) -> None:
        super().__init__()
        self.mel = mel
        self.iterations = iterations
        self.stft = MelSTFT(mel)
        self.context_frames = (1 + iterations) * self.stft.context_frames
        self.inversion = MelInversion(mel_filter_bank(mel))

    def forward(self, pitch: Pitch, log_mel: Tensor) -> Tensor:
        return self.step(pitch, log_mel, self.stream_state(), last=True)

    def look_ahead(self, low_latency: bool = False) -> int:
        """Samples of the pulse train after a whole frame that the frame depends on."""
        if low_latency:
            return prompt_spectra.look_ahead(self.stft)
        return spectral_stream.look_ahead(self.stft, 1 + self.iterations)

    def stream_state(self, low_latency: bool = False) -> SourceState:
        """What a stream remembers, before its first frame; ``low_latency``: see `wavedistill.dsp.prompt_spectra`."""
        chain = prompt_spectra.PromptChain if low_latency else spectral_stream.SpectralChain
        return SourceState(
            Past(2), None, chain(self.stft, [self._fitted, *[_with_magnitude] * self.iterations]), Queue()
        )

    @torch.no_grad()
    def step(self, pitch: Pitch, log_mel: Tensor, state: SourceState, last: bool = False) -> Tensor:
        """The samples that further frames make final: all but the last `look_ahead`, or all at the last step."""
        hop = self.mel.hop_length
        pitch = Pitch(*state.pitch.join(torch.stack(pitch, dim=-1)).unbind(-1))
        pulses, phases = pulse_train(pitch, hop, self.mel.sample_rate, state.phase, log_mel.dtype)
        state.phase = phases[:, -1]
        state.voicing.put(interpolate_frames(pitch.voicing.to(log_mel.dtype), hop))
        wave = state.chain.push(pulses, log_mel.transpose(1, 2).exp().contiguous(), last)
        return wave * state.voicing.take(wave.shape[1])

    def _fitted(self, spectrum: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
        """The spectrum with the magnitudes that fit the mel and are nearest to its own, and these magnitudes."""
        magnitude = self.inversion(mel, power(spectrum).sqrt_()).pow(1.0 / self.mel.power)
        return _with_magnitude(spectrum, magnitude)


def pulse_train(
    pitch: Pitch, hop_length: int, sample_rate: int, phase: Tensor | None = None, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """A band-limited pulse train of unit power.

    The sum of all K = floor(sample_rate / 2 / f0) harmonics in closed form: sum_k cos(k p) = sin((K + 1/2) p) / (2
    sin(p / 2)) - 1/2. Between the centres of frames log-F0 is interpolated, weighted by voicing.

    Shapes:
        pitch (batch, frames + 2), one more frame on either side than is wanted; phase (batch,) at the start in cycles
            (default
        0) -> pulses (batch, frames * hop_length) of ``dtype`` and the phase in cycles after each sample, in the same
            shape.
    """
    weights = pitch.voicing.double() + 1e-4
    both = interpolate_frames(torch.cat([pitch.f0.double().log() * weights, weights]), hop_length)
    batch = weights.shape[0]
    f0 = (both[:batch] / both[batch:]).exp()
    cycles = f0.div(sample_rate).cumsum(1)
    if phase is not None:
        cycles = cycles + phase.unsqueeze(1)
    harmonics = torch.floor(0.5 * sample_rate / f0)
    # in double precision up to what the sines see: less than one turn, around zero, where their float32 is exact enough
    around = cycles - cycles.round()
    turns = (harmonics + 0.5) * around
    half, whole = (torch.sin(2.0 * math.pi * x.to(dtype)) for x in (0.5 * around, turns - turns.round()))
    harmonics = harmonics.to(dtype)
    small = half.abs() < 1e-6
    total = torch.where(small, harmonics, whole / (2.0 * half.masked_fill(small, 1.0)) - 0.5)
    return total * torch.sqrt(2.0 / harmonics), cycles.frac()


def interpolate_frames(frames: Tensor, hop_length: int) -> Tensor:
    """(batch, frames + 2) at frame centres -> (batch, frames * hop_length), linear between neighbours."""
    offset = (torch.arange(hop_length, dtype=frames.dtype, device=frames.device) + 0.5) / hop_length - 0.5
    left, centre, right = (frames[:, start : frames.shape[1] - 2 + start, None] for start in range(3))
    return (centre + offset.clamp_min(0) * (right - centre) + offset.clamp_max(0) * (centre - left)).flatten(1)


def _with_magnitude(spectrum: Tensor, magnitude: Tensor) -> tuple[Tensor, Tensor]:
    if computes_at_once(spectrum):
        return with_magnitude(spectrum, magnitude, TINY), magnitude
    return weighed(spectrum, magnitude * power(spectrum).clamp_min_(TINY).rsqrt_()), magnitude
