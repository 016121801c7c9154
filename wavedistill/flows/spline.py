"""The monotone rational-quadratic spline: an element-wise bijection with a closed-form inverse.

In bin k of width w, height h and slope s = h / w, with derivatives d_k, d_{k+1} at its ends, r = d_k / s and q =
d_{k+1} / s, and with position t in [0, 1] and image u in [0, 1] inside the bin:

    u = t (t + r (1 - t)) / D,                         D = t^2 + (1 - t)^2 + (r + q) t (1 - t)
    dy/dx = s (q t^2 + 2 t (1 - t) + r (1 - t)^2) / D^2
    t = 2 u / (2 u + p + R)  or  (R - p) / (R - p + 2 (1 - u)),   p = r (1 - u) - q u,   R = sqrt(p^2 + 4 u (1 - u))

Every sum is one of positive terms: the inverse takes the first form where p >= 0 and the second elsewhere, so nothing
cancels, and the paper's discriminant, written R^2, cannot become negative by rounding.

References:
    Neural Spline Flows (Durkan et al., 2019), https://arxiv.org/abs/1906.04032
    Piecewise rational quadratic interpolation (Gregory & Delbourgo, 1982), https://doi.org/10.1093/imanum/2.2.123
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad, softmax, softplus

from wavedistill.errors import WavedistillError
from wavedistill.numerics import full_precision

MIN_SIZE = 1e-3
"""Least width and height of a bin, as a share of the interval."""
MIN_DERIVATIVE = 1e-3


def rational_quadratic_spline(
    x: Tensor, parameters: Tensor, bound: float = 5.0, inverse: bool = False
) -> tuple[Tensor, Tensor]:
    """A rational-quadratic spline on [-bound, bound], the identity outside, and everywhere for zero parameters.

    Widths and heights are softmaxes of their parameters, each at least `MIN_SIZE` of the interval; inner derivatives
    are softplus(d + c) + `MIN_DERIVATIVE`, with c such that d = 0 gives 1; the outer ones are 1.

    Args:
        x: values of any shape.
        parameters: (*x.shape, 3 bins - 1): bins of widths, bins of heights, bins - 1 of derivatives; brought to float32
            at least.
        bound: half the length of the interval.
        inverse: read the spline backwards.

    Returns:
        The values, in the precision of the parameters, and log |dy/dx| of the map carried out, in x's shape.

    Raises:
        WavedistillError: for parameters that do not fit x, fewer than 2 bins or 1000 and more, a bound that is not
            positive.

    Example:
        >>> import torch
        >>> from wavedistill.flows.spline import rational_quadratic_spline
        >>> x = torch.tensor([-9.0, 0.1, 1.0])
        >>> parameters = torch.tensor([0.0, 1.0, 0.5, 0.0, -1.0]).expand(3, 5)  # two bins
        >>> y, log_det = rational_quadratic_spline(x, parameters)
        >>> y
        tensor([-9.0000,  2.2272,  2.5852])
        >>> torch.allclose(rational_quadratic_spline(y, parameters, inverse=True)[0], x)
        True
    """
    if parameters.shape[:-1] != x.shape:
        raise WavedistillError(
            f"a spline needs parameters of shape (*{tuple(x.shape)}, 3 bins - 1), got {tuple(parameters.shape)}."
        )
    x_knots, y_knots, derivatives = spline_knots(parameters, bound)
    x = x.to(x_knots.dtype)
    inside = (x >= -bound) & (x <= bound)
    clamped = x.clamp(-bound, bound)
    from_knots, to_knots = (y_knots, x_knots) if inverse else (x_knots, y_knots)
    index = (clamped.unsqueeze(-1) >= from_knots[..., 1:-1]).sum(-1, keepdim=True)
    start, size = _bin(from_knots, index)
    to_start, to_size = _bin(to_knots, index)
    slope = to_size / size if not inverse else size / to_size
    left = derivatives.gather(-1, index).squeeze(-1) / slope
    right = derivatives.gather(-1, index + 1).squeeze(-1) / slope

    given = ((clamped - start) / size).clamp(0.0, 1.0)
    t = _position(given, left, right) if inverse else given
    rest = 1.0 - t
    divisor = t.square() + rest.square() + (left + right) * t * rest
    image = t if inverse else t * (t + left * rest) / divisor
    growth = right * t.square() + 2.0 * t * rest + left * rest.square()
    log_det = torch.log(slope) + torch.log(growth) - 2.0 * torch.log(divisor)
    value = torch.where(inside, to_start + to_size * image, x)
    return value, torch.where(inside, -log_det if inverse else log_det, 0.0)


class Knots(NamedTuple):
    """The ends of a spline's bins and its derivatives there, each (..., bins + 1)."""

    x: Tensor
    y: Tensor
    derivatives: Tensor


def spline_knots(parameters: Tensor, bound: float) -> Knots:
    """The knots that unconstrained parameters (..., 3 bins - 1) stand for."""
    count = parameters.shape[-1]
    bins = (count + 1) // 3
    if bins < 2 or 3 * bins - 1 != count:
        raise WavedistillError(f"a spline needs 3 bins - 1 parameters (5, 8, 11, ...) in the last axis, got {count}.")
    if bins * MIN_SIZE >= 1.0:
        raise WavedistillError(f"a spline takes fewer than {int(1.0 / MIN_SIZE)} bins, got {bins}.")
    if not bound > 0:
        raise WavedistillError(f"a spline needs a bound above 0, got {bound}.")
    widths, heights, derivatives = full_precision(parameters).split([bins, bins, bins - 1], dim=-1)
    offset = math.log(math.expm1(1.0 - MIN_DERIVATIVE))
    derivatives = pad(MIN_DERIVATIVE + softplus(derivatives + offset), (1, 1), value=1.0)
    return Knots(_knots(widths, bound), _knots(heights, bound), derivatives)


def _knots(unnormalized: Tensor, bound: float) -> Tensor:
    """-bound, ..., bound: the ends are exact."""
    bins = unnormalized.shape[-1]
    sizes = MIN_SIZE + (1.0 - MIN_SIZE * bins) * softmax(unnormalized, dim=-1)
    inner = 2.0 * bound * torch.cumsum(sizes[..., :-1], dim=-1) - bound
    return pad(pad(inner, (1, 0), value=-bound), (0, 1), value=bound)


def _bin(knots: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Left end and size of a bin."""
    start = knots.gather(-1, index)
    return start.squeeze(-1), (knots.gather(-1, index + 1) - start).squeeze(-1)


def _position(u: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """t of u; see the module's text."""
    p = left * (1.0 - u) - right * u
    root = torch.sqrt(p.square() + 4.0 * u * (1.0 - u))
    return torch.where(p >= 0, 2.0 * u / (2.0 * u + p + root), (root - p) / (root - p + 2.0 * (1.0 - u)))
