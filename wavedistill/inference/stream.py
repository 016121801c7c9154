"""Synthesis in chunks: audio starts before the mel is used up, and memory does not grow with its length."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wavedistill.audio.io import to_int16
from wavedistill.audio.mel import whole_frames
from wavedistill.errors import WavedistillError
from wavedistill.models.base import OnePassModel


def stream(
    model: OnePassModel,
    mel: Tensor,
    seed: int,
    chunk_seconds: float,
    *,
    temperature: float = 1.0,
    speaker: Tensor | None = None,
) -> Iterator[Tensor]:
    """Yield the audio of ``mel`` (n_mels, frames) in chunks (samples,) of about ``chunk_seconds`` (whole frames).

    Joined, the chunks equal one pass over the whole mel with the same seed to 1e-5, for any chunk length.
    """
    if not model.can_stream:
        raise WavedistillError(
            "only a student or a one-stage flow streams: a teacher makes one sample after another, far slower "
            "than it plays"
        )
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


@dataclass(frozen=True)
class StreamReport:
    """What a stream took: ``seconds`` of audio, ``first_chunk_seconds`` until the first sound, ``compute_seconds`` in
    all.
    """

    seconds: float
    first_chunk_seconds: float
    compute_seconds: float

    @property
    def real_time_factor(self) -> float:
        """Seconds of audio per second of computing: above 1, playback never waits."""
        return self.seconds / self.compute_seconds


def write_stream(chunks: Iterable[Tensor], path: str | Path, sample_rate: int) -> StreamReport:
    """Write chunks (samples,) to a 16-bit wav file as they come; the file appears under its name when it is whole."""
    import soundfile

    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    samples = 0
    first = None
    start = time.perf_counter()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with soundfile.SoundFile(temporary, "w", sample_rate, 1, "PCM_16", format="WAV") as file:
            for chunk in chunks:
                first = first or time.perf_counter() - start
                samples += len(chunk)
                file.write(to_int16(chunk))
        temporary.replace(path)
    except (OSError, soundfile.LibsndfileError) as error:
        raise WavedistillError(f"cannot write {path}: {error}") from error
    finally:
        with contextlib.suppress(OSError):  # gone already, or the folder itself is the problem
            temporary.unlink()
    spent = time.perf_counter() - start
    return StreamReport(samples / sample_rate, first or spent, spent)
