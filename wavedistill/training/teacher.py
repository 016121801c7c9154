"""Maximum likelihood training of the teacher."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from wavedistill.data.baseline import bits_per_sample
from wavedistill.errors import WavedistillError, check_number
from wavedistill.losses.rollout import Rollout, RolloutConfig
from wavedistill.models.configs import WaveNetConfig
from wavedistill.models.wavenet import WaveNet
from wavedistill.training.task import Sample, validation_batches

if TYPE_CHECKING:
    from wavedistill.data.dataset import Batch, SpeechDataset

SKIP = 256
"""Samples at the start of a crop whose likelihood is not counted: their past lies outside the crop. In a crop that
begins where its recording does they count in training: nothing is their past. In validation they never do.
"""
SAMPLE_FRAMES = 24
"""Frames of a held-out clip that the teacher speaks during training: sampling is sequential, so they are few."""


@dataclass
class LikelihoodConfig:
    """What of the likelihood a teacher is trained for.

    Attributes:
        band_weights: weight of each band's negative log-likelihood in the loss, lowest band first, one for each of the
            model's ``front.bands``; only their ratios count. They decide where the network's capacity goes: the density
            and the reported bits stay those of the whole waveform. None: all alike.
        history_noise: standard deviation of white noise on the past that the network reads while it trains, in the
            front's domain, where speech has unit variance: against models that amplify their own small errors. On
            tones 0.03 lowered the bits and did not stop samples that run away (recipes/notes). 0: none.
        rollout: what the teacher says by itself, beside the recording; against samples that run away.
    """

    band_weights: list[float] | None = None
    history_noise: float = 0.0
    rollout: RolloutConfig = field(default_factory=RolloutConfig)


def skipped(config: WaveNetConfig) -> int:
    """`SKIP`, rounded up to whole steps of the model."""
    return SKIP + -SKIP % config.front.bands


class TeacherTask(nn.Module):
    """Negative log-likelihood of crops, in nats per sample; with ``band_weights`` its weighted mean over bands.

    Logged: ``bits`` per 16-bit sample (below 16 is better than raw PCM; linear prediction reaches about 9), and with
    ``rollout.weight`` the distance ``rollout``, see `Rollout`.

    Raises:
        WavedistillError: for band weights that are not one for each band, or not above 0; a history noise below 0.
    """

    def __init__(self, model: WaveNet, config: LikelihoodConfig) -> None:
        super().__init__()
        self.model = model
        self.discriminators = None
        bands = model.config.front.bands
        weights = [1.0] * bands if config.band_weights is None else config.band_weights
        if len(weights) != bands or not all(0.0 < weight < math.inf for weight in weights):
            raise WavedistillError(
                f"loss.band_weights: {bands} numbers above 0 are needed, one for each of the model's front.bands, got "
                f"{weights}."
            )
        check_number("loss.history_noise", config.history_noise)
        self.history_noise = config.history_noise
        self.rollout_weight = config.rollout.weight
        self.rollout = Rollout(model, config.rollout.steps) if config.rollout.weight else None
        self.skip = skipped(model.config)
        self.register_buffer("weights", torch.tensor(weights) * (bands / sum(weights)), persistent=False)

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        log_prob = self._log_prob(batch, torch.default_generator, self.history_noise)
        counted = torch.ones_like(log_prob)
        counted[:, : self.skip] = 0.0 if batch.begins is None else batch.begins.unsqueeze(1).to(counted)
        weighted = (log_prob.unflatten(1, (-1, len(self.weights))) * self.weights).flatten(1)
        # a number that is the same on every rank, so that the mean of their gradients is that of one rank
        loss = -(weighted * counted).sum() / (len(counted) * (counted.shape[1] - self.skip))
        logged = {"bits": bits_per_sample(((log_prob * counted).sum() / counted.sum()).detach())}
        if self.rollout is not None:
            distance = self._rollout(batch)
            loss = loss + self.rollout_weight * distance
            logged["rollout"] = distance.detach()
        return loss, logged

    def _log_prob(self, batch: Batch, generator: torch.Generator | None, history_noise: float = 0.0) -> Tensor:
        if batch.audio.shape[1] <= self.skip:
            raise WavedistillError(
                f"data.segment_seconds gives crops of {batch.audio.shape[1]} samples; they must be longer than the "
                f"{self.skip} at their start that are not counted, since their past is cut off."
            )
        return self.model.log_prob_per_sample(
            batch.audio.unsqueeze(1), batch.mel, batch.speaker, generator=generator, history_noise=history_noise
        )

    def _rollout(self, batch: Batch) -> Tensor:
        return self.rollout(self.model, batch.audio, batch.mel, batch.speaker, batch.begins)

    def validate(self, dataset: SpeechDataset, num_batches: int) -> dict[str, float]:
        """Bits per sample, and the distance of rollouts, on the same ``num_batches`` crops of held-out speech."""
        device = next(self.model.parameters()).device
        total = 0.0
        count = 0
        distances = []
        for batch in validation_batches(dataset, num_batches, device):
            log_prob = self._log_prob(batch, None)[:, self.skip :]
            total = total + float(log_prob.double().sum())
            count = count + log_prob.numel()
            if self.rollout is not None:
                distances.append(float(self._rollout(batch)))
        found = {"bits": bits_per_sample(total / count)}
        if distances:
            found["rollout"] = sum(distances) / len(distances)
        return found

    def samples(self, dataset: SpeechDataset) -> list[Sample]:
        """The start of a voiced crop of held-out speech, spoken by the model; or noise shaped by it without a mel."""
        batch = dataset.batch(0, 1, seed=0).to(next(self.model.parameters()).device)
        if batch.mel is None:
            audio = self.model.sample(num_samples=SAMPLE_FRAMES * self.model.hop_length, speaker=batch.speaker, seed=0)
            return [Sample("unconditional", audio[0, 0].cpu())]
        mel = batch.mel[..., :SAMPLE_FRAMES]
        audio = self.model.sample(mel, speaker=batch.speaker, seed=0)
        original = batch.audio[0, : audio.shape[-1]]
        return [Sample("teacher", audio[0, 0].cpu(), mel[0].cpu()), Sample("original", original.cpu(), mel[0].cpu())]
