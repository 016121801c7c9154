"""The gate in float32 on a CPU, without gradient, compiled by numba at its first use (cached on disk).

torch makes it in seven operations, each through memory. Here one pass adds what the condition gives to the gates of
each block and computes the gate.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from wavedistill.kernels.tanh import OPTIONS, tanh_parts


def block_gate(gates: Tensor, offsets: Tensor) -> Tensor:
    """tanh(a) sigmoid(b) for gates (a, b) side by side on the last axis, after the offset of their block is added.

    Shapes: gates (batch, time, 2 * channels), float32, offsets (batch, blocks, 2 * channels) with time a multiple of
        blocks -> (batch, time, channels), within 1e-6 of the exact gate.
    """
    gated = torch.empty(*gates.shape[:-1], gates.shape[-1] // 2)
    _kernel()(gates.contiguous().numpy(), offsets.contiguous().numpy(), gated.numpy())
    return gated


@functools.cache
def _kernel():
    import numba

    parts = tanh_parts()
    half = np.float32(0.5)

    @numba.njit(cache=True, nogil=True, **OPTIONS)
    def forward(gates, offsets, gated):
        batch, time, channels = gated.shape
        size = time // offsets.shape[1]
        for item in range(batch):
            for block in range(offsets.shape[1]):
                filters_offset = offsets[item, block, :channels]
                openings_offset = offsets[item, block, channels:]
                for t in range(block * size, (block + 1) * size):
                    filters = gates[item, t, :channels]
                    openings = gates[item, t, channels:]
                    out = gated[item, t]
                    for j in range(channels):
                        p, q = parts(filters[j] + filters_offset[j])
                        u, w = parts(half * (openings[j] + openings_offset[j]))
                        out[j] = half * p * (w + u) / (q * w)

    return forward
