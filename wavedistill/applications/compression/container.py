"""The bytes of a ``.wdc`` file: a header that says all about the samples, and chunks that decode on their own.

    magic "WDC" and the version          4 bytes
    fingerprint of the model             8
    frames of the recording              8, little endian as all that follows
    frames of a chunk                    4
    sample rate in Hz                    4
    channels, format, sample format      1 each
    CRC-32 of all samples as plain PCM   4
    of each chunk: its bytes, its CRC-32 8
    CRC-32 of all above                  4
    the chunks                           one after the other

Since the header tells where each chunk lies and what its CRC is, damage costs the chunks that it touches and no other.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wavedistill.applications.compression.model import FINGERPRINT_BYTES
from wavedistill.applications.compression.pcm import FORMATS, SUBTYPES, Pcm
from wavedistill.errors import WavedistillError

MAGIC = b"WDC"
VERSION = 1
SUFFIX = ".wdc"
_FIXED = struct.Struct(f"<3sB{FINGERPRINT_BYTES}sQIIBBBI")
_CHUNK = struct.Struct("<II")
_CRC = struct.Struct("<I")
_SUBTYPES = tuple(SUBTYPES)


@dataclass(frozen=True)
class Header:
    """What a container says of its samples.

    Attributes:
        fingerprint: of the codec that wrote it.
        frames: of the recording.
        chunk_frames: of each chunk but the last, which has the rest.
        sample_rate: Hz.
        channels: 1 or 2.
        format, subtype: as in `Pcm`.
        crc: CRC-32 of the samples as plain PCM.
    """

    fingerprint: bytes
    frames: int
    chunk_frames: int
    sample_rate: int
    channels: int
    format: str
    subtype: str
    crc: int

    @property
    def num_chunks(self) -> int:
        return -(-self.frames // self.chunk_frames)

    def span(self, chunk: int) -> tuple[int, int]:
        """First frame of a chunk and the first after it."""
        return chunk * self.chunk_frames, min((chunk + 1) * self.chunk_frames, self.frames)

    def seconds(self, chunk: int) -> str:
        """When a chunk is heard, for people."""
        start, stop = self.span(chunk)
        return f"{start / self.sample_rate:.1f}-{stop / self.sample_rate:.1f} s"


@dataclass(frozen=True)
class Container:
    """A file's header and chunks; a damaged chunk is None."""

    header: Header
    chunks: list[bytes | None]

    @property
    def damaged(self) -> list[int]:
        return [number for number, chunk in enumerate(self.chunks) if chunk is None]


def pcm_crc(pcm: Pcm) -> int:
    """CRC-32 of the samples as plain PCM: little endian, signed, interleaved, of 1, 2 or 3 bytes."""
    width = pcm.bits // 8
    raw = pcm.samples.astype("<i4").reshape(-1, 1).view(np.uint8)[:, :width]
    return zlib.crc32(np.ascontiguousarray(raw))


def pack(header: Header, chunks: list[bytes]) -> bytes:
    """The file's bytes."""
    head = _FIXED.pack(
        MAGIC,
        VERSION,
        header.fingerprint,
        header.frames,
        header.chunk_frames,
        header.sample_rate,
        header.channels,
        FORMATS.index(header.format),
        _SUBTYPES.index(header.subtype),
        header.crc,
    )
    head += b"".join(_CHUNK.pack(len(chunk), zlib.crc32(chunk)) for chunk in chunks)
    return b"".join([head, _CRC.pack(zlib.crc32(head)), *chunks])


def unpack(data: bytes, path: Path) -> Container:
    """Read a file's bytes; chunks whose CRC does not fit become None.

    Raises:
        WavedistillError: no container, one of another version, or a damaged header.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise WavedistillError(f"{path}: no {SUFFIX} file (it does not begin with {MAGIC.decode()})")
    if len(data) > 3 and data[3] != VERSION:
        raise WavedistillError(f"{path}: written in version {data[3]} of the format; this program reads {VERSION}")
    damaged = WavedistillError(f"{path}: its header is damaged or cut off: nothing can be decoded")
    if len(data) < _FIXED.size:
        raise damaged
    _, _, fingerprint, frames, chunk_frames, rate, channels, form, subtype, crc = _FIXED.unpack_from(data)
    num_chunks = -(-frames // chunk_frames) if chunk_frames else 0
    end = _FIXED.size + num_chunks * _CHUNK.size
    if len(data) < end + _CRC.size or _CRC.unpack_from(data, end)[0] != zlib.crc32(data[:end]):
        raise damaged
    if form >= len(FORMATS) or subtype >= len(_SUBTYPES) or channels not in (1, 2):
        raise damaged
    header = Header(fingerprint, frames, chunk_frames, rate, channels, FORMATS[form], _SUBTYPES[subtype], crc)
    chunks: list[bytes | None] = []
    place = end + _CRC.size
    for size, chunk_crc in _CHUNK.iter_unpack(data[_FIXED.size : end]):
        chunk = data[place : place + size]
        chunks.append(chunk if len(chunk) == size and zlib.crc32(chunk) == chunk_crc else None)
        place += size
    return Container(header, chunks)


def read_container(path: str | Path) -> Container:
    """Read a ``.wdc`` file; see `unpack`."""
    path = Path(path)
    try:
        return unpack(path.read_bytes(), path)
    except OSError as error:
        raise WavedistillError(f"{path}: cannot be read ({error.strerror or error})") from error
