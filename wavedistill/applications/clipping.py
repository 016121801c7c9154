"""Which samples of a sound are clipped, and their interpolation by linear prediction.

References:
    Adaptive Interpolation of Discrete-Time Signals That Can Be Modeled as Autoregressive Processes (Janssen et al.,
        1986): least squares of the prediction error over the unknown samples
    A Survey and an Extensive Evaluation of Popular Audio Declipping Methods (Zaviska et al., 2021)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wavedistill.errors import WavedistillError

IN_A_ROW = 3
"""Samples at the extreme value that make it a threshold."""
MOST = 0.5
"""Largest share of the samples that may be clipped."""
ORDER = 32
FRAME = 1024
ROUNDS = 3
"""Of the interpolation: coefficients, samples of a frame (every half frame one), and how often they are found."""
_TOLERANCE = 1.5 / 32768


class Clipped(NamedTuple):
    """Clipped samples of a sound.

    Attributes:
        signs: (samples,): 1 where a sample is clipped above, -1 below, else 0.
        limits: (samples,): sizes that the clipped samples exceed; 0 elsewhere.
    """

    signs: Tensor
    limits: Tensor

    @property
    def count(self) -> int:
        return int(self.signs.count_nonzero())


def find_clipped(audio: Tensor, threshold: float | None = None) -> Clipped:
    """The clipped samples of a sound (samples,).

    Without a threshold it is the largest value, where `IN_A_ROW` neighbours reach it, and so the smallest one; each
    sign has its own. All samples that reach it, within 1.5 / 32768, count as clipped.

    Raises:
        WavedistillError: none are clipped, or more than `MOST` of all; a threshold that is none.
    """
    if threshold is not None and not 0.0 < threshold <= 1.0:
        raise WavedistillError(f"a threshold lies above 0 and at most at 1, given {threshold:g}")
    signs = torch.zeros(len(audio), dtype=torch.int64)
    limits = torch.zeros_like(audio)
    for sign in (1, -1):
        sided = sign * audio
        limit = float(sided.max()) if threshold is None else threshold
        reached = sided >= limit - _TOLERANCE
        if limit > _TOLERANCE and (threshold is not None or _longest_run(reached) >= IN_A_ROW):
            signs[reached] = sign
            limits[reached] = limit
    found = Clipped(signs, limits)
    if not found.count:
        raise WavedistillError(
            f"nothing is clipped: no {IN_A_ROW} samples in a row reach the largest or the smallest value; give the "
            "threshold with --threshold if you know it"
            if threshold is None
            else f"nothing is clipped: no sample reaches {threshold:g}, the largest has {float(audio.abs().max()):.4f}"
        )
    if found.count > MOST * len(audio):
        raise WavedistillError(f"{found.count} of {len(audio)} samples are clipped: too many, half may be")
    return found


def interpolate_clipped(audio: Tensor, clipped: Clipped) -> Tensor:
    """The sound (samples,) with its clipped samples by linear prediction, and beyond the threshold.

    Left to right, in the middle of frames of `FRAME` samples, the coefficients are estimated (Burg's method), the
    clipped samples put where the prediction error has the least squares, and those short of the threshold on it;
    `ROUNDS` times.
    """
    margin = FRAME // 4
    pad = (margin, 2 * FRAME)
    sound = np.pad(audio.double().numpy(), pad)
    signs, limits = np.pad(clipped.signs.numpy(), pad), np.pad(clipped.limits.double().numpy(), pad)
    for start in range(0, len(audio), FRAME - 2 * margin):
        here = slice(start + margin, start + FRAME - margin)
        if signs[here].any():
            mine = np.zeros(FRAME, bool)
            mine[margin:-margin] = signs[here] != 0
            part = slice(start, start + FRAME)
            sound[part] = _interpolated(sound[part], mine, signs[part], limits[part])
    return torch.from_numpy(sound[margin : margin + len(audio)]).to(audio.dtype)


def _interpolated(frame: np.ndarray, unknown: np.ndarray, signs: np.ndarray, limits: np.ndarray) -> np.ndarray:
    from librosa import lpc
    from scipy.linalg import solve, toeplitz

    frame = frame.copy()
    dither = np.random.default_rng(0).uniform(-0.5, 0.5, len(frame)) / 32768  # Burg's method needs some
    for _ in range(ROUNDS):
        coefficients = lpc(frame + dither, order=ORDER)
        rest = np.zeros(len(frame) - ORDER - 1)
        error = toeplitz(np.r_[coefficients[-1], rest], np.r_[coefficients[::-1], rest])
        ours, others = error[:, unknown], error[:, ~unknown]
        found = solve(ours.T @ ours, -ours.T @ (others @ frame[~unknown]), assume_a="pos")
        frame[unknown] = signs[unknown] * np.maximum(signs[unknown] * found, limits[unknown])
    return frame


def _longest_run(reached: Tensor) -> int:
    edges = torch.diff(torch.nn.functional.pad(reached.int(), (1, 1))).nonzero()[:, 0].view(-1, 2)
    return int((edges[:, 1] - edges[:, 0]).max()) if len(edges) else 0
