"""The Levinson-Durbin recursion, compiled by numba at its first use (the machine code is cached on disk).

Its steps are many and small: written in tensor operations, one after another, starting them costs more than their
arithmetic.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from wavedistill.kernels.operators import operator
from wavedistill.kernels.recursive_filter import SIMD


def _plain(autocorrelation: Tensor) -> tuple[Tensor, Tensor]:
    order = autocorrelation.shape[-1] - 1
    coefficients = autocorrelation[..., :0]
    error = autocorrelation[..., 0].clone()
    for step in range(order):
        known = (coefficients * autocorrelation[..., 1 : step + 1].flip(-1)).sum(-1)
        reflection = ((autocorrelation[..., step + 1] - known) / error).unsqueeze(-1)
        coefficients = torch.cat([coefficients - reflection * coefficients.flip(-1), reflection], dim=-1)
        error = error * (1.0 - reflection.squeeze(-1).square())
    return coefficients, error


@operator(fake=lambda r: (r.new_empty(*r.shape[:-1], r.shape[-1] - 1), r.new_empty(r.shape[:-1])), plain=_plain)
def levinson_recursion(autocorrelation: Tensor) -> tuple[Tensor, Tensor]:
    """`wavedistill.dsp.filters.levinson_durbin` as an operator of torch, without gradient.

    Shapes: autocorrelation (..., order + 1) -> coefficients (..., order), error variance (...).
    """
    rows = autocorrelation.detach().reshape(-1, autocorrelation.shape[-1]).contiguous()
    coefficients = rows.new_zeros(rows.shape[0], rows.shape[1] - 1)
    error = rows[:, 0].clone()
    _kernel()(rows.numpy(), coefficients.numpy(), error.numpy())
    leading = autocorrelation.shape[:-1]
    return coefficients.reshape(*leading, -1), error.reshape(leading)


@functools.cache
def _kernel():
    import numba

    @numba.njit(cache=True, fastmath=SIMD, nogil=True, error_model="numpy")
    def recursion(rows, coefficients, error):
        order = coefficients.shape[1]
        backwards = np.empty(order, rows.dtype)  # the coefficients in reverse at its end: all loops run upwards
        for row in range(rows.shape[0]):
            r = rows[row]
            coefficient = coefficients[row]
            known = r[0] - r[0]
            for step in range(order):
                reflection = (r[step + 1] - known) / error[row]
                error[row] *= 1.0 - reflection * reflection
                a = coefficient[:step]
                b = backwards[order - step :]
                lags = r[2 : step + 2]
                known = reflection * r[1]  # of the next step
                for k in range(step):
                    of_a = a[k]
                    of_b = b[k] - reflection * of_a
                    a[k] = of_a - reflection * b[k]
                    b[k] = of_b
                    known += of_b * lags[k]
                coefficient[step] = reflection
                backwards[order - 1 - step] = reflection

    return recursion
