"""Discriminators of waveforms for an adversarial last stage: multi-period and multi-resolution.

References:
    HiFi-GAN: Generative Adversarial Networks for Efficient and High Fidelity Speech Synthesis (Kong et al., 2020),
        https://arxiv.org/abs/2010.05646, section 2.3 (periods)
    UnivNet: A Neural Vocoder with Multi-Resolution Spectrogram Discriminators (Jang et al., 2021),
        https://arxiv.org/abs/2106.07889 (resolutions; BigVGAN, https://arxiv.org/abs/2206.04658, uses the same)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from wavedistill.errors import WavedistillError

SLOPE = 0.1


@dataclass
class DiscriminatorConfig:
    """Discriminators, small enough to train on a CPU, and how they are trained.

    Attributes:
        periods: one discriminator each, which sees every p-th sample as a column of a picture.
        resolutions_ms: one discriminator each, of the magnitude spectrogram with windows of that length (a fifth of it
            as hop).
        channels: of a first layer; those of periods grow to eight times as many.
        segment_seconds: length of the random crop that they see of each clip (longer than the clip: all of it).
        lr: peak learning rate; it follows the student's schedule.
        betas, clip_norm: of their own AdamW and gradient clipping.
    """

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    resolutions_ms: tuple[float, ...] = (10.0, 25.0, 50.0)
    channels: int = 16
    segment_seconds: float = 0.25
    lr: float = 2e-4
    betas: tuple[float, float] = (0.8, 0.99)
    clip_norm: float = 10.0

    def __post_init__(self) -> None:
        if not self.periods and not self.resolutions_ms:
            raise WavedistillError("loss.discriminator needs at least one of periods and resolutions_ms.")
        for name, values in (("periods", self.periods), ("resolutions_ms", self.resolutions_ms)):
            if any(value <= 0 for value in values):
                raise WavedistillError(
                    f"loss.discriminator.{name} must be above 0, got {', '.join(f'{v:g}' for v in values)}."
                )
        for name in ("channels", "segment_seconds", "lr", "clip_norm"):
            if getattr(self, name) <= 0:
                raise WavedistillError(f"loss.discriminator.{name} must be above 0, got {getattr(self, name):g}.")


class Judgement(NamedTuple):
    """One map of scores of each discriminator (1: real, 0: made), and the activations of every hidden layer."""

    scores: list[Tensor]
    features: list[Tensor]


class Discriminators(nn.Module):
    """All discriminators of a configuration, read as one.

    Shapes: waveforms (batch, samples) -> `Judgement`, one score map (batch, positions) for each discriminator.
    """

    def __init__(self, config: DiscriminatorConfig, sample_rate: int) -> None:
        super().__init__()
        self.config = config
        self.members = nn.ModuleList(PeriodDiscriminator(period, config.channels) for period in config.periods)
        windows = [round(sample_rate * length / 1000.0) for length in config.resolutions_ms]
        self.members.extend(ResolutionDiscriminator(window, config.channels) for window in windows)

    def forward(self, waves: Tensor) -> Judgement:
        scores = []
        features = []
        for member in self.members:
            x = member.picture(waves)
            for layer in member.layers:
                x = nn.functional.leaky_relu(layer(x), SLOPE)
                features.append(x)
            scores.append(member.output(x).flatten(1))
        return Judgement(scores, features)


class PeriodDiscriminator(nn.Module):
    """Sees samples one period apart: convolutions along time, the same for each of the ``period`` phases."""

    widths = (1, 2, 4, 8, 8)

    def __init__(self, period: int, channels: int) -> None:
        super().__init__()
        self.period = period
        sizes = [1, *(channels * width for width in self.widths)]
        strides = (3, 3, 3, 3, 1)
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(before, after, (5, 1), (stride, 1), padding=(2, 0)))
            for before, after, stride in zip(sizes[:-1], sizes[1:], strides, strict=True)
        )
        self.output = weight_norm(nn.Conv2d(sizes[-1], 1, (3, 1), padding=(1, 0)))

    def picture(self, waves: Tensor) -> Tensor:
        """(batch, samples) -> (batch, 1, samples / period, period); the end is filled up by reflection."""
        waves = nn.functional.pad(waves, (0, -waves.shape[1] % self.period), "reflect")
        return waves.view(len(waves), 1, -1, self.period)


class ResolutionDiscriminator(nn.Module):
    """Looks at the magnitude spectrogram of one resolution.

    UnivNet's layers, but with a stride along frequency as along time, which takes six tenths of the time (measured on a
    CPU).
    """

    strides = (1, 2, 2, 2)

    def __init__(self, window: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(window), persistent=False)
        sizes = [1, *[channels] * len(self.strides)]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(before, after, (3, 9), stride, padding=(1, 4)))
            for before, after, stride in zip(sizes[:-1], sizes[1:], self.strides, strict=True)
        )
        self.layers.append(weight_norm(nn.Conv2d(channels, channels, 3, padding=1)))
        self.output = weight_norm(nn.Conv2d(channels, 1, 3, padding=1))

    def picture(self, waves: Tensor) -> Tensor:
        """(batch, samples) -> (batch, 1, bins, frames), in float32."""
        length = len(self.window)
        n_fft = 2 ** math.ceil(math.log2(length))
        with torch.autocast(waves.device.type, enabled=False):
            waves = waves.float()
            spectrum = torch.stft(
                waves, n_fft, max(1, length // 5), length, self.window, pad_mode="constant", return_complex=True
            )
            return (spectrum.real.square() + spectrum.imag.square()).clamp_min(1e-7).sqrt().unsqueeze(1)
