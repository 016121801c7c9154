"""Short-time Fourier transform on the frames of a mel spectrogram, and back.

References:
    Signal Estimation from Modified Short-Time Fourier Transform (Griffin & Lim, 1984), equation 6: the inverse
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from wavedistill.audio.mel import MelConfig
from wavedistill.kernels.operators import computes_at_once
from wavedistill.kernels.overlap import overlap_windowed


class MelSTFT(nn.Module):
    """The spectrum that a mel spectrogram with these settings is summed from, frame for frame.

    Args:
        mel: settings of the spectrogram.
        reflect: let the wave be mirrored beyond its ends, as the mel spectrogram sees it; otherwise there is silence.

    Attributes:
        context_frames: frames on either side that a sample of ``inverse(f(forward(wave)))`` depends on, f working on
            single frames.

    Shapes:
        wave (batch, frames * hop_length) -> spectrum (batch, frames, n_fft // 2 + 1), complex; `inverse` is the way
            back.
    """

    def __init__(self, mel: MelConfig, reflect: bool = False) -> None:
        super().__init__()
        self.mel = mel
        self.reflect = reflect
        self.context_frames = -(-mel.n_fft // mel.hop_length)
        self.left = mel.n_fft // 2 if mel.centered else (mel.n_fft - mel.hop_length) // 2
        self.right = mel.n_fft - mel.hop_length - self.left
        side = mel.n_fft - mel.win_length
        window = nn.functional.pad(torch.hann_window(mel.win_length), (side // 2, side - side // 2))
        self.register_buffer("window", window, persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        return self.spectrum(torch.cat([self.before(wave), wave, self.after(wave)], dim=1))

    def inverse(self, spectrum: Tensor, weight: Tensor | None = None) -> Tensor:
        """The wave whose spectrum is nearest in the least-squares sense: windowed overlap-add over ``weight``.

        Args:
            weight: the sum of squared windows, the same for all spectra of one length; None: compute it.
        """
        weight = self.weight(spectrum.shape[1], spectrum.real.dtype) if weight is None else weight
        return self._inner(self.overlapped(spectrum)) / weight

    def weight(self, frames: int, dtype: torch.dtype) -> Tensor:
        """The sum of squared windows over each sample, (1, frames * hop_length)."""
        return self._inner(self.total_weight(frames, dtype))

    def total_weight(self, frames: int, dtype: torch.dtype) -> Tensor:
        """The same from the first sample that a frame covers to the last, also outside the wave."""
        return self.overlap_add(self.window.to(dtype).square().expand(1, frames, -1)).clamp_min(1e-3)

    def before(self, wave: Tensor) -> Tensor:
        """What stands before the first sample of a wave, (batch, left)."""
        if not self.reflect:
            return wave.new_zeros(wave.shape[0], self.left)
        last = wave.shape[1] - 1
        index = torch.arange(self.left, 0, -1, device=wave.device)
        return wave.index_select(1, (last - (last - index).abs()).abs().clamp(max=last))

    def after(self, wave: Tensor) -> Tensor:
        """What stands after the last sample of a wave, (batch, right)."""
        if not self.reflect:
            return wave.new_zeros(wave.shape[0], self.right)
        last = wave.shape[1] - 1
        index = torch.arange(last + 1, last + 1 + self.right, device=wave.device)
        return wave.index_select(1, (last - (last - index).abs()).abs().clamp(max=last))

    def spectrum(self, padded: Tensor) -> Tensor:
        """Of a wave with what stands before and after it."""
        frames = padded.unfold(1, self.mel.n_fft, self.mel.hop_length)
        return torch.fft.rfft(frames * self.window.to(padded.dtype))

    def overlapped(self, spectrum: Tensor, tail: Tensor | None = None) -> Tensor:
        """Sums of the windowed frames of a spectrum from the first sample of the first one on, (batch, n_fft + (frames
        - 1) * hop_length), and of what earlier ones left there, (batch, up to as many).
        """
        if computes_at_once(spectrum):
            frames = torch.fft.irfft(spectrum, n=self.mel.n_fft)
            return overlap_windowed(frames, self.window, self.mel.hop_length, tail)
        sums = self.overlap_add(self.frames(spectrum))
        if tail is not None:
            sums[:, : tail.shape[1]] += tail
        return sums

    def frames(self, spectrum: Tensor) -> Tensor:
        """Windowed frames (batch, frames, n_fft) of a spectrum, to be overlapped."""
        return torch.fft.irfft(spectrum, n=self.mel.n_fft) * self.window.to(spectrum.real.dtype)

    def overlap_add(self, frames: Tensor) -> Tensor:
        """(batch, frames, n_fft) -> (batch, n_fft + (frames - 1) * hop_length)."""
        size = self.mel.n_fft
        hop = self.mel.hop_length
        length = size + hop * (frames.shape[1] - 1)
        if size % hop:
            return nn.functional.fold(frames.transpose(1, 2), (1, length), (1, size), stride=(1, hop)).flatten(1)
        last = size // hop - 1  # whole hops overlap: a few additions instead of a scatter
        parts = enumerate(frames.split(hop, dim=-1))
        placed = (nn.functional.pad(part, (0, 0, place, last - place)) for place, part in parts)
        return functools.reduce(torch.add, placed).flatten(1)

    def _inner(self, padded: Tensor) -> Tensor:
        return padded[:, self.left : padded.shape[1] - self.right]


def weighed(spectrum: Tensor, weight: Tensor) -> Tensor:
    """spectrum * weight, a real one of each bin. In a graph that is compiled or exported: part by part, for there a
    product of complex numbers comes with the zeros of the weight's imaginary part.
    """
    if torch.compiler.is_compiling():
        return torch.complex(spectrum.real * weight, spectrum.imag * weight)
    return spectrum * weight


def power(spectrum: Tensor) -> Tensor:
    """|spectrum|^2 (several times as fast on a CPU as the absolute value of complex numbers, measured)."""
    parts = torch.view_as_real(spectrum)
    return parts[..., 0].square().addcmul_(parts[..., 1], parts[..., 1])
