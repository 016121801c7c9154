"""Sub-bands of a waveform by an orthogonal lapped transform: critically sampled, invertible, log|det| = 0.

The signal is cut into blocks of M samples, and each block into its first half a and its second half b, the latter
backwards: a_n[k] = x[n M + k] and b_n[k] = x[n M + M - 1 - k], k < M / 2. Then

    stage 1:  rotate (b_{n-1}[k], a_n[k]) by alpha_k      the inner halves around each boundary between blocks
    stage 2:  rotate (a_{n-1}[k], b_n[k]) by beta_k       the outer halves
    DCT-IV:   y_n[j] = sqrt(2 / M) sum_m u_n[m] cos(pi (m + 1/2) (j + 1/2) / M)      of each block u_n

where a rotation takes (p, q) to (p cos - q sin, p sin + q cos). Without stages this is a block transform. Stage 1 alone
makes it the modulated lapped transform (MLT, the MDCT with a sine window), both make it the extended one (ELT). At the
ends of the signal a rotation that lacks its partner is left out. Rotations of pairs and DCT-IVs of blocks are
orthogonal, and so is what they make up: for signals of any length, ends included.

References:
    Lapped Transforms for Efficient Transform/Subband Coding (Malvar, 1990), https://doi.org/10.1109/29.56057
    Extended Lapped Transforms: Properties, Applications, and Fast Algorithms (Malvar, 1992),
        https://doi.org/10.1109/78.165657
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from wavedistill.errors import WavedistillError
from wavedistill.flows.transform import Transform

MAX_BANDS = 64
MAX_OVERLAP = 2
ELT_SHAPE = 0.25
"""Malvar's gamma, from 0 to 1: the window's highest side lobe is lowest near 1/4 (35 dB below its main lobe)."""


class LappedTransform(Transform):
    """Waveform -> ``bands`` coefficients for each block of ``bands`` samples, lowest band first; log|det| = 0.

    Band j covers the frequencies from j to j + 1 in units of sample_rate / (2 bands). With more overlap the bands leak
    less into each other, and a coefficient needs more samples after its block:

        overlap  transform      filter length  look-ahead
        0        DCT-IV         bands          0
        1        MLT (MDCT)     2 bands        bands / 2
        2        ELT            4 bands        3 bands / 2

    The angles are Malvar's: alpha_k = mu_{M-1-k} and beta_k = mu_k with mu_i = ((1 - gamma) t + gamma) t pi / 4,
    t = (2 i + 1) / (2 M) and gamma = 1/4 for the ELT; alpha_k = (1 - (2 k + 1) / M) pi / 4, a sine window, for the MLT.

    Signs: every step has the same filters, whose cosines begin with a positive sample (those of the DCT-IV as scipy
    has it), and no sign alternates from step to step. So in every band a sinusoid of f Hz turns by 2 pi f bands /
    sample_rate radians a step, and what is slow in the signal is slow in the coefficients. Odd bands run backwards:
    their lower edge alternates in sign from step to step, their upper edge is the slow one.

    Args:
        bands: M, an even number from 2 to 64.
        overlap: 0, 1 or 2 stages of rotations.

    Shapes: (batch, 1, samples) -> (batch, bands, samples / bands), in the dtype of the input.

    Raises:
        WavedistillError: for other bands or overlaps, for samples that are not a multiple of ``bands``, and for more
            than one channel (backwards: channels other than ``bands``).

    Example:
        >>> import torch
        >>> from wavedistill.flows import LappedTransform
        >>> split = LappedTransform(bands=4, overlap=2)
        >>> x = torch.cos(0.05 * torch.arange(400.0)).reshape(1, 1, 400)  # below 1/8 of the sample rate: band 0
        >>> y, log_det = split.forward(x)
        >>> y.shape, log_det
        (torch.Size([1, 4, 100]), tensor([0.]))
        >>> bool((y[0, 0].square().sum() / x.square().sum()) > 0.99)
        True
        >>> torch.allclose(split.inverse(y).value, x, atol=1e-5)
        True
    """

    ranks = (3,)

    def __init__(self, bands: int, overlap: int = 1) -> None:
        super().__init__()
        if bands % 2 or not 2 <= bands <= MAX_BANDS:
            raise WavedistillError(f"LappedTransform needs an even number of bands from 2 to {MAX_BANDS}, got {bands}.")
        if overlap not in range(MAX_OVERLAP + 1):
            raise WavedistillError(f"LappedTransform needs an overlap from 0 to {MAX_OVERLAP}, got {overlap}.")
        self.bands = bands
        self.overlap = overlap
        # not buffers: they stay in float64 whatever the module is moved to, and the input says in which dtype they work
        self._angles = _angles(bands, overlap)
        self._cosines = _dct_iv(bands)

    def _forward(self, x: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        batch, channels, samples = x.shape
        if channels != 1 or samples % self.bands:
            raise WavedistillError(
                f"LappedTransform needs values of shape (batch, 1, samples) with samples a multiple of {self.bands}, "
                f"got shape {tuple(x.shape)}."
            )
        blocks = x.reshape(batch, samples // self.bands, self.bands)
        first, last = blocks[..., : self.bands // 2], blocks[..., self.bands // 2 :].flip(-1)
        for stage, angles in enumerate(self._angles):
            first, last = _rotate_stage(first, last, angles, stage)
        with torch.autocast(x.device.type, enabled=False):
            y = _like(self._cosines, x) @ torch.cat([first, last.flip(-1)], dim=-1).transpose(1, 2)
        return y, x.new_zeros(batch)

    def _inverse(self, y: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        batch, channels, steps = y.shape
        if channels != self.bands:
            raise WavedistillError(
                f"LappedTransform needs coefficients of shape (batch, {self.bands}, steps), got shape {tuple(y.shape)}."
            )
        with torch.autocast(y.device.type, enabled=False):
            blocks = y.transpose(1, 2) @ _like(self._cosines, y)
        first, last = blocks[..., : self.bands // 2], blocks[..., self.bands // 2 :].flip(-1)
        for stage, angles in reversed(list(enumerate(self._angles))):
            first, last = _rotate_stage(first, last, -angles, stage)
        return torch.cat([first, last.flip(-1)], dim=-1).reshape(batch, 1, steps * self.bands), y.new_zeros(batch)


def _angles(bands: int, overlap: int) -> list[Tensor]:
    """For each stage (bands / 2,) angles in radians, float64."""
    k = torch.arange(bands // 2, dtype=torch.float64)
    if overlap < MAX_OVERLAP:
        return [(1 - (2 * k + 1) / bands) * math.pi / 4][:overlap]
    t = (torch.arange(bands, dtype=torch.float64) + 0.5) / bands
    mu = ((1 - ELT_SHAPE) * t + ELT_SHAPE) * t * math.pi / 4
    return [mu.flip(0)[: bands // 2], mu[: bands // 2]]


def _dct_iv(size: int) -> Tensor:
    """The orthogonal DCT-IV (size, size), float64: symmetric, and so its own inverse."""
    middle = torch.arange(size, dtype=torch.float64) + 0.5
    return math.sqrt(2 / size) * torch.cos(math.pi / size * torch.outer(middle, middle))


def _rotate_stage(first: Tensor, last: Tensor, angles: Tensor, stage: int) -> tuple[Tensor, Tensor]:
    """All rotations of a stage, of the blocks' halves (batch, blocks, bands / 2)."""
    if stage == 0:
        last, first = _rotate_neighbours(last, first, angles)
    else:
        first, last = _rotate_neighbours(first, last, angles)
    return first, last


def _rotate_neighbours(p: Tensor, q: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate each (p_{n-1}, q_n); the last p and the first q have no partner and stay."""
    cos = _like(angles.cos(), p)
    sin = _like(angles.sin(), p)
    before, after = p[:, :-1], q[:, 1:]
    return (
        torch.cat([before * cos - after * sin, p[:, -1:]], dim=1),
        torch.cat([q[:, :1], before * sin + after * cos], dim=1),
    )


def _like(table: Tensor, x: Tensor) -> Tensor:
    return table.to(x.dtype).to(x.device)
