"""The codec's inner loops, compiled by numba at their first use (the machine code is cached on disk).

All are plain Python functions, compiled without fast arithmetic. LLVM then neither reorders sums nor fuses
multiplications with additions, so that every processor gives the same bits. The encoder and the decoder both run
`distribution` before and `take` after each sample.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from wavedistill.applications.compression.arithmetic import exp2, log2
from wavedistill.applications.compression.cascade import (
    CHANNEL,
    adapt,
    adapt_gradient_predictors,
    clamped,
    hear,
    predict,
)
from wavedistill.applications.compression.features import FEATURES, HISTORY, adapt_envelope, limited, observe, remember
from wavedistill.applications.compression.least_squares import accumulate, dot, solve
from wavedistill.applications.compression.network import MIXTURE, SYMBOLS, cut, linear, mix, rectify
from wavedistill.applications.compression.raw_bits import read_bits, read_value, write_bits, write_value

_OPTIONS = {"error_model": "numpy"}


class State(NamedTuple):
    """What a chunk's coding knows so far; a new one begins each chunk.

    Attributes:
        channels: (channels,) of `CHANNEL`, the cascade.
        histories: (channels,) of `HISTORY`, its errors.
        mixture: (1,) of `MIXTURE`, the distribution of the next sample.
    """

    channels: np.ndarray
    histories: np.ndarray
    mixture: np.ndarray


class Loops(NamedTuple):
    """The compiled functions `encode`, `advance` and `observe_all`."""

    encode: Callable
    advance: Callable
    observe_all: Callable


def new_state(channels: int) -> State:
    """The state at a chunk's start."""
    return State(np.zeros(channels, CHANNEL), np.zeros(channels, HISTORY), np.zeros(1, MIXTURE))


def look(state, c, low, high):
    """Predict the next sample of channel c, which lies in [low, high], and fill the network's inputs."""
    stereo = len(state.channels) == 2
    surprise = 0.0
    if stereo:
        surprise = state.histories[1 - c].surprise
    predict(state.channels[c], stereo, low, high)
    observe(state.histories[c], state.channels[c], surprise)


def distribution(state, network, c, low, high):
    """Fill ``state.mixture`` for the next sample of channel c."""
    look(state, c, low, high)
    history = state.histories[c]
    mixture = state.mixture[0]
    mix(network[0], history.features, state.channels[c].stacked[0], history.scale, mixture)
    cut(mixture, low, high)


def take(state, c, sample):
    """Adapt to the sample of channel c."""
    stereo = len(state.channels) == 2
    x = np.float64(sample)
    remember(state.histories[c], state.channels[c], x)
    adapt(state.channels[c], x, stereo)
    if stereo:
        hear(state.channels[1 - c], x)


def encode(state, network, samples, start, stop, low, high, symbols, probabilities, bits, position):
    """Code samples (frames, channels) in their order, channel by channel, from place ``start`` to ``stop``.

    Fills ``symbols`` (stop - start,), ``probabilities`` (stop - start, SYMBOLS) and, from ``position`` on, ``bits``;
    returns the position after them.
    """
    for place in range(start, stop):
        t, c = divmod(place, len(state.channels))
        distribution(state, network, c, low, high)
        mixture = state.mixture[0]
        for i in range(SYMBOLS):
            probabilities[place - start, i] = mixture.probabilities[i]
        x = samples[t, c]
        symbol, position = write_value(x - mixture.first, mixture.shift, bits, position)
        symbols[place - start] = symbol
        take(state, c, x)
    return position


def advance(state, network, samples, place, symbol, bits, position, low, high):
    """Decode the sample at ``place`` into ``samples`` and fill the distribution of the next one.

    Place -1 has no sample: the coding begins. Returns the position in ``bits``.
    """
    if place >= 0:
        t, c = divmod(place, len(state.channels))
        mixture = state.mixture[0]
        offset, position = read_value(symbol, mixture.shift, bits, position)
        x = min(max(mixture.first + offset, np.int64(low)), np.int64(high))
        samples[t, c] = x
        take(state, c, x)
    distribution(state, network, (place + 1) % len(state.channels), low, high)
    return position


def observe_all(state, samples, inputs, centres, scales, low, high):
    """Fill what the network is trained on: ``inputs`` (places, FEATURES), the predictions and the mean errors."""
    for place in range(samples.size):
        t, c = divmod(place, len(state.channels))
        look(state, c, low, high)
        for i in range(FEATURES):
            inputs[place, i] = state.histories[c].features[i]
        centres[place] = state.channels[c].stacked[0]
        scales[place] = state.histories[c].scale
        take(state, c, samples[t, c])


_PARTS = (
    *(exp2, log2, dot, accumulate, solve),
    *(clamped, predict, adapt_gradient_predictors, adapt, hear),
    *(limited, observe, adapt_envelope, remember),
    *(linear, rectify, mix, cut),
    *(write_bits, read_bits, write_value, read_value),
    *(look, distribution, take),
)


@functools.cache
def loops() -> Loops:
    """Compile, or load what was compiled before."""
    import numba
    from numba.extending import register_jitable

    for part in _PARTS:
        register_jitable(**_OPTIONS)(part)
    compiled = numba.njit(cache=True, nogil=True, **_OPTIONS)
    return Loops(compiled(encode), compiled(advance), compiled(observe_all))
