"""Windowed frames summed where they overlap, compiled by numba at its first use (cached on disk)."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from wavedistill.kernels.recursive_filter import SIMD


def overlap_windowed(frames: Tensor, window: Tensor, hop: int, tail: Tensor | None) -> Tensor:
    """s_t = tail_t + sum_n window[t - n hop] frames[n, t - n hop], in one pass over the frames.

    Shapes: frames (batch, count, size), window (size,), tail (batch, up to size + (count - 1) * hop) or None ->
        (batch, size + (count - 1) * hop), float32.
    """
    batch, count, size = frames.shape
    length = size + (count - 1) * hop
    sums = torch.zeros(batch, length)
    if tail is not None:
        sums[:, : tail.shape[1]] = tail
    _kernels()[0](frames.contiguous().numpy(), window.numpy(), hop, sums.numpy())
    return sums


def overlap_earlier(frames: Tensor, weight: Tensor, window: Tensor, hop: int, base: Tensor | None) -> Tensor:
    """window * (base + s / weight), s a frame and those before it summed where it lies, for all but the first frames.

    Shapes: frames (batch, earlier + count, size), weight (1, 1, n) for the first n samples of a frame, window (size,),
        base (batch, count, n) or None -> (batch, count, n), float32.
    """
    batch, total, _ = frames.shape
    seen = weight.shape[-1]
    earlier = -(-frames.shape[-1] // hop) - 1
    base = torch.zeros(1, 1, seen).expand(batch, total - earlier, -1) if base is None else base
    segments = torch.empty(batch, total - earlier, seen)
    arrays = (x.contiguous().numpy() for x in (frames, weight, window, base, segments))
    _kernels()[1](*arrays, hop)
    return segments


@functools.cache
def _kernels():
    import numba

    @numba.njit(cache=True, fastmath=SIMD, nogil=True)
    def add(frames, window, hop, sums):
        batch, count, size = frames.shape
        for item in range(batch):
            for n in range(count):
                frame = frames[item, n]
                into = sums[item, n * hop : n * hop + size]
                for i in range(size):
                    into[i] += window[i] * frame[i]

    @numba.njit(cache=True, fastmath=SIMD, nogil=True, error_model="numpy")
    def add_earlier(frames, weight, window, base, segments, hop):
        batch, count, seen = segments.shape
        _, total, size = frames.shape
        earlier = total - count
        factor = window[:seen] / weight[0, 0]
        for item in range(batch):
            for n in range(count):
                out = segments[item, n]
                out[:] = 0.0
                for age in range(earlier + 1):
                    frame = frames[item, n + earlier - age, age * hop :]
                    for i in range(min(seen, len(frame))):
                        out[i] += frame[i]
                for i in range(seen):
                    out[i] = window[i] * base[item, n, i] + factor[i] * out[i]

    return add, add_earlier
