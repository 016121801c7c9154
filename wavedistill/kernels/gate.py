"""The gate in bfloat16 on a CPU, compiled by numba at its first use (the machine code is cached on disk).

torch makes it in several operations, each through memory, over strided halves of the channels. Here one pass reads the
gates, computes in float32 and rounds once, so the result is also nearer to the exact one.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from wavedistill.kernels.operators import operator
from wavedistill.kernels.tanh import OPTIONS, tanh_parts

MAX_THREADS = 2
"""With more, torch's own operations, which share the work among threads, can be faster than this loop on one."""


def suits_kernel(gates: Tensor) -> bool:
    """Whether `bfloat16_gate` takes these gates and is faster than torch.

    Not in torch.compile, which fuses the gate with its neighbours.
    """
    if gates.dtype is not torch.bfloat16 or gates.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return torch.get_num_threads() <= MAX_THREADS


def _plain(gates: Tensor) -> Tensor:
    filters, openings = gates.float().chunk(2, dim=-1)
    return (torch.tanh(filters) * torch.sigmoid(openings)).to(gates.dtype)


def _plain_backward(gradient: Tensor, gates: Tensor) -> Tensor:
    return torch.func.vjp(_plain, gates)[1](gradient)[0]


@operator(fake=lambda gates: gates.new_empty(*gates.shape[:-1], gates.shape[-1] // 2), plain=_plain)
def bfloat16_gate(gates: Tensor) -> Tensor:
    """tanh(a) sigmoid(b) for gates (a, b) side by side on the last axis; NaN stays NaN.

    An operator of torch. For backward it keeps the gates alone and computes both functions again. It runs on one
    thread.

    Shapes: gates (batch, ..., 2 * channels), bfloat16 -> (batch, ..., channels), bfloat16, within one rounding and 1e-6
    of the exact gate.
    """
    gated = gates.new_empty(*gates.shape[:-1], gates.shape[-1] // 2)
    _kernels()[0](_rows(gates), _rows(gated))
    return gated


@operator(fake=lambda gradient, gates: gates.new_empty(gates.shape), plain=_plain_backward)
def bfloat16_gate_backward(gradient: Tensor, gates: Tensor) -> Tensor:
    """(g s (1 - t^2), g t s (1 - s)), t = tanh(a), s = sigmoid(b), from the gradient g of the gate.

    Within one rounding and 1e-6 |g|.
    """
    of_gates = gates.new_empty(gates.shape)
    _kernels()[1](_rows(gradient), _rows(gates), _rows(of_gates))
    return of_gates


def _rows(x: Tensor) -> np.ndarray:
    """The bits as a matrix; numpy has no bfloat16."""
    return x.detach().contiguous().flatten(0, -2).view(torch.int16).numpy().view(np.uint16)


def _backward(ctx, gradient: Tensor) -> Tensor:
    return bfloat16_gate_backward(gradient, *ctx.saved_tensors)


def _backward_twice(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:
    return torch.func.vjp(_plain_backward, *ctx.saved_tensors)[1](gradient)


bfloat16_gate.differentiate(_backward)
bfloat16_gate_backward.differentiate(_backward_twice)


@functools.cache
def _kernels():
    import numba
    from numba.extending import register_jitable

    inner = register_jitable(**OPTIONS)
    parts = tanh_parts()
    half = np.float32(0.5)
    one = np.float32(1.0)
    places = np.uint32(16)

    @inner
    def widened(bits):
        return np.uint32(np.uint32(bits) << places).view(np.float32)

    @inner
    def rounded(x):
        """To the nearest, ties to even.

        A NaN that comes from bfloat16 has zeros in its lower half, so nothing carries into its exponent.
        """
        bits = np.float32(x).view(np.uint32)
        return np.uint16(np.uint32(bits + np.uint32(0x7FFF) + ((bits >> places) & np.uint32(1))) >> places)

    @inner
    def tanh(x):
        p, q = parts(x)
        return p / q

    @inner
    def sigmoid(x):
        return half + half * tanh(half * x)

    @numba.njit(cache=True, nogil=True, **OPTIONS)
    def forward(gates, gated):
        channels = gated.shape[1]
        for n in range(len(gates)):
            filters = gates[n, :channels]
            openings = gates[n, channels:]
            out = gated[n]
            for j in range(channels):
                out[j] = rounded(tanh(widened(filters[j])) * sigmoid(widened(openings[j])))

    @numba.njit(cache=True, nogil=True, **OPTIONS)
    def backward(gradient, gates, of_gates):
        channels = gradient.shape[1]
        for n in range(len(gates)):
            filters = gates[n, :channels]
            openings = gates[n, channels:]
            g = gradient[n]
            of_filters = of_gates[n, :channels]
            of_openings = of_gates[n, channels:]
            for j in range(channels):
                t = tanh(widened(filters[j]))
                s = sigmoid(widened(openings[j]))
                d = widened(g[j])
                of_filters[j] = rounded(d * s * (one - t * t))
                of_openings[j] = rounded(d * t * s * (one - s))

    return forward, backward
