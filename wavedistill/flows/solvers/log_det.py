"""log |det (I + J)| for the Jacobian J of a contraction g: exactly, by a power series, by one of random length.

    log det (I + J) = sum_{k >= 1} (-1)^(k+1) tr(J^k) / k,    tr(A) = E[v' A v] for noise v with E[v v'] = I
    (Hutchinson)

References:
    Invertible Residual Networks (Behrmann et al., 2019), https://arxiv.org/abs/1811.00995
    Residual Flows for Invertible Generative Modeling (Chen et al., 2019), https://arxiv.org/abs/1906.02735
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from wavedistill.errors import WavedistillError
from wavedistill.numerics import refuse_second_derivative, under_torch_func

Map = Callable[[Tensor], Tensor]
NOISES = ("rademacher", "normal")
ROWS = 512
"""Of a Jacobian, that are computed at once."""


def jacobian(g: Map, x: Tensor) -> tuple[Tensor, Tensor]:
    """g(x) and its Jacobian (batch, size, size) for every example of x (batch, *event), size its elements.

    Differentiable. It takes size backward passes, `ROWS` at once.
    """
    value, pullback = torch.func.vjp(g, x)
    size = math.prod(x.shape[1:])
    basis = torch.eye(size, dtype=x.dtype, device=x.device).reshape(size, 1, *x.shape[1:])
    (rows,) = torch.func.vmap(pullback, chunk_size=ROWS)(basis.expand(size, *x.shape))
    return value, rows.flatten(2).transpose(0, 1)


def exact_log_det(g: Map, x: Tensor) -> tuple[Tensor, Tensor]:
    """g(x) and log |det (I + J)| (batch,) from the whole Jacobian: O(size^2) memory, O(size^3) operations.

    Example:
        >>> import torch
        >>> from wavedistill.flows.solvers.log_det import exact_log_det
        >>> exact_log_det(lambda x: 0.5 * x, torch.ones(1, 2))[1]
        tensor([0.8109])
    """
    value, matrix = jacobian(g, x)
    return value, torch.linalg.slogdet(matrix + torch.eye(matrix.shape[-1], dtype=x.dtype, device=x.device)).logabsdet


def series_log_det(
    g: Map, x: Tensor, weights: Sequence[float], noise: Tensor, memory_efficient: bool = True
) -> tuple[Tensor, Tensor]:
    """g(x) and sum_k w_k (-1)^(k+1) v' J^k v / k (batch,), k = 1 .. len(weights).

    With weights of 1 its expectation is the truncated series, whose distance from log det (I + J) is at most
    size * sum_{k > n} c^k / k <= size * c^(n+1) / ((n + 1) (1 - c)), c the Lipschitz constant of g. With those of
    `roulette_weights` it is log det (I + J) itself.

    Args:
        g: a contraction of (batch, *event) that treats examples separately.
        x: (batch, *event).
        weights: of the terms.
        noise: v, like x.
        memory_efficient: take the gradient from the Neumann series with the same weights, d = sum_k w_k (-1)^(k+1) v'
            dJ J^(k-1) v, which needs one derivative of J where that of each v' J^k v needs k. Both have the same
            expectation over v (the trace is cyclic), this one for any weighting of the examples and in memory that does
            not grow with the number of terms. First derivatives only: torch.func never gets it.

    Raises:
        WavedistillError: for a second derivative of the ``memory_efficient`` series.

    Example:
        >>> import torch
        >>> from wavedistill.flows.solvers.log_det import series_log_det
        >>> series_log_det(lambda x: 0.5 * x, torch.ones(1, 2), [1.0] * 20, torch.ones(1, 2))[1]
        tensor([0.8109])
    """
    memory_efficient = memory_efficient and torch.is_grad_enabled() and not under_torch_func()
    value, pullback = torch.func.vjp(g, x)
    log_det = 0.0
    left = 0.0
    row = noise
    with torch.set_grad_enabled(torch.is_grad_enabled() and not memory_efficient):
        for k, weight in enumerate(weights, start=1):
            sign = 1 if k % 2 else -1
            left = left + sign * weight * row  # sum_k w_k (-1)^(k+1) v' J^(k-1)
            (row,) = pullback(row)
            log_det = log_det + sign * weight / k * _dot(row, noise)
    if memory_efficient:
        (row,) = pullback(left)
        gradient = _dot(row, noise)
        if gradient.requires_grad and not torch.compiler.is_compiling():
            gradient.register_hook(_refuse_second)
        log_det = log_det + (gradient - gradient.detach())
    return value, log_det


def roulette_weights(num_terms: int, survival: float, generator: torch.Generator | None = None) -> list[float]:
    """Weights 1 / P(N >= k) of the terms k = 1 .. N, the number of terms N = num_terms + a geometric variable.

    P(N >= num_terms + j) = survival^j.

    The first ``num_terms`` are always there, with weight 1. One N is drawn for a call, so that a batch shares it. The
    variance is sure to be finite where survival > c^2, c the Lipschitz constant of g.
    """
    uniform = 1.0 - torch.rand(
        (), dtype=torch.float64, generator=generator, device=generator.device if generator else None
    )
    extra = int(math.log(float(uniform)) / math.log(survival))
    return [1.0] * num_terms + [survival**-j for j in range(1, extra + 1)]


def draw_noise(kind: str, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """v with E[v v'] = I: "rademacher", signs, with the smallest variance of independent elements, or "normal"."""
    if kind not in NOISES:
        raise WavedistillError(f"noise is one of {', '.join(NOISES)}, got {kind!r}.")
    device = generator.device if generator else like.device
    if kind == "normal":
        return torch.randn(like.shape, generator=generator, device=device).to(like)
    return torch.randint(0, 2, like.shape, generator=generator, device=device).to(like) * 2.0 - 1.0


def _refuse_second(_: Tensor) -> None:
    refuse_second_derivative("a log-determinant with memory_efficient", "take memory_efficient=False")


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)
