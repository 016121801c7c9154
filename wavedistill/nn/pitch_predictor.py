"""Pitch from a log-mel spectrogram.

References:
    CREPE: A Convolutional Representation for Pitch Estimation (Kim et al., 2018), https://arxiv.org/abs/1802.06182:
        pitch as a distribution over bins.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from wavedistill.dsp.harmonic_source import Pitch
from wavedistill.nn.mel_encoder import extended, normalized
from wavedistill.numerics import full_precision

F0_MIN = 60.0
F0_MAX = 500.0
NUM_BINS = 96


class PitchPredictor(nn.Module):
    """Pitch from a log-mel spectrogram, as logits over log-spaced bins of F0 and one of voicing.

    Shapes:
        mel (batch, n_mels, frames) -> logits (batch, frames, NUM_BINS + 1), the last one of voicing.
    """

    context_frames = 4

    def __init__(self, n_mels: int, channels: int = 160) -> None:
        super().__init__()
        widths = [n_mels, channels, channels, channels, channels]
        self.convs = nn.ModuleList(nn.Conv1d(a, b, 3) for a, b in zip(widths[:-1], widths[1:], strict=True))
        self.output = nn.Conv1d(channels, NUM_BINS + 1, 1)
        centres = torch.linspace(math.log(F0_MIN), math.log(F0_MAX), NUM_BINS)
        self.register_buffer("centres", centres, persistent=False)

    def forward(self, mel: Tensor) -> Tensor:
        # out of training in double precision: the phase of the source sums f0 over a whole utterance, so that rounding
        # that differs between chunks, batches and threads would be heard in it
        dtype = mel.dtype if self.training else torch.float64
        hidden = normalized(extended(mel, self.context_frames)).to(dtype)
        for conv in self.convs:
            hidden = nn.functional.leaky_relu(_convolve(conv, hidden), 0.1)
        return _convolve(self.output, hidden).transpose(1, 2)

    def decode(self, logits: Tensor) -> Pitch:
        """Mean log-frequency of the five bins around the likeliest, the probability of voicing; without gradient."""
        logits = full_precision(logits.detach())
        best = logits[..., :-1].argmax(-1, keepdim=True)
        near = (best + torch.arange(-2, 3, device=logits.device)).clamp(0, NUM_BINS - 1)
        weights = torch.softmax(logits[..., :-1].gather(-1, near).double(), dim=-1)
        return Pitch((weights * self.centres[near]).sum(-1).exp(), torch.sigmoid(logits[..., -1]))

    def loss(self, logits: Tensor, f0: Tensor) -> Tensor:
        """Cross-entropy against measured F0 (batch, frames) in Hz, 0 = unvoiced: voicing, and the bins where voiced."""
        voiced = (f0 > 0).float()
        distance = f0.clamp(F0_MIN, F0_MAX).log().unsqueeze(-1) - self.centres
        step = self.centres[1] - self.centres[0]
        target = torch.softmax(-0.5 * (distance / step).square(), dim=-1)
        bins = -(target * torch.log_softmax(logits[..., :-1].float(), dim=-1)).sum(-1)
        voicing = nn.functional.binary_cross_entropy_with_logits(logits[..., -1].float(), voiced)
        return voicing + (bins * voiced).sum() / voiced.sum().clamp_min(1.0)


def _convolve(conv: nn.Conv1d, x: Tensor) -> Tensor:
    return nn.functional.conv1d(x, conv.weight.to(x.dtype), conv.bias.to(x.dtype))
