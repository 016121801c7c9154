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
from wavedistill.dsp.memory import Past
from wavedistill.nn.frame_conv import convolve
from wavedistill.nn.mel_encoder import extended, normalized
from wavedistill.numerics import full_precision

F0_MIN = 60.0
F0_MAX = 500.0
NUM_BINS = 96
PROMPT_FRAMES = 1
"""Frames after its own that the pitch of a frame waits for where latency counts."""


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

    @property
    def mel_reader(self) -> nn.Conv1d:
        """The layer that reads the mel."""
        return self.convs[0]

    def forward(self, mel: Tensor) -> Tensor:
        return self.step(extended(mel, self.context_frames), self.stream_state())

    def stream_state(self) -> list[Past]:
        """What a stream remembers, before its first frame."""
        return [Past(2, axis=2) for _ in self.convs]

    def step(self, mel: Tensor, state: list[Past]) -> Tensor:
        """Logits of the frames that further ones make final: each needs `context_frames` on either side."""
        # out of training in double precision: the phase of the source sums f0 over a whole utterance, so that rounding
        # that differs between chunks, batches and threads would be heard in it
        dtype = mel.dtype if self.training else torch.float64
        hidden = normalized(mel).to(dtype)
        for conv, past in zip(self.convs, state, strict=True):
            hidden = nn.functional.leaky_relu(convolve(conv, past.join(hidden)), 0.1)
        return convolve(self.output, hidden).transpose(1, 2)

    def prompt_state(self) -> Past:
        """What a stream of `prompt_step` remembers, before its first frame."""
        return Past(self.context_frames + PROMPT_FRAMES, axis=2)

    def prompt_step(self, mel: Tensor, state: Past) -> Tensor:
        """Logits of the frames that further ones make final, where each waits for `PROMPT_FRAMES` after it only, and is
        given the last of them again in place of those that come later.
        """
        windows = state.join(mel).unfold(2, self.context_frames + 1 + PROMPT_FRAMES, 1)  # (batch, n_mels, frames, n)
        seen = windows.transpose(1, 2).flatten(0, 1)
        seen = nn.functional.pad(seen, (0, self.context_frames - PROMPT_FRAMES), mode="replicate")
        return self.step(seen, self.stream_state()).unflatten(0, (mel.shape[0], -1)).squeeze(2)

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
