"""How far up a recording really reaches: a file's sample rate says what it could hold, not what it holds.

Example:
    >>> import torch
    >>> from wavedistill.audio.bandwidth import bandwidth
    >>> from wavedistill.audio.io import resample
    >>> noise = torch.randn(24000, generator=torch.Generator().manual_seed(0)) * 0.1
    >>> narrow = resample(resample(noise, 24000, 16000), 16000, 24000)  # what came from 16 kHz
    >>> round(bandwidth(noise, 24000), -3), round(bandwidth(narrow, 24000), -3)
    (12000.0, 8000.0)
"""

from __future__ import annotations

import torch
from torch import Tensor

FRAME_SECONDS = 0.04
BAND = 250.0
"""Width in Hz of the bands that are compared."""
DEPTH_DB = 65.0
"""A band this far below the loudest holds nothing: rounding to 16 bits lies further down, sibilants higher up."""
LOUD_SHARE = 0.95
"""Of a band's frames the level that this share stays below is taken: sibilants are rare."""


def bandwidth(audio: Tensor, sample_rate: int) -> float:
    """Upper edge in Hz of the highest band of 250 Hz that holds sound; 0 for silence.

    Shapes: audio (samples,).
    """
    size = round(FRAME_SECONDS * sample_rate)
    if len(audio) < size:
        audio = torch.nn.functional.pad(audio, (0, size - len(audio)))
    frames = audio.unfold(0, size, size // 2) * torch.hann_window(size, dtype=audio.dtype)
    power = torch.fft.rfft(frames).abs().square()
    bins = max(1, round(BAND * size / sample_rate))
    count = power.shape[1] // bins
    bands = power[:, : count * bins].unflatten(1, (count, bins)).mean(2)
    level = torch.quantile(bands, LOUD_SHARE, dim=0)
    heard = (level > level.max() * 10.0 ** (-DEPTH_DB / 10.0)).nonzero()
    return 0.0 if not len(heard) else min((int(heard[-1]) + 1) * bins * sample_rate / size, sample_rate / 2)
