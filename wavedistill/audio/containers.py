"""What audio files' headers say of their length, where libsndfile takes them at their word and should not.

Programs that write into a pipe cannot go back to state the length: a FLAC then states none, a WAV one near 2^31 or
2^32 or none, an MP3 has no tag that counts its frames. Others end early: their headers promise more than follows.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from wavedistill.errors import WavedistillError

_PIPE_LENGTHS = (range(0x7FFFF000, 0x80000001), range(0xFFFF0000, 0x100000000))
"""What is written for "unknown" as the length of a WAV's data: by SoX, by other programs, by FFmpeg."""
_HEAD = 256
"""Bytes in which a FLAC's length or an MPEG stream's tag stands."""


def riff_is_cut(path: Path) -> bool:
    """Whether a wav's data chunk announces more bytes than follow (libsndfile reads such a file silently)."""
    length, follows = _riff_data(path)
    return length > follows and not any(length in lengths for lengths in _PIPE_LENGTHS)


def ogg_is_cut(path: Path) -> bool:
    """Whether an ogg file ends without a page marked as the last (its length, taken from the last page there is,
    would only look shorter)."""
    with path.open("rb") as file:
        if file.read(4) != b"OggS":
            return False
        file.seek(max(0, path.stat().st_size - 65307))  # the largest page
        tail = file.read()
    page = tail.rfind(b"OggS")
    return page < 0 or len(tail) < page + 27 or not tail[page + 5] & 4


def states_no_length(path: Path) -> bool:
    """Whether libsndfile cannot know a file's length: a FLAC or WAV from a pipe, an MP3 without a count of frames."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head[:4] == b"fLaC":  # STREAMINFO comes first: 36 bits of total samples, 0 for unknown
        return len(head) >= 26 and not (head[21] & 15 or any(head[22:26]))
    if head[:4] == b"RIFF":
        length, follows = _riff_data(path)
        return length == 0 and follows > 0
    return _is_untagged_mpeg(path, head)


def decode_stream(path: Path, max_seconds: float | None) -> tuple[np.ndarray, int]:
    """Decode a file to its end by FFmpeg, whatever its header says: audio (samples,) float32, mixed down, and the rate.

    Raises:
        WavedistillError: not readable, or longer than ``max_seconds``.
    """
    import av

    blocks: list[np.ndarray] = []
    try:
        with av.open(str(path)) as container:
            stream = container.streams.audio[0]
            rate = stream.rate
            samples = 0
            for block in _blocks(container, stream):
                blocks.append(block)
                samples += len(block)
                if max_seconds is not None and samples > max_seconds * rate:
                    raise WavedistillError(
                        f"{path}: more than {max_seconds:g} s long, which is what is taken: cut it into shorter files"
                    )
    except (av.error.FFmpegError, IndexError, UnicodeError) as error:
        raise WavedistillError(f"{path}: not readable as audio ({error})") from error
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32), rate


def _blocks(container, stream) -> Iterator[np.ndarray]:
    import av

    planar = av.AudioResampler(format="fltp")
    for frame in container.decode(stream):
        for part in planar.resample(frame):
            yield part.to_ndarray().mean(axis=0, dtype=np.float32)
    for part in planar.resample(None):
        yield part.to_ndarray().mean(axis=0, dtype=np.float32)


def _riff_data(path: Path) -> tuple[int, int]:
    """The length that a wav's data chunk announces, and the bytes that follow it; (0, 0) for what is no wav."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return 0, 0
        while len(chunk := file.read(8)) == 8:
            length = struct.unpack("<I", chunk[4:])[0]
            if chunk[:4] == b"data":
                return length, size - file.tell()
            file.seek(length + length % 2, os.SEEK_CUR)
    return 0, 0


def _is_untagged_mpeg(path: Path, head: bytes) -> bool:
    """Whether the first frame of an MPEG stream is audio, not a tag that counts the frames (Xing, Info, VBRI)."""
    if head[:3] == b"ID3" and len(head) > 10:
        start = 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        with path.open("rb") as file:
            file.seek(start)
            head = file.read(_HEAD)
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return False
    return not any(tag in head for tag in (b"Xing", b"Info", b"VBRI"))
