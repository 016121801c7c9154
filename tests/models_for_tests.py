"""Tiny models with weights away from their initial zeros, and signals to feed them."""

from __future__ import annotations

import torch
from torch import Tensor

from wavedistill.audio.mel import LogMelSpectrogram, MelConfig
from wavedistill.models.front import FrontConfig
from wavedistill.models.parallel_wavenet import ParallelWaveNet, ParallelWaveNetConfig
from wavedistill.models.wavenet import WaveNet, WaveNetConfig
from wavedistill.nn.wavenet_stack import StackConfig

MEL = MelConfig(n_fft=256, win_length=256, hop_length=64, n_mels=20)
FRONTS = {
    "none": FrontConfig(),
    "pre-emphasis": FrontConfig(pre_emphasis=0.9, scale=4.0),
    "mel-prediction": FrontConfig(mel_prediction_order=16, white_noise=1e-4),
}


def disturbed(model: torch.nn.Module, amount: float = 0.05, seed: int = 0) -> torch.nn.Module:
    """The model in eval mode with noise added to every parameter, so that no path is closed by its zero initialisation."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += amount * torch.randn(parameter.shape, generator=generator).to(parameter)
    return model.eval()


def tiny_teacher(**changes) -> WaveNet:
    options = dict(mel=MEL, stack=StackConfig(4, 2, 2, 8, 8), cond_channels=8, cond_upsample=2, linear_order=4)
    torch.manual_seed(0)
    return disturbed(WaveNet(WaveNetConfig(**{**options, **changes})))


def tiny_student(**changes) -> ParallelWaveNet:
    options = dict(
        mel=MEL, num_flows=2, stack=StackConfig(3, 1, 2, 8, 8), cond_channels=8, cond_upsample=2, linear_order=4, source_order=4
    )
    torch.manual_seed(0)
    return disturbed(ParallelWaveNet(ParallelWaveNetConfig(**{**options, **changes})))


def speech_like(batch: int, frames: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A noisy tone with a slow envelope on the 16-bit grid, (batch, 1, samples), and its mel (batch, n_mels, frames)."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(frames * MEL.hop_length) / MEL.sample_rate
    pitch = 100.0 + 100.0 * torch.rand(batch, 1, generator=generator)
    tone = torch.sin(2 * torch.pi * pitch * time) + 0.3 * torch.sin(6 * torch.pi * pitch * time)
    audio = (0.2 + 0.1 * torch.sin(20.0 * time)) * tone + 0.02 * torch.randn(tone.shape, generator=generator)
    audio = torch.round(audio * 32768.0) / 32768.0
    return audio.unsqueeze(1), LogMelSpectrogram(MEL)(audio)
