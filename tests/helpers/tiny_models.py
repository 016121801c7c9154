"""Models small enough for tests: real architectures, random weights, output layers shaken so that they do something."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from wavedistill.audio.io import save_audio
from wavedistill.audio.mel import LogMelSpectrogram, MelConfig
from wavedistill.data.manifest import Entry, write_manifest
from wavedistill.models.front import FrontConfig
from wavedistill.models.parallel_wavenet import ParallelWaveNet, ParallelWaveNetConfig
from wavedistill.models.waveform_flow import WaveformFlow, WaveformFlowConfig
from wavedistill.models.wavenet import WaveNet, WaveNetConfig
from wavedistill.nn.wavenet_stack import StackConfig

MEL = MelConfig(sample_rate=8000, n_fft=256, win_length=256, hop_length=64, n_mels=20, f_max=4000.0)
STACK = StackConfig(num_layers=4, num_cycles=2, channels=8, skip_channels=8)
MELS = {
    "hops divide the window": MEL,
    "power, short window": MelConfig(
        sample_rate=8000, n_fft=128, win_length=96, hop_length=32, n_mels=12, f_max=4000.0, power=2.0
    ),
    "hops do not divide the window": MelConfig(
        sample_rate=8000, n_fft=128, win_length=128, hop_length=48, n_mels=12, f_max=3500.0
    ),
}
"""Of other windows and hops."""

FRONTS = {
    "none": FrontConfig(),
    "pre-emphasis": FrontConfig(pre_emphasis=0.9, scale=4.0),
    "mel-prediction": FrontConfig(mel_prediction_order=16, white_noise=1e-4),
    "sub-bands": FrontConfig(mel_prediction_order=160, white_noise=1e-4, lag_window=10.0, bands=8),
}
"""The order of the last one is more than a frame."""


def _rate(mel: MelConfig | None) -> int:
    return mel.sample_rate if mel else 8000


def tiny_teacher(
    mel: MelConfig | None = MEL, speakers: Sequence[str] = (), seed: int = 0, shake: float = 0.05, **options
) -> WaveNet:
    """A teacher of some thousand weights at 8 kHz, or the mel's rate, in eval mode."""
    settings = {"stack": STACK, "cond_channels": 8, "linear_order": 4, **options}
    config = WaveNetConfig(mel=mel, sample_rate=_rate(mel), speakers=list(speakers), **settings)
    return shaken(WaveNet, config, seed, shake)


def tiny_student(
    mel: MelConfig | None = MEL, speakers: Sequence[str] = (), seed: int = 0, shake: float = 0.05, **options
) -> ParallelWaveNet:
    """A student of some thousand weights at 8 kHz, or the mel's rate, in eval mode."""
    flow = StackConfig(num_layers=3, num_cycles=1, kernel_size=2, channels=8, skip_channels=8)
    settings = {"stack": flow, "cond_channels": 8, "linear_order": 4, "source_order": 4 if mel else 0, **options}
    config = ParallelWaveNetConfig(mel=mel, sample_rate=_rate(mel), speakers=list(speakers), **settings)
    return shaken(ParallelWaveNet, config, seed, shake)


def tiny_flow(
    mel: MelConfig | None = MEL, speakers: Sequence[str] = (), seed: int = 0, shake: float = 0.05, **options
) -> WaveformFlow:
    """A one-stage flow like these, in eval mode; it sees one frame on either side."""
    stack = StackConfig(num_layers=2, num_cycles=1, channels=8, skip_channels=8)
    settings = {
        "stack": stack,
        "cond_channels": 8,
        "squeeze": 4,
        "num_flows": 3,
        "split_every": 2,
        "long_term_order": 5 if mel else 0,
    }
    config = WaveformFlowConfig(mel=mel, sample_rate=_rate(mel), speakers=list(speakers), **settings | options)
    return shaken(WaveformFlow, config, seed, shake)


def speech_like(seconds: float, sample_rate: int = 8000, seed: int = 0) -> torch.Tensor:
    """Audio (samples,): a gliding tone in a little noise, peak below 0.5."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(round(seconds * sample_rate)) / sample_rate
    tone = torch.sin(2 * torch.pi * (150 + 40 * time + 10 * seed) * time) * (0.6 + 0.4 * torch.sin(7 * time))
    return 0.3 * tone + 0.01 * torch.randn(len(time), generator=generator)


def prepared_speech(folder: Path, train: int, valid: int) -> Path:
    """Manifest of one-second recordings of one speaker at 8 kHz, written into ``folder``."""
    entries = []
    for number in range(train + valid):
        path = save_audio(folder / f"{number}.wav", speech_like(1.0, seed=number), 8000)
        split = "train" if number < train else "valid"
        entries.append(Entry(id=str(number), audio=str(path), duration=1.0, speaker="tone", split=split))
    return write_manifest(folder / "manifest.jsonl", entries)


def speech_batch(batch: int, frames: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Audio (batch, 1, samples) on the 16-bit grid and its mel (batch, n_mels, frames)."""
    seconds = frames * MEL.hop_length / MEL.sample_rate
    audio = torch.stack([speech_like(seconds, MEL.sample_rate, seed=batch * seed + item) for item in range(batch)])
    audio = torch.round(audio * 32768.0) / 32768.0
    return audio.unsqueeze(1), LogMelSpectrogram(MEL)(audio)


def shaken(cls: type[nn.Module], config, seed: int, amount: float = 0.05) -> nn.Module:
    """A model whose weights are away from their initial zeros, which would hide mistakes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = cls(config)
        shake(model, amount)
    return model.eval()


def shake(model: nn.Module, amount: float) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += amount * torch.randn(parameter.shape, device=parameter.device)
    return model


TEACHER_KINDS = {
    **{f"gaussian, front {name}": dict(front=front) for name, front in FRONTS.items()},
    "mixture of logistics": dict(distribution="mol", num_mixtures=3, front=FRONTS["pre-emphasis"]),
    "mixture of logistics, sub-bands": dict(
        distribution="mol", num_mixtures=3, front=FrontConfig(pre_emphasis=0.9, scale=4.0, bands=4)
    ),
    "mu-law": dict(distribution="mulaw", num_classes=32, linear_order=0),
    "no mel": dict(mel=None),
    "no mel, sub-bands": dict(mel=None, front=FrontConfig(bands=8)),
    "speaker": dict(mel=None, speakers=["a", "b"]),
    "mel and speaker": dict(speakers=["a", "b"]),
}


def teacher_inputs(model, frames=8, batch=2):
    audio, mel = speech_batch(batch, frames)
    speaker = torch.tensor([0, 1])[:batch] if model.config.speakers else None
    if model.config.mel is None:
        audio = torch.nn.functional.pad(audio, (0, -audio.shape[-1] % model.hop_length))
        return audio, None, speaker
    return audio, mel, speaker


def unstable_student():
    """Its linear path, u_t = s z_t + 1.5 z_{t-1} + ... with s near 0.7, has an inverse whose errors double at each
    sample.
    """
    student = tiny_student(num_flows=1)
    with torch.no_grad():
        student.flows[0].predictor.taps.bias[0] = 1.5
    return student
