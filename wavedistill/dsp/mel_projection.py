"""Projections of a waveform onto those whose mel spectrogram is a given one.

A generator's waveform has its own mel, which differs from the one it was asked for: by noise, and by what it learned
badly. Each projection weighs every bin of its spectrum by the ratio of the two mels, and leaves the phases alone.
Several are needed, because the spectra of overlapping frames must agree; each starts somewhat beyond the last one, in
the direction it took.

References:
    Algorithms for Non-negative Matrix Factorization (Lee & Seung, 2001): the weights are one multiplicative step of its
        divergence
    Signal Estimation from Modified Short-Time Fourier Transform (Griffin & Lim, 1984): alternating projections
    A Fast Griffin-Lim Algorithm (Perraudin, Balazs & Sondergaard, 2013), https://doi.org/10.1109/WASPAA.2013.6701851:
        the acceleration
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from wavedistill.audio.mel import MelConfig, mel_filter_bank
from wavedistill.dsp.mel_stft import MelSTFT, power

MAX_RATIO = 10.0
"""A band grows at most this much in one projection, so that one that is nearly silent does not become all noise."""
ACCELERATION = 0.7
"""Of the last step, added to each. Eight projections then do what sixteen do without, by PESQ; above 1 they no longer
converge (measured).
"""
TINY = 1e-18


class MelProjection(nn.Module):
    """wave -> STFT^-1(STFT(wave) * (F_n (mel / F' |STFT(wave)|^p))^(1/p)), several times.

    F are the mel filters, F_n the same with rows of sum 1.

    Args:
        mel: settings of the spectrogram, p its power.
        iterations: projections; each lets a sample depend on `MelSTFT.context_frames` more frames on either side.

    Attributes:
        context_frames: frames on either side that a sample depends on.

    Shapes:
        wave (batch, frames * hop_length), log_mel (batch, n_mels, frames) -> wave of the same shape; differentiable in
            the wave.
    """

    def __init__(self, mel: MelConfig, iterations: int) -> None:
        super().__init__()
        self.mel = mel
        self.iterations = iterations
        self.stft = MelSTFT(mel, reflect=True)
        self.context_frames = iterations * self.stft.context_frames
        filters = mel_filter_bank(mel)
        total = filters.sum(1, keepdim=True)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer(
            "spread", torch.where(total > 0, filters / total.clamp_min(TINY), 0.0).T.contiguous(), persistent=False
        )
        self.register_buffer(
            "outside", (total == 0).float().T.contiguous(), persistent=False
        )  # bins of no filter stay as they are

    def forward(self, wave: Tensor, log_mel: Tensor) -> Tensor:
        mel = self.mel
        wanted = log_mel.transpose(1, 2).exp()
        filters, spread, outside = (x.to(wave.dtype) for x in (self.filters, self.spread, self.outside))
        weight = self.stft.weight(log_mel.shape[-1], wave.dtype)
        last = None
        for _ in range(self.iterations):
            spectrum = self.stft(wave)
            magnitude = power(spectrum).add_(TINY).sqrt_()
            given = (magnitude if mel.power == 1.0 else magnitude.pow(mel.power)) @ filters
            ratio = (wanted / given.clamp_min(mel.floor)).clamp_max(MAX_RATIO)
            gain = (ratio @ spread).add_(outside)
            projected = self.stft.inverse(spectrum * (gain if mel.power == 1.0 else gain.pow(1.0 / mel.power)), weight)
            wave = projected if last is None else torch.lerp(last, projected, 1.0 + ACCELERATION)
            last = projected
        return wave if last is None else last

    def stream(self, chunks: Iterator[Tensor], log_mel: Tensor, frames_per_chunk: int) -> Iterator[Tensor]:
        """The projection of a wave in chunks (batch, 1, samples); joined, the results equal that of the whole.

        Yields (batch, 1, frames_per_chunk * hop_length), the last shorter. Holds no more than a chunk and its context.

        Shapes: log_mel (batch, n_mels, frames), whole.
        """
        frames = log_mel.shape[-1]
        hop = self.mel.hop_length
        context = self.context_frames
        first = 0  # the frame that the held samples begin with
        held = None
        for start in range(0, frames, frames_per_chunk):
            end = min(start + frames_per_chunk, frames)
            last = min(end + context, frames)
            parts = [] if held is None else [held]
            have = first + sum(part.shape[1] for part in parts) // hop
            while have < last:
                parts.append(next(chunks)[:, 0])
                have += parts[-1].shape[1] // hop
            held = torch.cat(parts, dim=1)
            wave = self(held[:, : (last - first) * hop], log_mel[..., first:last])
            yield wave[:, (start - first) * hop : (end - first) * hop].unsqueeze(1)
            keep = max(end - context, 0)
            held = held[:, (keep - first) * hop :]
            first = keep
