"""Lost samples continued from known ones without a model: by linear prediction, and by the last period of the pitch.

References:
    A Method for Audio Signal Extrapolation (Kauppinen and Roth, 2002): Burg's linear prediction of high order
    Restoration of a Discrete-Time Signal Segment by Interpolation Based on the Left-Sided and Right-Sided
        Autoregressive Parameters (Etter, 1996): both sides, cross-faded
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wavedistill.audio.pitch import estimate_f0

ORDER = 256
CONTEXT = 1024
"""Coefficients, and samples that they are found from; fewer coefficients where there are fewer samples."""
_FRAME_SECONDS = 0.01
_UNVOICED_SECONDS = 0.01  # what is repeated where there is no pitch
_PITCH_SECONDS = 0.5  # of the past, in which the pitch is looked for


def extrapolate(past: Tensor, count: int) -> Tensor:
    """The ``count`` samples that linear prediction without noise puts after ``past`` (samples,)."""
    from librosa import lpc
    from scipy.signal import lfilter, lfiltic

    known = past[-CONTEXT:].double().numpy()
    order = min(ORDER, len(known) // 3)
    if order == 0:
        return torch.zeros(count)
    dither = np.random.default_rng(0).uniform(-0.5, 0.5, len(known)) / 32768  # Burg's method cannot do with silence
    coefficients = lpc(known + dither, order=order)
    state = lfiltic([1.0], coefficients, known[::-1][:order])
    return torch.from_numpy(lfilter([1.0], coefficients, np.zeros(count), zi=state)[0]).float()


def bridge(audio: Tensor, start: int, stop: int, until: int | None = None) -> Tensor:
    """Samples (stop - start,) for a gap: extrapolated from both sides, cross-faded by cos^2.

    Args:
        audio: (samples,).
        start, stop: the gap's first sample and the one after its last.
        until: the first sample after the gap that is not known; None: all are.
    """
    left, right = audio[:start], audio[stop:until]
    if not len(right):
        return extrapolate(left, stop - start)
    backward = extrapolate(right[:CONTEXT].flip(0), stop - start).flip(0)
    if not len(left):
        return backward
    place = (torch.arange(stop - start) + 0.5) / (stop - start)
    return torch.lerp(backward, extrapolate(left, stop - start), torch.cos(0.5 * torch.pi * place).square())


def repeat_period(past: Tensor, count: int, sample_rate: int) -> Tensor:
    """The ``count`` samples after ``past`` (samples,) as repetitions of its last pitch period, or of its last 10 ms."""
    past = past[-round(_PITCH_SECONDS * sample_rate) :]
    f0 = float(estimate_f0(past, sample_rate, round(_FRAME_SECONDS * sample_rate))[-1])
    period = round(sample_rate / f0) if f0 else round(_UNVOICED_SECONDS * sample_rate)
    return past[-period:].repeat(-(-count // period))[:count]
