"""Spectra weighed towards a mel spectrogram, compiled by numba at its first use (the machine code is cached on disk).

As matrix products the filters are mostly zeros: a bin lies in two of them at most. Here one pass over a frame, which
stays in the nearest cache, makes its magnitudes, its mel, and the weights of its bins.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wavedistill.kernels.recursive_filter import SIMD


class BinFilters(NamedTuple):
    """Triangular filters from the side of the bins: each lies in two neighbouring ones at most.

    Attributes:
        lower: number of the lower one of a bin's two filters, (bins,).
        of_lower, of_upper: the bin's weights in both, (bins,).
    """

    lower: Tensor
    of_lower: Tensor
    of_upper: Tensor

    @classmethod
    def of(cls, filters: Tensor) -> BinFilters:
        """Of a matrix (bins, filters)."""
        lower = (filters > 0).int().argmax(1)
        upper = (lower + 1).clamp(max=filters.shape[1] - 1)
        bins = torch.arange(len(filters))
        of_upper = torch.where(upper > lower, filters[bins, upper], 0.0)
        return cls(lower, filters[bins, lower].contiguous(), of_upper)


class MelGain:
    """spectrum -> spectrum * F_n (share * (min(ratio, largest) - 1)), ratio = wanted / max(F' |spectrum|, floor).

    F_n are the filters with rows of sum 1.

    Args:
        filters: (bins, n_mels), triangles.
        floor: least mel value that is divided by.
        tiny: added to squared magnitudes.
        largest: ratio beyond which none goes.

    Shapes: spectrum (batch, frames, bins), complex64, asked (batch, frames, 2 * n_mels), float32: wanted and share side
        by side -> as spectrum.
    """

    def __init__(self, filters: Tensor, floor: float, tiny: float, largest: float) -> None:
        lower, a, b = (part.numpy() for part in BinFilters.of(filters))
        edges = np.flatnonzero(np.diff(lower, prepend=-1, append=-1))  # of runs of bins with the same filters
        total = np.maximum(a + b, np.float32(tiny))
        self.arguments = edges, lower[edges[:-1]], a, b, a / total, b / total
        self.limits = tuple(np.float32(limit) for limit in (floor, tiny, largest))

    def __call__(self, spectrum: Tensor, asked: Tensor) -> Tensor:
        changed = torch.empty_like(spectrum, memory_format=torch.contiguous_format)
        spectra, wanted, out = (x.contiguous().flatten(0, 1).numpy() for x in (spectrum, asked, changed))
        _kernel()(spectra, wanted, *self.arguments, *self.limits, out)
        return changed


@functools.cache
def _kernel():
    import numba

    zero = np.float32(0.0)
    one = np.float32(1.0)

    @numba.njit(cache=True, fastmath=SIMD, nogil=True, error_model="numpy")
    def change(spectra, asked, edges, filters, a, b, a_share, b_share, floor, tiny, largest, changed):
        frames, bins = spectra.shape
        bands = asked.shape[1] // 2
        magnitude = np.empty(bins, a.dtype)
        gain = np.empty(bands + 1, a.dtype)
        weight = np.empty(bins, a.dtype)
        for frame in range(frames):
            spectrum = spectra[frame]
            wanted = asked[frame, :bands]
            share = asked[frame, bands:]
            for k in range(bins):
                value = spectrum[k]
                magnitude[k] = np.sqrt(value.real * value.real + value.imag * value.imag + tiny)
            gain[:] = zero
            for run in range(len(filters)):
                below = zero
                above = zero
                for k in range(edges[run], edges[run + 1]):
                    below += a[k] * magnitude[k]
                    above += b[k] * magnitude[k]
                gain[filters[run]] += below
                gain[filters[run] + 1] += above
            for band in range(bands):
                ratio = wanted[band] / max(gain[band], floor)
                gain[band] = share[band] * (min(ratio, largest) - one)
            for run in range(len(filters)):
                below = gain[filters[run]]
                above = gain[filters[run] + 1]
                for k in range(edges[run], edges[run + 1]):
                    weight[k] = a_share[k] * below + b_share[k] * above
            out = changed[frame]
            for k in range(bins):
                out[k] = spectrum[k] * weight[k]

    return change
