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

from wavedistill.inference import onnx_filters, onnx_fourier
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
        recursive_filter.overload: onnx_filters.recursive_filter(),
        block_fir.overload: onnx_filters.finite_filter(),
        levinson_recursion.overload: _levinson(),
        aten._fft_r2c.default: onnx_fourier.forward,
        aten.complex.default: onnx_fourier.complex_of_parts,
        aten.select.int: onnx_fourier.select,
        aten.unfold.default: onnx_fourier.unfold,
        aten.conv1d.default: _conv1d,
        aten.conv2d.default: _conv2d,
        aten.leaky_relu.default: _leaky_relu,
        aten.scalar_tensor.default: _scalar_tensor,
    }


def _levinson() -> Callable:
    """Translation of `levinson_recursion`."""
    from onnxscript import opset18 as op
    from onnxscript import script
    from onnxscript.values import Opset

    @script(Opset("wavedistill", 1), default_opset=op)
    def levinson(autocorrelation: T) -> tuple[T, T]:
        """Coefficients and error variance; shapes as in `levinson_recursion`. Some rows take a step at once, on the
        coefficients that there are by then: so many that a core's cache holds them (512 of order 256 take 0.55 of the
        time of 3752, measured).
        """
        zero = op.Constant(value_ints=[0])
        one = op.Constant(value_ints=[1])
        minus_one = op.Constant(value_ints=[-1])
        first = op.Constant(value_ints=[-9223372036854775807])
        most = op.Constant(value_ints=[512])
        leading = op.Shape(autocorrelation, start=0, end=-1)
        width = op.Shape(autocorrelation, start=-1)
        order = width - one
        rows = op.Reshape(autocorrelation, op.Concat(minus_one, width, axis=0))
        downwards = order - op.Range(op.Squeeze(zero), op.Squeeze(width), op.Squeeze(one))
        found = op.SequenceConstruct(op.Slice(rows, zero, zero, zero))
        for part in range(op.Squeeze((op.Shape(rows, start=0, end=1) + most - one) / most)):
            start = op.Unsqueeze(part, zero) * most
            r = op.Transpose(op.Slice(rows, start, start + most, zero), perm=[1, 0])  # (order + 1, rows)
            backwards = op.Gather(r, downwards, axis=0)
            error = op.Slice(r, zero, one, zero)
            a = op.Slice(r, zero, zero, zero)  # (steps, rows)
            for step in range(op.Squeeze(order)):
                place = op.Unsqueeze(step, zero)
                lags = op.Slice(backwards, order - place, order, zero)  # r_{step - k}
                known = op.ReduceSum(a * lags, zero, keepdims=1)
                reflection = (op.Gather(r, place + one, axis=0) - known) / error
                a = op.Concat(a - reflection * op.Slice(a, minus_one, first, zero, minus_one), reflection, axis=0)
                error = error - error * reflection * reflection
            found = op.SequenceInsert(found, op.Transpose(op.Concat(a, error, axis=0), perm=[1, 0]))
        both = op.ConcatFromSequence(found, axis=0)
        a = op.Reshape(op.Slice(both, zero, order, one), op.Concat(leading, order, axis=0))
        return a, op.Reshape(op.Slice(both, order, width, one), leading)

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
