"""Distances of spectra.

References:
    Parallel WaveGAN (Yamamoto et al., 2019), https://arxiv.org/abs/1910.11480, section 2.2
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class MultiResolutionSTFT(nn.Module):
    """Spectral convergence plus mean log-magnitude distance, averaged over three resolutions (equations 6 to 9).

    Windows are 10, 25 and 50 ms long with a fifth of that as hop, whatever the sample rate.

    Shapes: two waveforms (batch, samples) -> scalar.
    """

    milliseconds = (10.0, 25.0, 50.0)

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.windows = [round(sample_rate * length / 1000.0) for length in self.milliseconds]
        for index, length in enumerate(self.windows):
            self.register_buffer(f"window_{index}", torch.hann_window(length), persistent=False)

    def forward(self, candidate: Tensor, reference: Tensor) -> Tensor:
        total = candidate.new_zeros(())
        for ours, theirs in self._magnitudes(candidate, reference):
            convergence = torch.linalg.vector_norm(theirs - ours) / torch.linalg.vector_norm(theirs).clamp_min(1e-5)
            total = total + convergence + _log_distance(ours, theirs)
        return total / len(self.windows)

    def log_distance(self, candidate: Tensor, reference: Tensor) -> Tensor:
        """The second term alone: a signal a thousand times too loud weighs no more than one a thousandth too quiet."""
        distances = [_log_distance(ours, theirs) for ours, theirs in self._magnitudes(candidate, reference)]
        return torch.stack(distances).mean()

    def _magnitudes(self, *waves: Tensor) -> Iterator[list[Tensor]]:
        """Of both waveforms, one resolution after another."""
        for index in range(len(self.windows)):
            window = getattr(self, f"window_{index}")
            yield [self._magnitude(wave, window) for wave in waves]

    @staticmethod
    def _magnitude(waves: Tensor, window: Tensor) -> Tensor:
        n_fft = 2 ** math.ceil(math.log2(len(window)))
        spectrum = torch.stft(waves, n_fft, len(window) // 5, len(window), window, return_complex=True)
        return (spectrum.real.square() + spectrum.imag.square()).clamp_min(1e-7).sqrt()


def _log_distance(ours: Tensor, theirs: Tensor) -> Tensor:
    return (ours.log() - theirs.log()).abs().mean()
