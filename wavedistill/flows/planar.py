"""Planar and radial flows: one bump along a direction, or around a point.

Both are constrained to stay invertible for every value of their weights, and both read in two directions. A `Flow`
evaluates densities with `forward` and samples with `inverse`; Rezende and Mohamed use the map the other way, from noise
to the variable: ``Planar(dim).inv``.

References:
    Variational Inference with Normalizing Flows (Rezende & Mohamed, 2015), https://arxiv.org/abs/1505.05770
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wavedistill.flows.transform import Transform, require_sizes
from wavedistill.numerics import attach_gradient, full_precision, increasing_root, positive


class _Conditioned(Transform):
    """A transform whose few parameters, ``vectors`` of dim and ``numbers``, get a linear function of the condition
    added; it starts at zero.
    """

    def __init__(self, dim: int, cond_dim: int, vectors: int, numbers: int) -> None:
        super().__init__()
        require_sizes(self, dim=dim)
        require_sizes(self, 0, cond_dim=cond_dim)
        self.dim = dim
        self.cond_dim = cond_dim
        if cond_dim:
            self.from_cond = nn.Parameter(torch.zeros(vectors * dim + numbers, cond_dim))

    def _weights(self, own: list[Tensor], x: Tensor, cond: Any) -> tuple[Tensor, ...]:
        """The parameters as (batch or 1, size) for vectors, (batch or 1, size, samples or 1) for waveforms."""
        packed = full_precision(torch.cat(own)).unsqueeze(0)
        packed = packed.unsqueeze(-1) if x.dim() == 3 else packed
        if self.cond_dim:
            with torch.autocast(x.device.type, enabled=False):
                cond = cond.to(packed)
                added = torch.einsum("pc,bc...->bp...", self.from_cond.to(packed), cond)
            packed = packed + added
            if x.dim() == 3 and packed.shape[-1] > 1:
                packed = packed.repeat_interleave(x.shape[-1] // packed.shape[-1], dim=-1)
        return packed.split([len(value) for value in own], dim=1)


class _PlanarWeights(NamedTuple):
    """u', w, b and 1 + w.u', the slope at 0."""

    u: Tensor
    w: Tensor
    b: Tensor
    slope_at_zero: Tensor


class Planar(_Conditioned):
    """y = x + u' tanh(a), a = w.x + b, with w.u' > -1.

    log|det| = log(1 + w.u' / cosh(a)^2), for waveforms summed over the samples.

    u' is u with its part along w shortened: w.u' = s for s = w.u >= 0 and s / (1 - s) below. Unlike Rezende and
    Mohamed's softplus this never divides by |w|^2, leaves u alone where it is already invertible, and gives 1 + w.u' =
    1 / (1 - s) without cancellation. The inverse solves a + (w.u') tanh(a) = w.y + b, one increasing function of one
    number. Where u' is so large that y - u' tanh(a) cancels, the part of x along w comes from the root: w.x = a - b.
    Across w, what y's own rounding has lost stays lost.

    Args:
        dim: features.
        cond_dim: channels of the condition, which adds a linear function of itself to (u, w, b); 0: none.

    Shapes:
        (batch, dim), or (batch, dim, samples) with every sample mapped by itself.

    References:
        Variational Inference with Normalizing Flows (Rezende & Mohamed, 2015), https://arxiv.org/abs/1505.05770,
            section 4.1 and appendix A.1

    Example:
        >>> import torch
        >>> from wavedistill.flows import Planar
        >>> planar = Planar(2)
        >>> x = torch.tensor([[0.5, -1.0]])
        >>> y, log_det = planar.forward(x)
        >>> bool(torch.allclose(planar.inverse(y).value, x, atol=1e-6))
        True
    """

    iterations = 10  # of the root finder; 8 bring float64 to its last digit for 1 + w.u' from 1e-14 to 1e14

    def __init__(self, dim: int, cond_dim: int = 0) -> None:
        super().__init__(dim, cond_dim, vectors=2, numbers=1)
        bound = 1.0 / math.sqrt(dim)
        self.u = nn.Parameter(torch.empty(dim).uniform_(-bound, bound))
        self.w = nn.Parameter(torch.empty(dim).uniform_(-bound, bound))
        self.b = nn.Parameter(torch.zeros(1))

    def _forward(self, x: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        u, w, b, slope_at_zero = self._constrained(x, cond)
        a = (w * x).sum(1, keepdim=True) + b
        return x + u * torch.tanh(a), self._slope(a, slope_at_zero).log().squeeze(1)

    def _inverse(self, y: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        weights = self._constrained(y, cond)
        u, w, b, slope_at_zero = weights
        target = (w * y).sum(1, keepdim=True) + b
        slope_at_zero = slope_at_zero.expand_as(target)
        a = self._solve(target, slope_at_zero)
        a = attach_gradient(a, lambda a: self._value(a, slope_at_zero) - target, self._slope(a, slope_at_zero))
        x = y - u * torch.tanh(a)
        return x + self._lost_along(x, a, weights), -self._slope(a, slope_at_zero).log().squeeze(1)

    def _constrained(self, x: Tensor, cond: Any) -> _PlanarWeights:
        u, w, b = self._weights([self.u, self.w, self.b], x, cond)
        along = (w * u).sum(1, keepdim=True)
        excess = torch.relu(-along)
        direction = nn.functional.normalize(w, dim=1, eps=torch.finfo(w.dtype).tiny)
        u = u - excess / (1.0 + excess) * (direction * u).sum(1, keepdim=True) * direction
        return _PlanarWeights(u, w, b, torch.relu(along) + 1.0 / (1.0 + excess))

    @staticmethod
    @torch.no_grad()
    def _lost_along(x: Tensor, a: Tensor, weights: _PlanarWeights) -> Tensor:
        """What x = y - u' tanh(a) lacks along w, where the terms of a - b are smaller than those that cancelled."""
        u, w, b, _ = weights
        size, length = (torch.linalg.vector_norm(value, dim=1, keepdim=True) for value in (u, w))
        smaller = a.abs() + b.abs() < length * size * torch.tanh(a).abs()
        lost = (a - b - (w * x).sum(1, keepdim=True)) / length
        return torch.where(smaller, lost, 0.0) * w / length.clamp_min(torch.finfo(w.dtype).tiny)

    @staticmethod
    def _value(a: Tensor, slope_at_zero: Tensor) -> Tensor:
        """a + (w.u') tanh(a)."""
        return (a - torch.tanh(a)) + slope_at_zero * torch.tanh(a)

    @staticmethod
    def _slope(a: Tensor, slope_at_zero: Tensor) -> Tensor:
        """1 + (w.u') / cosh(a)^2 as a sum of positive terms."""
        return torch.tanh(a).square() + slope_at_zero * 4.0 * torch.sigmoid(2.0 * a) * torch.sigmoid(-2.0 * a)

    @torch.no_grad()
    def _solve(self, target: Tensor, slope_at_zero: Tensor) -> Tensor:
        """The value is odd in a, so the root of |target| is sought, between bounds that are a small factor apart.

        c = w.u' > 0: c tanh(a) = size - a, with tanh(a) <= min(a, 1) and, beyond a = log(2 c) / 2, c tanh(a) >= c - 1.
        c < 0: size <= a <= size / (1 + c) and a <= size - c; up to a = 1, a - tanh(a) lies between a^3 / 4.2 and a^3 /
        3.
        """
        size = target.abs()
        c = slope_at_zero - 1.0
        gain, loss = (part.clamp_min(torch.finfo(c.dtype).tiny) for part in (c, -c))
        ratio = size / slope_at_zero

        beyond = torch.maximum(0.5 * torch.log(2.0 * gain), size - gain + 1.0)
        most = torch.minimum(size, torch.where(size < gain, _atanh(size / gain), beyond))
        least = torch.maximum(torch.maximum(ratio, size - gain), _atanh((size - most) / gain))

        cubic = (size / loss).pow(1.0 / 3.0)
        upper = torch.minimum(torch.minimum(ratio, size + loss), torch.where(cubic < 0.61, 1.62 * cubic, torch.inf))
        lower = torch.maximum(size, torch.minimum(0.5 * ratio, 1.14 * cubic))

        low = torch.where(c > 0, least, lower)
        high = torch.where(c > 0, most, upper)
        root = increasing_root(
            lambda a: (self._value(a, slope_at_zero) - size, self._slope(a, slope_at_zero)),
            torch.minimum(low, high),
            high,
            self.iterations,
        )
        return root * target.sign()


def _atanh(ratio: Tensor) -> Tensor:
    """atanh, finite at and beyond 0 and 1."""
    return torch.atanh(ratio.clamp(0.0, 1.0 - torch.finfo(ratio.dtype).eps))


class _RadialWeights(NamedTuple):
    """c, alpha and gamma."""

    center: Tensor
    alpha: Tensor
    gamma: Tensor


class Radial(_Conditioned):
    """y = x + beta (x - c) / (alpha + r), r = |x - c|, with beta > -alpha.

    log|det| = (dim - 1) log(1 + beta / (alpha + r)) + log(1 + alpha beta / (alpha + r)^2), for waveforms summed over
    the samples.

    alpha > 0 and gamma = alpha + beta > 0 are the parameters, so that 1 + beta / (alpha + r) = (gamma + r) / (alpha +
    r) has no cancellation. Points keep their direction from c and the distance obeys a quadratic equation: the inverse
    is exact.

    Args:
        dim: features.
        cond_dim: channels of the condition, which adds a linear function of itself to (c, alpha, gamma); 0: none.

    Shapes:
        (batch, dim), or (batch, dim, samples) with every sample mapped by itself.

    References:
        Variational Inference with Normalizing Flows (Rezende & Mohamed, 2015), https://arxiv.org/abs/1505.05770,
            section 4.1 and appendix A.2

    Example:
        >>> import torch
        >>> from wavedistill.flows import Radial
        >>> radial = Radial(2)
        >>> x = torch.tensor([[0.5, -1.0]])
        >>> y, log_det = radial.forward(x)
        >>> bool(torch.allclose(radial.inverse(y).value, x, atol=1e-6))
        True
    """

    def __init__(self, dim: int, cond_dim: int = 0) -> None:
        super().__init__(dim, cond_dim, vectors=1, numbers=2)
        self.center = nn.Parameter(torch.randn(dim))
        self.raw_alpha = nn.Parameter(torch.zeros(1))  # see wavedistill.numerics
        self.raw_gamma = nn.Parameter(0.1 * torch.randn(1))

    def _forward(self, x: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        center, alpha, gamma = self._constrained(x, cond)
        offset = x - center
        r = torch.linalg.vector_norm(offset, dim=1, keepdim=True)
        return center + offset * ((gamma + r) / (alpha + r)), self._log_det(r, alpha, gamma)

    def _inverse(self, y: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        center, alpha, gamma = self._constrained(y, cond)
        offset = y - center
        distance = torch.linalg.vector_norm(offset, dim=1, keepdim=True)
        # r^2 + (gamma - distance) r - alpha distance = 0; of the two forms of its root the one that adds
        half = 0.5 * (gamma - distance)
        root = torch.sqrt(half.square() + alpha * distance)
        r = torch.where(half > 0, alpha * distance / (root + half.abs()), root + half.abs())
        return center + offset * ((alpha + r) / (gamma + r)), -self._log_det(r, alpha, gamma)

    def _constrained(self, x: Tensor, cond: Any) -> _RadialWeights:
        center, raw_alpha, raw_gamma = self._weights([self.center, self.raw_alpha, self.raw_gamma], x, cond)
        return _RadialWeights(center, positive(raw_alpha), positive(raw_gamma))

    def _log_det(self, r: Tensor, alpha: Tensor, gamma: Tensor) -> Tensor:
        across = torch.log(gamma + r) - torch.log(alpha + r)
        along = torch.log(r.square() + 2.0 * alpha * r + alpha * gamma) - 2.0 * torch.log(alpha + r)
        return ((self.dim - 1) * across + along).squeeze(1)
