"""Silence at the ends of a recording, and samples at full scale."""

from __future__ import annotations

import numpy as np
from torch import Tensor

_QUIETEST = 1e-10  # power below which a frame counts as this loud


def trim_silence(audio: Tensor, sample_rate: int, *, top_db: float, margin_seconds: float) -> Tensor:
    """Cut audio (samples,) to what is within ``top_db`` of its loudest frame, and a margin at each end.

    The same rule as librosa.effects.trim, sample for sample, with frames of 1/32 s and a hop of a quarter of that; but
    librosa takes seconds to import, in every process, and the rule a millisecond.
    """
    frame = max(64, sample_rate // 32)
    hop = frame // 4
    padded = np.pad(audio.numpy(), frame // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, frame)[::hop]
    level = np.sqrt(np.square(frames).mean(axis=1))  # root mean square of each frame
    decibels = 10.0 * np.log10(np.maximum(_QUIETEST, np.square(level)))
    decibels -= 10.0 * np.log10(np.maximum(_QUIETEST, level.max() ** 2))
    loud = np.flatnonzero(decibels > -top_db)
    start = int(loud[0]) * hop
    end = min(len(audio), int(loud[-1] + 1) * hop)
    # The frames are centred: speech may begin up to half a frame away from the frame that shows it.
    margin = max(0, round(margin_seconds * sample_rate) - frame // 2)
    return audio[max(0, start - margin) : end + margin]


def clipped_share(audio: Tensor) -> float:
    """Share of the samples that stand at full scale (|x| >= 0.999)."""
    return float((audio.abs() >= 0.999).float().mean())
