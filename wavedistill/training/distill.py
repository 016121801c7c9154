"""Distillation of a student from a frozen teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from wavedistill.data.baseline import bits_per_sample, linear_prediction_bits
from wavedistill.errors import WavedistillError
from wavedistill.losses.distillation import DistillationConfig, DistillationLoss
from wavedistill.models.parallel_wavenet import ParallelWaveNet
from wavedistill.models.wavenet import WaveNet
from wavedistill.training.task import Sample, resynthesised, validation_batches

if TYPE_CHECKING:
    from wavedistill.data.dataset import Batch, SpeechDataset
    from wavedistill.nn.discriminators import Discriminators

GATE_SECONDS = 60.0
"""Held-out speech on which `check_teacher` compares the teacher with linear prediction."""


class DistillTask(nn.Module):
    """Terms of `wavedistill.losses.distillation` on crops of recordings; the teacher is frozen and in eval mode."""

    def __init__(self, model: ParallelWaveNet, teacher: WaveNet, config: DistillationConfig) -> None:
        super().__init__()
        self.model = model
        self.loss = DistillationLoss(config, model, teacher.eval().requires_grad_(False))

    def train(self, mode: bool = True) -> DistillTask:
        super().train(mode)
        self.loss.teacher.eval()
        return self

    @property
    def discriminators(self) -> Discriminators | None:
        """Those of the adversarial terms; None where the loss has none of these."""
        return self.loss.discriminators

    def discriminate(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The discriminators' loss on a batch and the student's audio for it."""
        return self.loss.discriminate(self.model, batch.audio.unsqueeze(1), batch.mel, batch.speaker)

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        return self.loss(self.model, batch.audio.unsqueeze(1), batch.mel, batch.speaker, batch.f0, step)

    def validate(self, dataset: SpeechDataset, num_batches: int) -> dict[str, float]:
        """Every term and diagnostic, averaged over the same crops of held-out speech every time."""
        device = next(self.model.parameters()).device
        sums: dict[str, float] = {}
        for batch in validation_batches(dataset, num_batches, device):
            loss, values = self(batch, self.loss.config.kl_clip_steps)
            for name, value in {"loss": loss, **values}.items():
                sums[name] = sums.get(name, 0.0) + float(value) / num_batches
        return sums

    def samples(self, dataset: SpeechDataset) -> list[Sample]:
        """Held-out recordings re-synthesised by the student, beside the originals."""
        return resynthesised(self.model, "student", dataset)


def inherit(student: ParallelWaveNet, donor: WaveNet | ParallelWaveNet) -> list[str]:
    """Start the student with the donor's conditioning network and pitch predictor; returns the names of what it took.

    A part is taken where both have it in the same size.
    """
    taken = []
    for name in ("conditioning", "pitch"):
        own, given = (getattr(model, name, None) for model in (student, donor))
        if own is None or given is None:
            continue
        weights = given.state_dict()
        shapes = [{key: value.shape for key, value in state.items()} for state in (own.state_dict(), weights)]
        if shapes[0] == shapes[1]:
            own.load_state_dict(weights)
            taken.append(name)
    return taken


@torch.no_grad()
def check_teacher(teacher: WaveNet, dataset: SpeechDataset, teacher_name: str) -> None:
    """Refuse a teacher that codes held-out speech worse than linear prediction: there is nothing to distil yet.

    Raises:
        WavedistillError: with both figures, and what to type.
    """
    device = next(teacher.parameters()).device
    clips = []
    mels = []
    total = 0.0
    samples = 0
    for item in dataset.utterances():
        if samples >= GATE_SECONDS * teacher.sample_rate:
            break
        audio = item.audio[None, None].to(device)
        mel = None if item.mel is None else item.mel.unsqueeze(0).to(device)
        speaker = None if item.speaker is None else torch.tensor([item.speaker], device=device)
        total += float(teacher.log_prob_per_sample(audio, mel, speaker).double().sum())
        samples += audio.shape[-1]
        clips.append(item.audio)
        mels.append(item.mel)
    ours = bits_per_sample(total / samples)
    baseline = linear_prediction_bits(clips, mels if teacher.config.mel else None, teacher.config.mel)
    if ours > baseline:
        raise WavedistillError(
            f"teacher {teacher_name} needs {ours:.2f} bits per sample on held-out speech, linear prediction "
            f"{baseline:.2f}: train it longer (same command), or distil all the same with --loss.allow_weak_teacher."
        )
