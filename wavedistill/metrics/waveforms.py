"""What every metric needs first: two waveforms of one length, at the rate at which they are compared."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wavedistill.audio.io import resample
from wavedistill.errors import WavedistillError

Waveform = Tensor | np.ndarray
RATE = 16000
"""Hz; what speech quality, pitch and recognisers are defined for."""


def same_length(reference: Waveform, candidate: Waveform, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Both waveforms (samples,) as float64, cut to the shorter one.

    Raises:
        WavedistillError: not (samples,) of finite numbers, or more than 0.1 s apart in length.
    """
    pair = [np.asarray(x, dtype=np.float64) for x in (reference, candidate)]
    for name, x in zip(("reference", "candidate"), pair, strict=True):
        if x.ndim != 1 or not len(x) or not np.isfinite(x).all():
            raise WavedistillError(
                f"the {name} must be a waveform (samples,) of finite numbers, given shape {x.shape}."
            )
    length = min(map(len, pair))
    if max(map(len, pair)) - length > 0.1 * sample_rate:
        raise WavedistillError(
            f"reference and candidate differ by {abs(len(pair[0]) - len(pair[1])) / sample_rate:.2f} s: compare "
            "the same utterance."
        )
    return pair[0][:length], pair[1][:length]


def at_16khz(reference: Waveform, candidate: Waveform, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """`same_length`, resampled to 16 kHz."""
    first, second = same_length(reference, candidate, sample_rate)
    if sample_rate == RATE:
        return first, second
    moved = [resample(torch.from_numpy(x).float(), sample_rate, RATE).double().numpy() for x in (first, second)]
    return moved[0], moved[1]
