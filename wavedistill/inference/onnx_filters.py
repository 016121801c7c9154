"""Filters whose taps change from block to block in ONNX's own operators, for any batch, length and order.

A finite filter c of K taps is a product of matrices: y_t = sum_k c_k x_{t-k}, and with t = S p + s, p < P,

    y[p, s] = sum_m B[p, m] C[s, m],   B[p, m] = x_{S p + m - K + 1},   C[s, m] = c_{s + K - 1 - m}.

P = 8 makes blocks of 64 samples square, and both matrices as small as can be.

References:
    https://onnx.ai/onnx/operators/onnx__Scan.html
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
"""Any type of tensor: the exporter reads from a signature what a function takes and gives."""
N = TypeVar("N")
"""A whole number in a tensor (1,)."""
DOUBLE = 11
"""ONNX's number for float64."""


def finite_filter() -> Callable:
    """Translation of `block_fir`."""
    from onnxscript import opset18 as op

    matrices = _matrices()
    products = _products()

    def translated(padded, coefficients):
        order = op.Shape(coefficients, start=2, end=3)
        samples = op.Sub(op.Shape(padded, start=1, end=2), op.Sub(order, op.Constant(value_ints=[1])))
        size = op.Div(samples, op.Shape(coefficients, start=1, end=2))
        return products(padded, matrices(_reversed(coefficients), size), size)

    return translated


def recursive_filter() -> Callable:
    """Translation of `wavedistill.kernels.recursive_filter.recursive_filter`: x_t = e_t + sum_k a_k x_{t-k} is, within
    a block, h * (e + a * past), two finite filters; h answers an impulse after silence.
    """
    from onnxscript import opset18 as op

    matrices = _matrices()
    responses = _responses()
    in_turn = _in_turn()

    def translated(excitation, coefficients, past):
        taps = op.Transpose(op.Cast(coefficients, to=DOUBLE), perm=[1, 0, 2])  # of which loops need no copy
        size = op.Shape(excitation, start=2, end=3)
        reach = matrices(_reversed(taps), size)
        respond = matrices(responses(taps, size), size)
        driving = op.Transpose(op.Cast(excitation, to=DOUBLE), perm=[1, 0, 2])
        x = op.CastLike(in_turn(driving, op.Cast(past, to=DOUBLE), reach, respond), excitation)
        return op.Reshape(op.Transpose(x, perm=[1, 0, 2]), op.Constant(value_ints=[0, -1]))

    return translated


def _reversed(x):
    """The last axis backwards."""
    from onnxscript import opset18 as op

    minus_one = op.Constant(value_ints=[-1])
    return op.Slice(x, minus_one, op.Constant(value_ints=[-(2**63) + 1]), minus_one, minus_one)


def _matrices() -> Callable:
    from onnxscript import opset18 as op
    from onnxscript import script
    from onnxscript.values import Opset

    @script(Opset("wavedistill", 1), default_opset=op)
    def matrices(taps: T, size: N) -> T:
        """C for blocks of so many samples: taps (batch, blocks, K), oldest first -> (batch, blocks, S, columns), with
        columns, the last of them zeros, a multiple of S. Batch and blocks may change places.

        Numbers w and zeros behind them, written again and again, become C when rows are read one short. That is copying
        alone; gathering number by number takes four times as long (measured).
        """
        zero = op.Constant(value_ints=[0])
        one = op.Constant(value_ints=[1])
        eight = op.Constant(value_ints=[8])
        order = op.Shape(taps, start=2, end=3)
        leading = op.Shape(taps, start=0, end=2)
        step = op.Where(op.Equal(op.Mod(size, eight), zero), size / eight, size)
        columns = (order + step + step - one - one) / step * step
        padding = op.Concat(zero, zero, zero, zero, zero, columns + one - order, axis=0)
        line = op.Unsqueeze(op.Pad(taps, padding), op.Constant(value_ints=[2]))
        again = op.Expand(line, op.Concat(one, one, step, one, axis=0))
        in_line = op.Reshape(again, op.Concat(leading, op.Constant(value_ints=[-1]), axis=0))
        read = op.Slice(in_line, zero, step * columns, op.Constant(value_ints=[2]))
        return op.Reshape(read, op.Concat(leading, step, columns, axis=0))

    return matrices


def _products() -> Callable:
    from onnxscript import opset18 as op
    from onnxscript import script
    from onnxscript.values import Opset

    @script(Opset("wavedistill", 1), default_opset=op)
    def products(padded: T, filters: T, size: N) -> T:
        """Blocks of so many samples filtered: padded (batch, K - 1 + samples), filters of `matrices` -> (batch,
        samples).
        """
        zero = op.Constant(value_ints=[0])
        one = op.Constant(value_ints=[1])
        minus_one = op.Constant(value_ints=[-1])
        blocks = op.Shape(filters, start=1, end=2)
        step = op.Shape(filters, start=2, end=3)
        columns = op.Shape(filters, start=3, end=4)
        lacking = blocks * size - step + columns - op.Shape(padded, start=1, end=2)
        filled = op.Pad(padded, op.Concat(zero, zero, zero, lacking, axis=0))
        steps = op.Reshape(filled, op.Concat(op.Shape(padded, start=0, end=1), minus_one, step, axis=0))
        starts = op.Range(op.Squeeze(zero), op.Squeeze(blocks * size / step), op.Squeeze(one))
        offsets = op.Range(op.Squeeze(zero), op.Squeeze(columns / step), op.Squeeze(one))
        seen = op.Gather(steps, op.Unsqueeze(starts, one) + offsets, axis=1)
        windows = op.Reshape(seen, op.Concat(op.Shape(filters, start=0, end=2), minus_one, columns, axis=0))
        y = op.MatMul(windows, op.Transpose(filters, perm=[0, 1, 3, 2]))
        return op.Reshape(y, op.Constant(value_ints=[0, -1]))

    return products


def _responses() -> Callable:
    from onnxscript import graph, script
    from onnxscript import opset18 as op
    from onnxscript.values import Opset

    @script(Opset("wavedistill", 1), default_opset=op)
    def responses(taps: T, size: N) -> T:
        """h of blocks of so many samples, all at once: taps (blocks, batch, K), newest first -> (blocks, batch, size),
        latest first.
        """
        zero = op.Constant(value_ints=[0])
        two = op.Constant(value_ints=[2])
        rows = op.Min(size, op.Shape(taps, start=2, end=3))  # so many taps reach from one sample of a block to another
        within = op.Slice(taps, zero, rows, two)
        times = op.Range(op.Squeeze(zero), op.Squeeze(size), op.Constant(value_int=1))
        impulse = op.CastLike(op.Equal(times, zero), taps)

        @graph()
        def sample(before, now):  # before (blocks, batch, rows), newest first
            x = now + op.ReduceSum(before * within, two, keepdims=1)
            return op.Slice(op.Concat(x, before, axis=2), zero, rows, two), op.Identity(x)

        rest = op.Expand(op.CastLike(op.Constant(value_float=0.0), taps), op.Shape(within))
        _, h = op.Scan(rest, impulse, body=sample, num_scan_inputs=1, scan_output_directions=[1])
        return op.Transpose(op.Squeeze(h, op.Constant(value_ints=[-1])), perm=[1, 2, 0])

    return responses


def _in_turn() -> Callable:
    from onnxscript import graph, script
    from onnxscript import opset18 as op
    from onnxscript.values import Opset

    @script(Opset("wavedistill", 1), default_opset=op)
    def in_turn(excitation: T, past: T, reach: T, respond: T) -> T:
        """x = h * (e + a * past), block after block: excitation (blocks, batch, n), past (batch, K), oldest first,
        reach and respond the `matrices` of a and h -> (blocks, batch, n).
        """
        zero = op.Constant(value_ints=[0])
        one = op.Constant(value_ints=[1])
        minus_one = op.Constant(value_ints=[-1])
        batch = op.Shape(excitation, start=1, end=2)
        size = op.Shape(excitation, start=2, end=3)
        order = op.Shape(past, start=1, end=2)
        step = op.Shape(reach, start=2, end=3)
        of_past = op.Shape(reach, start=3, end=4)
        of_block = op.Shape(respond, start=3, end=4)
        starts = op.Unsqueeze(op.Range(op.Squeeze(zero), op.Squeeze(size / step), op.Squeeze(one)), one)
        past_steps = starts + op.Range(op.Squeeze(zero), op.Squeeze(of_past / step), op.Squeeze(one))
        block_steps = starts + op.Range(op.Squeeze(zero), op.Squeeze(of_block / step), op.Squeeze(one))
        after_past = op.Concat(zero, zero, zero, size - step + of_past - order, axis=0)
        around = op.Concat(zero, size - one, zero, of_block + one - step - size, axis=0)
        in_steps = op.Concat(batch, minus_one, step, axis=0)
        in_windows = op.Concat(batch, size / step, minus_one, axis=0)
        in_line = op.Concat(batch, size, axis=0)

        @graph()
        def block(before, new, a, h):  # before (batch, K); new (batch, n)
            known = op.Gather(op.Reshape(op.Pad(before, after_past), in_steps), past_steps, axis=1)
            predicted = op.MatMul(op.Reshape(known, in_windows), op.Transpose(a, perm=[0, 2, 1]))
            driving = op.Pad(new + op.Reshape(predicted, in_line), around)
            heard = op.Gather(op.Reshape(driving, in_steps), block_steps, axis=1)
            x = op.Reshape(op.MatMul(op.Reshape(heard, in_windows), op.Transpose(h, perm=[0, 2, 1])), in_line)
            return op.Slice(op.Concat(before, x, axis=1), size, size + order, one), op.Identity(x)

        _, x = op.Scan(past, excitation, reach, respond, body=block, num_scan_inputs=3)
        return x

    return in_turn
