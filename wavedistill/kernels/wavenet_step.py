"""The loop of a teacher's cached sampler, compiled by numba at its first use (the machine code is cached on disk).

Three things make a sample cheap on a CPU. The taps of a dilated layer that do not look at the present are known
``dilation`` steps ahead, so their products are made for many steps at once, as one matrix product. What is left, a
product with the present tap and one with residual and skip together, streams each weight once, several rows of the
matrix at a time. The gate is one rational function, which vectorises.

References:
    Fast Wavenet Generation Algorithm (Le Paine et al., 2016), https://arxiv.org/abs/1611.09482
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from wavedistill.kernels.tanh import OPTIONS, tanh_parts

INPUT_RANGE = 16.0
"""Values enter the stack clamped to this many standard deviations, so that one click cannot saturate it."""

ROWS = 8
"""Rows of a matrix that are multiplied in one go: widths are filled up with zeros to multiples of it."""

GAUSSIAN, MIXTURE, CATEGORICAL = range(3)


class Draw(NamedTuple):
    """How a sample comes from the network's output: `wavedistill.distributions` as numbers.

    Attributes:
        kind: GAUSSIAN, MIXTURE (of logistics) or CATEGORICAL (over cells).
        log_scale_min: floor of log-scales; not used by CATEGORICAL.
        table: float32; offsets of the components' locs (MIXTURE), edges of the cells (CATEGORICAL).
        temperature: factor on the noise; on the logits for CATEGORICAL.
    """

    kind: int
    log_scale_min: float
    table: np.ndarray
    temperature: float


class Weights(NamedTuple):
    """float32 matrices (inputs, outputs) below one another, their widths padded."""

    input: np.ndarray  # (step_size + 1, channels): weights, then the bias
    conv: np.ndarray  # (layers * kernel_size * channels, 2 * channels), oldest tap first
    mix: np.ndarray  # (layers * channels, channels + skip): residual beside skip
    hidden: np.ndarray  # (skip, skip)
    hidden_bias: np.ndarray
    output: np.ndarray  # (skip, step_size * outputs)
    output_bias: np.ndarray


class Memory(NamedTuple):
    """What the sampler keeps from step to step; a step of a ring is ``batch`` rows."""

    layers: np.ndarray  # (layers, 5): dilation, steps ahead, blocks in the ring, first row in rings, first row in sums
    rings: np.ndarray  # (rows, channels): inputs of each layer, in blocks of the layer's steps ahead
    sums: np.ndarray  # (rows, 2 * channels): gates of the coming steps as far as they are known
    state: np.ndarray  # (batch, channels + skip): residual stream beside the sum of skips
    gated: np.ndarray  # (batch, channels)
    head: np.ndarray  # (2, batch, skip)
    out: np.ndarray  # (batch, step_size * outputs)
    shift: np.ndarray  # (step_size,)


@functools.cache
def kernel() -> Callable:
    """The compiled ``run``; `wavedistill.models.sequential_sampling` calls it."""
    import numba
    from numba.extending import register_jitable

    inner = register_jitable(**OPTIONS)
    tanh = tanh_parts()
    reach = np.float32(INPUT_RANGE)
    half = np.float32(0.5)
    zero = np.float32(0.0)

    @inner
    def accumulate(y, y_row, x, x_row, w, w_row, rows, inputs):
        """y += x w for ``rows`` rows from y_row and x_row on.

        ``inputs``, a multiple of ROWS, rows of w from w_row on take part.
        """
        outputs = w.shape[1]
        fours = rows - rows % 4
        for r in range(0, fours, 4):
            y0 = y[y_row + r]
            y1 = y[y_row + r + 1]
            y2 = y[y_row + r + 2]
            y3 = y[y_row + r + 3]
            a = x[x_row + r]
            b = x[x_row + r + 1]
            c = x[x_row + r + 2]
            d = x[x_row + r + 3]
            for i in range(0, inputs, 4):
                w0 = w[w_row + i]
                w1 = w[w_row + i + 1]
                w2 = w[w_row + i + 2]
                w3 = w[w_row + i + 3]
                a0 = a[i]
                a1 = a[i + 1]
                a2 = a[i + 2]
                a3 = a[i + 3]
                b0 = b[i]
                b1 = b[i + 1]
                b2 = b[i + 2]
                b3 = b[i + 3]
                c0 = c[i]
                c1 = c[i + 1]
                c2 = c[i + 2]
                c3 = c[i + 3]
                d0 = d[i]
                d1 = d[i + 1]
                d2 = d[i + 2]
                d3 = d[i + 3]
                for j in range(outputs):
                    y0[j] += a0 * w0[j] + a1 * w1[j] + a2 * w2[j] + a3 * w3[j]
                    y1[j] += b0 * w0[j] + b1 * w1[j] + b2 * w2[j] + b3 * w3[j]
                    y2[j] += c0 * w0[j] + c1 * w1[j] + c2 * w2[j] + c3 * w3[j]
                    y3[j] += d0 * w0[j] + d1 * w1[j] + d2 * w2[j] + d3 * w3[j]
        for r in range(fours, rows):
            y0 = y[y_row + r]
            a = x[x_row + r]
            for i in range(0, inputs, 8):
                w0 = w[w_row + i]
                w1 = w[w_row + i + 1]
                w2 = w[w_row + i + 2]
                w3 = w[w_row + i + 3]
                w4 = w[w_row + i + 4]
                w5 = w[w_row + i + 5]
                w6 = w[w_row + i + 6]
                w7 = w[w_row + i + 7]
                a0 = a[i]
                a1 = a[i + 1]
                a2 = a[i + 2]
                a3 = a[i + 3]
                a4 = a[i + 4]
                a5 = a[i + 5]
                a6 = a[i + 6]
                a7 = a[i + 7]
                for j in range(outputs):
                    near = (a0 * w0[j] + a1 * w1[j]) + (a2 * w2[j] + a3 * w3[j])
                    y0[j] += near + ((a4 * w4[j] + a5 * w5[j]) + (a6 * w6[j] + a7 * w7[j]))

    @inner
    def gate(gates, biases, gated):
        """gated = tanh(filters) * sigmoid(openings) of one row.

        sigmoid(b) = (1 + tanh(b / 2)) / 2 makes one division of both.
        """
        channels = len(gated)
        filters = gates[:channels]
        openings = gates[channels:]
        of_filters = biases[:channels]
        of_openings = biases[channels:]
        for j in range(channels):
            p, q = tanh(filters[j] + of_filters[j])
            r, s = tanh(half * (openings[j] + of_openings[j]))
            gated[j] = half * p * (s + r) / (q * s)

    @inner
    def category(logits, count, scale, uniform):
        """Index of the category, of softmax(scale * logits), whose cumulative weight first exceeds ``uniform``."""
        top = logits[0]
        for k in range(1, count):
            top = max(top, logits[k])
        total = 0.0
        for k in range(count):
            total += math.exp(scale * (logits[k] - top))
        above = uniform * total
        cumulative = 0.0
        for k in range(count):
            cumulative += math.exp(scale * (logits[k] - top))
            if cumulative > above:
                return k
        return 0

    @inner
    def drawn(out, shift, noise, draw):
        """The value that ``noise`` draws from the distribution with parameters ``out``, moved by ``shift``."""
        table = draw.table
        if draw.kind == CATEGORICAL:
            cell = category(out, len(table) - 1, 1.0 / max(draw.temperature, 1e-4), noise[0])
            return table[cell] + (table[cell + 1] - table[cell]) * noise[1]
        if draw.kind == GAUSSIAN:
            loc = out[0]
            log_scale = out[1]
            standard = np.float64(noise[0])
        else:
            count = len(table)
            chosen = category(out, count, 1.0, noise[0])
            loc = out[count + chosen] + table[chosen]
            log_scale = out[2 * count + chosen] - np.float32(0.5)
            standard = math.log(noise[1] / (1.0 - noise[1]))
        floor = np.float32(draw.log_scale_min)
        log_scale = floor if log_scale < floor else log_scale
        return loc + shift + math.exp(log_scale) * standard * draw.temperature

    @inner
    def draw_parameters(draw):
        """How many numbers of the network's output describe one value."""
        if draw.kind == CATEGORICAL:
            return len(draw.table) - 1
        return 2 if draw.kind == GAUSSIAN else 3 * len(draw.table)

    @inner
    def embed(previous, weights, state, channels):
        """The stack's input layer: state = (previous step times the weights plus bias, 0)."""
        step_size = len(previous)
        state[channels:] = zero
        bias = weights[step_size]
        for j in range(channels):
            state[j] = bias[j]
        for k in range(step_size):
            value = min(max(previous[k], -reach), reach)
            row = weights[k]
            for j in range(channels):
                state[j] += value * row[j]

    @inner
    def linear_path(past, taps, shift):
        """shift = past times taps (order * step_size, step_size): their last rows, where the past is shorter."""
        first = len(taps) - len(past)
        step_size = len(shift)
        if step_size == 1:
            total = zero
            column = taps[:, 0]
            for i in range(len(past)):
                total += column[first + i] * past[i]
            shift[0] = total
            return
        shift[:] = zero
        for i in range(len(past)):
            value = past[i]
            row = taps[first + i]
            for k in range(step_size):
                shift[k] += value * row[k]

    @inner
    def network(t, biases, block, weights, memory):
        """From memory.state = (embedded previous step, 0) to memory.out."""
        batch, channels = memory.gated.shape
        taps = len(weights.conv) // (len(memory.layers) * channels)
        for layer in range(len(memory.layers)):
            dilation, ahead, blocks, ring, sums = memory.layers[layer]
            turn = t // ahead
            phase = t % ahead
            first = layer * taps * channels
            if phase == 0:
                memory.sums[sums : sums + ahead * batch] = 0.0
                for tap in range(taps - 1):
                    old = (turn - (taps - 1 - tap) * dilation // ahead) % blocks
                    accumulate(
                        memory.sums,
                        sums,
                        memory.rings,
                        ring + old * ahead * batch,
                        weights.conv,
                        first + tap * channels,
                        ahead * batch,
                        channels,
                    )
            now = ring + ((turn % blocks) * ahead + phase) * batch
            for item in range(batch):
                memory.rings[now + item] = memory.state[item, :channels]
            row = sums + phase * batch
            present = first + (taps - 1) * channels
            accumulate(memory.sums, row, memory.rings, now, weights.conv, present, batch, channels)
            for item in range(batch):
                gate(memory.sums[row + item], biases[layer, block, item], memory.gated[item])
            accumulate(memory.state, 0, memory.gated, 0, weights.mix, layer * channels, batch, channels)
        skip = memory.head[0]
        hidden = memory.head[1]
        for item in range(batch):
            for j in range(skip.shape[1]):
                skip[item, j] = max(memory.state[item, channels + j], zero)
                hidden[item, j] = weights.hidden_bias[j]
            memory.out[item] = weights.output_bias
        accumulate(hidden, 0, skip, 0, weights.hidden, 0, batch, skip.shape[1])
        for item in range(batch):
            for j in range(skip.shape[1]):
                hidden[item, j] = max(hidden[item, j], zero)
        accumulate(memory.out, 0, hidden, 0, weights.output, 0, batch, skip.shape[1])

    @numba.njit(cache=True, nogil=True, **OPTIONS)
    def run(u, origin, begin, known, noise, size, biases, taps, weights, memory, draw):
        """Draw the steps from ``begin`` on of u (batch, steps, step_size), those before ``known`` being given.

        Step 0 of u is the signal's step ``origin``; the noise and the blocks of ``size`` steps begin at ``begin``.
        """
        batch, channels = memory.gated.shape
        step_size = u.shape[2]
        order = taps.shape[2] // step_size
        outputs = draw_parameters(draw)
        nothing = np.zeros(step_size, np.float32)
        for t in range(begin, u.shape[1]):
            block = (t - begin) // size
            for item in range(batch):
                previous = u[item, t - 1] if t else nothing
                embed(previous, weights.input, memory.state[item], channels)
            network(origin + t, biases, block, weights, memory)
            if t < known:
                continue
            for item in range(batch):
                past = u[item, max(0, t - order) : t].reshape(-1)
                linear_path(past, taps[item, block], memory.shift)
                for k in range(step_size):
                    out = memory.out[item, k * outputs : (k + 1) * outputs]
                    u[item, t, k] = drawn(out, memory.shift[k], noise[item, t - begin, k], draw)

    return run
