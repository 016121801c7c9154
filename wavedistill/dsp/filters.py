"""Time-varying linear filters with block-wise coefficients: moving-average, all-pole, and Levinson-Durbin."""

from __future__ import annotations

import torch
from torch import Tensor

from wavedistill.errors import WavedistillError
from wavedistill.kernels.block_filter import block_fir, slide_by_products
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
    if matrices.shape[-1] == 1:
        return block_fir(padded.squeeze(-1), matrices.squeeze(-1).squeeze(-1)).unsqueeze(-1)
    return slide_by_products(padded, matrices)


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
    x = (recursive_filter.plain if differentiable else recursive_filter)(excitation, coefficients, past)
    return x, torch.cat([past, x], dim=1)[:, x.shape[1] :]


def _need_no_gradient(function: str, *given: Tensor) -> None:
    """Refuse to lose a gradient silently."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given):
        raise WavedistillError(
            f"{function}: a gradient is asked for in the filter, which the fast way does not give. Call it with "
            "differentiable=True, or detach the filter."
        )


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
    return (levinson_recursion.plain if differentiable else levinson_recursion)(autocorrelation)
