"""What the network sees before each sample: how the cascade's predictions differ, and how large its errors have been.

Every feature is a ratio or a logarithm of one, so that the level of a recording plays a part only near its grid.
"""

from __future__ import annotations

import numpy as np

from wavedistill.applications.compression.arithmetic import log2
from wavedistill.applications.compression.cascade import CANDIDATES
from wavedistill.applications.compression.least_squares import dot

ERRORS = 16
SAMPLES = 16
ENVELOPE = 320
_RATES = np.array([0.3, 0.1, 0.05, 0.005, 0.001, 0.0002])
_SCALE_RATE = 0.02
FLOOR = 0.1
"""Added to mean errors, in steps of the recording's grid."""
_LIMIT = 8.0
DIFFERENCES = CANDIDATES + 1
"""The first features: predictions that differ from the cascade's, as multiples of the mean error."""
FEATURES = DIFFERENCES + ERRORS + CANDIDATES + 1 + len(_RATES) + 4 + 1 + SAMPLES + 1

HISTORY = np.dtype(
    [
        ("features", "f4", (FEATURES,)),
        ("scale", "f8"),
        ("errors", "f8", (ERRORS,)),
        ("means", "f8", (len(_RATES),)),
        ("candidate_means", "f8", (CANDIDATES + 1,)),
        ("level", "f8"),
        ("envelope", "f8", (2 * ENVELOPE,)),
        ("envelope_taps", "f8", (ENVELOPE,)),
        ("envelope_energy", "f8"),
        ("expected", "f8"),
        ("surprise", "f8"),
    ],
    align=True,
)


def limited(value):
    if not value > -_LIMIT:
        return -_LIMIT
    if value > _LIMIT:
        return _LIMIT
    return value


def observe(history, state, other_surprise):
    """Fill ``features`` before a sample, from the cascade's ``state``.

    ``other_surprise``: the other channel's last error as a multiple of its scale, 0 for mono.
    """
    out = history.features
    centre = state.stacked[0]
    inverse = 1.0 / (history.scale + FLOOR)
    n = 0
    for k in range(CANDIDATES):
        out[n] = limited((state.candidates[k] - centre) * inverse)
        n += 1
    out[n] = limited((state.stacked[1] - centre) * inverse)
    n += 1
    for k in range(ERRORS):
        out[n] = limited(history.errors[k] * inverse)
        n += 1
    for k in range(CANDIDATES + 1):
        out[n] = limited(log2((history.candidate_means[k] + FLOOR) * inverse))
        n += 1
    for k in range(len(_RATES)):
        out[n] = limited(log2((history.means[k] + FLOOR) * inverse))
        n += 1
    size = log2(history.scale + FLOOR)
    out[n] = limited(0.5 * size)
    out[n + 1] = min(size, 3.0)
    out[n + 2] = limited(log2((history.level + FLOOR) * inverse))
    out[n + 3] = 0.2 * log2(state.time + 1.0)
    n += 4
    start = state.time % ENVELOPE
    history.expected = dot(history.envelope_taps, history.envelope[start : start + ENVELOPE], ENVELOPE)
    out[n] = limited(history.expected)
    n += 1
    inverse_level = 1.0 / (history.level + FLOOR)
    for k in range(SAMPLES):
        out[n] = limited((state.own[k] - centre) * inverse_level)
        n += 1
    out[n] = limited(other_surprise)


def remember(history, state, x):
    """Take the sample x, after `observe` and before the cascade adapts."""
    time = state.time
    error = x - state.stacked[0]
    size = abs(error)
    for k in range(ERRORS - 1, 0, -1):
        history.errors[k] = history.errors[k - 1]
    history.errors[0] = error
    surprise = error / (history.scale + FLOOR)
    history.surprise = surprise
    adapt_envelope(history, min(abs(surprise), _LIMIT) - 1.0, time)
    start = 1.0 / (time + 2.0)
    history.scale += max(_SCALE_RATE, start) * (size - history.scale)
    for k in range(len(_RATES)):
        history.means[k] += max(_RATES[k], start) * (size - history.means[k])
    for k in range(CANDIDATES):
        history.candidate_means[k] += max(0.01, start) * (abs(x - state.candidates[k]) - history.candidate_means[k])
    history.candidate_means[CANDIDATES] += max(0.01, start) * (
        abs(x - state.stacked[1]) - history.candidate_means[CANDIDATES]
    )
    history.level += max(0.01, start) * (abs(x) - history.level)


def adapt_envelope(history, value, time):
    """Predict the size of the next error from the sizes of the last ones: pulses of a voice come in periods."""
    start = time % ENVELOPE
    past = history.envelope[start : start + ENVELOPE]
    gain = 0.003 * (value - history.expected) / (history.envelope_energy + 1.0)
    for k in range(ENVELOPE):
        history.envelope_taps[k] += gain * past[k]
    history.envelope_energy = max(history.envelope_energy + value * value - past[0] * past[0], 0.0)
    history.envelope[start] = value
    history.envelope[start + ENVELOPE] = value
