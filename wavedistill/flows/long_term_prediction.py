"""Long-term prediction as an invertible map: what the pitch period before predicts is subtracted.

    forward (analysis):   y_t = x_t - sum_k b_k x_{t - lag - k}      all samples at once
    inverse (synthesis):  x_t = y_t + sum_k b_k x_{t - lag - k}      block after block: a comb filter that makes noise a
    voice

Lag and taps change from block to block and are a condition, as in the speech coders that this is taken from. The
Jacobian is triangular with ones on its diagonal: log|det| = 0. With sum_k |b_k| < 1 the inverse is stable.

References:
    Code-Excited Linear Prediction (CELP): High-Quality Speech at Very Low Bit Rates (Schroeder & Atal, 1985).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from wavedistill.dsp.harmonic_source import Pitch, interpolate_frames
from wavedistill.errors import WavedistillError
from wavedistill.flows.transform import Transform, require_dtype, require_sizes


class LTP(NamedTuple):
    """Lags and taps of each block.

    Attributes:
        lags: (batch, blocks), whole numbers of samples.
        taps: (batch, blocks, order), b_k for k = -reach ... reach, order = 2 reach + 1.
    """

    lags: Tensor
    taps: Tensor


class LongTermPredictionFlow(Transform):
    """Excitation x -> y without what the period before predicts, given a `LTP` as condition; log|det| = 0.

    Args:
        max_lag: the largest lag.

    Shapes:
        x, y (batch, 1, samples), samples a multiple of the number of blocks; every lag at least a block + reach
            (`admissible`).

    Raises:
        WavedistillError: for a condition that is none, or whose blocks do not divide the samples.

    Example:
        >>> import torch
        >>> from wavedistill.flows import LongTermPredictionFlow, LTP
        >>> cond = LTP(torch.tensor([[3, 3, 3]]), torch.tensor([0.5]).expand(1, 3, 1))
        >>> flow = LongTermPredictionFlow(max_lag=3)
        >>> x, _ = flow.inverse(torch.tensor([[[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]]), cond)
        >>> x
        tensor([[[1.0000, 0.0000, 0.0000, 0.5000, 0.0000, 0.0000, 0.2500, 0.0000,
                  0.0000]]])
        >>> flow.forward(x, cond).value[0, 0, :3]
        tensor([1., 0., 0.])
    """

    dim = 1
    ranks = (3,)

    def __init__(self, max_lag: int) -> None:
        super().__init__()
        require_sizes(self, max_lag=max_lag)
        self.max_lag = max_lag

    @staticmethod
    def admissible(periods: Tensor, block: int, reach: int) -> Tensor:
        """The smallest multiple of each period that is a lag for blocks of so many samples, rounded to samples."""
        return (periods * torch.ceil((block + reach) / periods)).round().clamp_min(block + reach).long()

    def _forward(self, x: Tensor, cond: LTP) -> tuple[Tensor, Tensor]:
        size, reach = self._block(x, cond)
        padded = torch.nn.functional.pad(x[:, 0], (self.max_lag + reach, 0))
        start = torch.arange(cond.lags.shape[1], device=x.device) * size + self.max_lag - cond.lags.long()
        seen = start.unsqueeze(-1) + torch.arange(size + 2 * reach, device=x.device)
        windows = padded.gather(1, seen.flatten(1)).reshape(seen.shape)
        return x - _filtered(windows, cond.taps).flatten(1).unsqueeze(1), torch.zeros_like(x)

    def _inverse(self, y: Tensor, cond: LTP) -> tuple[Tensor, Tensor]:
        return self.synthesize(y[:, 0], cond, None)[0].unsqueeze(1), torch.zeros_like(y)

    def synthesize(self, y: Tensor, cond: LTP, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """The inverse with memory: takes y (batch, samples) and the last samples of x, gives x and its last samples."""
        size, reach = self._block(y, cond)
        held = self.max_lag + reach
        past = y.new_zeros(y.shape[0], held) if past is None else past
        offsets = torch.arange(size + 2 * reach, device=y.device) + self.max_lag
        windows = offsets - cond.lags.long().unsqueeze(-1)
        blocks = []
        for new, window, taps in zip(y.split(size, dim=1), windows.unbind(1), cond.taps.unbind(1), strict=True):
            blocks.append(new + _filtered(past.gather(1, window), taps))
            past = torch.cat([past, blocks[-1]], dim=1)[:, -held:]
        return torch.cat(blocks, dim=1), past

    def _block(self, x: Tensor, cond: LTP) -> tuple[int, int]:
        """Samples in a block, and taps on either side of the lag."""
        if not isinstance(cond, LTP):
            raise WavedistillError(f"LongTermPredictionFlow needs a LTP as condition, got {type(cond).__name__}.")
        require_dtype(x, self, cond.taps)
        size, rest = divmod(x.shape[-1], cond.lags.shape[1])
        if rest or cond.taps.shape[-1] % 2 == 0:
            raise WavedistillError(
                "LongTermPredictionFlow needs samples that are a multiple of the blocks and an odd number of taps, got "
                f"{x.shape[-1]} samples, {cond.lags.shape[1]} blocks and {cond.taps.shape[-1]} taps."
            )
        return size, cond.taps.shape[-1] // 2


def ltp_from_pitch(pitch: Pitch, raw: Tensor, sample_rate: int, block: int) -> LTP:
    """Lags from a pitch, and taps b = v r / (1 + sum |r|) with v the probability of voicing.

    sum |b| < v < 1, so that the inverse is stable.

    Args:
        pitch: (batch, frames + 2), one more frame on either side.
        raw: r (batch, blocks, order), blocks a multiple of the frames.
        sample_rate: Hz.
        block: samples in a block.
    """
    per_frame = raw.shape[1] // (pitch.f0.shape[1] - 2)
    weights = pitch.voicing.double() + 1e-4  # unvoiced frames do not count in the pitch between frames
    log_f0 = interpolate_frames(pitch.f0.double().log() * weights, per_frame) / interpolate_frames(weights, per_frame)
    lags = LongTermPredictionFlow.admissible(sample_rate * torch.exp(-log_f0), block, raw.shape[-1] // 2)
    voicing = interpolate_frames(pitch.voicing, per_frame).to(raw.dtype).unsqueeze(-1)
    return LTP(lags, voicing * raw / (1.0 + raw.abs().sum(-1, keepdim=True)))


def _filtered(windows: Tensor, taps: Tensor) -> Tensor:
    """Windows (..., size + 2 reach), oldest first, by taps (..., order), k = -reach (newest) first -> (..., size)."""
    return (windows.unfold(-1, taps.shape[-1], 1) @ taps.flip(-1).unsqueeze(-1)).squeeze(-1)
