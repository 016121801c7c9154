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
    mel: Tensor | Iterator[Tensor],
    seed: int,
    chunk_seconds: float,
    *,
    temperature: float = 1.0,
    speaker: Tensor | None = None,
    low_latency: bool = False,
) -> Iterator[Tensor]:
    """Yield the audio of ``mel`` (n_mels, frames) in chunks (samples,) of about ``chunk_seconds`` (whole frames).

    ``mel`` may also be an iterator of blocks (n_mels, any number of frames), as an acoustic model makes them one after
    another. No more of them are asked for than the next chunk needs: its own frames and `WaveformModel.look_ahead`.

    Joined, the chunks equal one pass over the whole mel with the same seed, for any chunk length, to 1e-4
    (speech-student's to 3e-5; a teacher feeds its rounding back). With ``low_latency`` they are another waveform, the
    same for any chunk length: see `WaveformModel.stream`.
    """
    if not chunk_seconds > 0:
        raise WavedistillError(f"chunks of {chunk_seconds:g} seconds are no audio: give a positive length")
    frames = whole_frames(chunk_seconds, model.sample_rate, model.hop_length)
    batched = mel.unsqueeze(0) if isinstance(mel, Tensor) else (block.unsqueeze(0) for block in mel)
    return _chunks(
        model.stream(batched, frames, seed, temperature=temperature, speaker=speaker, low_latency=low_latency)
    )


def _chunks(batches: Iterator[Tensor]) -> Iterator[Tensor]:
    while True:
        # not a decorator: the mode must not stay on in the caller's code between two chunks
        with torch.inference_mode():
            chunk = next(batches, None)
        if chunk is None:
            return
        yield chunk[0, 0]
