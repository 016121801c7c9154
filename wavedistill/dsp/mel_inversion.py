"""Non-negative spectral magnitudes from a mel spectrogram.

References:
    Algorithms for Non-negative Matrix Factorization (Lee & Seung, 2001): the multiplicative update
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from wavedistill.kernels.mel_gain import BinFilters
from wavedistill.kernels.recursive_filter import SIMD

STEPS = 10
TINY = 1e-9
WIDTH = 64
"""Frames worked on together: their bins fit a core's nearest cache but one."""


class MelInversion(nn.Module):
    """Magnitudes whose mel is a given one, with the fine structure of another spectrum.

    The update is e <- e (F m) / (F F' e), F the mel filters.

    Args:
        filters: (bins, n_mels), triangles: a bin lies in at most two of them, neighbours.

    Shapes:
        mel (batch, frames, n_mels), linear; shape (batch, frames, bins) -> (batch, frames, bins).
    """

    def __init__(self, filters: Tensor) -> None:
        super().__init__()
        self.register_buffer("filters", filters, persistent=False)
        self.sparse = BinFilters.of(filters)

    @torch.no_grad()
    def forward(self, mel: Tensor, shape: Tensor) -> Tensor:
        filters = self.filters.to(mel.dtype)
        wanted = mel @ filters.T
        start = (mel / filters.sum(0).clamp_min(TINY)) @ filters.T
        estimate = start * (shape / shape.mean(-1, keepdim=True).clamp_min(TINY)).clamp(0.1, 10.0)
        if estimate.is_cpu and not torch.compiler.is_compiling():
            return self._compiled(estimate, wanted)
        for _ in range(STEPS):
            estimate = estimate * wanted / (estimate @ filters @ filters.T).clamp_min(TINY)
        return estimate

    def _compiled(self, estimate: Tensor, wanted: Tensor) -> Tensor:
        """The same steps without the zeros of the matrix, of whose entries two in a hundred count."""
        rows, goals = (x.transpose(1, 2).contiguous().numpy() for x in (estimate, wanted))
        sparse = self.sparse
        of_lower, of_upper = (weights.to(estimate.dtype).numpy() for weights in (sparse.of_lower, sparse.of_upper))
        _kernel()(rows, goals, sparse.lower.numpy(), of_lower, of_upper, rows.dtype.type(TINY))
        return torch.from_numpy(rows).transpose(1, 2)


@functools.cache
def _kernel():
    import numba
    import numpy as np

    @numba.njit(cache=True, fastmath=SIMD, nogil=True)
    def update(estimate, wanted, lower, of_lower, of_upper, tiny):
        batch, bins, frames = estimate.shape
        energies = np.empty((lower.max() + 2, WIDTH), estimate.dtype)
        for item in range(batch):
            for first in range(0, frames, WIDTH):
                last = min(first + WIDTH, frames)
                for _ in range(STEPS):
                    energies[:] = 0.0
                    for k in range(bins):
                        row = estimate[item, k, first:last]
                        below = energies[lower[k]]
                        above = energies[lower[k] + 1]
                        a = of_lower[k]
                        b = of_upper[k]
                        for f in range(len(row)):
                            below[f] += a * row[f]
                            above[f] += b * row[f]
                    for k in range(bins):
                        row = estimate[item, k, first:last]
                        below = energies[lower[k]]
                        above = energies[lower[k] + 1]
                        goal = wanted[item, k, first:last]
                        a = of_lower[k]
                        b = of_upper[k]
                        for f in range(len(row)):
                            row[f] = row[f] * goal[f] / max(a * below[f] + b * above[f], tiny)

    return update
