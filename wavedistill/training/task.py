"""What the training loop needs to know about the thing it trains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from wavedistill.data.dataset import Batch, SpeechDataset
    from wavedistill.models.parallel_wavenet import ParallelWaveNet
    from wavedistill.models.waveform_flow import WaveformFlow
    from wavedistill.nn.discriminators import Discriminators

VALIDATION_BATCH_SIZE = 8


@dataclass
class Sample:
    """A piece of audio to listen to during training."""

    name: str
    audio: Tensor
    """(samples,) in [-1, 1]."""
    mel: Tensor | None = None
    """(n_mels, frames), the log-mel spectrogram it was made from."""


class Task(Protocol):
    """An ``nn.Module`` that holds the trained ``model`` and says how to compute its loss.

    Only the parameters of ``model`` are trained, averaged and saved. Anything else a task holds (a frozen teacher) must
    have ``requires_grad`` False. Randomness comes from torch's global generator, which the loop seeds for every batch.
    """

    model: nn.Module
    discriminators: Discriminators | None
    """What an adversarial loss asks, frozen but for its own step: the task is an `AdversarialTask` then."""

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (a scalar in float32) and named scalars to log."""

    def validate(self, dataset: SpeechDataset, num_batches: int) -> dict[str, float]:
        """Numbers on held-out data; the model is in eval mode and holds the averaged weights."""

    def samples(self, dataset: SpeechDataset) -> list[Sample]:
        """Audio to listen to; the model is in eval mode and holds the averaged weights."""


class AdversarialTask(Task, Protocol):
    """A task whose loss asks discriminators, which `Adversary` trains beside the model."""

    def discriminate(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The discriminators' own loss, without gradient for the model, and named scalars to log."""


def validation_batches(dataset: SpeechDataset, num_batches: int, device: torch.device | str = "cpu") -> Iterator[Batch]:
    """The crops that validation scores: the same ones of held-out speech every time."""
    for index in range(num_batches):
        yield dataset.batch(index, VALIDATION_BATCH_SIZE, seed=0).to(device)


def resynthesised(model: ParallelWaveNet | WaveformFlow, name: str, dataset: SpeechDataset) -> list[Sample]:
    """Four held-out recordings resynthesised by the model, beside the originals."""
    device = next(model.parameters()).device
    samples = []
    for number, item in zip(range(4), dataset.utterances(), strict=False):
        speaker = None if item.speaker is None else torch.tensor([item.speaker], device=device)
        mel = None if item.mel is None else item.mel.unsqueeze(0).to(device)
        audio = model.sample(mel, num_samples=len(item.audio), speaker=speaker, seed=number)
        samples.append(Sample(f"{item.id}-{name}", audio[0, 0].cpu(), item.mel))
        samples.append(Sample(f"{item.id}-original", item.audio, item.mel))
    return samples
