"""The recursive filter x_t = e_t + sum_k a_k x_{t-k}, compiled by numba at its first use (cached on disk)."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from wavedistill.kernels.operators import operator

SIMD = {"reassoc", "contract"}
"""What vector units need of fast arithmetic; not the assumption that nothing is NaN: a loss that is must be seen."""


def _plain(excitation: Tensor, coefficients: Tensor, past: Tensor) -> Tensor:
    """As matrix products, differentiable in all arguments.

    Inside a block of n samples the coefficients are constant, so x = H e + C x_past with H the (n, n) Toeplitz matrix
    of the filter's impulse response: all matrices are made at once, and only the product with the last ``order``
    samples is sequential.
    """
    batch, blocks, size = excitation.shape
    order = coefficients.shape[-1]
    from_excitation, from_past = _block_responses(coefficients, size)
    forced = torch.matmul(from_excitation, excitation.unsqueeze(-1)).squeeze(-1)
    outputs = []
    for block in range(blocks):
        x = forced[:, block] + torch.bmm(from_past[:, block], past.unsqueeze(-1)).squeeze(-1)
        outputs.append(x)
        past = x[:, -order:] if size >= order else torch.cat([past, x], dim=1)[:, -order:]
    return torch.cat(outputs, dim=1)


def _block_responses(coefficients: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """H (batch, blocks, size, size) and C (batch, blocks, size, order) of `_plain`, computed in float64."""
    a = coefficients.double()
    order = a.shape[-1]
    # L x = e + P past: L is unit lower triangular with -a_k on its k-th subdiagonal, P holds what reaches back.
    row = torch.arange(size, device=a.device)
    lag = row[:, None] - row[None, :]
    padded = torch.cat([-torch.ones_like(a[..., :1]), a, torch.zeros_like(a[..., :1])], dim=-1)
    toeplitz = -padded[..., torch.where((lag >= 0) & (lag <= order), lag, order + 1)]
    reach = row[:, None] + order - torch.arange(order, device=a.device)[None, :]
    history = padded[..., torch.where(reach <= order, reach, order + 1)]
    identity = torch.eye(size, dtype=a.dtype, device=a.device).expand(toeplitz.shape)
    solved = torch.linalg.solve_triangular(
        toeplitz, torch.cat([identity, history], dim=-1), upper=False, unitriangular=True
    )
    solved = solved.to(coefficients.dtype)
    return solved[..., :size], solved[..., size:]


def _plain_adjoint(gradient: Tensor, coefficients: Tensor) -> Tensor:
    by_block, past = _blocks_and_past(gradient, coefficients)
    (found,) = torch.func.vjp(lambda excitation: _plain(excitation, coefficients, past), by_block)[1](gradient)
    return found.flatten(1)


def _blocks_and_past(x: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
    """A signal (batch, samples) in the blocks of the coefficients, and silence before it."""
    return x.unflatten(1, (coefficients.shape[1], -1)), x.new_zeros(x.shape[0], coefficients.shape[2])


@operator(fake=lambda excitation, coefficients, past: excitation.new_empty(excitation.flatten(1).shape), plain=_plain)
def recursive_filter(excitation: Tensor, coefficients: Tensor, past: Tensor) -> Tensor:
    """x_t = e_t + sum_k a_k x_{t-k}. An operator of torch.

    It runs in float64, whatever its arguments are: near the unit circle, poles sum up the rounding of every step. (On
    real speech a fifth of a student's error for a fourth more time in the filter, measured.)

    The gradient of x = (I - A)^-1 e, in the excitation alone, is the same recursion with A transposed, run backwards
    in time; its own gradient is this one again.

    Shapes: excitation (batch, blocks, n), coefficients (batch, blocks, order), past (batch, order), oldest first ->
    (batch, blocks * n).
    """
    x = torch.cat([past, excitation.detach().flatten(1)], dim=1).double()
    _kernels()[0](x.numpy(), coefficients.detach().double().contiguous().numpy())
    return x[:, past.shape[1] :].to(excitation.dtype).contiguous()


@operator(fake=lambda gradient, coefficients: torch.empty_like(gradient), plain=_plain_adjoint)
def recursive_filter_adjoint(gradient: Tensor, coefficients: Tensor) -> Tensor:
    """g_t += sum_k a_k(t + k) g_{t+k}, from the last sample to the first.

    Shapes: gradient (batch, blocks * n), coefficients (batch, blocks, order).
    """
    gradient = gradient.detach().clone(memory_format=torch.contiguous_format)
    _kernels()[1](gradient.numpy(), _oldest_first(coefficients))
    return gradient


def _oldest_first(coefficients: Tensor) -> np.ndarray:
    return np.ascontiguousarray(coefficients.detach().numpy()[..., ::-1])


def _save(ctx, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.shape = inputs[0].shape


def _backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
    return recursive_filter_adjoint(gradient, *ctx.saved_tensors).reshape(ctx.shape), None, None


def _backward_of_adjoint(ctx, gradient: Tensor) -> tuple[Tensor, None]:
    coefficients = ctx.saved_tensors[1]
    by_block, past = _blocks_and_past(gradient, coefficients)
    return recursive_filter(by_block, coefficients, past), None


recursive_filter.differentiate(_backward, save=_save)
recursive_filter_adjoint.differentiate(_backward_of_adjoint)


@functools.cache
def _kernels():
    import numba

    @numba.njit(cache=True, fastmath=SIMD, nogil=True)
    def forward(x, coefficients):
        batch, blocks, order = coefficients.shape
        size = (x.shape[1] - order) // blocks
        sums = np.empty(size, x.dtype)
        for item in range(batch):
            row = x[item]
            for block in range(blocks):
                taps = coefficients[item, block]
                start = order + block * size
                out = row[start : start + size]
                sums[:] = out
                for k in range(1, order + 1):  # from before the block
                    tap = taps[k - 1]
                    count = min(k, size)
                    window = row[start - k : start - k + count]
                    for i in range(count):
                        sums[i] += tap * window[i]
                for t in range(size):
                    value = sums[t]
                    out[t] = value
                    count = min(order, size - 1 - t)
                    later = sums[t + 1 : t + 1 + count]
                    for k in range(count):
                        later[k] += taps[k] * value

    @numba.njit(cache=True, fastmath=SIMD, nogil=True)
    def adjoint(gradient, oldest_first):
        batch, blocks, order = oldest_first.shape
        size = gradient.shape[1] // blocks
        for item in range(batch):
            row = gradient[item]
            for block in range(blocks - 1, -1, -1):
                taps = oldest_first[item, block]
                start = block * size
                for t in range(start + size - 1, start, -1):  # within the block
                    value = row[t]
                    count = min(order, t - start)
                    earlier = row[t - count : t]
                    nearest = taps[order - count :]
                    for k in range(count):
                        earlier[k] += nearest[k] * value
                for k in range(1, min(order, start + size - 1) + 1):  # to before the block
                    tap = taps[order - k]
                    first = max(0, k - start)
                    count = min(k, size) - first
                    later = row[start + first : start + first + count]
                    earlier = row[start + first - k : start + first - k + count]
                    for i in range(count):
                        earlier[i] += tap * later[i]

    return forward, adjoint
