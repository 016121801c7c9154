"""Inputs of a batch synthesis as log-mels, on the CPU. Each error names the file: it becomes a line of the failures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wavedistill.audio.io import check_audible, load_audio
from wavedistill.audio.mel import LogMelSpectrogram, MelConfig, check_mel
from wavedistill.errors import WavedistillError
from wavedistill.inference.items import MEL_SUFFIX

MAX_SECONDS = 3600.0
"""Longer audio files are refused (and listed): cut them first."""
MIN_SECONDS = 0.02
"""Shorter audio files are refused: they hold no mel frame worth the name."""


def read_mel(path: Path, front_end: LogMelSpectrogram) -> tuple[Tensor, int]:
    """The mel (n_mels, frames) of a recording or of a ``.npy`` file, and how many samples its output has."""
    config = front_end.config
    if path.suffix.lower() == MEL_SUFFIX:
        mel = load_mel(path, config)
        return mel, mel.shape[-1] * config.hop_length
    audio, _ = load_audio(path, config.sample_rate, max_seconds=MAX_SECONDS)
    check_audible(audio, config.sample_rate, min_seconds=MIN_SECONDS, name=str(path))
    return front_end(audio), len(audio)


def load_mel(path: Path, config: MelConfig) -> Tensor:
    """A log-mel (n_mels, frames) from a ``.npy`` file."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise WavedistillError(f"{path}: not readable as a numpy array ({error})") from error
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2 or array.dtype.kind != "f":
        raise WavedistillError(
            f"{path}: a float array ({config.n_mels}, frames) is needed, not {array.dtype} {array.shape}"
        )
    try:
        return check_mel(torch.from_numpy(array.astype(np.float32)), config)
    except WavedistillError as error:
        raise WavedistillError(f"{path}: {error}") from error


def num_frames(path: Path, config: MelConfig) -> int:
    """Mel frames of an input, from its header."""
    import soundfile

    if path.suffix.lower() == MEL_SUFFIX:
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False).shape[-1]
        except (OSError, ValueError, EOFError, IndexError) as error:
            raise WavedistillError(f"{path}: not readable as a numpy array ({error})") from error
    try:
        info = soundfile.info(str(path))
    except (OSError, soundfile.LibsndfileError):
        load_audio(path, max_seconds=MAX_SECONDS)  # says why
        raise
    return -(-info.frames * config.sample_rate // (info.samplerate * config.hop_length))
