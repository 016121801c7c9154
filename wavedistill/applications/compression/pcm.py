"""PCM of wav and flac files, read and written without a change of one bit."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wavedistill.audio.containers import riff_is_cut, states_no_length
from wavedistill.errors import WavedistillError
from wavedistill.files import write_bytes

FORMATS = ("WAV", "FLAC")
SUFFIXES = (".wav", ".flac")
SUBTYPES = {"PCM_U8": 8, "PCM_S8": 8, "PCM_16": 16, "PCM_24": 24}
"""soundfile's names of the sample formats, and their bits."""


@dataclass(frozen=True)
class Pcm:
    """Samples as a file stores them.

    Attributes:
        samples: (frames, channels) int64, of ``bits`` bits.
        sample_rate: Hz.
        format: "WAV" or "FLAC".
        subtype: a key of `SUBTYPES`.
    """

    samples: np.ndarray
    sample_rate: int
    format: str
    subtype: str

    @property
    def bits(self) -> int:
        return SUBTYPES[self.subtype]

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame as plain PCM."""
        return self.samples.shape[1] * self.bits // 8


def read_pcm(path: str | Path) -> Pcm:
    """The samples of a wav or flac file of 8 to 24 bits, mono or stereo.

    Raises:
        WavedistillError: missing, no audio, truncated, or of another format: floats, 32 bits, more channels.
    """
    import soundfile

    path = Path(path)
    if not path.is_file():
        raise WavedistillError(f"{path}: {'is a folder, not an audio file' if path.is_dir() else 'no such file'}")
    try:
        if states_no_length(path) or riff_is_cut(path):
            raise WavedistillError(f"{path}: truncated, or written into a pipe: its header does not state its length")
        with soundfile.SoundFile(str(path)) as file:
            _check(path, file.format, file.subtype, file.channels)
            frames = file.frames
            values = file.read(dtype="int32", always_2d=True)
            pcm = Pcm(values.astype(np.int64), file.samplerate, _container(file.format), file.subtype)
    except OSError as error:
        raise WavedistillError(f"{path}: cannot be read ({error.strerror or error})") from error
    except soundfile.LibsndfileError as error:
        raise WavedistillError(f"{path}: not readable as audio, or truncated ({error.error_string})") from error
    if len(values) < frames:
        raise WavedistillError(f"{path}: truncated, {len(values)} of {frames} samples could be decoded")
    np.right_shift(pcm.samples, 32 - pcm.bits, out=pcm.samples)
    return pcm


def write_pcm(path: str | Path, pcm: Pcm) -> None:
    """Write the file atomically, in the format it states."""
    import soundfile

    buffer = io.BytesIO()
    values = (pcm.samples << (32 - pcm.bits)).astype(np.int32)
    soundfile.write(buffer, values, pcm.sample_rate, format=pcm.format, subtype=pcm.subtype)
    write_bytes(path, buffer.getvalue())


def _container(format_name: str) -> str:
    return "FLAC" if format_name == "FLAC" else "WAV"


def _check(path: Path, format_name: str, subtype: str, channels: int) -> None:
    if format_name not in ("WAV", "WAVEX", "FLAC"):
        raise WavedistillError(f"{path}: wav and flac are compressed without loss, this is {format_name}")
    if subtype not in SUBTYPES:
        raise WavedistillError(
            f"{path}: its samples are {subtype}; integers of 8, 16 or 24 bits are compressed. Floats have no grid to "
            "be exact on: save the file as 24-bit PCM first"
        )
    if channels not in (1, 2):
        raise WavedistillError(f"{path}: {channels} channels; mono and stereo are compressed")
