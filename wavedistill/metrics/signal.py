"""Objective quality of a candidate waveform against its reference.

Every function takes (reference, candidate, sample_rate): waveforms (samples,) in [-1, 1), aligned in time; the longer
one is cut. PESQ, STOI, MCD and SwiftF0's pitch errors compare at 16 kHz and need the extra ``eval``; the others need
nothing beyond the package.
"""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from wavedistill.audio.pitch import estimate_f0
from wavedistill.metrics.packages import need_package
from wavedistill.metrics.waveforms import RATE, Waveform, at_16khz, same_length

CEPSTRUM_ORDER = 24
WARPING = 0.42
_LOUD_DB = 40.0
_GROSS_CENTS = 1200 * math.log2(1.2)


class F0Error(NamedTuple):
    """Pitch and voicing errors.

    cents: RMS difference over frames voiced in both and less than 20 % apart (NaN if there are none).
    voicing_percent: frames voiced in one only, of all frames.
    gross_percent: frames 20 % or more apart, of those voiced in both.
    """

    cents: float
    voicing_percent: float
    gross_percent: float


def pesq_wb(reference: Waveform, candidate: Waveform, sample_rate: int) -> float:
    """Wide-band PESQ (ITU-T P.862.2), 1.0 bad to 4.64 identical; NaN for silence and where it finds no speech.

    The better score of two starts half a PESQ frame hop (8 ms) apart, both waveforms cut alike. PESQ's frames are as
    far apart as those of a mel with hop 256 at 16 kHz, and what is made from such a mel is most faithful at its frames'
    centres: where the two grids happen to meet decides up to 0.5 points for Griffin-Lim (measured), which says nothing
    about quality.
    """
    pesq = need_package("pesq")
    first, second = at_16khz(reference, candidate, sample_rate)
    if not (first.any() and second.any()):
        return math.nan
    try:
        return max(float(pesq.pesq(RATE, first[start:], second[start:], "wb")) for start in (0, RATE // 125))
    except (pesq.NoUtterancesError, pesq.BufferTooShortError):
        return math.nan


def stoi(reference: Waveform, candidate: Waveform, sample_rate: int) -> float:
    """Short-time objective intelligibility (Taal et al., 2011), 0 to 1; NaN for less than 0.4 s of speech."""
    pystoi = need_package("pystoi")
    first, second = at_16khz(reference, candidate, sample_rate)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # how pystoi says "not enough frames"
        try:
            return float(pystoi.stoi(first, second, RATE))
        except RuntimeWarning:
            return math.nan


def mcd(reference: Waveform, candidate: Waveform, sample_rate: int) -> float:
    """Mel-cepstral distortion in dB, 0 for equal spectra (Kubichek, 1993).

    10 / ln 10 * sqrt(2 * sum_d (c_d - c'_d)^2), d = 1..24 (no c0, so that level does not count), averaged over the
    frames (5 ms) at most 40 dB below the reference's loudest. The mel-cepstra (order 24, warping 0.42) describe WORLD's
    spectral envelope (Harvest for the pitch, CheapTrick for the envelope), not the harmonics.
    """
    first, second = at_16khz(reference, candidate, sample_rate)
    expected, expected_level = _mel_cepstrum(first.tobytes())
    given, _ = _mel_cepstrum(second.tobytes())
    difference = expected[:, 1:] - given[:, 1:]
    distortion = 10 / math.log(10) * np.sqrt(2 * (difference**2).sum(axis=1))
    return float(distortion[expected_level > expected_level.max() - _LOUD_DB].mean())


def f0_error(reference: Waveform, candidate: Waveform, sample_rate: int) -> F0Error:
    """Pitch and voicing by SwiftF0 (Nieradzik, 2025) every 16 ms, at 16 kHz; the package carries its weights."""
    first, second = at_16khz(reference, candidate, sample_rate)
    return _compare_f0(_swift_f0(first.tobytes()), _swift_f0(second.tobytes()))


def pitch_error(reference: Waveform, candidate: Waveform, sample_rate: int) -> F0Error:
    """Pitch and voicing by `wavedistill.audio.pitch.estimate_f0` every 10 ms: needs no extra package.

    Its numbers are not those of `f0_error`: another estimator decides otherwise at the edges of voiced speech.
    """
    first, second = same_length(reference, candidate, sample_rate)
    return _compare_f0(*(_autocorrelation_f0(x.tobytes(), sample_rate) for x in (first, second)))


def _compare_f0(expected: np.ndarray, given: np.ndarray) -> F0Error:
    """Of two tracks (frames,) in Hz, 0 where unvoiced."""
    both = (expected > 0) & (given > 0)
    cents = 1200 * np.log2(given[both] / expected[both])
    fine = np.abs(cents) < _GROSS_CENTS
    return F0Error(
        float(np.sqrt((cents[fine] ** 2).mean())) if fine.any() else math.nan,
        100 * float(((expected > 0) != (given > 0)).mean()),
        100 * float((~fine).mean()) if both.any() else math.nan,
    )


def log_spectral_distance(
    reference: Waveform, candidate: Waveform, sample_rate: int, band: tuple[float, float] | None = None
) -> float:
    """RMS difference of the log power spectra in dB, averaged over frames (64 ms Hann windows).

    80 dB below the reference's peak is the floor.

    Args:
        band: lowest and highest frequency in Hz; None: all.
    """
    first, second = same_length(reference, candidate, sample_rate)
    size = 2 * round(0.032 * sample_rate)
    window = torch.hann_window(size)
    spectra = [
        torch.stft(
            torch.from_numpy(x).float(), size, size // 4, window=window, pad_mode="constant", return_complex=True
        ).abs()
        for x in (first, second)
    ]
    floor = max(float(spectra[0].max()) * 1e-4, 1e-9)
    low, high = (0, None) if band is None else (round(f * size / sample_rate) for f in band)
    levels = [20 * torch.log10(x[low:high].clamp_min(floor)) for x in spectra]
    return float((levels[0] - levels[1]).square().mean(0).sqrt().mean())


def level_difference(reference: Waveform, candidate: Waveform, sample_rate: int) -> float:
    """RMS level of the candidate over the reference's, in dB: negative is too quiet."""
    first, second = same_length(reference, candidate, sample_rate)
    power = [float((x**2).mean()) + 1e-12 for x in (first, second)]
    return 10 * math.log10(power[1] / power[0])


def clipped_percent(candidate: Waveform) -> float:
    """Share of samples at or beyond full scale, in percent."""
    return 100 * float((np.abs(np.asarray(candidate)) >= 32767 / 32768).mean())


@lru_cache(maxsize=1)
def _pitch_detector() -> object:
    return need_package("swift_f0").SwiftF0(threads=1, spin=False)


@lru_cache(maxsize=4)  # one reference meets many candidates
def _autocorrelation_f0(audio: bytes, sample_rate: int) -> np.ndarray:
    """(samples,) float64, as bytes -> F0 in Hz of each frame, 0 where unvoiced."""
    return estimate_f0(np.frombuffer(audio).copy(), sample_rate, sample_rate // 100).double().numpy()


@lru_cache(maxsize=4)
def _swift_f0(audio: bytes) -> np.ndarray:
    """(samples,) float64 at 16 kHz, as bytes -> F0 in Hz of each frame, 0 where unvoiced."""
    found = _pitch_detector().detect(np.frombuffer(audio).astype(np.float32), RATE)
    return np.where(found.confidence >= 0.5, found.pitch_hz, 0.0)


@lru_cache(maxsize=4)
def _mel_cepstrum(audio: bytes) -> tuple[np.ndarray, np.ndarray]:
    """(samples,) float64 at 16 kHz, as bytes -> mel-cepstrum (frames, order + 1) and level of each frame in dB."""
    world = need_package("pyworld")
    signal = np.frombuffer(audio)
    f0, times = world.harvest(signal, RATE)
    envelope = world.cheaptrick(signal, f0, times, RATE)
    cepstrum = np.fft.irfft(np.log(envelope + 1e-16))[:, : envelope.shape[1]]
    cepstrum[:, 0] /= 2
    return cepstrum @ _warping_matrix(envelope.shape[1], CEPSTRUM_ORDER, WARPING), 10 * np.log10(
        envelope.sum(axis=1) + 1e-16
    )


@lru_cache(maxsize=2)
def _warping_matrix(size: int, order: int, alpha: float) -> np.ndarray:
    """(size, order + 1): cepstrum times this is the cepstrum on an all-pass warped axis (Oppenheim & Johnson, 1972)."""
    warped = np.zeros((order + 1, size))
    for coefficients in np.eye(size)[::-1]:  # Horner's rule on the cepstral polynomial, all unit cepstra at once
        before = warped
        warped = np.zeros_like(before)
        warped[0] = coefficients + alpha * before[0]
        warped[1] = (1 - alpha**2) * before[0] + alpha * before[1]
        for m in range(2, order + 1):
            warped[m] = before[m - 1] + alpha * (before[m] - warped[m - 1])
    return warped.T
