"""A cascade of predictors that adapt backwards: they see the samples already decoded, so nothing of them is stored."""

from __future__ import annotations

import numpy as np

from wavedistill.applications.compression.least_squares import accumulate, dot, solve

OWN = 32
OTHER = 16
TAPS = OWN + OTHER
LONG = 256
SHORT = 16
# own taps, taps of the other channel, forgetting factor per sample, samples between two solutions
_ORDERS = np.array([[16, 8], [20, 8], [24, 8], [32, 16], [32, 16], [32, 16]])
_FORGETTING = np.array([0.985, 0.99, 0.993, 0.995, 0.998, 0.9995])
_EVERY = np.array([1, 1, 2, 2, 4, 8])
SOLVED = 6
BASE = 3
"""The predictor whose residual the gradient predictors continue, and whose prediction the stacks correct."""
CANDIDATES = SOLVED + 2
STACKS = 2
_STACK_FORGETTING = np.array([0.998, 0.98])
_RIDGE = 0.3
_TINY = 1e-9

CHANNEL = np.dtype(
    [
        ("time", "i8"),
        ("own", "f8", (OWN,)),
        ("other", "f8", (OTHER,)),
        ("inputs", "f8", (SOLVED, TAPS)),
        ("covariance", "f8", (SOLVED, TAPS, TAPS)),
        ("correlation", "f8", (SOLVED, TAPS)),
        ("taps", "f8", (SOLVED, TAPS)),
        ("variance", "f8", (SOLVED,)),
        ("weight", "f8", (SOLVED,)),
        ("triangle", "f8", (TAPS, TAPS)),
        ("right", "f8", (TAPS,)),
        ("long_past", "f8", (2 * LONG,)),
        ("long_taps", "f8", (LONG,)),
        ("long_energy", "f8"),
        ("short_past", "f8", (SHORT,)),
        ("short_taps", "f8", (SHORT,)),
        ("short_energy", "f8"),
        ("candidates", "f8", (CANDIDATES,)),
        ("differences", "f8", (CANDIDATES,)),
        ("stack_covariance", "f8", (STACKS, CANDIDATES, CANDIDATES)),
        ("stack_correlation", "f8", (STACKS, CANDIDATES)),
        ("stack_weights", "f8", (STACKS, CANDIDATES)),
        ("stacked", "f8", (STACKS,)),
        ("stack_variance", "f8"),
    ],
    align=True,
)


def clamped(value, low, high):
    """Value in [low, high]; NaN becomes low."""
    if not value > low:
        return low
    if value > high:
        return high
    return value


def predict(state, stereo, low, high):
    """Fill ``candidates`` and ``stacked`` for the next sample of a channel, in [low, high]."""
    for k in range(SOLVED):
        own = _ORDERS[k, 0]
        size = own
        inputs = state.inputs[k]
        for i in range(own):
            inputs[i] = state.own[i]
        if stereo:
            size += _ORDERS[k, 1]
            for i in range(_ORDERS[k, 1]):
                inputs[own + i] = state.other[i]
        state.candidates[k] = clamped(dot(state.taps[k], inputs, size), low, high)
    start = state.time % LONG
    continued = dot(state.long_taps, state.long_past[start : start + LONG], LONG)
    state.candidates[SOLVED] = clamped(state.candidates[BASE] + continued, low, high)
    continued = dot(state.short_taps, state.short_past, SHORT)
    state.candidates[SOLVED + 1] = clamped(state.candidates[SOLVED] + continued, low, high)
    for k in range(CANDIDATES):
        state.differences[k] = state.candidates[k] - state.candidates[BASE]
    for s in range(STACKS):
        correction = dot(state.stack_weights[s], state.differences, CANDIDATES)
        state.stacked[s] = clamped(state.candidates[BASE] + correction, low, high)


def adapt(state, x, stereo):
    """Take the sample x that `predict` predicted, and adapt everything to it."""
    for k in range(SOLVED):
        size = _ORDERS[k, 0] + (_ORDERS[k, 1] if stereo else 0)
        forgetting = _FORGETTING[k]
        error = x - state.candidates[k]
        before = state.variance[k]
        after = before + 0.03 * (error * error - before)
        state.variance[k] = after
        weight = (1.0 - forgetting) / np.sqrt(0.5 * (before + after) + 1.0)
        state.weight[k] = forgetting * state.weight[k] + weight
        covariance = state.covariance[k]
        accumulate(covariance, state.correlation[k], state.inputs[k], x, size, forgetting, weight)
        if (state.time + k) % _EVERY[k] == 0:
            ridge = _RIDGE * state.weight[k] + _TINY * covariance[0, 0]
            solve(covariance, state.correlation[k], ridge, size, state.triangle, state.right, state.taps[k])
    adapt_gradient_predictors(state, x)
    error = x - state.stacked[0]
    state.stack_variance += 0.03 * (error * error - state.stack_variance)
    target = x - state.candidates[BASE]
    for s in range(STACKS):
        covariance = state.stack_covariance[s]
        forgetting = _STACK_FORGETTING[s]
        weight = (1.0 - forgetting) / (state.stack_variance + 1.0)
        accumulate(covariance, state.stack_correlation[s], state.differences, target, CANDIDATES, forgetting, weight)
        trace = 0.0
        for k in range(CANDIDATES):
            trace += covariance[k, k]
        ridge = 0.01 * trace / CANDIDATES + 0.0001
        solve(
            covariance,
            state.stack_correlation[s],
            ridge,
            CANDIDATES,
            state.triangle,
            state.right,
            state.stack_weights[s],
        )
    for i in range(OWN - 1, 0, -1):
        state.own[i] = state.own[i - 1]
    state.own[0] = x
    state.time += 1


def hear(state, x):
    """Take a sample of the other channel."""
    for i in range(OTHER - 1, 0, -1):
        state.other[i] = state.other[i - 1]
    state.other[0] = x


def adapt_gradient_predictors(state, x):
    """Normalised least mean squares: the long one on the residual of the base, the short one on what that leaves."""
    residual = x - state.candidates[BASE]
    error = x - state.candidates[SOLVED]
    start = state.time % LONG
    past = state.long_past[start : start + LONG]
    gain = 0.005 * error / (state.long_energy + 1.0)
    for i in range(LONG):
        state.long_taps[i] += gain * past[i]
    state.long_energy = max(state.long_energy + residual * residual - past[0] * past[0], 0.0)
    state.long_past[start] = residual
    state.long_past[start + LONG] = residual
    left = x - state.candidates[SOLVED + 1]
    gain = 0.005 * left / (state.short_energy + 1.0)
    for i in range(SHORT):
        state.short_taps[i] += gain * state.short_past[i]
    state.short_energy = max(state.short_energy + error * error - state.short_past[SHORT - 1] ** 2, 0.0)
    for i in range(SHORT - 1, 0, -1):
        state.short_past[i] = state.short_past[i - 1]
    state.short_past[0] = error
