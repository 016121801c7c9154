"""The upper tail of the normal distribution by its logarithm: accurate where probabilities underflow.

Example:
    >>> import torch
    >>> from wavedistill.nn.normal_tail import normal_quantile_of_tail
    >>> log_tail = torch.special.log_ndtr(torch.tensor([-1.0, -1000.0]))  # the second is exp(-500,008)
    >>> normal_quantile_of_tail(log_tail)
    tensor([   1., 1000.])
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wavedistill.nn.root import attach_gradient

_LOG_ROOT_2PI = 0.5 * math.log(2.0 * math.pi)


def log_mills_ratio(t: Tensor) -> Tensor:
    """log((1 - Phi(t)) / phi(t)) for every t; minus this is the log-hazard of the normal distribution.

    Three formulas, none of which subtracts large numbers, neither in the value nor in the derivative: below 1 the
    logarithms of tail and density, up to 20 the scaled complementary error function, beyond its asymptotic series.
    """
    near = t < 1.0
    far = t >= 20.0
    left = torch.where(near, t, 0.0)
    left = torch.special.log_ndtr(-left) + 0.5 * left.square() + _LOG_ROOT_2PI
    middle = torch.special.erfcx(torch.where(near | far, 5.0, t) * math.sqrt(0.5)).log() + 0.5 * math.log(0.5 * math.pi)
    right = torch.where(far, t, 30.0)
    v = right.square().reciprocal()
    series = torch.ones_like(v)
    for odd in (13, 11, 9, 7, 5, 3, 1):  # 1 - v + 3 v^2 - 15 v^3 + ...
        series = 1.0 - odd * v * series
    right = torch.log(series) - torch.log(right)
    return torch.where(near, left, torch.where(far, right, middle))


def normal_quantile_of_tail(log_tail: Tensor) -> Tensor:
    """z >= 0 with log(1 - Phi(z)) = log_tail, for log_tail <= log(1/2); with first derivatives.

    Newton's method on the convex function -log(1 - Phi): from sqrt(-2 log(2 p)), which lies above the root, it comes
    down to it.
    """
    with torch.no_grad():
        z = torch.sqrt((-2.0 * (log_tail + math.log(2.0))).clamp_min(0.0))
        for _ in range(5):
            z = z + (torch.special.log_ndtr(-z) - log_tail) * torch.exp(log_mills_ratio(z))
    return attach_gradient(z, log_tail, torch.exp(-log_mills_ratio(z)))
