"""f(x) = y solved for x, f strongly monotone: a mixture of all last steps, held back where the residual grows.

A plain iteration x <- x + b (y - f(x)) converges for small enough b. Anderson's combination of the last iterates does
in a dozen evaluations what it does in a hundred; where it goes astray, the search goes on from the best point so far
with no memory, and where a plain step does, with half the b.

References:
    Iterative Procedures for Nonlinear Integral Equations (Anderson, 1965)
    Anderson Acceleration for Fixed-Point Iterations (Walker & Ni, 2011), https://doi.org/10.1137/10078356X
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from wavedistill.errors import WavedistillError
from wavedistill.flows.solvers.implicit import attach_derivatives
from wavedistill.numerics import refuse_second_derivative, refuse_vmap, under_torch_func

Map = Callable[[Tensor], Tensor]

MEMORY = 6
"""Steps that are combined."""
GROWTH = 2.0
"""A residual so many times the smallest one is taken for a step astray."""
PATIENCE = 8
"""And so is a search of so many evaluations without a smaller one."""
REGULARIZATION = 1e-12
"""Of the least-squares problem, relative to the mean of its squares."""


def invert_monotone(f: Map, y: Tensor, tolerance: float = 1e-6, max_iterations: int = 300) -> Tensor:
    """The x with f(x) = y.

    The gradient is that of the solution, J'^-1 times the given one, from a second search, without second derivatives;
    under torch.func it is that of the whole Jacobian, with them.

    Args:
        f: a strongly monotone map of (batch, size) that treats examples separately.
        y: (batch, size), float32 or float64; the search begins there.
        tolerance: of |y - f(x)| / |y|.
        max_iterations: evaluations of f.

    Raises:
        WavedistillError: where the residual is not below the tolerance after that, for a second derivative outside
            torch.func, and under torch.vmap. NaN stays in its example.

    Example:
        >>> import torch
        >>> from wavedistill.flows.solvers.monotone import invert_monotone
        >>> invert_monotone(lambda x: x + 0.5 * torch.tanh(x), torch.tensor([[1.0]]))
        tensor([[0.6983]])
    """
    refuse_vmap("the inverse of a monotone map")
    with torch.no_grad():
        solution = _search(f, y, tolerance, max_iterations)
    if not torch.is_grad_enabled():
        return solution
    if under_torch_func():
        return attach_derivatives(solution, f, y)
    return _ImplicitGradient.apply(y - f(solution), f, solution, (tolerance, max_iterations))


class _ImplicitGradient(torch.autograd.Function):
    """The solution; what its gradient gives to the residual y - f(x) solves J' v = gradient."""

    @staticmethod
    def forward(ctx: Any, residual: Tensor, f: Map, solution: Tensor, settings: tuple[float, int]) -> Tensor:
        ctx.f = f
        ctx.settings = settings
        ctx.save_for_backward(solution)
        return solution.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        refuse_second_derivative("the inverse of a monotone map", "torch.func (jacrev, hessian) gives second ones, too")
        (solution,) = ctx.saved_tensors
        _, pullback = torch.func.vjp(ctx.f, solution)
        return _search(lambda v: pullback(v)[0], gradient, *ctx.settings), None, None, None


def _search(f: Map, y: Tensor, tolerance: float, max_iterations: int) -> Tensor:
    length = y.norm(dim=1)
    x = best = y
    best_residual = torch.zeros_like(y)
    best_size = torch.full_like(length, torch.inf)
    rate = y.new_ones(y.shape[0], 1)
    stale = torch.zeros_like(length)  # evaluations since the best one
    plain = torch.ones_like(rate, dtype=torch.bool)  # whether x comes from a step without memory
    moves: list[Tensor] = []  # changes of x, and of the residual
    turns: list[Tensor] = []
    last = None
    for _ in range(max_iterations):
        residual = y - f(x)
        size = residual.norm(dim=1)
        if last is not None:
            moves = [*moves[1 - MEMORY :], x - last[0]]
            turns = [*turns[1 - MEMORY :], residual - last[1]]
        better = ~(size >= best_size)  # NaN too: it stays
        best, best_residual = (
            torch.where(better[:, None], new, old) for new, old in ((x, best), (residual, best_residual))
        )
        best_size = torch.where(better, size, best_size)
        stale = torch.where(better, 0.0, stale + 1.0)
        if not bool((best_size > tolerance * length).any()):
            return best
        astray = ((size > GROWTH * best_size) | (stale > PATIENCE))[:, None]
        rate = torch.where(astray & plain, 0.5 * rate, rate)
        x, residual = (torch.where(astray, old, new) for new, old in ((x, best), (residual, best_residual)))
        moves, turns = ([torch.where(astray, 0.0, change) for change in changes] for changes in (moves, turns))
        stale = torch.where(astray[:, 0], 0.0, stale)
        plain = astray | (last is None)
        last = (x, residual)
        x = x + rate * residual
        if moves:
            move, turn = torch.stack(moves, dim=1), torch.stack(turns, dim=1)
            x = x - ((move + rate[:, None] * turn) * _least_squares(turn, residual)[..., None]).sum(1)
    worst = float((best_size / length).nan_to_num(0.0).max())
    raise WavedistillError(
        f"the inverse did not settle: its relative residual is {worst:.1e} after {max_iterations} evaluations, "
        f"tolerance {tolerance:.1e}. Invert in float64, or take a smaller damping."
    )


def _least_squares(turns: Tensor, residual: Tensor) -> Tensor:
    """Weights (batch, count) with which the turns (batch, count, size) come nearest to the residual (batch, size)."""
    turns = turns.double()
    gram = turns @ turns.transpose(1, 2)
    ridge = REGULARIZATION * gram.diagonal(dim1=1, dim2=2).mean(1) + torch.finfo(torch.float64).tiny
    gram = gram + ridge[:, None, None] * torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
    right = turns @ residual.double().unsqueeze(2)
    return torch.linalg.solve_ex(gram, right)[0].squeeze(2).to(residual)
