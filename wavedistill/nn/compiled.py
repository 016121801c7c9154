"""Sequential inner loops, compiled by numba at their first use (the machine code is cached on disk)."""

from __future__ import annotations

import functools

import numpy as np

SIMD = {"reassoc", "contract"}
"""What vector units need of fast arithmetic; not the assumption that nothing is NaN: a loss that is must be seen."""


def recursive_filter(x: np.ndarray, coefficients: np.ndarray) -> None:
    """In place x_t += sum_k a_k x_{t-k} over t >= order; the first ``order`` samples are the past.

    Shapes: x (batch, order + blocks * n), coefficients (batch, blocks, order).
    """
    _kernels()[0](x, np.ascontiguousarray(coefficients[..., ::-1]))


def recursive_filter_adjoint(gradient: np.ndarray, coefficients: np.ndarray) -> None:
    """In place g_t += sum_k a_k(t + k) g_{t+k}, from the last sample to the first.

    Shapes: gradient (batch, blocks * n), coefficients (batch, blocks, order).
    """
    _kernels()[1](gradient, np.ascontiguousarray(coefficients[..., ::-1]))


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
