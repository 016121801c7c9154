"""Inputs of a batch synthesis: which there are, how their outputs are named, and each one's log-mel, on the CPU.

Every error of reading names the file: it becomes an entry of the list of failures.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wavedistill.audio.containers import states_no_length
from wavedistill.audio.io import AUDIO_SUFFIXES, check_audible, load_audio
from wavedistill.audio.mel import LogMelSpectrogram, MelConfig
from wavedistill.audio.mel_check import check_mel, mel_suspicion
from wavedistill.errors import WavedistillError
from wavedistill.files import check_name, files_of

logger = logging.getLogger(__name__)

MEL_SUFFIX = ".npy"
SUFFIXES = (*AUDIO_SUFFIXES, MEL_SUFFIX)
MAX_SECONDS = 3600.0
"""Longer audio files are refused (and listed): cut them first."""
MIN_SECONDS = 0.02
"""Shorter audio files are refused: they hold hardly a mel frame."""


@dataclass(frozen=True)
class Input:
    """A recording or a mel to synthesise.

    Attributes:
        name: its output's path below the output folder, without ``.wav``.
        path: the file.
        output: the wav file to write.
    """

    name: str
    path: Path
    output: Path


def find_inputs(given: Sequence[str | Path], out: Path) -> list[Input]:
    """The inputs in files and folders, sorted by name.

    A folder is searched with its sub-folders and those that links in it lead to, which are kept below ``out``; hidden
    files, and ``out`` itself where it lies inside, are left out. Where two inputs would share an output name, each
    keeps its suffix (``b.flac.wav``).

    Raises:
        WavedistillError: an input is missing, nothing is found, two inputs cannot be told apart by name, or an output
            would overwrite an input.
    """
    if not given:
        raise WavedistillError("there is nothing to synthesise: give files or folders")
    sources = sorted({pair for place in given for pair in _sources(Path(place), out)})
    by_name: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for relative, path in sources:
        by_name[os.path.splitext(relative)[0]].append((relative, path))
    named: dict[str, Path] = {}
    for name, group in by_name.items():
        for relative, path in group:
            unique = name if len(group) == 1 else relative
            if unique in named:
                raise WavedistillError(
                    f"{named[unique]} and {path} would both be written as {out / unique}.wav\n"
                    "synthesise them into two output folders, or give the folder above both"
                )
            named[unique] = path
    inputs = [Input(name, path, out / f"{name}.wav") for name, path in sorted(named.items())]
    originals = {path.resolve() for path in named.values()}
    for source in inputs:
        if source.output.resolve() in originals:
            raise WavedistillError(f"the output {source.output} would overwrite an input: choose another output folder")
    return inputs


def _sources(given: Path, out: Path) -> list[tuple[str, Path]]:
    """(path below the output folder, path) of every input that ``given`` means."""
    if given.is_file() and given.suffix.lower() not in SUFFIXES:
        raise WavedistillError(f"{given}: inputs are {', '.join(SUFFIXES)} files, or folders of them")
    return files_of(given, SUFFIXES, skip=out)


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
    array = _array(path)
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2 or array.dtype.kind != "f":
        raise WavedistillError(
            f"{path}: a float array ({config.n_mels}, frames) is needed, not {array.dtype} {array.shape}"
        )
    try:
        mel = check_mel(torch.from_numpy(array.astype(np.float32)), config)
    except WavedistillError as error:
        raise WavedistillError(f"{path}: {error}") from error
    if suspicion := mel_suspicion(mel, config):
        logger.warning("%s looks %s", path, suspicion)
    return mel


def _array(path: Path) -> np.ndarray:
    """The array in a ``.npy`` file, of which only the header is read, whatever size that announces."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # besides OSError and ValueError what Python's tokeniser or zipfile raises
        raise WavedistillError(f"{path}: not readable as a numpy array ({error})") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise WavedistillError(
            f"{path}: an archive (of numpy.savez or torch.save), not one array: save it by numpy.save"
        )
    return array


def num_frames(source: Input, config: MelConfig) -> int:
    """Mel frames of an input, from its header where that states them."""
    import soundfile

    path = source.path
    check_name(path)
    check_name(source.output)
    if path.suffix.lower() == MEL_SUFFIX:
        shape = _array(path).shape
        return shape[-1] if shape else 0  # what else is wrong with it is said when it is read
    if states_no_length(path):
        audio, rate = load_audio(path, max_seconds=MAX_SECONDS)
        return -(-len(audio) * config.sample_rate // (rate * config.hop_length))
    try:
        info = soundfile.info(str(path))
    except (OSError, soundfile.LibsndfileError):
        load_audio(path, max_seconds=MAX_SECONDS)  # says why
        raise
    return -(-info.frames * config.sample_rate // (info.samplerate * config.hop_length))
