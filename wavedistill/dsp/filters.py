"""Time-varying linear filters with block-wise coefficients: moving-average, all-pole, and Levinson-Durbin."""

from __future__ import annotations

import torch
from torch import Tensor

from wavedistill.errors import WavedistillError
from wavedistill.kernels.block_filter import block_fir
from wavedistill.kernels.levinson import levinson_recursion
from wavedistill.kernels.recursive_filter import recursive_filter


def predict(x: Tensor, coefficients: Tensor, past: Tensor | None = None) -> Tensor:
    """y_t = sum_{k >= 1} a_k x_{t-k}: strictly from the past.

    Shapes:
        x (batch, samples), coefficients (batch, blocks, order) with samples a multiple of blocks, past (batch, order)
        the samples before (default zeros) -> (batch, samples).
    """
    of_one = None if past is None else past.unsqueeze(-1)
    return predict_steps(x.unsqueeze(-1), coefficients[..., None, None], of_one).squeeze(-1)


def predict_steps(x: Tensor, matrices: Tensor, past: Tensor | None = None) -> Tensor:
    """y_t = sum_{k >= 1} x_{t-k} A_k, of vectors: each value from all values of the steps before.

    Shapes:
        x (batch, steps, n), matrices (batch, blocks, order, n, n) with steps a multiple of blocks, past (batch, order,
        n) the steps before (default zeros) -> (batch, steps, n).
    """
    past = x.new_zeros(x.shape[0], matrices.shape[2], x.shape[2]) if past is None else past
    return _slide(torch.cat([past, x[:, :-1]], dim=1), matrices)


def average_steps(x: Tensor, matrices: Tensor, past: Tensor | None = None) -> Tensor:
    """y_t = sum_{k >= 0} x_{t-k} B_k, of vectors; shapes as in `predict_steps`, past (batch, order - 1, n)."""
    past = x.new_zeros(x.shape[0], matrices.shape[2] - 1, x.shape[2]) if past is None else past
    return _slide(torch.cat([past, x], dim=1), matrices)


def _slide(padded: Tensor, matrices: Tensor) -> Tensor:
    if matrices.shape[-1] == 1 and padded.is_cpu:
        return block_fir(padded[..., 0], matrices[..., 0, 0]).unsqueeze(-1)
    return slide_by_products(padded, matrices)


def slide_by_products(padded: Tensor, matrices: Tensor) -> Tensor:
    """`block_fir` of vectors, y_t = sum_k p_{t + order - 1 - k} C_k(block of t), over all windows of the signal.

    Shapes: padded (batch, order - 1 + steps, n), matrices (batch, blocks, order, n, n) -> (batch, steps, n).
    """
    batch, blocks, order, size, _ = matrices.shape
    steps = padded.shape[1] - order + 1
    windows = torch.cat([padded[:, order - 1 - k : order - 1 - k + steps] for k in range(order)], dim=-1)
    by_block = windows.reshape(batch, blocks, steps // blocks, order * size)
    return (by_block @ matrices.reshape(batch, blocks, order * size, size)).reshape(batch, steps, size)


def all_pole(
    excitation: Tensor, coefficients: Tensor, past: Tensor | None = None, *, differentiable: bool = False
) -> tuple[Tensor, Tensor]:
    """x_t = e_t + sum_k a_k x_{t-k} with block-wise coefficients: a time-varying recursive filter.

    On a CPU it runs sample by sample in compiled code, elsewhere block by block as matrix products. Differentiable in
    the excitation.

    Args:
        differentiable: with gradient in the coefficients and the past too: block by block everywhere.

    Shapes:
        excitation (batch, blocks, n), coefficients (batch, blocks, order), past (batch, order) the samples before,
        oldest first (default zeros) -> x (batch, blocks * n) and the new past (batch, order).

    Raises:
        WavedistillError: coefficients or a past that need a gradient, without ``differentiable``.
    """
    if past is None:
        past = excitation.new_zeros(excitation.shape[0], coefficients.shape[-1])
    if not differentiable:
        _need_no_gradient("all_pole", coefficients, past)
        if excitation.is_cpu:
            x = recursive_filter(excitation, coefficients, past)
            return x, torch.cat([past, x], dim=1)[:, x.shape[1] :]
    return _all_pole_by_blocks(excitation, coefficients, past)


def _need_no_gradient(function: str, *given: Tensor) -> None:
    """Refuse to lose a gradient silently."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given):
        raise WavedistillError(
            f"{function}: a gradient is asked for in the filter, which the fast way does not give. Call it with "
            "differentiable=True, or detach the filter."
        )


def _all_pole_by_blocks(excitation: Tensor, coefficients: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
    """`all_pole` as matrix products.

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
    return torch.cat(outputs, dim=1), past


def _block_responses(coefficients: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """H (batch, blocks, size, size) and C (batch, blocks, size, order) of `all_pole`, computed in float64."""
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


def levinson_durbin(autocorrelation: Tensor, *, differentiable: bool = False) -> tuple[Tensor, Tensor]:
    """Solve the normal equations of linear prediction: on a CPU in compiled code, elsewhere in tensor operations.

    Args:
        differentiable: with gradient: in tensor operations everywhere.

    Shapes:
        autocorrelation (..., order + 1) -> coefficients (..., order) and the prediction error variance (...).

    Raises:
        WavedistillError: an autocorrelation that needs a gradient, without ``differentiable``.
    """
    if not differentiable:
        _need_no_gradient("levinson_durbin", autocorrelation)
        if autocorrelation.is_cpu:
            return levinson_recursion(autocorrelation)
    order = autocorrelation.shape[-1] - 1
    coefficients = autocorrelation[..., :0]
    error = autocorrelation[..., 0].clone()
    for step in range(order):
        known = (coefficients * autocorrelation[..., 1 : step + 1].flip(-1)).sum(-1)
        reflection = ((autocorrelation[..., step + 1] - known) / error).unsqueeze(-1)
        coefficients = torch.cat([coefficients - reflection * coefficients.flip(-1), reflection], dim=-1)
        error = error * (1.0 - reflection.squeeze(-1).square())
    return coefficients, error
