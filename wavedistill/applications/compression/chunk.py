"""One chunk of samples as bytes that decode on their own: constant, packed as they are, or coded by the model."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np

from wavedistill.applications.compression.compiled import loops, new_state
from wavedistill.applications.compression.network import SYMBOLS
from wavedistill.applications.compression.raw_bits import LONGEST

CONSTANT = 0
PACKED = 1
MODELLED = 2
_BLOCK = 4096
"""Samples whose distributions are held in memory at a time."""

Progress = Callable[[int], object]
"""Is told how many samples have been coded since it was told last."""


class DamagedChunk(Exception):
    """The bytes are no chunk of the stated shape."""


def encode_chunk(samples: np.ndarray, bits: int, network: np.ndarray, progress: Progress = lambda _: None) -> bytes:
    """Samples -> bytes: the smallest of the three forms.

    Args:
        samples: (frames, channels) int64 of ``bits`` bits, at least one frame.
        bits: 8 to 24.
        network: (1,) of `NETWORK`.
        progress: is told how many samples are coded.
    """
    unused = _unused_bits(samples, bits)
    samples = np.ascontiguousarray(samples >> unused)
    if (samples == samples[:1]).all():
        progress(samples.size)
        return bytes([CONSTANT | unused << 2]) + samples[0].astype("<i4").tobytes()
    packed = _pack(samples, bits - unused)
    modelled = _encode(samples, bits - unused, network, progress)
    form, body = min((MODELLED, modelled), (PACKED, packed), key=lambda pair: len(pair[1]))
    return bytes([form | unused << 2]) + body


def decode_chunk(
    data: bytes,
    frames: int,
    channels: int,
    bits: int,
    network: np.ndarray,
    progress: Progress = lambda _: None,
) -> np.ndarray:
    """The samples (frames, channels) int64 that `encode_chunk` was given.

    Raises:
        DamagedChunk: the bytes do not have the form of a chunk.
    """
    if not data:
        raise DamagedChunk
    form, unused = data[0] & 3, data[0] >> 2
    if unused >= bits:
        raise DamagedChunk
    if form == MODELLED:
        samples = _decode(data[1:], frames, channels, bits - unused, network, progress)
    elif form == PACKED:
        samples = _unpack(data[1:], frames, channels, bits - unused)
    elif form == CONSTANT and len(data) == 1 + 4 * channels:
        samples = np.repeat(np.frombuffer(data[1:], "<i4").astype(np.int64)[None], frames, 0)
    else:
        raise DamagedChunk
    if form != MODELLED:
        progress(samples.size)
    return samples << unused


def _unused_bits(samples: np.ndarray, bits: int) -> int:
    """How many of the lowest bits are 0 in all samples, as where 16 bits were stored as 24."""
    union = int(np.bitwise_or.reduce(samples, axis=None))
    return min((union & -union).bit_length() - 1, bits - 1) if union else 0


def _pack(samples: np.ndarray, bits: int) -> bytes:
    places = np.arange(bits - 1, -1, -1)
    return np.packbits((samples.reshape(-1, 1) >> places & 1).astype(np.uint8)).tobytes()


def _unpack(data: bytes, frames: int, channels: int, bits: int) -> np.ndarray:
    size = frames * channels
    if len(data) != -(-size * bits // 8):
        raise DamagedChunk
    unpacked = np.unpackbits(np.frombuffer(data, np.uint8), count=size * bits).reshape(size, bits)
    unsigned = unpacked @ (1 << np.arange(bits - 1, -1, -1, dtype=np.int64))
    return np.where(unsigned >> (bits - 1), unsigned - (1 << bits), unsigned).reshape(frames, channels)


def _encode(samples: np.ndarray, bits: int, network: np.ndarray, progress: Progress) -> bytes:
    import constriction

    encoder = constriction.stream.queue.RangeEncoder()
    family = constriction.stream.model.Categorical(perfect=False)
    low, high = _range(bits)
    state = new_state(samples.shape[1])
    symbols = np.zeros(_BLOCK, np.int32)
    probabilities = np.zeros((_BLOCK, SYMBOLS))
    raw = np.zeros(_BLOCK * LONGEST, np.uint8)
    raw_blocks = []
    for start in range(0, samples.size, _BLOCK):
        stop = min(start + _BLOCK, samples.size)
        written = loops().encode(state, network, samples, start, stop, low, high, symbols, probabilities, raw, 0)
        encoder.encode(symbols[: stop - start], family, probabilities[: stop - start])
        raw_blocks.append(raw[:written].copy())
        progress(stop - start)
    words = encoder.get_compressed().astype("<u4").tobytes()
    return struct.pack("<I", len(words)) + words + np.packbits(np.concatenate(raw_blocks)).tobytes()


def _decode(data: bytes, frames: int, channels: int, bits: int, network: np.ndarray, progress: Progress) -> np.ndarray:
    import constriction

    if len(data) < 4:
        raise DamagedChunk
    (size,) = struct.unpack_from("<I", data)
    if size % 4 or 4 + size > len(data):
        raise DamagedChunk
    decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(data, "<u4", size // 4, 4).astype(np.uint32))
    family = constriction.stream.model.Categorical
    raw = np.unpackbits(np.frombuffer(data, np.uint8, offset=4 + size))
    low, high = _range(bits)
    state = new_state(channels)
    probabilities = state.mixture["probabilities"][0]
    samples = np.zeros((frames, channels), np.int64)
    advance = loops().advance
    position = advance(state, network, samples, -1, 0, raw, 0, low, high)
    for place in range(samples.size):
        try:
            symbol = decoder.decode(family(probabilities, perfect=False))
        except (ValueError, AssertionError) as error:  # bytes that no encoder made
            raise DamagedChunk from error
        position = advance(state, network, samples, place, symbol, raw, position, low, high)
        if place % _BLOCK == _BLOCK - 1:
            progress(_BLOCK)
    progress(samples.size % _BLOCK)
    return samples


def _range(bits: int) -> tuple[float, float]:
    return -float(1 << (bits - 1)), float((1 << (bits - 1)) - 1)
