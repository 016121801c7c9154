"""Recordings that come in, timed sounds that go out, and mel spectrograms on one scale."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wavedistill.audio.io import check_audible, load_audio, resample, to_int16
from wavedistill.errors import WavedistillError
from wavedistill.inference.vocoder import LONG_SECONDS, Vocoder

MAX_SECONDS = LONG_SECONDS
"""Longest recording the page takes: up to here a student computes everything in one pass."""
MIN_SECONDS = 0.2
"""Shortest recording the page takes: a shorter one shows nothing in a mel spectrogram."""

Sound = tuple[int, np.ndarray]
"""(sample rate in Hz, int16 samples): floating-point arrays would be peak-normalised by the player."""


@dataclass(frozen=True)
class Timed:
    """A waveform (samples,) and the seconds its computation took."""

    audio: Tensor
    sample_rate: int
    compute_seconds: float

    @property
    def seconds(self) -> float:
        return len(self.audio) / self.sample_rate

    @property
    def speed(self) -> float:
        """Seconds of audio per second of computation: 1 is real time."""
        return self.seconds / max(self.compute_seconds, 1e-9)

    @property
    def sound(self) -> Sound:
        return self.sample_rate, to_int16(self.audio)

    def caption(self, how: str) -> str:
        return (
            f"**{number(self.speed)} × real time**  \n"
            f"{self.seconds:.2f} s of audio in {number(self.compute_seconds)} s, {how}"
        )


class Excerpt(NamedTuple):
    """A stretch of a recording: its first frame, and its mel spectrogram (n_mels, frames)."""

    first_frame: int
    mel: Tensor


def read_recording(path: str | None, sample_rate: int) -> Tensor:
    """An uploaded file as mono audio (samples,) at ``sample_rate``.

    Raises:
        WavedistillError: no file is given, or it is unreadable, silent, too short or too long.
    """
    if not path:
        raise WavedistillError("there is no recording yet: upload one, record one, or click an example.")
    try:
        audio, _ = load_audio(path, sample_rate, max_seconds=MAX_SECONDS)
    except WavedistillError as error:
        # the visitor knows the file's name, not the folder that the upload was put in
        raise WavedistillError(str(error).replace(str(Path(path)), Path(path).name)) from error
    check_audible(audio, sample_rate, min_seconds=MIN_SECONDS, name="the recording")
    return audio


def timed(vocoder: Vocoder, mel_or_seconds: Tensor | float, **options: object) -> Timed:
    """Run the model on a mel spectrogram, or on nothing but a length in seconds."""
    compute = vocoder if isinstance(mel_or_seconds, Tensor) else vocoder.sample
    began = time.perf_counter()
    audio = compute(mel_or_seconds, **options)
    return Timed(audio, vocoder.sample_rate, time.perf_counter() - began)


def mel_like(vocoder: Vocoder, made: Timed) -> Tensor:
    """The mel spectrogram of ``made`` by the front end of ``vocoder``, so that all pictures are on one scale."""
    return vocoder.mel(resample(made.audio, made.sample_rate, vocoder.sample_rate))


def loudest(mel: Tensor, audio: Tensor, hop_length: int, num_samples: int) -> Excerpt:
    """The stretch of about ``num_samples`` with the most energy."""
    frames = min(max(1, num_samples // hop_length), mel.shape[-1])
    energy = torch.nn.functional.pad(audio, (0, max(0, mel.shape[-1] * hop_length - len(audio)))).square()
    per_frame = energy[: mel.shape[-1] * hop_length].view(-1, hop_length).sum(1)
    start = int(per_frame.unfold(0, frames, 1).sum(1).argmax())
    return Excerpt(start, mel[:, start : start + frames])


def placed(mel: Tensor, like: Tensor, begin_seconds: float, vocoder: Vocoder) -> Tensor:
    """``mel`` at its place in time in an otherwise empty picture of the size of ``like``."""
    canvas = torch.full_like(like, float(like.min()))
    start = round(begin_seconds * vocoder.sample_rate / vocoder.hop_length)
    part = mel[:, : canvas.shape[-1] - start]
    canvas[:, start : start + part.shape[-1]] = part
    return canvas


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.001 else f"{value:.5f}"
