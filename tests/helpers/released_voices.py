"""A short clip through every bundled checkpoint, and the samples that it gave when the checkpoints were released.

Write the samples anew only where a voice is meant to sound different, from the top folder:

    PYTHONPATH=tests python -m helpers.released_voices
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from helpers.paths import ROOT
from wavedistill import Vocoder, load_audio
from wavedistill.notes.template import note_template

REFERENCES = Path(__file__).parents[1] / "models" / "references" / "released_voices.npz"
CLIP = ROOT / "recipes" / "quickstart" / "clips" / "audio" / "en_agent-alreadyon.flac"
START = 1.0
"""Seconds into the clip."""
SECONDS = 0.5
TEACHER_SECONDS = 0.25
SEED = 3


def load_voice(name: str) -> Vocoder:
    return Vocoder.from_pretrained(ROOT / "checkpoints" / name)


def synthesize(voice: Vocoder, seconds: float) -> np.ndarray:
    """The clip's ``seconds`` from `START` on, made again by a voice, or a note by one of notes: (samples,)."""
    speaker = 0 if voice.model.config.speakers else None
    if speaker is None:
        audio, sample_rate = load_audio(CLIP)
        start = round(START * sample_rate)
        mel = voice.mel(audio[start : start + round(seconds * sample_rate)], sample_rate)
    else:
        mel = voice.mel(note_template(60, 1.0)[: round(seconds * voice.sample_rate)])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return voice(mel, seed=SEED, speaker=speaker).numpy()
    finally:
        torch.set_num_threads(threads)


def write_references() -> None:
    found = {}
    for folder in sorted((ROOT / "checkpoints").iterdir()):
        if folder.is_dir():
            seconds = TEACHER_SECONDS if folder.name.endswith("-teacher") else SECONDS
            found[folder.name] = synthesize(load_voice(folder.name), seconds)
    REFERENCES.parent.mkdir(exist_ok=True)
    np.savez_compressed(REFERENCES, **found)


if __name__ == "__main__":
    write_references()
