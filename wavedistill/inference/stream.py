"""Synthesis in chunks: audio starts before the mel is used up, and memory does not grow with its length."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from wavedistill.audio.mel import whole_frames
from wavedistill.errors import WavedistillError
from wavedistill.models.base import WaveformModel


def stream(
    model: WaveformModel,
    mel: Tensor,
    seed: int,
    chunk_seconds: float,
    *,
    temperature: float = 1.0,
    speaker: Tensor | None = None,
) -> Iterator[Tensor]:
    """Yield the audio of ``mel`` (n_mels, frames) in chunks (samples,) of about ``chunk_seconds`` (whole frames).

    Joined, the chunks equal one pass over the whole mel with the same seed, for any chunk length: to 1e-5, and a
    teacher's, which feeds its rounding back, to about 1e-4.
    """
    if not chunk_seconds > 0:
        raise WavedistillError(f"chunks of {chunk_seconds:g} seconds are no audio: give a positive length")
    frames = whole_frames(chunk_seconds, model.sample_rate, model.hop_length)
    return _chunks(model.stream(mel.unsqueeze(0), frames, seed, temperature=temperature, speaker=speaker))


def _chunks(batches: Iterator[Tensor]) -> Iterator[Tensor]:
    while True:
        # not a decorator: the mode must not stay on in the caller's code between two chunks
        with torch.no_grad():
            chunk = next(batches, None)
        if chunk is None:
            return
        yield chunk[0, 0]
