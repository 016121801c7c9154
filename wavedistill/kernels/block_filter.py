"""A finite filter whose taps change from block to block, compiled by numba at its first use (cached on disk).

As a matrix product it needs every window of the signal written out, as many times the signal's memory as there are
taps; the loops below read the signal where it lies (10 to 20 times as fast on a CPU core, measured).
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from wavedistill.kernels.operators import operator
from wavedistill.kernels.recursive_filter import SIMD


def slide_by_products(padded: Tensor, matrices: Tensor) -> Tensor:
    """`block_fir` of vectors, y_t = sum_k p_{t + order - 1 - k} C_k(block of t), over all windows of the signal.

    Shapes: padded (batch, order - 1 + steps, n), matrices (batch, blocks, order, n, n) -> (batch, steps, n).
    """
    batch, blocks, order, size, _ = matrices.shape
    steps = padded.shape[1] - order + 1
    windows = torch.cat([padded[:, order - 1 - k : order - 1 - k + steps] for k in range(order)], dim=-1)
    by_block = windows.reshape(batch, blocks, steps // blocks, order * size)
    return (by_block @ matrices.reshape(batch, blocks, order * size, size)).reshape(batch, steps, size)


def _plain(padded: Tensor, coefficients: Tensor) -> Tensor:
    return slide_by_products(padded.unsqueeze(-1), coefficients[..., None, None]).squeeze(-1)


def _plain_backward(gradient: Tensor, padded: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
    return torch.func.vjp(_plain, padded, coefficients)[1](gradient)


@operator(fake=lambda p, c: p.new_empty(p.shape[0], p.shape[1] - c.shape[-1] + 1), plain=_plain)
def block_fir(padded: Tensor, coefficients: Tensor) -> Tensor:
    """y_t = sum_k c_k(block of t) p_{t + order - 1 - k}: p begins order - 1 samples before y.

    An operator of torch, differentiable in both arguments as often as one likes.

    Shapes: padded (batch, order - 1 + blocks * n), coefficients (batch, blocks, order), newest tap first -> (batch,
    blocks * n).
    """
    y = padded.new_zeros(padded.shape[0], padded.shape[1] - coefficients.shape[-1] + 1)
    _kernels()[0](_array(padded), _array(coefficients), y.numpy())
    return y


@operator(fake=lambda g, p, c: (p.new_empty(p.shape), c.new_empty(c.shape)), plain=_plain_backward)
def block_fir_backward(gradient: Tensor, padded: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `block_fir` in its two arguments, from that of its result."""
    of_padded = torch.zeros_like(padded, memory_format=torch.contiguous_format)
    of_coefficients = torch.zeros_like(coefficients, memory_format=torch.contiguous_format)
    arrays = _array(gradient), _array(padded), _array(coefficients), of_padded.numpy(), of_coefficients.numpy()
    _kernels()[1](*arrays)
    return of_padded, of_coefficients


def _array(x: Tensor) -> np.ndarray:
    return x.detach().contiguous().numpy()


def _backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:
    return block_fir_backward(gradient, *ctx.saved_tensors)


def _backward_twice(ctx, of_padded: Tensor, of_coefficients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both gradients are linear in each of the three arguments, and filters again in the others."""
    gradient, padded, coefficients = ctx.saved_tensors
    of_gradient = block_fir(of_padded, coefficients) + block_fir(padded, of_coefficients)
    return of_gradient, *block_fir_backward(gradient, of_padded, of_coefficients)


block_fir.differentiate(_backward)
block_fir_backward.differentiate(_backward_twice)


@functools.cache
def _kernels():
    import numba

    @numba.njit(cache=True, fastmath=SIMD, nogil=True)
    def forward(padded, coefficients, y):
        batch, blocks, order = coefficients.shape
        size = y.shape[1] // blocks
        for item in range(batch):
            for block in range(blocks):
                start = block * size
                out = y[item, start : start + size]
                for k in range(order):
                    tap = coefficients[item, block, k]
                    window = padded[item, start + order - 1 - k : start + order - 1 - k + size]
                    for i in range(size):
                        out[i] += tap * window[i]

    @numba.njit(cache=True, fastmath=SIMD, nogil=True)
    def backward(gradient, padded, coefficients, of_padded, of_coefficients):
        batch, blocks, order = coefficients.shape
        size = gradient.shape[1] // blocks
        for item in range(batch):
            for block in range(blocks):
                start = block * size
                g = gradient[item, start : start + size]
                for k in range(order):
                    tap = coefficients[item, block, k]
                    total = of_coefficients[item, block, k]
                    first = start + order - 1 - k
                    window = padded[item, first : first + size]
                    back = of_padded[item, first : first + size]
                    for i in range(size):
                        back[i] += tap * g[i]
                        total += window[i] * g[i]
                    of_coefficients[item, block, k] = total

    return forward, backward
