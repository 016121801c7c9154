"""Sub-bands of a waveform by an orthogonal lapped transform: critically sampled, invertible, log|det| = 0.

The signal is cut into blocks of M samples, and each block into its first half a and its second half b, the latter
backwards: a_n[k] = x[n M + k] and b_n[k] = x[n M + M - 1 - k], k < M / 2. Then

    stage 1:  rotate (b_{n-1}[k], a_n[k]) by alpha_k      the inner halves around each boundary between blocks
    stage 2:  rotate (a_{n-1}[k], b_n[k]) by beta_k       the outer halves
    DCT-IV:   y_n[j] = sqrt(2 / M) sum_m u_n[m] cos(pi (j + 1/2) (m + 1/2) / M)      of each block u_n

where a rotation takes (p, q) to (p cos - q sin, p sin + q cos). Stage 1 alone makes this the modulated lapped transform
(MLT, the MDCT with a sine window), both make it the extended one (ELT). At the ends of the signal a rotation that lacks
its partner is left out. Without stages there is no alias for the DCT-IV to cancel, and each block has the

    DCT-II:   y_n[j] = sqrt(2 / M) sum_m x[n M + m] cos(pi j (m + 1/2) / M), y_n[0] times sqrt(1 / 2)

instead, which represents a constant by band 0 alone. Rotations of pairs and DCTs of blocks are orthogonal, and so is
what they make up: for signals of any length, ends included.

References:
    Lapped Transforms for Efficient Transform/Subband Coding (Malvar, 1990), https://doi.org/10.1109/29.56057
    Extended Lapped Transforms: Properties, Applications, and Fast Algorithms (Malvar, 1992),
        https://doi.org/10.1109/78.165657
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wavedistill.errors import WavedistillError
from wavedistill.flows.transform import Mapped, Transform

MAX_BANDS = 64
MAX_OVERLAP = 2
ELT_BEND = 0.25
"""What bends the angles of the ELT. With 4 to 64 bands the highest side lobe of any band is lowest at 0.23 to 0.24, and
within 0.3 dB of that at 1/4. Malvar's own formula, ((1 - gamma) t + gamma) t in place of t - sin(pi t) / 4, does no
better at its best gamma, near 0.1, and has side lobes behind the highest that are 4 to 5 dB higher."""


class LappedChunk(NamedTuple):
    """What a call of a stream gives.

    Attributes:
        value: as much as is determined: (batch, bands, steps) of an analysis, (batch, 1, samples) of a synthesis.
        state: for the next call, the last steps of what was given so far; None once the stream has ended.
    """

    value: Tensor
    state: Tensor | None


class LappedTransform(Transform):
    """Waveform -> ``bands`` coefficients for each block of ``bands`` samples, lowest band first; log|det| = 0.

    Band j covers the frequencies from j to j + 1 in units of sample_rate / (2 bands), without overlap only roughly: its
    cosine lies at j then. Band 0 is the block's mean times sqrt(bands), and no other band responds to a constant. With
    more overlap the bands leak less into each other, and a coefficient needs more samples after its block:

        overlap  transform      filter length  look-ahead
        0        DCT-II         bands          0
        1        MLT (MDCT)     2 bands        bands / 2
        2        ELT            4 bands        3 bands / 2

    The angles of the ELT are alpha_k = mu((M - 1/2 - k) / M) and beta_k = mu((k + 1/2) / M), chosen for low side lobes:
    mu(t) = (t - sin(pi t) / 4) pi / 4. As mu rises from 0 to pi / 4 without a step, the window has steps at its ends
    only. The MLT's are alpha_k = (1 - (2 k + 1) / M) pi / 4: a sine window.

    Signs: every step has the same filters (but for ``overlap`` steps at the ends), with the cosines of the DCT-II or
    DCT-IV as scipy has them, and no sign alternates from step to step. So in every band a sinusoid of f Hz turns by
    2 pi f bands / sample_rate radians a step, and what is slow in the signal is slow in the coefficients. Odd bands run
    backwards: their lower edge alternates in sign from step to step, their upper edge is the slow one.

    Args:
        bands: M, an even number from 2 to 64; without overlap any number from 1 (no split: the coefficients are the
            samples).
        overlap: 0, 1 or 2 stages of rotations.

    Attributes:
        analysis_delay: how many samples after the end of block n the coefficients of step n need.
        synthesis_delay: of the samples of steps 0 ... n the last so many are not determined by these steps. The samples
            of block n need the steps n + 1 ... n + overlap.

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
        if overlap not in range(MAX_OVERLAP + 1):
            raise WavedistillError(f"LappedTransform needs an overlap from 0 to {MAX_OVERLAP}, got {overlap}.")
        if not 1 <= bands <= MAX_BANDS:
            raise WavedistillError(f"LappedTransform needs 1 to {MAX_BANDS} bands, got {bands}.")
        if overlap and bands % 2:
            raise WavedistillError(f"LappedTransform with overlap needs an even number of bands, got {bands}.")
        self.bands = bands
        self.overlap = overlap
        self.analysis_delay = self.synthesis_delay = max(0, 2 * overlap - 1) * bands // 2
        # not buffers: they stay in float64 whatever the module is moved to, and the input says in which dtype they work
        self._angles = _angles(bands, overlap)
        self._cosines = _dct_iv(bands) if overlap else _dct_ii(bands)

    def analyze_chunk(self, x: Tensor, state: Tensor | None, last: bool) -> LappedChunk:
        """Waveform -> coefficients, chunk by chunk; chunks of any length make up the coefficients of the whole.

        ``overlap`` steps are held back until the next chunk comes.

        Args:
            x: the next samples (batch, 1, samples), a multiple of ``bands``, from none.
            state: of the chunk before; None for the first.
            last: whether the waveform ends here.
        """
        self._check_samples(x)
        return self._continue(self.forward, x, state, last, (self.bands, 1), self.overlap)

    def synthesize_chunk(self, y: Tensor, state: Tensor | None, last: bool) -> LappedChunk:
        """Coefficients -> waveform, chunk by chunk; chunks of any length make up the waveform of the whole.

        ``synthesis_delay`` samples are held back until the next chunk comes.

        Args:
            y: the coefficients (batch, bands, steps) of the next steps, from none.
            state: of the chunk before; None for the first.
            last: whether the waveform ends here.
        """
        self._check_coefficients(y)
        return self._continue(self.inverse, y, state, last, (1, self.bands), self.synthesis_delay)

    def basis(self) -> Tensor:
        """The synthesis filters far from the ends: (bands, max(1, 2 overlap) bands), orthonormal, float64.

        What coefficient j of step n adds to the waveform: filter j, whose middle is the middle of block n. Read as rows
        of a matrix, they are the analysis as well.
        """
        steps = 2 * self.overlap + 1
        unit = torch.eye(self.bands, dtype=torch.float64).unsqueeze(-1)
        y = torch.nn.functional.pad(unit, (self.overlap, self.overlap))
        margin = self.bands // 2 if self.overlap else 0
        return self.inverse(y).value[:, 0, margin : steps * self.bands - margin]

    def _forward(self, x: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        self._check_samples(x)
        batch, _, samples = x.shape
        blocks = self._rotated(x.reshape(batch, samples // self.bands, self.bands), list(enumerate(self._angles)))
        with torch.autocast(x.device.type, enabled=False):
            y = _like(self._cosines, x) @ blocks.transpose(1, 2)
        return y, x.new_zeros(batch)

    def _inverse(self, y: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        self._check_coefficients(y)
        batch, _, steps = y.shape
        with torch.autocast(y.device.type, enabled=False):
            blocks = y.transpose(1, 2) @ _like(self._cosines, y)
        blocks = self._rotated(blocks, [(stage, -angles) for stage, angles in reversed(list(enumerate(self._angles)))])
        return blocks.reshape(batch, 1, steps * self.bands), y.new_zeros(batch)

    def _rotated(self, blocks: Tensor, stages: list[tuple[int, Tensor]]) -> Tensor:
        """Blocks (batch, steps, bands) after these stages, given by number and angles."""
        if not stages:
            return blocks
        first, second = blocks.tensor_split(2, dim=-1)
        second = second.flip(-1)
        for stage, angles in stages:
            first, second = _rotate_stage(first, second, angles, stage)
        return torch.cat([first, second.flip(-1)], dim=-1)

    def _continue(
        self,
        function: Callable[[Tensor], Mapped],
        chunk: Tensor,
        state: Tensor | None,
        last: bool,
        sizes: tuple[int, int],
        held: int,
    ) -> LappedChunk:
        """The function of the next chunk behind the 2 overlap steps before it, less what was returned before.

        A filter reaches ``overlap`` steps back, and as many steps are held, so that these are all the past it takes.
        The first of them are wrong at the edge where the past was cut off, but they have been returned before.

        Args:
            sizes: of a step, in the values that go in and in those that come out.
            held: values at the end that the next chunk will change.
        """
        size_in, size_out = sizes
        window = chunk
        returned = 0
        if state is not None:
            window = torch.cat([state, chunk], dim=-1)
            returned = max(0, state.shape[-1] // size_in * size_out - held)
        value = function(window).value
        if last:
            return LappedChunk(value[..., returned:], None)
        known = max(0, value.shape[-1] - held)
        start = max(0, window.shape[-1] - 2 * self.overlap * size_in)
        return LappedChunk(value[..., returned:known], window[..., start:])

    def _check_samples(self, x: Tensor) -> None:
        if x.dim() != 3 or x.shape[1] != 1 or x.shape[2] % self.bands:
            raise WavedistillError(
                f"LappedTransform needs values of shape (batch, 1, samples) with samples a multiple of {self.bands}, "
                f"got shape {tuple(x.shape)}."
            )

    def _check_coefficients(self, y: Tensor) -> None:
        if y.dim() != 3 or y.shape[1] != self.bands:
            raise WavedistillError(
                f"LappedTransform needs coefficients of shape (batch, {self.bands}, steps), got shape {tuple(y.shape)}."
            )


def _angles(bands: int, overlap: int) -> list[Tensor]:
    """For each stage (bands / 2,) angles in radians, float64."""
    t = (torch.arange(bands, dtype=torch.float64) + 0.5) / bands
    if overlap < MAX_OVERLAP:
        return [(1 - 2 * t[: bands // 2]) * math.pi / 4][:overlap]
    mu = (t - ELT_BEND * torch.sin(math.pi * t)) * math.pi / 4
    return [mu.flip(0)[: bands // 2], mu[: bands // 2]]


def _dct_ii(size: int) -> Tensor:
    """The orthogonal DCT-II (size, size), float64: a row for each frequency, the transpose is its inverse."""
    frequency = torch.arange(size, dtype=torch.float64)
    rows = math.sqrt(2 / size) * torch.cos(math.pi / size * torch.outer(frequency, frequency + 0.5))
    rows[0] /= math.sqrt(2)
    return rows


def _dct_iv(size: int) -> Tensor:
    """The orthogonal DCT-IV (size, size), float64: symmetric, and so its own inverse."""
    middle = torch.arange(size, dtype=torch.float64) + 0.5
    return math.sqrt(2 / size) * torch.cos(math.pi / size * torch.outer(middle, middle))


def _rotate_stage(first: Tensor, second: Tensor, angles: Tensor, stage: int) -> tuple[Tensor, Tensor]:
    """All rotations of a stage, of the blocks' halves (batch, steps, bands / 2)."""
    if stage == 0:
        second, first = _rotate_neighbours(second, first, angles)
    else:
        first, second = _rotate_neighbours(first, second, angles)
    return first, second


def _rotate_neighbours(p: Tensor, q: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate each (p_{n-1}, q_n); the last p and the first q have no partner and stay."""
    cos = _like(angles.cos(), p)
    sin = _like(angles.sin(), p)
    before = p[:, :-1]
    after = q[:, 1:]
    turned_before = torch.cat([before * cos - after * sin, p[:, -1:]], dim=1)
    turned_after = torch.cat([q[:, :1], before * sin + after * cos], dim=1)
    return turned_before, turned_after


def _like(table: Tensor, x: Tensor) -> Tensor:
    return table.to(x.dtype).to(x.device)
