"""How operators that ONNX or its runtime lacks are written in ONNX's own: time-varying filters, linear prediction, some
float64.

torch's exporter takes a graph of operators and asks `translations` for those it does not know. Every translation holds
for any batch and any length.

References:
    https://onnx.ai/onnx/operators/onnx__Scan.html
    https://docs.pytorch.org/docs/stable/onnx_export.html: custom_translation_table
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from wavedistill.kernels.block_filter import block_fir
from wavedistill.kernels.levinson import levinson_recursion
from wavedistill.kernels.recursive_filter import recursive_filter

T = TypeVar("T")
"""Any type of tensor: the exporter reads from a signature what a function takes and gives."""
FLOAT = 1
DOUBLE = 11
"""ONNX's numbers for float32 and float64."""


def translations() -> dict[Callable, Callable]:
    """For the argument ``custom_translation_table`` of `torch.onnx.export`. Needs onnx and onnxscript."""
    aten = torch.ops.aten
    return {
        recursive_filter.overload: _all_pole(),
        block_fir.overload: _finite(),
        levinson_recursion.overload: _levinson(),
        aten.conv1d.default: _conv1d,
        aten.conv2d.default: _conv2d,
        aten.leaky_relu.default: _leaky_relu,
        aten.scalar_tensor.default: _scalar_tensor,
    }


def _all_pole() -> Callable:
    """Translation of `recursive_filter`."""
    from onnxscript import graph, script
    from onnxscript import opset18 as op
    from onnxscript.values import Opset

    @script(Opset("wavedistill", 1), default_opset=op)
    def all_pole(excitation: T, coefficients: T, past: T) -> T:
        """x_t = e_t + sum_k a_k x_{t-k}. All blocks at once run for their own length: once with their excitation after
        silence, f, and once with an impulse, h. Then only x = f + C x_past, with C made of h, goes from block to block.
        Shapes as in `recursive_filter`.
        """
        size = op.Shape(excitation, start=2, end=3)
        order = op.Shape(coefficients, start=2, end=3)
        zero = op.Constant(value_ints=[0])
        one = op.Constant(value_ints=[1])
        minus_one = op.Constant(value_ints=[-1])
        last = op.Constant(value_ints=[2])
        longest = op.Constant(value_ints=[9223372036854775807])
        silence = op.CastLike(op.Constant(value_floats=[0.0]), op.Cast(coefficients, to=DOUBLE))
        taps = op.Unsqueeze(op.Cast(coefficients, to=DOUBLE), last)  # (batch, blocks, 1, order), newest first
        times = op.Range(op.Squeeze(zero), op.Squeeze(size), op.Squeeze(one))
        lags = op.Range(op.Squeeze(zero), op.Squeeze(order), op.Squeeze(one))

        driven = op.Unsqueeze(op.Cast(excitation, to=DOUBLE), last)  # (batch, blocks, 1, n)
        impulse = op.Expand(op.Cast(op.Equal(times, zero), to=DOUBLE), op.Shape(driven))
        inputs = op.Concat(driven, impulse, axis=2)

        @graph()
        def sample(before, now):  # before (batch, blocks, 2, order), newest first
            x = now + op.ReduceSum(before * taps, minus_one, keepdims=0)
            after = op.Slice(
                op.Concat(op.Unsqueeze(x, minus_one), before, axis=3), zero, order, op.Constant(value_ints=[3])
            )
            return after, op.Identity(x)

        rest = op.Expand(silence, op.Concat(op.Shape(inputs, start=0, end=3), order, axis=0))
        _, responses = op.Scan(rest, inputs, body=sample, num_scan_inputs=1, scan_input_axes=[3], scan_output_axes=[3])
        forced = op.Gather(responses, op.Squeeze(zero), axis=2)
        response = op.Gather(responses, op.Squeeze(one), axis=2)  # (batch, blocks, n)

        # C = H P, P[i, j] = a_{i + order - j} for j >= i (the taps that reach back), H[t, i] = h_{t - i}; both
        # transposed, row by row
        rows = op.Min(size, order)
        nothing = op.Expand(silence, op.Concat(op.Shape(response, start=0, end=2), rows, axis=0))
        delayed = op.Concat(nothing, response, axis=2)
        reaching = op.Concat(op.Cast(coefficients, to=DOUBLE), nothing, axis=2)

        @graph()
        def response_row(i):
            return op.Slice(delayed, rows - i, rows - i + size, last)

        @graph()
        def reach_row(j):
            return op.Slice(reaching, order - one - j, order - one - j + rows, last)

        h = op.Scan(
            op.Slice(times, zero, rows, zero), body=response_row, num_scan_inputs=1, scan_output_axes=[2]
        )  # (batch, blocks, i, t)
        p = op.Scan(lags, body=reach_row, num_scan_inputs=1, scan_output_axes=[2])  # (batch, blocks, j, i)
        from_past = op.MatMul(p, h)  # (batch, blocks, order, n)

        @graph()
        def block(before, new, matrix):  # before (batch, 1, order), oldest first; new (batch, 1, n)
            x = new + op.MatMul(before, matrix)
            return op.Slice(op.Concat(before, x, axis=2), zero - order, longest, last), x

        start = op.Unsqueeze(op.Cast(past, to=DOUBLE), one)
        by_block = op.Unsqueeze(forced, last)
        _, x = op.Scan(
            start, by_block, from_past, body=block, num_scan_inputs=2, scan_input_axes=[1, 1], scan_output_axes=[1]
        )
        return op.CastLike(op.Reshape(x, op.Constant(value_ints=[0, -1])), excitation)

    return all_pole


def _finite() -> Callable:
    """Translation of `block_fir`."""
    from onnxscript import graph, script
    from onnxscript import opset18 as op
    from onnxscript.values import Opset

    @script(Opset("wavedistill", 1), default_opset=op)
    def finite(padded: T, coefficients: T) -> T:
        """y_t = sum_k c_k p_{t + order - 1 - k}, tap after tap; shapes as in `block_fir`."""
        zero = op.Constant(value_ints=[0])
        one = op.Constant(value_ints=[1])
        two = op.Constant(value_ints=[2])
        blocks = op.Shape(coefficients, start=1, end=2)
        order = op.Shape(coefficients, start=2, end=3)
        size = (op.Shape(padded, start=1, end=2) - order + one) / blocks
        starts = op.Unsqueeze(op.Range(op.Squeeze(zero), op.Squeeze(blocks), op.Squeeze(one)), one) * size
        offsets = op.Range(op.Squeeze(zero), op.Squeeze(size + order - one), op.Squeeze(one))
        seen = op.Gather(padded, starts + offsets, axis=1)  # (batch, blocks, n + order - 1)

        @graph()
        def tap(total, weight, age):
            first = order - one - age
            return total + op.Slice(seen, first, first + size, two) * op.Unsqueeze(weight, two)

        silence = op.Expand(
            op.CastLike(op.Constant(value_float=0.0), padded),
            op.Concat(op.Shape(coefficients, start=0, end=2), size, axis=0),
        )
        ages = op.Range(op.Squeeze(zero), op.Squeeze(order), op.Squeeze(one))
        total = op.Scan(silence, coefficients, ages, body=tap, num_scan_inputs=2, scan_input_axes=[2, 0])
        return op.Reshape(total, op.Constant(value_ints=[0, -1]))

    return finite


def _levinson() -> Callable:
    """Translation of `levinson_recursion`."""
    from onnxscript import graph, script
    from onnxscript import opset18 as op
    from onnxscript.values import Opset

    @script(Opset("wavedistill", 1), default_opset=op)
    def levinson(autocorrelation: T) -> tuple[T, T]:
        """Coefficients and error variance; shapes as in `levinson_recursion`. A step in tensors of one size, zeros
        where it has not come to.
        """
        zero = op.Constant(value_ints=[0])
        one = op.Constant(value_ints=[1])
        minus_one = op.Constant(value_ints=[-1])
        leading = op.Shape(autocorrelation, start=0, end=-1)
        order = op.Shape(autocorrelation, start=-1) - one
        r = op.Transpose(
            op.Reshape(autocorrelation, op.Concat(minus_one, order + one, axis=0)), perm=[1, 0]
        )  # (order + 1, rows)
        variance = op.Slice(r, zero, one, zero)
        nothing = variance * op.CastLike(op.Constant(value_float=0.0), r)
        count = op.Range(op.Squeeze(zero), op.Squeeze(order), op.Squeeze(one))
        step = op.Unsqueeze(count, one)
        k = op.Unsqueeze(count, zero)
        lags = op.Gather(
            op.Concat(r, nothing, axis=0), op.Where(k < step, step - k, order + one), axis=0
        )  # r_{step - k}
        following = op.Unsqueeze(op.Slice(r, one, order + one, zero), one)  # r_{step + 1}
        mirror = op.Where(k < step, step - k - one, order)
        newest = op.Unsqueeze(op.CastLike(op.Equal(k, step), r), op.Constant(value_ints=[2]))

        @graph()
        def advance(a, error, lag, after, reversal, place):  # a (order, rows), error (1, rows)
            reflection = (after - op.ReduceSum(a * lag, zero, keepdims=1)) / error
            mirrored = op.Gather(op.Concat(a, nothing, axis=0), reversal, axis=0)
            return a - reflection * (mirrored - place), error - error * reflection * reflection

        rest = op.Expand(nothing, op.Concat(order, one, axis=0))
        a, error = op.Scan(rest, variance, lags, following, mirror, newest, body=advance, num_scan_inputs=4)
        return op.Reshape(op.Transpose(a, perm=[1, 0]), op.Concat(leading, order, axis=0)), op.Reshape(error, leading)

    return levinson


def _conv1d(x, weight, bias=None, stride=(1,), padding=(0,), dilation=(1,), groups=1):
    """onnxruntime has no convolution in float64: there it becomes a product of matrices."""
    from onnxscript import ir
    from onnxscript import opset18 as op

    if x.dtype is ir.DataType.DOUBLE and _plain(stride, padding, groups):
        return op.Transpose(
            _products(op.Transpose(x, perm=[0, 2, 1]), weight, weight.shape, bias, dilation[0]), perm=[0, 2, 1]
        )
    return op.Conv(x, weight, bias, strides=stride, pads=[*padding, *padding], dilations=dilation, group=groups)


def _conv2d(x, weight, bias=None, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
    """A convolution over time, written as one over an image of a single row, whose memory is laid out as (time,
    channels): there a product of matrices is as fast, without two changes of layout.
    """
    from onnxscript import opset18 as op

    if weight.shape[2] != 1 or not _plain(stride, padding, groups):
        return op.Conv(x, weight, bias, strides=stride, pads=[*padding, *padding], dilations=dilation, group=groups)
    axis = op.Constant(value_ints=[2])
    rows = op.Transpose(op.Squeeze(x, axis), perm=[0, 2, 1])
    return op.Unsqueeze(
        op.Transpose(_products(rows, op.Squeeze(weight, axis), weight.shape, bias, dilation[1]), perm=[0, 2, 1]),
        axis,
    )


def _products(x, weight, shape, bias, dilation):
    """Convolution of x (batch, time, channels) with weight (out, channels, taps) -> (batch, time - dilation * (taps
    - 1), out).
    """
    from onnxscript import opset18 as op

    channels = shape[0]
    taps = shape[-1]
    axis = op.Constant(value_ints=[1])
    ends = [dilation * (tap + 1 - taps) or 2**63 - 1 for tap in range(taps)]
    slices = [
        op.Slice(x, op.Constant(value_ints=[dilation * tap]), op.Constant(value_ints=[end]), axis)
        for tap, end in enumerate(ends)
    ]
    matrix = op.Reshape(op.Transpose(weight, perm=[2, 1, 0]), op.Constant(value_ints=[-1, channels]))
    product = op.MatMul(op.Concat(*slices, axis=2), matrix)
    return product if bias is None else op.Add(product, bias)


def _leaky_relu(x, negative_slope=0.01, inplace=False):
    """onnxruntime has none in float64: there it becomes a maximum."""
    from onnxscript import ir
    from onnxscript import opset18 as op

    if x.dtype is not ir.DataType.DOUBLE:
        return op.LeakyRelu(x, alpha=negative_slope)
    return op.Max(x, op.Mul(x, op.Constant(value=ir.tensor(negative_slope, ir.DataType.DOUBLE))))


def _scalar_tensor(value, dtype=FLOAT, layout=None, device=None, pin_memory=None):
    """A number in its full precision: the exporter's own translation rounds it to float32, and 1 + 1e-7 to another."""
    from onnxscript import ir
    from onnxscript import opset18 as op

    return (
        op.Constant(value=ir.tensor(value, ir.DataType(dtype)))
        if isinstance(value, (int, float))
        else op.Cast(value, to=dtype)
    )


def _plain(stride: Sequence[int], padding: Sequence[int], groups: int) -> bool:
    return all(step == 1 for step in stride) and not any(padding) and groups == 1
