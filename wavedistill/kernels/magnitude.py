"""Spectra given other magnitudes, compiled by numba at its first use (cached on disk)."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from wavedistill.kernels.recursive_filter import SIMD


def with_magnitude(spectrum: Tensor, magnitude: Tensor, tiny: float) -> Tensor:
    """spectrum * magnitude / sqrt(max(|spectrum|^2, tiny)), in one pass.

    Shapes: spectrum (batch, frames, bins), complex64, magnitude the same, float32 -> as spectrum.
    """
    changed = torch.empty_like(spectrum, memory_format=torch.contiguous_format)
    arrays = (x.contiguous().view(-1).numpy() for x in (spectrum, magnitude, changed))
    _kernel()(*arrays, np.float32(tiny))
    return changed


@functools.cache
def _kernel():
    import numba

    @numba.njit(cache=True, fastmath=SIMD, nogil=True, error_model="numpy")
    def change(spectrum, magnitude, changed, tiny):
        for k in range(len(spectrum)):
            value = spectrum[k]
            power = max(value.real * value.real + value.imag * value.imag, tiny)
            changed[k] = value * (magnitude[k] / np.sqrt(power))

    return change
