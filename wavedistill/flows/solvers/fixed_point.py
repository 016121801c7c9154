"""x + g(x) = y solved for x by iteration, with the gradient of the solution.

References:
    Invertible Residual Networks (Behrmann et al., 2019), https://arxiv.org/abs/1811.00995, algorithm 1
    Deep Equilibrium Models (Bai et al., 2019), https://arxiv.org/abs/1909.01377 (implicit differentiation)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop

from wavedistill.errors import WavedistillError
from wavedistill.flows.solvers.implicit import attach_derivatives
from wavedistill.numerics import refuse_second_derivative, refuse_vmap, under_torch_func

Map = Callable[[Tensor], Tensor]


def invert_residual(
    g: Map, y: Tensor, lipschitz: float, tolerance: float | None = None, max_iterations: int | None = None
) -> Tensor:
    """The x with x + g(x) = y, by x <- y - g(x), which shrinks the error by ``lipschitz`` each time.

    The gradient is that of the solution, (I + J)^-1 (dy - dg), from a second iteration with J'; it takes the memory of
    one evaluation of g and has no second derivative; under torch.func it is that of the whole Jacobian, with second
    derivatives. Compiled (`torch.compile`), the iterations are a loop in the graph
    and the gradient is theirs; an example that does not settle becomes NaN, because a graph cannot raise.

    Args:
        g: a map of (batch, *event) with that Lipschitz constant below 1.
        y: (batch, *event), float32 or float64.
        lipschitz: c; the distance from the solution is at most c / (1 - c) times the last change of x.
        tolerance: on |change of x| / max(1, max |x|) for every element; None: 8 eps of y's type.
        max_iterations: None: as many as the constant c and the first change of x ask for.

    Raises:
        WavedistillError: where the change is not below the tolerance after that, for a second derivative outside
            torch.func, and under torch.vmap.

    Example:
        >>> import torch
        >>> from wavedistill.flows.solvers.fixed_point import invert_residual
        >>> invert_residual(lambda x: 0.5 * torch.tanh(x), torch.tensor([[1.0]]), lipschitz=0.5)
        tensor([[0.6983]])
    """
    tolerance = 8 * torch.finfo(y.dtype).eps if tolerance is None else tolerance
    if torch.compiler.is_compiling():
        return _compiled_loop(lambda x: y - g(x), y, lipschitz, tolerance, max_iterations)

    refuse_vmap("the inverse of a residual flow")
    with torch.no_grad():
        solution = _iterate(lambda x: y - g(x), y, lipschitz, tolerance, max_iterations)
    if under_torch_func():
        return attach_derivatives(solution, lambda x: x + g(x), y)
    return _ImplicitGradient.apply(y - g(solution), g, solution, (lipschitz, tolerance, max_iterations))


class _ImplicitGradient(torch.autograd.Function):
    """x as it is; its gradient v solves v + J' v = gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, g: Map, solution: Tensor, settings: tuple[Any, ...]) -> Tensor:
        ctx.g = g
        ctx.settings = settings
        ctx.save_for_backward(solution)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        refuse_second_derivative(
            "the inverse of a residual flow", "torch.func (jacrev, hessian) gives second ones, too"
        )
        (solution,) = ctx.saved_tensors
        _, pullback = torch.func.vjp(ctx.g, solution)
        size = gradient.abs().flatten(1).amax(1).reshape(-1, *(1,) * (gradient.dim() - 1))
        size = torch.where(size > 0, size, 1.0)  # the tolerance is for values of about 1, a gradient can have any size
        unit = gradient / size
        return size * _iterate(lambda v: unit - pullback(v)[0], unit, *ctx.settings), None, None, None


def _iterate(step: Map, x: Tensor, lipschitz: float, tolerance: float, max_iterations: int | None) -> Tensor:
    """x <- step(x) until every change is below the tolerance. NaN counts as settled, it stays in its example."""
    if x.numel() == 0:
        return x
    limit = max_iterations
    count = 0
    while True:
        previous = x
        x = step(x)
        count += 1
        residual = _residual(previous, x)
        if not bool((residual > tolerance).any()):
            return x
        if limit is None:  # |change_k| <= c^k |change_0| in the Euclidean norm; some more for rounding
            first = float((x - previous).flatten(1).norm(dim=1).nan_to_num(0.0, 0.0).max())
            limit = 16 + max(0, math.ceil(math.log(tolerance / max(first, tolerance)) / math.log(lipschitz)))
        if count >= limit:
            raise WavedistillError(
                f"the inverse did not settle: x still changes by {float(residual.nan_to_num(0.0).max()):.1e} of "
                f"its size after {count} iterations, "
                f"tolerance {tolerance:.1e}. Raise max_iterations or tolerance, invert in float64, or take a "
                f"smaller lipschitz (now {lipschitz})."
            )


def _compiled_loop(step: Map, x: Tensor, lipschitz: float, tolerance: float, max_iterations: int | None) -> Tensor:
    """`_iterate` as one operator of a graph."""
    eps = torch.finfo(x.dtype).eps
    limit = max_iterations or 16 + 2 * math.ceil(
        math.log(eps) / math.log(lipschitz)
    )  # enough for a first change of 1 / eps

    def unsettled(count: Tensor, previous: Tensor, x: Tensor) -> Tensor:
        return (count < limit) & (_residual(previous, x) > tolerance).any()

    def advance(count: Tensor, previous: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return count + 1, x.clone(), step(x)

    start = (torch.ones((), dtype=torch.int64, device=x.device), x.clone(), step(x))
    _, previous, x = while_loop(unsettled, advance, start)
    failed = _residual(previous, x) > tolerance
    return torch.where(failed.reshape(-1, *(1,) * (x.dim() - 1)), torch.nan, x)


def _residual(previous: Tensor, x: Tensor) -> Tensor:
    """The largest change of an element of each example, as a share of its size: (batch,)."""
    return (x - previous).abs().flatten(1).amax(1) / x.abs().flatten(1).amax(1).clamp_min(1.0)
