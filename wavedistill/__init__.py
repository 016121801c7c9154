"""wavedistill: train a WaveNet teacher on recordings, distil a one-pass student from it, synthesise with it.

    from wavedistill import Vocoder, load_audio, save_audio

    vocoder = Vocoder.from_pretrained("speech-student")
    audio, sample_rate = load_audio("speech.wav")
    save_audio("again.wav", vocoder(audio, sample_rate), vocoder.sample_rate)

The names below are loaded at their first use, so that ``import wavedistill`` costs nothing (and no torch).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Vocoder": "wavedistill.inference.vocoder",
    "WaveNet": "wavedistill.models.wavenet",
    "WaveNetConfig": "wavedistill.models.wavenet",
    "ParallelWaveNet": "wavedistill.models.parallel_wavenet",
    "ParallelWaveNetConfig": "wavedistill.models.parallel_wavenet",
    "WaveformFlow": "wavedistill.models.waveform_flow",
    "WaveformFlowConfig": "wavedistill.models.waveform_flow",
    "LogMelSpectrogram": "wavedistill.audio.mel",
    "MelConfig": "wavedistill.audio.mel",
    "train_flow": "wavedistill.training",
    "train_teacher": "wavedistill.training",
    "distill_student": "wavedistill.training",
    "synthesize": "wavedistill.inference.batch.synthesize",
    "EvaluateConfig": "wavedistill.evaluation.evaluate",
    "ExecutionConfig": "wavedistill.inference.batch.plan",
    "evaluate": "wavedistill.evaluation.evaluate",
    "load_audio": "wavedistill.audio.io",
    "save_audio": "wavedistill.audio.io",
}

__all__ = [
    "EvaluateConfig",
    "ExecutionConfig",
    "LogMelSpectrogram",
    "MelConfig",
    "ParallelWaveNet",
    "ParallelWaveNetConfig",
    "Vocoder",
    "WaveNet",
    "WaveNetConfig",
    "WaveformFlow",
    "WaveformFlowConfig",
    "distill_student",
    "evaluate",
    "flows",
    "load_audio",
    "save_audio",
    "synthesize",
    "train_flow",
    "train_teacher",
]

if TYPE_CHECKING:
    from wavedistill import flows
    from wavedistill.audio.io import load_audio, save_audio
    from wavedistill.audio.mel import LogMelSpectrogram, MelConfig
    from wavedistill.evaluation.evaluate import EvaluateConfig, evaluate
    from wavedistill.inference.batch.plan import ExecutionConfig
    from wavedistill.inference.batch.synthesize import synthesize
    from wavedistill.inference.vocoder import Vocoder
    from wavedistill.models.parallel_wavenet import ParallelWaveNet, ParallelWaveNetConfig
    from wavedistill.models.waveform_flow import WaveformFlow, WaveformFlowConfig
    from wavedistill.models.wavenet import WaveNet, WaveNetConfig
    from wavedistill.training import distill_student, train_flow, train_teacher


def __getattr__(name: str) -> Any:
    if name == "flows":
        return importlib.import_module("wavedistill.flows")
    if name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'wavedistill' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
