"""Models small enough for tests: real architectures, random weights, output layers shaken so that they do something."""

from __future__ import annotations

import torch
from torch import nn

from wavedistill.audio.mel import MelConfig
from wavedistill.models.parallel_wavenet import ParallelWaveNet, ParallelWaveNetConfig
from wavedistill.models.wavenet import WaveNet, WaveNetConfig
from wavedistill.nn.wavenet_stack import StackConfig

MEL = MelConfig(sample_rate=8000, n_fft=256, win_length=256, hop_length=64, n_mels=20, f_max=4000.0)
STACK = StackConfig(num_layers=4, num_cycles=2, channels=8, skip_channels=8)


def tiny_teacher(
    mel: MelConfig | None = MEL, speakers: tuple[str, ...] = (), seed: int = 0, **options
) -> WaveNet:
    """A teacher of some thousand weights at 8 kHz."""
    config = WaveNetConfig(
        mel=mel,
        sample_rate=8000,
        speakers=list(speakers),
        stack=STACK,
        cond_channels=8,
        linear_order=4,
        **options,
    )
    return _shaken(WaveNet, config, seed)


def tiny_student(
    mel: MelConfig | None = MEL, speakers: tuple[str, ...] = (), seed: int = 0, **options
) -> ParallelWaveNet:
    """A student of some thousand weights at 8 kHz."""
    if mel is None:
        options = {"source_order": 0} | options
    config = ParallelWaveNetConfig(
        mel=mel,
        sample_rate=8000,
        speakers=list(speakers),
        stack=StackConfig(3, 1, 2, 8, 8),
        cond_channels=8,
        **options,
    )
    return _shaken(ParallelWaveNet, config, seed)


def speech_like(seconds: float, sample_rate: int = 8000, seed: int = 0) -> torch.Tensor:
    """Audio (samples,): a gliding tone in a little noise, peak below 0.5."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(round(seconds * sample_rate)) / sample_rate
    tone = torch.sin(2 * torch.pi * (150 + 40 * time + 10 * seed) * time) * (0.6 + 0.4 * torch.sin(7 * time))
    return 0.3 * tone + 0.01 * torch.randn(len(time), generator=generator)


def _shaken(cls: type[nn.Module], config, seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = cls(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.05 * torch.randn_like(
                    parameter
                )  # zero-initialised outputs would hide mistakes
    return model.eval()
