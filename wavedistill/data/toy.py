"""Generated tones: data for a first run, with nothing to download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wavedistill.audio.io import save_audio
from wavedistill.data.manifest import Entry, write_manifest
from wavedistill.data.splits import assign_splits


def prepare_toy(
    out: str | Path, num_clips: int = 120, *, seconds: float = 2.0, sample_rate: int = 16000, seed: int = 0
) -> Path:
    """Write ``num_clips`` tones of one speaker, "tone", and their manifest into ``out``; returns the manifest."""
    out = Path(out)
    names = [f"tone_{index:04d}" for index in range(num_clips)]
    entries = []
    for index, (name, split) in enumerate(zip(names, assign_splits(names), strict=True)):
        audio = toy_tone(seed, index, seconds=seconds, sample_rate=sample_rate)
        path = save_audio(out / "wavs" / f"{name}.wav", audio, sample_rate)
        entries.append(
            Entry(
                id=name,
                audio=str(path.absolute()),
                duration=len(audio) / sample_rate,
                speaker="tone",
                split=split,
            )
        )
    return write_manifest(out / "manifest.jsonl", entries)


def toy_tone(seed: int, index: int, *, seconds: float = 2.0, sample_rate: int = 16000) -> Tensor:
    """A gliding, vibrating tone of decaying harmonics between 90 and 360 Hz over soft noise.

    Returns audio (samples,) float32, with a peak of 0.5; the same (seed, index) gives the same tone.
    """
    random = np.random.default_rng([seed, index])
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    start = random.uniform(np.log2(90), np.log2(360))
    glide = random.uniform(-0.3, 0.3)
    vibrato = 0.02 * np.sin(2 * np.pi * random.uniform(4, 6) * time)
    f0 = np.clip(2 ** (start + glide * time / max(seconds, 1e-9) + vibrato), 90, 360)
    phase = 2 * np.pi * np.cumsum(f0) / sample_rate
    tilt = random.uniform(0.8, 1.6)
    wave = sum(k**-tilt * np.sin(k * phase + random.uniform(0, 2 * np.pi)) for k in range(1, 13))
    # Two syllables or so a second, never quite silent: the model must follow the level, too.
    envelope = 0.55 + 0.45 * np.sin(2 * np.pi * random.uniform(1, 3) * time + random.uniform(0, 2 * np.pi))
    wave = wave / np.abs(wave).max() * envelope
    noisy = wave + 0.01 * random.standard_normal(len(wave))
    return torch.from_numpy(0.5 * noisy / np.abs(noisy).max()).float()
