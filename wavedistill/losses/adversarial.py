"""Both sides of the game with discriminators: least squares, and the distance in their hidden layers.

References:
    HiFi-GAN (Kong et al., 2020), https://arxiv.org/abs/2010.05646, equations 1-4
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from wavedistill.nn.discriminators import Discriminators


class Crops(NamedTuple):
    """The same piece of what the student made and of the recording, (batch, samples) each."""

    made: Tensor
    real: Tensor


def random_crops(made: Tensor, real: Tensor, length: int) -> Crops:
    """The same random crop of both waveforms (batch, samples): ``length`` samples, or all where they are shorter."""
    length = min(length, real.shape[1])
    start = int(torch.randint(real.shape[1] - length + 1, ()))
    return Crops(made[:, start : start + length], real[:, start : start + length])


def discriminator_loss(discriminators: Discriminators, crops: Crops) -> tuple[Tensor, dict[str, Tensor]]:
    """What the discriminators minimise, (D(x) - 1)^2 + D(x^)^2, its value again, and the means of their scores."""
    fakes = [score.float() for score in discriminators(crops.made).scores]
    reals = [score.float() for score in discriminators(crops.real).scores]
    losses = [(real - 1.0).square().mean() + fake.square().mean() for real, fake in zip(reals, fakes, strict=True)]
    loss = torch.stack(losses).mean()
    values = {"discriminator_loss": loss, "real_score": _mean(reals), "fake_score": _mean(fakes)}
    return loss, {name: value.detach() for name, value in values.items()}


def adversarial_distance(scores: Sequence[Tensor]) -> Tensor:
    """Squared distance from 1 of the scores that the student's audio gets, a mean over discriminators."""
    return torch.stack([(score.float() - 1.0).square().mean() for score in scores]).mean()


def feature_distance(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
    """Distance of the student's audio from the recording in the hidden layers, a mean over these."""
    distances = [(our.float() - their.float()).abs().mean() for our, their in zip(ours, theirs, strict=True)]
    return torch.stack(distances).mean()


def _mean(scores: Sequence[Tensor]) -> Tensor:
    return torch.stack([score.mean() for score in scores]).mean()
