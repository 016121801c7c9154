"""One recording to the bytes of a container, and back."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from wavedistill.applications.compression.chunk import DamagedChunk, Progress, decode_chunk, encode_chunk
from wavedistill.applications.compression.container import Container, Header, pack, pcm_crc
from wavedistill.applications.compression.model import Codec
from wavedistill.applications.compression.pcm import SUBTYPES, Pcm
from wavedistill.errors import WavedistillError

CHUNK_SECONDS = 10


def encode(pcm: Pcm, codec: Codec, progress: Progress = lambda _: None) -> bytes:
    """Samples -> the bytes of a ``.wdc`` file; ``progress`` is told how many samples are coded."""
    _check_denormals()
    frames, channels = pcm.samples.shape
    header = Header(
        codec.fingerprint,
        frames,
        CHUNK_SECONDS * pcm.sample_rate,
        pcm.sample_rate,
        channels,
        pcm.format,
        pcm.subtype,
        pcm_crc(pcm),
    )
    spans = [header.span(chunk) for chunk in range(header.num_chunks)]
    return pack(
        header,
        [encode_chunk(pcm.samples[start:stop], pcm.bits, codec.network, progress) for start, stop in spans],
    )


def decode(
    container: Container, codec: Codec, path: Path, *, keep_going: bool = False, progress: Progress = lambda _: None
) -> Pcm:
    """The samples of a container.

    Args:
        container: as `read_container` gives it.
        codec: the one that wrote it.
        path: the file, for errors.
        keep_going: chunks that are damaged become silence, instead of an error.
        progress: is told how many samples are decoded.

    Raises:
        WavedistillError: a process that flushes denormal numbers to zero, a file written with another model,
            damaged chunks, or samples whose CRC is not that of the header.
    """
    _check_denormals()
    header = container.header
    if header.fingerprint != codec.fingerprint:
        raise WavedistillError(
            f"{path}: written with the codec {header.fingerprint.hex()}, this one is {codec.fingerprint.hex()}: give "
            "its folder with --checkpoint, or use the version of wavedistill that wrote the file"
        )
    if container.damaged and not keep_going:
        raise WavedistillError(
            f"{path}: {describe_damage(container)}\n--keep-going writes the rest, with silence in place of what is lost"
        )
    pcm = Pcm(np.zeros((header.frames, header.channels), np.int64), header.sample_rate, header.format, header.subtype)
    for number, chunk in enumerate(container.chunks):
        if chunk is not None:
            start, stop = header.span(number)
            try:
                pcm.samples[start:stop] = decode_chunk(
                    chunk, stop - start, header.channels, SUBTYPES[header.subtype], codec.network, progress
                )
            except DamagedChunk:
                raise WavedistillError(f"{path}: chunk {number + 1} has no form that this version knows") from None
    if not container.damaged and pcm_crc(pcm) != header.crc:
        raise WavedistillError(
            f"{path}: decoded to other samples than were encoded (their CRC differs): nothing is written. Please "
            "report this with the file"
        )
    return pcm


def _check_denormals() -> None:
    """Refuse to code where numbers below 2^-1022 are flushed to zero: a long silence would give other bits there."""
    tiniest = math.ulp(0.0)
    if tiniest * 1.0 == 0.0:
        raise WavedistillError(
            "this process flushes denormal numbers to zero, so its files might not decode elsewhere: call "
            "torch.set_flush_denormal(False) first"
        )


def describe_damage(container: Container) -> str:
    """Which chunks are lost, and when they are heard."""
    damaged = container.damaged
    header = container.header
    places = ", ".join(f"{number + 1} ({header.seconds(number)})" for number in damaged[:10])
    more = f" and {len(damaged) - 10} more" if len(damaged) > 10 else ""
    return f"{len(damaged)} of {header.num_chunks} chunks damaged or cut off: {places}{more}"
