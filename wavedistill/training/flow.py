"""Maximum likelihood training of the one-stage flow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from wavedistill.data.baseline import bits_per_sample
from wavedistill.models.base import dequantized
from wavedistill.models.waveform_flow import WaveformFlow
from wavedistill.training.task import Sample, resynthesised, validation_batches

if TYPE_CHECKING:
    from wavedistill.data.dataset import Batch, SpeechDataset

PAST_FRAMES = 1
"""Frames at the start of a crop that are not scored: they lend the predictors their past."""
PITCH_WEIGHT = 0.1
"""Of the pitch loss: no parameter shares the two losses, but they share the norm that gradients are clipped to."""


class FlowTask(nn.Module):
    """Negative log-likelihood of crops, in nats per sample, plus the cross-entropy of a pitch predictor.

    Only a model that predicts from the pitch has one. A lag passes no gradient on, so that the pitch predictor learns
    from measured F0 alone, and the rest from the likelihood alone.

    Logged: ``bits`` per 16-bit sample, comparable with the teacher's, and ``pitch`` in nats per frame.
    """

    def __init__(self, model: WaveformFlow) -> None:
        super().__init__()
        self.model = model
        self.discriminators = None

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        log_prob, pitch = self._measure(batch, torch.default_generator)
        values = {"bits": bits_per_sample(log_prob.detach())}
        if pitch is None:
            return -log_prob, values
        return PITCH_WEIGHT * pitch - log_prob, values | {"pitch": pitch.detach()}

    def _measure(self, batch: Batch, generator: torch.Generator | None) -> tuple[Tensor, Tensor | None]:
        """Mean log-density in nats per sample, and the pitch predictor's loss."""
        audio = dequantized(batch.audio.unsqueeze(1), generator)
        output = self.model.density(audio, batch.mel, batch.speaker, past_frames=PAST_FRAMES)
        log_prob = output.log_prob.sum() / output.noise.numel()
        return log_prob, None if self.model.pitch is None else self.model.pitch.loss(output.pitch_logits, batch.f0)

    def validate(self, dataset: SpeechDataset, num_batches: int) -> dict[str, float]:
        """Bits per sample and pitch loss on the same ``num_batches`` crops of held-out speech every time."""
        device = next(self.model.parameters()).device
        totals = torch.zeros(2, dtype=torch.float64)
        for batch in validation_batches(dataset, num_batches, device):
            log_prob, pitch = self._measure(batch, None)
            totals += torch.tensor([float(log_prob), 0.0 if pitch is None else float(pitch)])
        log_prob, pitch = (totals / num_batches).tolist()
        return {"bits": bits_per_sample(log_prob)} | ({} if self.model.pitch is None else {"pitch": pitch})

    def samples(self, dataset: SpeechDataset) -> list[Sample]:
        """Held-out recordings re-synthesised by the flow, beside the originals."""
        return resynthesised(self.model, "flow", dataset)
