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
        silence, f, and once with an impulse, h. Then x = f + H (P x_past) goes from block to block, with H made of h
        and P of the taps that reach back. Shapes as in `recursive_filter`.
        """
        size = op.Shape(excitation, start=2, end=3)
        order = op.Shape(coefficients, start=2, end=3)
        zero = op.Constant(value_ints=[0])
        one = op.Constant(value_ints=[1])
        minus_one = op.Constant(value_ints=[-1])
        last = op.Constant(value_ints=[2])
        three = op.Constant(value_ints=[3])
        longest = op.Constant(value_ints=[9223372036854775807])
        rows = op.Min(size, order)  # so many samples of a block, and taps within it, reach over its own start
        silence = op.CastLike(op.Constant(value_floats=[0.0]), op.Cast(coefficients, to=DOUBLE))
        taps = op.Cast(coefficients, to=DOUBLE)  # (batch, blocks, order), newest first
        within = op.Unsqueeze(op.Slice(taps, zero, rows, last), last)
        times = op.Range(op.Squeeze(zero), op.Squeeze(size), op.Squeeze(one))
        ages = op.Range(op.Squeeze(zero), op.Squeeze(order), op.Squeeze(one))

        driven = op.Unsqueeze(op.Cast(excitation, to=DOUBLE), last)  # (batch, blocks, 1, n)
        impulse = op.Expand(op.Cast(op.Equal(times, zero), to=DOUBLE), op.Shape(driven))
        inputs = op.Concat(driven, impulse, axis=2)

        @graph()
        def sample(before, now):  # before (batch, blocks, 2, rows), newest first
            x = now + op.ReduceSum(before * within, minus_one, keepdims=0)
            return op.Slice(op.Concat(op.Unsqueeze(x, three), before, axis=3), zero, rows, three), op.Identity(x)

        rest = op.Expand(silence, op.Concat(op.Shape(inputs, start=0, end=3), rows, axis=0))
        _, responses = op.Scan(rest, inputs, body=sample, num_scan_inputs=1, scan_input_axes=[3], scan_output_axes=[3])
        forced = op.Unsqueeze(op.Gather(responses, op.Squeeze(zero), axis=2), minus_one)  # (batch, blocks, n, 1)
        response = op.Gather(responses, op.Squeeze(one), axis=2)  # (batch, blocks, n)

        # Numbers w and zeros behind them, written again and again, are a Toeplitz matrix when rows are read one short:
        # M[i, j] = w_{j - i}. So are P[i, j] = a_{i + order - j} for j >= i, of w = (a_order, ..., a_1), and
        # H[i, t] = h_{t - i}. That is copying alone; gathering number by number takes four times as long (measured).
        nothing = op.Expand(silence, op.Concat(op.Shape(response, start=0, end=2), rows, axis=0))
        oldest_first = op.Gather(taps, op.Squeeze(order - one) - ages, axis=2)
        reaching = op.Unsqueeze(op.Concat(oldest_first, nothing, axis=2), last)  # (batch, blocks, 1, order + rows)
        responding = op.Unsqueeze(op.Concat(response, nothing, axis=2), last)  # (batch, blocks, 1, n + rows)
        batch = op.Shape(excitation, start=0, end=1)
        in_line = op.Concat(batch, minus_one, axis=0)
        in_rows = op.Concat(batch, rows, minus_one, axis=0)
        again = op.Concat(one, rows, one, axis=0)
        of_reaching = rows * (order + rows - one)
        of_responding = rows * (size + rows - one)
        padding = op.Expand(silence, op.Concat(batch, rows - one, one, axis=0))

        @graph()
        def block(before, new, reach, respond):  # before (batch, order, 1), oldest first; new (batch, n, 1)
            p = op.Reshape(op.Slice(op.Reshape(op.Expand(reach, again), in_line), zero, of_reaching, one), in_rows)
            h = op.Reshape(op.Slice(op.Reshape(op.Expand(respond, again), in_line), zero, of_responding, one), in_rows)
            driving = op.MatMul(p, op.Concat(before, padding, axis=1))
            x = new + op.Slice(op.MatMul(op.Transpose(h, perm=[0, 2, 1]), driving), zero, size, one)
            return op.Slice(op.Concat(before, x, axis=1), zero - order, longest, one), op.Identity(x)

        start = op.Unsqueeze(op.Cast(past, to=DOUBLE), last)
        _, x = op.Scan(
            start,
            forced,
            reaching,
            responding,
            body=block,
            num_scan_inputs=3,
            scan_input_axes=[1, 1, 1],
            scan_output_axes=[1],
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
    from onnxscript import opset18 as op
    from onnxscript import script
    from onnxscript.values import Opset

    @script(Opset("wavedistill", 1), default_opset=op)
    def levinson(autocorrelation: T) -> tuple[T, T]:
        """Coefficients and error variance; shapes as in `levinson_recursion`. All rows take a step at once, on the
        coefficients that there are by then.
        """
        zero = op.Constant(value_ints=[0])
        one = op.Constant(value_ints=[1])
        minus_one = op.Constant(value_ints=[-1])
        first = op.Constant(value_ints=[-9223372036854775807])
        leading = op.Shape(autocorrelation, start=0, end=-1)
        order = op.Shape(autocorrelation, start=-1) - one
        r = op.Transpose(
            op.Reshape(autocorrelation, op.Concat(minus_one, order + one, axis=0)), perm=[1, 0]
        )  # (order + 1, rows)
        backwards = op.Gather(r, order - op.Range(op.Squeeze(zero), op.Squeeze(order + one), op.Squeeze(one)), axis=0)
        error = op.Slice(r, zero, one, zero)
        a = op.Slice(r, zero, zero, zero)  # (steps, rows)
        for step in range(op.Squeeze(order)):
            place = op.Unsqueeze(step, zero)
            known = op.ReduceSum(a * op.Slice(backwards, order - place, order, zero), zero, keepdims=1)  # r_{step - k}
            reflection = (op.Slice(r, place + one, place + one + one, zero) - known) / error
            a = op.Concat(a - reflection * op.Slice(a, minus_one, first, zero, minus_one), reflection, axis=0)
            error = error - error * reflection * reflection
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
