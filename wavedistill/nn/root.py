"""Roots of increasing functions of one variable, many at once: the numeric inverses of elementwise and planar maps.

References:
    Numerical Recipes (Press et al., 2007), section 9.4: Newton's method held in a bracket by bisection
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop


@torch.no_grad()
def increasing_root(
    function: Callable[[Tensor], tuple[Tensor, Tensor]], low: Tensor, high: Tensor, iterations: int
) -> Tensor:
    """x with f(x) = 0 for an increasing f, elementwise: Newton's steps, held in the bracket, while they halve, else
    bisection.

    The number of iterations is fixed, so that nothing depends on the values; compiled, they are one loop in the graph.
    Of all points evaluated the one with the smallest |f| is given back, without gradient: `attach_gradient` adds it.

    Args:
        function: x -> f(x) and f'(x), in x's shape.
        low, high: the bracket, f(low) <= 0 <= f(high).
        iterations: evaluations of ``function``.
    """

    def advance(x, best, best_value, low, high, last, before_last):
        value, slope = function(x)
        better = value.abs() < best_value
        best = torch.where(better, x, best)
        best_value = torch.where(better, value.abs(), best_value)
        low = torch.where(value <= 0, x, low)
        high = torch.where(value >= 0, x, high)
        newton = torch.minimum(torch.maximum(x - value / slope, low), high)  # rounding may carry it over the edge
        halves = 2.0 * (newton - x).abs() <= before_last
        proposal = torch.where(halves, newton, 0.5 * (low + high))
        return proposal, best, best_value, low, high, (proposal - x).abs(), last.clone()

    x = 0.5 * (low + high)
    width = high - low
    state = (x, x.clone(), torch.full_like(x, torch.inf), low, high, width, width.clone())
    if torch.compiler.is_compiling():
        counter = torch.zeros((), dtype=torch.int64, device=x.device)
        return while_loop(
            lambda count, *_: count < iterations, lambda count, *state: (count + 1, *advance(*state)), (counter, *state)
        )[2]
    for _ in range(iterations):
        state = advance(*state)
    return state[1]


def attach_gradient(root: Tensor, value: Tensor, slope: Tensor) -> Tensor:
    """The root with its first derivatives by everything that the value depends on (implicit function theorem).

    Args:
        root: a solution of f(x; parameters) = 0, without gradient.
        value, slope: f and f' at the root; ``value`` with the gradient by the parameters.
    """
    step = value / slope.detach()
    return root.detach() - (step - step.detach())
