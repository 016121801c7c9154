"""Short-time Fourier transform on the frames of a mel spectrogram, and back.

References:
    Signal Estimation from Modified Short-Time Fourier Transform (Griffin & Lim, 1984), equation 6: the inverse
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wavedistill.audio.mel import MelConfig


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
        side = mel.n_fft - mel.win_length
        window = nn.functional.pad(torch.hann_window(mel.win_length), (side // 2, side - side // 2))
        self.register_buffer("window", window, persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        mel = self.mel
        right = mel.n_fft - mel.hop_length - self.left
        if self.reflect:
            before, after = self._mirrored(wave, right)
            padded = torch.cat([wave[:, before], wave, wave[:, after]], dim=1)
        else:
            padded = nn.functional.pad(wave, (self.left, right))
        return torch.fft.rfft(padded.unfold(1, mel.n_fft, mel.hop_length) * self.window.to(wave.dtype))

    def inverse(self, spectrum: Tensor, weight: Tensor | None = None) -> Tensor:
        """The wave whose spectrum is nearest in the least-squares sense: windowed overlap-add over ``weight``.

        Args:
            weight: the sum of squared windows, the same for all spectra of one length; None: compute it.
        """
        mel = self.mel
        dtype = spectrum.real.dtype
        weight = self.weight(spectrum.shape[1], dtype) if weight is None else weight
        frames = torch.fft.irfft(spectrum, n=mel.n_fft) * self.window.to(dtype)
        return self._overlap_add(frames)[:, self.left : self.left + frames.shape[1] * mel.hop_length] / weight

    def weight(self, frames: int, dtype: torch.dtype) -> Tensor:
        """The sum of squared windows over each sample, (1, frames * hop_length)."""
        total = self._overlap_add(self.window.to(dtype).square().expand(1, frames, -1))
        return total[:, self.left : self.left + frames * self.mel.hop_length].clamp_min(1e-3)

    def _mirrored(self, wave: Tensor, right: int) -> tuple[Tensor, Tensor]:
        """Indices of the samples that stand for the ``left`` before the wave and the ``right`` after it."""
        last = wave.shape[1] - 1
        before = torch.arange(self.left, 0, -1, device=wave.device)
        after = torch.arange(last + 1, last + 1 + right, device=wave.device)
        return (last - (last - before).abs()).abs().clamp(max=last), (last - (last - after).abs()).abs().clamp(max=last)

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """(batch, frames, n_fft) -> (batch, n_fft + (frames - 1) * hop_length)."""
        size = self.mel.n_fft
        hop = self.mel.hop_length
        length = size + hop * (frames.shape[1] - 1)
        if size % hop:
            return nn.functional.fold(frames.transpose(1, 2), (1, length), (1, size), stride=(1, hop)).flatten(1)
        total = frames.new_zeros(frames.shape[0], length // hop, hop)
        for part in range(size // hop):  # whole hops overlap: a few additions instead of a scatter
            total[:, part : part + frames.shape[1]] += frames[..., part * hop : (part + 1) * hop]
        return total.flatten(1)


def power(spectrum: Tensor) -> Tensor:
    """|spectrum|^2 (several times as fast on a CPU as the absolute value of complex numbers, measured)."""
    parts = torch.view_as_real(spectrum)
    return parts[..., 0].square().addcmul_(parts[..., 1], parts[..., 1])
