"""Sequential inner loops, compiled by numba at their first use (the machine code is cached on disk)."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from wavedistill.kernels.operators import operator

SIMD = {"reassoc", "contract"}
"""What vector units need of fast arithmetic; not the assumption that nothing is NaN: a loss that is must be seen."""


@operator(fake=lambda excitation, coefficients, past: excitation.new_empty(excitation.flatten(1).shape))
def recursive_filter(excitation: Tensor, coefficients: Tensor, past: Tensor) -> Tensor:
    """x_t = e_t + sum_k a_k x_{t-k}. An operator of torch, so that torch.compile and vmap can go through it.

    It runs in float64, whatever its arguments are: near the unit circle, poles sum up the rounding of every step. (On
    real speech a fifth of a student's error for a fourth more time in the filter, measured.)

    The gradient (in the excitation alone) of x = (I - A)^-1 e is the same recursion with A transposed, run backwards in
    time.

    Shapes: excitation (batch, blocks, n), coefficients (batch, blocks, order), past (batch, order), oldest first ->
    (batch, blocks * n).
    """
    x = torch.cat([past, excitation.detach().flatten(1)], dim=1).double()
    _kernels()[0](x.numpy(), _oldest_first(coefficients.double()))
    return x[:, past.shape[1] :].to(excitation.dtype).contiguous()


@operator(fake=lambda gradient, coefficients: torch.empty_like(gradient))
def recursive_filter_adjoint(gradient: Tensor, coefficients: Tensor) -> Tensor:
    """g_t += sum_k a_k(t + k) g_{t+k}, from the last sample to the first.

    Shapes: gradient (batch, blocks * n), coefficients (batch, blocks, order).
    """
    gradient = gradient.detach().clone(memory_format=torch.contiguous_format)
    _kernels()[1](gradient.numpy(), _oldest_first(coefficients))
    return gradient


def _oldest_first(coefficients: Tensor) -> np.ndarray:
    return np.ascontiguousarray(coefficients.detach().numpy()[..., ::-1])


def _save(ctx, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.shape = inputs[0].shape


def _backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
    return recursive_filter_adjoint(gradient, *ctx.saved_tensors).reshape(ctx.shape), None, None


recursive_filter.differentiate(_backward, save=_save)


@functools.cache
def _kernels():
    import numba

    @numba.njit(cache=True, fastmath=SIMD, nogil=True)
    def forward(x, oldest_first):
        batch, blocks, order = oldest_first.shape
        size = (x.shape[1] - order) // blocks
        for item in range(batch):
            row = x[item]
            for block in range(blocks):
                taps = oldest_first[item, block]
                for t in range(order + block * size, order + (block + 1) * size):
                    total = row[t]
                    for k in range(order):
                        total += taps[k] * row[t - order + k]
                    row[t] = total

    @numba.njit(cache=True, fastmath=SIMD, nogil=True)
    def adjoint(gradient, oldest_first):
        batch, blocks, order = oldest_first.shape
        size = gradient.shape[1] // blocks
        for item in range(batch):
            row = gradient[item]
            for block in range(blocks - 1, -1, -1):
                taps = oldest_first[item, block]
                for t in range((block + 1) * size - 1, block * size - 1, -1):
                    value = row[t]
                    for k in range(max(0, order - t), order):
                        row[t - order + k] += taps[k] * value

    return forward, adjoint
