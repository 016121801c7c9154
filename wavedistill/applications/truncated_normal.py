"""Draws from a normal density of several samples, of which some are known and others lie beyond a threshold.

The unknown ones are drawn one after another, each from its truncated normal density given those before, in the order of
a Cholesky factor of the covariance; the product of the probabilities makes up for what this leaves out.

References:
    Smooth Unbiased Multivariate Probability Simulators for Maximum Likelihood Estimation of Limited Dependent Variable
        Models (Borsch-Supan and Hajivassiliou, 1993): the method of Geweke, Hajivassiliou and Keane
"""

from __future__ import annotations

import torch
from torch import Tensor

from wavedistill.numerics import LOG_2PI, normal_quantile_of_tail

CEILING = 4.0
"""Times the threshold that a clipped sample has at most: without it a teacher that goes wrong in a long run goes on."""
SMALLEST = -600.0
"""Logarithm of the smallest probability that float64 handles by itself."""


def draw_beyond(
    x: Tensor,
    signs: Tensor,
    limits: Tensor,
    matrix: Tensor,
    offset: Tensor,
    log_scale: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Draw the clipped ones among samples whose z = (B x + offset) / scale is standard normal.

    Shapes: x (candidates, n), of which the known ones count; signs (n,), 0 for those; limits (n,), the sizes that the
    clipped ones exceed, up to `CEILING` times these; matrix B (n, n); offset and log_scale (candidates, n); float64.

    Returns:
        the samples, and log of an unbiased estimate of p(known, clipped beyond the limits), up to log|det B|, both
        (candidates, ...).
    """
    order = torch.cat([(signs == 0).nonzero()[:, 0], signs.nonzero()[:, 0]])  # the known ones first
    scaled = matrix[:, order] * torch.exp(-log_scale)[..., None]
    inverse = torch.linalg.inv(scaled)
    mean = -(inverse @ (offset * torch.exp(-log_scale))[..., None])[..., 0]
    factor = torch.linalg.cholesky(inverse @ inverse.mT)
    made = x[:, order].clone()
    z = torch.zeros_like(made)
    gained = torch.zeros(len(x), dtype=torch.float64)
    for i, which in enumerate(order.tolist()):
        center = mean[:, i] + (factor[:, i, :i] * z[:, :i]).sum(1)
        scale = factor[:, i, i]
        if sign := int(signs[which]):
            limit = limits[which]
            ends = [(size - sign * center) / scale for size in (limit, CEILING * limit)]
            drawn, log_share = _truncated_normal(*ends, generator)
            z[:, i] = sign * drawn
            made[:, i] = center + scale * z[:, i]
            gained += log_share
        else:
            z[:, i] = (made[:, i] - center) / scale
            gained += -0.5 * (z[:, i].square() + LOG_2PI) - scale.log()
    result = torch.empty_like(made)
    result[:, order] = made
    return result, gained


def _truncated_normal(low: Tensor, high: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A draw of N(0, 1) between two ends and log of the probability that lies there, all (candidates,) in float64."""
    mirrored = low + high < 0  # the ends are looked at from the side on which both are small
    first, last = torch.where(mirrored, -high, low), torch.where(mirrored, -low, high)
    log_first, log_last = torch.special.log_ndtr(-first), torch.special.log_ndtr(-last)
    ratio = torch.exp(log_last - log_first)
    uniform = torch.rand(len(low), generator=generator, dtype=torch.float64).clamp_min(1e-300)
    log_tail = log_first + torch.log(uniform + (1.0 - uniform) * ratio)
    z = -torch.special.ndtri(log_tail.exp())
    if (log_tail < SMALLEST).any():
        z = torch.where(log_tail < SMALLEST, normal_quantile_of_tail(log_tail.clamp_max(SMALLEST)), z)
    z = torch.minimum(torch.maximum(z, first), last)
    return torch.where(mirrored, -z, z), log_first + torch.log1p(-ratio)
