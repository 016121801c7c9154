"""Two-dimensional densities to fit: samples, the exact log-density and the entropy, a lower bound for every flow.

All lie within [-2, 2] x [-2, 2] up to a little noise, with standard deviations near 1.

Example:
    >>> import torch
    >>> from wavedistill.playground import DENSITIES
    >>> board = DENSITIES["checkerboard"]
    >>> x = board.sample(1000, torch.Generator().manual_seed(0))
    >>> x.shape, round(float(-board.log_prob(x).mean()), 4), round(board.entropy, 4)
    (torch.Size([1000, 2]), 2.0794, 2.0794)
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

CHUNK = 4096


class Density:
    """A distribution over the plane.

    Attributes:
        name: key in `DENSITIES`.
        title: for pictures.
        entropy: in nats; closed form where there is one, else by quadrature on a fine grid.
    """

    name: str
    title: str
    entropy: float

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Independent samples (count, 2)."""
        raise NotImplementedError

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log-density in nats of x (count, 2): (count,)."""
        raise NotImplementedError


class Checkerboard(Density):
    """Uniform over every other one of the 4 x 4 unit squares of [-2, 2] x [-2, 2]; entropy log 8."""

    name = "checkerboard"
    title = "checkerboard"
    entropy = math.log(8.0)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        first = 4.0 * torch.rand(count, generator=generator) - 2.0
        square = 2.0 * torch.randint(2, (count,), generator=generator) - 2.0 + first.floor() % 2
        below_one = 1.0 - 2.0**-22  # rounding must not reach the next square
        second = square + torch.rand(count, generator=generator) * below_one
        return torch.stack([first, second], dim=1)

    def log_prob(self, x: Tensor) -> Tensor:
        inside = ((x >= -2) & (x < 2)).all(1) & (x.floor().sum(1) % 2 == 0)
        return torch.where(inside, -math.log(8.0), -math.inf).to(x.dtype)


class Rings(Density):
    """Two concentric circles, equally likely, with Gaussian noise around each.

    A circle of radius R blurred by N(0, s^2) has the density exp(-(r^2 + R^2) / 2 s^2) I_0(r R / s^2) / (2 pi s^2).
    """

    name = "rings"
    title = "rings"
    entropy = 1.913708047
    radii = (0.9, 1.9)
    noise = 0.1

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        radius = torch.tensor(self.radii)[torch.randint(len(self.radii), (count,), generator=generator)]
        angle = 2.0 * math.pi * torch.rand(count, generator=generator)
        return _polar(radius, angle) + self.noise * torch.randn(count, 2, generator=generator)

    def log_prob(self, x: Tensor) -> Tensor:
        radius = x.double().norm(dim=1, keepdim=True)
        mean = torch.tensor(self.radii).double()
        variance = self.noise**2
        bessel = torch.special.i0e(radius * mean / variance).log()
        terms = bessel - (radius - mean).square() / (2.0 * variance) - math.log(2.0 * math.pi * variance)
        return (terms.logsumexp(1) - math.log(len(self.radii))).to(x.dtype)


class EightGaussians(Density):
    """Eight equally likely Gaussians on a circle."""

    name = "eight_gaussians"
    title = "eight Gaussians"
    entropy = 1.692144078
    radius = 1.6
    noise = 0.2

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        which = torch.randint(8, (count,), generator=generator)
        return self._centres()[which] + self.noise * torch.randn(count, 2, generator=generator)

    def log_prob(self, x: Tensor) -> Tensor:
        return _blurred(x, self._centres(), torch.full((8,), 0.125), self.noise)

    def _centres(self) -> Tensor:
        return _polar(torch.tensor(self.radius), torch.arange(8) * math.pi / 4)


class NoisyCurves(Density):
    """Points of two curves, equally likely, with Gaussian noise: the density is an integral along the curves.

    It is computed by Gauss-Legendre quadrature, with an error below float32's wherever the density is above e^-40.
    """

    noise: float
    num_nodes: int

    def curves(self, t: Tensor) -> Tensor:
        """Points (2, count, 2) of both curves at t in [0, 1]."""
        raise NotImplementedError

    def speed(self, t: Tensor) -> Tensor:
        """Density of t on [0, 1]: even along the curve."""
        return torch.ones_like(t)

    def position(self, u: Tensor) -> Tensor:
        """A uniform u -> t with the density `speed`."""
        return u

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        t = self.position(torch.rand(count, generator=generator))
        which = torch.randint(2, (count,), generator=generator)
        return self.curves(t)[which, torch.arange(count)] + self.noise * torch.randn(count, 2, generator=generator)

    def log_prob(self, x: Tensor) -> Tensor:
        nodes, weights = (torch.from_numpy(values) for values in np.polynomial.legendre.leggauss(self.num_nodes))
        t = (nodes + 1.0) / 2.0
        share = self.speed(t) * weights / 4.0  # the curves have one half each, [0, 1] half the length of [-1, 1]
        return _blurred(x, self.curves(t).flatten(0, 1), share.repeat(2), self.noise)


class TwoMoons(NoisyCurves):
    """Two half circles that reach into each other, noise 0.1: scikit-learn's ``make_moons(noise=0.1)``, centred."""

    name = "two_moons"
    title = "two moons"
    entropy = 1.007584835
    noise = 0.1
    num_nodes = 64

    def curves(self, t: Tensor) -> Tensor:
        half = _polar(torch.ones_like(t), math.pi * t)
        centre = t.new_tensor([0.5, 0.25])
        return torch.stack([half - centre, centre - half])


class Spirals(NoisyCurves):
    """Two arms that wind one and a half times around the centre, noise 0.06, even along the arms."""

    name = "spirals"
    title = "spirals"
    entropy = 1.578006891
    noise = 0.06
    num_nodes = 320

    def curves(self, t: Tensor) -> Tensor:
        arm = _polar(2.0 * t, 3.0 * math.pi * t)
        return torch.stack([arm, -arm])

    def speed(self, t: Tensor) -> Tensor:
        return 2.0 * t

    def position(self, u: Tensor) -> Tensor:
        return u.sqrt()


def _polar(radius: Tensor, angle: Tensor) -> Tensor:
    return radius.unsqueeze(-1) * torch.stack([angle.cos(), angle.sin()], dim=-1)


def _blurred(x: Tensor, centres: Tensor, weights: Tensor, noise: float) -> Tensor:
    """Log-density of a mixture of isotropic Gaussians."""
    log_weights = weights.double().log() - math.log(2.0 * math.pi * noise**2)
    parts = [
        (log_weights - torch.cdist(part, centres.double()).square() / (2.0 * noise**2)).logsumexp(1)
        for part in x.double().split(CHUNK)
    ]
    return torch.cat(parts).to(x.dtype) if parts else x.new_zeros(0)


DENSITIES: dict[str, Density] = {
    density.name: density for density in (TwoMoons(), Checkerboard(), Rings(), EightGaussians(), Spirals())
}
"""The densities by name."""
