"""Short-time Fourier transforms in ONNX: products of real matrices instead of its runtime's DFT, which takes several
times as long, and complex numbers as two real tensors.

With N = A B, n = B u + v and k = r + A q, the transform has two steps, Y over u and X over v (Cooley & Tukey):

    Y[r, v] = sum_u x[B u + v] exp(-2 pi i r u / A),    X[r + A q] = sum_v Y[r, v] exp(-2 pi i v (r + A q) / N).

Bins 0 to N/2 - 1 are q < B/2. The imaginary part of bin 0 is none, and its place in the matrices holds bin N/2.

References:
    An Algorithm for the Machine Calculation of Complex Fourier Series (Cooley & Tukey, 1965)
"""

from __future__ import annotations

import math

import numpy as np

PARTS = "wavedistill_parts"
"""Name under which a node that joins a real and an imaginary part knows them."""


def unfold(x, dimension, size, step):
    """Translation of `torch.Tensor.unfold` of the last axis: windows (..., count, size) of signals (..., samples), in
    steps. What window and step have in common is copied as one piece, not number by number.
    """
    from onnxscript import opset18 as op

    if dimension not in (-1, len(x.shape) - 1):
        raise NotImplementedError(f"windows over axis {dimension} of {x.shape}")
    piece = math.gcd(size, step)
    leading = [0] * (len(x.shape) - 1)  # a zero keeps the axis
    last = op.Constant(value_ints=[len(leading)])
    one = op.Constant(value_ints=[1])
    sizes, steps = (op.Constant(value_ints=[value]) for value in (size, step))
    samples = op.Shape(x, start=len(leading), end=len(leading) + 1)
    count = op.Add(op.Div(op.Sub(samples, sizes), steps), one)
    seen = op.Slice(x, op.Constant(value_ints=[0]), op.Add(op.Mul(op.Sub(count, one), steps), sizes), last)
    pieces = op.Reshape(seen, op.Constant(value_ints=[*leading, -1, piece]))
    numbers = op.Range(op.Constant(value_int=0), op.Squeeze(count), op.Constant(value_int=1))
    starts = op.Mul(op.Unsqueeze(numbers, one), op.Constant(value_int=step // piece))
    windows = op.Gather(pieces, op.Add(starts, op.Constant(value_ints=list(range(size // piece)))), axis=len(leading))
    return op.Reshape(windows, op.Constant(value_ints=[*leading, 0, size]), allowzero=0)


def complex_of_parts(real, imaginary):
    """Translation of `torch.complex`, for parts of one shape."""
    from onnxscript import opset18 as op

    last = op.Constant(value_ints=[-1])
    joined = op.Concat(op.Unsqueeze(real, last), op.Unsqueeze(imaginary, last), axis=-1)
    joined.producer().meta[PARTS] = real, imaginary
    return joined


def select(x, axis, index):
    """Translation of `torch.select`; a part of a complex number is taken from where the two were put together."""
    from onnxscript import opset18 as op

    if axis in (-1, len(x.shape) - 1):
        node = x.producer()
        while node is not None and node.op_type == "Identity":  # which `torch.view_as_real` becomes
            node = node.inputs[0].producer()
        if node is not None and PARTS in node.meta:
            return node.meta[PARTS][index]
    return op.Gather(x, op.Constant(value_int=index) if isinstance(index, int) else index, axis=axis)


def forward(x, axes, normalization, onesided):
    """Translation of `torch.fft.rfft` (batch, frames, N) over the last axis, N even, not normalised."""
    from onnxscript import opset18 as op

    size = x.shape[-1]
    if list(axes) != [2] or size % 2 or normalization or not onesided:
        raise NotImplementedError(f"a Fourier transform of {x.shape} over {axes}")
    a, b = split_length(size)
    first, second = (op.Constant(value=_tensor(matrix, x)) for matrix in forward_matrices(size))
    y = op.MatMul(first, op.Reshape(x, op.Constant(value_ints=[-1, a, b])))  # (frames, 2 A, B)
    y = op.Transpose(op.Reshape(y, op.Constant(value_ints=[-1, a, 2 * b])), perm=[1, 0, 2])
    bins = op.Transpose(op.Reshape(op.MatMul(y, second), op.Constant(value_ints=[a, -1])), perm=[1, 0])
    leading = op.Shape(x, start=0, end=2)
    half = op.Constant(value_ints=[size // 2])
    parts = op.Reshape(bins, op.Concat(leading, op.Constant(value_ints=[2]), half, axis=0))
    zero, one, two = (op.Constant(value_ints=[value]) for value in (0, 1, 2))
    real, other = (
        op.Reshape(op.Slice(parts, *between, two), op.Concat(leading, half, axis=0))
        for between in ((zero, one), (one, two))
    )
    real = op.Concat(real, op.Slice(other, zero, one, two), axis=2)
    imaginary = op.Pad(op.Slice(other, one, half, two), op.Constant(value_ints=[0, 0, 1, 0, 0, 1]))
    return complex_of_parts(real, imaginary)


def inverse(op, real, imaginary):
    """What `use_products` puts in place of the runtime's inverse transform, N even: (batch, frames, N / 2 + 1) twice ->
    (batch, frames, N).
    """
    half = real.shape[-1] - 1
    size = 2 * half
    a, b = split_length(size)
    first, second = (op.Constant(value=_tensor(matrix, real)) for matrix in inverse_matrices(size))
    zero, one, two, end = (op.Constant(value_ints=[value]) for value in (0, 1, 2, half))
    highest = op.Slice(real, end, op.Constant(value_ints=[half + 1]), two)
    other = op.Concat(highest, op.Slice(imaginary, one, end, two), axis=2)
    bins = op.Concat(op.Slice(real, zero, end, two), other, axis=2)
    y = op.Transpose(op.Reshape(bins, op.Constant(value_ints=[-1, a])), perm=[1, 0])
    y = op.MatMul(op.Reshape(y, op.Constant(value_ints=[a, -1, b])), second)  # (A, frames, 2 B)
    y = op.Reshape(op.Transpose(y, perm=[1, 0, 2]), op.Constant(value_ints=[-1, 2 * a, b]))
    return op.Reshape(
        op.MatMul(first, y), op.Concat(op.Shape(real, start=0, end=2), op.Constant(value_ints=[-1]), axis=0)
    )


def use_products(model) -> None:
    """Replace the inverse transforms of a model, which the exporter writes by itself: of complex numbers nobody else
    can translate operators.
    """
    from onnxscript.rewriter import pattern

    def written(op, real, imaginary, axis, length, over, start, end, last):
        joined = op.Concat(op.Unsqueeze(real, axis), op.Unsqueeze(imaginary, axis), axis=-1)
        return op.Squeeze(op.Slice(op.DFT(joined, length, over, inverse=1, onesided=1), start, end, last), last)

    def replaced(op, real, imaginary, **others):
        return inverse(op, real, imaginary)

    pattern.RewriteRuleSet([pattern.RewriteRule(written, replaced)]).apply_to_model(model)


def _tensor(matrix: np.ndarray, like):
    from onnxscript import ir

    return ir.tensor(np.ascontiguousarray(matrix, like.dtype.numpy()))


def split_length(size: int) -> tuple[int, int]:
    """N -> (A, B), near to each other, with B even."""
    a = max(a for a in range(1, math.isqrt(size) + 1) if size % (2 * a) == 0)
    return a, size // a


def forward_matrices(size: int) -> tuple[np.ndarray, np.ndarray]:
    """(2 A, A), to the real and the imaginary part of each Y[r], and (A, 2 B, B), from those of v to those of q."""
    a, b = split_length(size)
    r = np.arange(a)
    first = np.exp(-2j * np.pi * np.outer(r, r) / a)
    bins = r[:, None, None] + a * np.arange(b // 2)
    second = np.exp(-2j * np.pi * np.arange(b)[:, None] * bins / size)  # (A, B, B / 2)
    of_real = np.concatenate([second.real, second.imag], axis=2)
    of_imaginary = np.concatenate([-second.imag, second.real], axis=2)
    second = np.concatenate([of_real, of_imaginary], axis=1)
    second[0, :, b // 2] = np.concatenate([(-1.0) ** np.arange(b), np.zeros(b)])
    return np.stack([first.real, first.imag], axis=1).reshape(2 * a, a), second


def inverse_matrices(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Adjoint to those: every bin but 0 and N/2 stands for two."""
    first, second = forward_matrices(size)
    weights = np.full((first.shape[1], 1, second.shape[2]), 2.0 / size)
    weights[0, 0, [0, second.shape[2] // 2]] = 1.0 / size
    return first.T, (second * weights).transpose(0, 2, 1)
