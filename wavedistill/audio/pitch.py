"""Fundamental frequency of speech: normalised autocorrelation and one Viterbi path through the recording.

Reference: Boersma, Accurate short-term analysis of the fundamental frequency and the harmonics-to-noise ratio of
a sampled sound, IFA Proceedings 17, 1993. The path here runs over a fixed grid of frequencies, not over a few
candidates a frame, which lets every step be one array operation.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wavedistill.errors import WavedistillError

_BINS_PER_OCTAVE = 36
_OCTAVE_COST = 0.03  # prefers the higher of two equally periodic candidates, per octave
_JUMP_COST = 0.5  # per octave between neighbouring frames 10 ms apart
_VOICING_COST = 0.14  # for each change between voiced and unvoiced, frames 10 ms apart
_VOICING_THRESHOLD = 0.45  # periodicity (0 to 1) from which a loud frame counts as voiced
_SILENCE_LEVEL = 0.03  # frames with a peak below this share of the recording's count as silent
_LOWPASS_HZ = 1500.0  # harmonics above say little about the pitch and much about the noise
_CHUNK = 512  # frames analysed at a time


def estimate_f0(
    audio: Tensor | np.ndarray, sample_rate: int, hop_length: int, f_min: float = 60.0, f_max: float = 500.0
) -> Tensor:
    """F0 track of ``audio`` (samples,).

    Returns:
        (frames,) float32 in Hz, 0 where unvoiced; frames = ceil(samples / hop_length) and frame i is centred on
        sample i * hop_length + hop_length / 2.

    Raises:
        WavedistillError: unless audio is (samples,) with at least one sample and 0 < f_min < f_max < sample_rate / 4.
    """
    signal = torch.as_tensor(audio, dtype=torch.float32).detach().cpu()
    if signal.ndim != 1 or signal.numel() == 0:
        raise WavedistillError(f"pitch needs audio of shape (samples,), given {tuple(signal.shape)}")
    if not 0 < f_min < f_max < sample_rate / 4:
        raise WavedistillError(
            f"pitch needs 0 < f_min < f_max < sample_rate / 4, given {f_min}, {f_max} Hz at {sample_rate} Hz"
        )
    num_bins = int(np.ceil(np.log2(f_max / f_min) * _BINS_PER_OCTAVE)) + 1
    frequencies = np.geomspace(f_min, f_max, num_bins)
    correlation, level = _correlate(signal, sample_rate, hop_length, f_min)
    lags = torch.from_numpy(sample_rate / frequencies).float()
    low = lags.long()
    periodicity = torch.lerp(correlation[:, low], correlation[:, low + 1], lags - low).numpy()
    score = periodicity + _OCTAVE_COST * np.log2(frequencies / f_min)
    unvoiced = _VOICING_THRESHOLD + np.maximum(0.0, 2.0 - level.numpy() / _SILENCE_LEVEL * (1 + _VOICING_THRESHOLD))
    step = 0.01 * sample_rate / hop_length  # costs are meant for frames 10 ms apart
    path = _viterbi(score.astype(np.float32), unvoiced.astype(np.float32), frequencies, step)
    return _refine(correlation, path, lags, sample_rate, f_min, f_max)


def _correlate(signal: Tensor, sample_rate: int, hop_length: int, f_min: float) -> tuple[Tensor, Tensor]:
    """Autocorrelation (frames, lags up to one period of f_min) normalised to 1 at lag 0, and each frame's peak
    relative to the recording's loudest, (frames,)."""
    num_frames = -(-signal.numel() // hop_length)
    width = 2 * round(1.5 * sample_rate / f_min)  # three periods of the lowest pitch
    max_lag = int(sample_rate / f_min) + 3
    size = 1 << (width + max_lag - 1).bit_length()
    left = width // 2 - hop_length // 2
    right = max(0, (num_frames - 1) * hop_length + width - left - signal.numel())
    padded = torch.nn.functional.pad(signal, (max(left, 0), right))[max(-left, 0) :]
    frames = padded.unfold(0, width, hop_length)[:num_frames]
    window = torch.hann_window(width)
    window_correlation = _autocorrelation(window[None], size, None)[0, :max_lag]
    frequency = torch.fft.rfftfreq(size, 1 / sample_rate)
    lowpass = 1 / (1 + (frequency / _LOWPASS_HZ) ** 4)
    correlation = []
    peaks = []
    for chunk in frames.split(_CHUNK):
        centred = chunk - chunk.mean(dim=1, keepdim=True)
        r = _autocorrelation(centred * window, size, lowpass)[:, :max_lag] / window_correlation
        correlation.append(r / r[:, :1].clamp_min(1e-12))
        peaks.append(centred.abs().amax(dim=1))
    level = torch.cat(peaks)
    return torch.cat(correlation), level / level.max().clamp_min(1e-9)


def _autocorrelation(frames: Tensor, size: int, lowpass: Tensor | None) -> Tensor:
    power = torch.fft.rfft(frames, size).abs().square()
    return torch.fft.irfft(power if lowpass is None else power * lowpass, size)


def _viterbi(score: np.ndarray, unvoiced: np.ndarray, frequencies: np.ndarray, step: float) -> np.ndarray:
    """Best path through score (frames, bins) and the unvoiced state (frames,); -1 marks unvoiced frames."""
    num_frames, num_bins = score.shape
    octaves = np.log2(frequencies).astype(np.float32)
    jump = np.float32(_JUMP_COST * step) * np.abs(octaves[:, None] - octaves[None, :])  # (to, from)
    change = np.float32(_VOICING_COST * step)
    came_from = np.empty((num_frames, num_bins + 1), np.int16)  # the last column is the unvoiced state
    voiced = score[0].copy()
    silent = unvoiced[0]
    rows = np.arange(num_bins)
    for t in range(1, num_frames):
        arrivals = voiced[None, :] - jump
        best = arrivals.argmax(axis=1)
        value = arrivals[rows, best]
        top = int(voiced.argmax())
        begins = silent - change > value
        came_from[t, :num_bins] = np.where(begins, num_bins, best)
        ends = voiced[top] - change > silent
        came_from[t, num_bins] = top if ends else num_bins
        silent, voiced = (
            unvoiced[t] + (voiced[top] - change if ends else silent),
            score[t] + np.where(begins, silent - change, value),
        )
    path = np.empty(num_frames, np.int64)
    state = num_bins if silent >= voiced.max() else int(voiced.argmax())
    for t in range(num_frames - 1, -1, -1):
        path[t] = state
        if t:
            state = int(came_from[t, state])
    return np.where(path == num_bins, -1, path)


def _refine(
    correlation: Tensor, path: np.ndarray, lags: Tensor, sample_rate: int, f_min: float, f_max: float
) -> Tensor:
    """Place each voiced frame on the correlation's peak near its grid lag, by a parabola through three points."""
    states = torch.from_numpy(path)
    voiced = states >= 0
    near = lags[states.clamp_min(0)]
    # A bin and a half to either side: the peak may lie beyond the grid point that the smooth path chose.
    reach = torch.ceil(near * (2 ** (1.5 / _BINS_PER_OCTAVE) - 1)).long().clamp_min(1)
    offsets = torch.arange(-int(reach.max()), int(reach.max()) + 1)
    around = (near.round().long()[:, None] + offsets).clamp(1, correlation.shape[1] - 2)
    values = correlation.gather(1, around).masked_fill(offsets.abs() > reach[:, None], -torch.inf)
    lag = around.gather(1, values.argmax(dim=1, keepdim=True))
    before, at, after = (correlation.gather(1, lag + d)[:, 0] for d in (-1, 0, 1))
    curvature = before - 2 * at + after
    shift = torch.where(curvature < 0, 0.5 * (before - after) / curvature.clamp_max(-1e-9), 0.0).clamp(-0.5, 0.5)
    f0 = (sample_rate / (lag[:, 0] + shift)).clamp(f_min, f_max)
    return torch.where(voiced, f0, 0.0)
