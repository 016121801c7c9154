"""Numbers: the precision of densities, positive parameters, roots of increasing functions, the normal tail.

Positive numbers without overflow or underflow: positive(raw) = (raw + sqrt(raw^2 + 4)) / 2 = exp(asinh(raw / 2)). Where
exp overflows at raw = 89 in float32, this map grows like raw and falls like 1 / |raw|: raw = -1e4 gives 1e-4.
positive(0) = 1 and positive(-raw) = 1 / positive(raw).

Roots of increasing functions of one variable are found for many at once: the numeric inverses of elementwise and planar
maps. The upper tail of the normal distribution is handled by its logarithm, accurate where probabilities underflow.
What a search has found gets its derivatives afterwards, or a word that it has none.

Example:
    >>> import torch
    >>> from wavedistill.numerics import log_normal_tail, log_positive, normal_quantile_of_tail, raw_of_log
    >>> log_positive(torch.tensor([0.0, 1e4, -1e4]))
    tensor([ 0.0000,  9.2103, -9.2103])
    >>> log_positive(raw_of_log(torch.tensor([2.5])))
    tensor([2.5000])
    >>> log_tail = log_normal_tail(torch.tensor([1.0, 1000.0]))  # the second is exp(-500,008)
    >>> normal_quantile_of_tail(log_tail)
    tensor([   1., 1000.])

References:
    Numerical Recipes (Press et al., 2007), section 9.4: Newton's method held in a bracket by bisection
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop

from wavedistill.errors import WavedistillError

LOG_2PI = math.log(2.0 * math.pi)


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies matrices of bfloat16 by instructions of its own.

    Without them a CPU computes a convolution in bfloat16 many times slower than in float32 (13 times as long a training
    step was measured with AVX2).
    """
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def full_precision(x: Tensor) -> Tensor:
    """float32 at least; float64 is kept."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def log_positive(raw: Tensor) -> Tensor:
    """log positive(raw), between -88 and 88 for every float32."""
    return torch.asinh(0.5 * raw)


def positive(raw: Tensor) -> Tensor:
    return torch.exp(log_positive(raw))


def raw_of_log(log_value: Tensor) -> Tensor:
    """The raw parameter of a wanted logarithm: the inverse of `log_positive`."""
    return 2.0 * torch.sinh(log_value)


@torch.no_grad()
def increasing_root(
    function: Callable[[Tensor], tuple[Tensor, Tensor]], low: Tensor, high: Tensor, iterations: int
) -> Tensor:
    """x with f(x) = 0 for an increasing f, elementwise: Newton's steps in a bracket, bisection where they fail.

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


def attach_gradient(root: Tensor, function: Callable[[Tensor], Tensor], slope: Tensor) -> Tensor:
    """The root with its first and second derivatives by everything that the function depends on.

    x <- x - f(x) / f', with f' held, leaves a root where it is and makes one more order of its derivatives right (the
    implicit function theorem is the first).

    Args:
        root: a solution of f(x; parameters) = 0, without gradient.
        function: f, differentiable by x and the parameters.
        slope: f' at the root.
    """
    x = root.detach()
    for _ in range(2 if torch.is_grad_enabled() else 0):
        step = function(x) / slope.detach()
        x = x - (step - step.detach())
    return x


def under_torch_func() -> bool:
    """Whether a transform of torch.func (vmap, grad, jacrev, ...) is at work, outside compiled code."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def refuse_vmap(what: str) -> None:
    """Raise under torch.vmap, for what takes a number of steps that depends on the values."""
    stack = torch._C._functorch.get_interpreter_stack() if under_torch_func() else None
    if any(level.key() == torch._C._functorch.TransformType.Vmap for level in stack or []):
        raise WavedistillError(
            f"{what} is a search whose length depends on the values, which torch.vmap cannot run: give it the examples "
            "as one batch."
        )


def refuse_second_derivative(what: str, instead: str) -> None:
    """Raise in a backward pass with ``create_graph=True``."""
    if torch.is_grad_enabled():
        raise WavedistillError(f"{what} has first derivatives only (create_graph=True was asked for): {instead}.")


def log_normal_tail(t: Tensor, log_mills: Tensor | None = None) -> Tensor:
    """log(1 - Phi(t)), as `torch.special.log_ndtr` of -t; its derivative is accurate where that one's cancels.

    Args:
        log_mills: `log_mills_ratio` of t, where it is known.
    """
    near = t < 1.0
    right = (log_mills_ratio(t) if log_mills is None else log_mills) - 0.5 * t.square() - 0.5 * LOG_2PI
    return torch.where(near, torch.special.log_ndtr(-torch.where(near, t, 0.0)), right)


def log_mills_ratio(t: Tensor) -> Tensor:
    """log((1 - Phi(t)) / phi(t)) for every t; minus this is the log-hazard of the normal distribution.

    Three formulas, none of which subtracts large numbers, neither in the value nor in the derivative: below 1 the
    logarithms of tail and density, up to 20 the scaled complementary error function, beyond its asymptotic series.
    """
    near = t < 1.0
    far = t >= 20.0
    left = torch.where(near, t, 0.0)
    left = torch.special.log_ndtr(-left) + 0.5 * left.square() + 0.5 * LOG_2PI
    middle = torch.special.erfcx(torch.where(near | far, 5.0, t) * math.sqrt(0.5)).log() + 0.5 * math.log(0.5 * math.pi)
    right = torch.where(far, t, 30.0)
    v = right.square().reciprocal()
    series = torch.ones_like(v)
    for odd in (13, 11, 9, 7, 5, 3, 1):  # 1 - v + 3 v^2 - 15 v^3 + ...
        series = 1.0 - odd * v * series
    right = torch.log(series) - torch.log(right)
    return torch.where(near, left, torch.where(far, right, middle))


def normal_quantile_of_tail(log_tail: Tensor) -> Tensor:
    """z >= 0 with log(1 - Phi(z)) = log_tail, for log_tail <= log(1/2); with first and second derivatives.

    Newton's method on the convex function -log(1 - Phi): from sqrt(-2 log(2 p)), which lies above the root, it comes
    down to it.
    """
    with torch.no_grad():
        z = torch.sqrt((-2.0 * (log_tail + math.log(2.0))).clamp_min(0.0))
        for _ in range(5):
            z = z + (torch.special.log_ndtr(-z) - log_tail) * torch.exp(log_mills_ratio(z))
    return attach_gradient(z, lambda z: log_tail - log_normal_tail(z), torch.exp(-log_mills_ratio(z)))
