"""The codec's inner loops, compiled by numba at their first use (the machine code is cached on disk).

The functions beside this module are plain Python; here they are compiled without fast arithmetic. LLVM then neither
reorders sums nor fuses multiplications with additions, so that every processor gives the same bits. The encoder and the
decoder both run `look` before and `take` after each sample.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from wavedistill.applications.compression import arithmetic, cascade, features, least_squares, network, raw_bits
from wavedistill.applications.compression.cascade import CHANNEL, adapt, hear, predict
from wavedistill.applications.compression.features import FEATURES, HISTORY, observe, remember
from wavedistill.applications.compression.network import MIXTURE, SYMBOLS, cut, mix
from wavedistill.applications.compression.raw_bits import read_value, write_value

_OPTIONS = {"error_model": "numpy"}
_PARTS = (
    *(arithmetic.exp2, arithmetic.log2),
    *(least_squares.dot, least_squares.accumulate, least_squares.solve),
    *(cascade.clamped, cascade.predict, cascade.adapt_gradient_predictors, cascade.adapt, cascade.hear),
    *(features.limited, features.observe, features.adapt_envelope, features.remember),
    *(network.linear, network.rectify, network.mix, network.cut),
    *(raw_bits.write_bits, raw_bits.read_bits, raw_bits.write_value, raw_bits.read_value),
)


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
    """The compiled functions; samples are int64 of shape (frames, channels), ``low`` and ``high`` their range.

    Attributes:
        encode: (state, network, samples, start, stop, low, high, symbols, probabilities, bits, position) -> position:
            code the samples (in their order, channel by channel) from start to stop, counted over both channels.
        begin: (state, network, low, high): the distribution of the first sample.
        advance: (state, network, samples, place, symbol, bits, position, low, high) -> position: decode the sample at
            ``place`` and fill the distribution of the next one.
        observe: (state, samples, inputs, centres, scales, low, high): what the network is trained on.
    """

    encode: Callable
    begin: Callable
    advance: Callable
    observe: Callable


def new_state(channels: int) -> State:
    """The state at a chunk's start."""
    return State(np.zeros(channels, CHANNEL), np.zeros(channels, HISTORY), np.zeros(1, MIXTURE))


@functools.cache
def loops() -> Loops:
    """Compile, or load what was compiled before."""
    import numba
    from numba.extending import register_jitable

    for part in _PARTS:
        register_jitable(**_OPTIONS)(part)
    compiled = numba.njit(cache=True, nogil=True, **_OPTIONS)

    @compiled
    def look(channels, histories, c, low, high):
        stereo = len(channels) == 2
        predict(channels[c], stereo, low, high)
        observe(histories[c], channels[c], histories[1 - c].surprise if stereo else 0.0)

    @compiled
    def distribution(channels, histories, mixture, network, c, low, high):
        look(channels, histories, c, low, high)
        history = histories[c]
        mix(network[0], history.features, channels[c].stacked[0], history.scale, mixture[0])
        cut(mixture[0], low, high)

    @compiled
    def take(channels, histories, c, sample):
        stereo = len(channels) == 2
        x = np.float64(sample)
        remember(histories[c], channels[c], x)
        adapt(channels[c], x, stereo)
        if stereo:
            hear(channels[1 - c], x)

    @compiled
    def encode(state, network, samples, start, stop, low, high, symbols, probabilities, bits, position):
        mixture = state.mixture
        for place in range(start, stop):
            t, c = divmod(place, len(state.channels))
            distribution(state.channels, state.histories, mixture, network, c, low, high)
            for i in range(SYMBOLS):
                probabilities[place - start, i] = mixture[0].probabilities[i]
            x = samples[t, c]
            offset = x - mixture[0].first
            symbol, position = write_value(offset, mixture[0].shift, bits, position)
            symbols[place - start] = symbol
            take(state.channels, state.histories, c, x)
        return position

    @compiled
    def begin(state, network, low, high):
        distribution(state.channels, state.histories, state.mixture, network, 0, low, high)

    @compiled
    def advance(state, network, samples, place, symbol, bits, position, low, high):
        t, c = divmod(place, len(state.channels))
        mixture = state.mixture[0]
        offset, position = read_value(symbol, mixture.shift, bits, position)
        x = min(max(mixture.first + offset, np.int64(low)), np.int64(high))
        samples[t, c] = x
        take(state.channels, state.histories, c, x)
        c = (c + 1) % len(state.channels)
        distribution(state.channels, state.histories, state.mixture, network, c, low, high)
        return position

    @compiled
    def observe_all(state, samples, inputs, centres, scales, low, high):
        for place in range(samples.size):
            t, c = divmod(place, len(state.channels))
            look(state.channels, state.histories, c, low, high)
            for i in range(FEATURES):
                inputs[place, i] = state.histories[c].features[i]
            centres[place] = state.channels[c].stacked[0]
            scales[place] = state.histories[c].scale
            take(state.channels, state.histories, c, samples[t, c])

    return Loops(encode, begin, advance, observe_all)
