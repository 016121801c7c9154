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
    sums = torch.empty(batch, length)
    tail = torch.empty(batch, 0) if tail is None else tail.contiguous()
    _kernel()(frames.contiguous().numpy(), window.numpy(), hop, tail.numpy(), sums.numpy())
    return sums


@functools.cache
def _kernel():
    import numba

    @numba.njit(cache=True, fastmath=SIMD, nogil=True)
    def add(frames, window, hop, tail, sums):
        batch, count, size = frames.shape
        for item in range(batch):
            sums[item, : tail.shape[1]] = tail[item]
            sums[item, tail.shape[1] :] = 0.0
            for n in range(count):
                frame = frames[item, n]
                into = sums[item, n * hop : n * hop + size]
                for i in range(size):
                    into[i] += window[i] * frame[i]

    return add
