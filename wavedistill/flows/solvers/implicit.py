"""The derivatives of a solution of f(x) = y that a search has found, where torch.func asks for them.

References:
    Deep Equilibrium Models (Bai et al., 2019), https://arxiv.org/abs/1909.01377 (implicit differentiation)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from wavedistill.flows.solvers.log_det import jacobian


def attach_derivatives(solution: Tensor, f: Callable[[Tensor], Tensor], y: Tensor) -> Tensor:
    """The solution with its first and second derivatives by y and by everything that f depends on.

    As `wavedistill.numerics.attach_gradient`, for systems: with the whole Jacobian of each example, for events of up to
    about a thousand elements.

    Args:
        solution: x (batch, *event) with f(x) = y, without gradient.
        f: a differentiable map that treats examples separately.
        y: (batch, *event).
    """
    x = solution.detach()
    matrix = jacobian(f, x)[1].detach()
    for _ in range(2):
        residual = (f(x) - y).flatten(1).unsqueeze(-1)
        step = torch.linalg.solve_ex(matrix, residual)[0].reshape(x.shape)  # which lets NaN be
        x = x - (step - step.detach())
    return x
