"""The distribution that a bijection makes of a simple one.

Example:
    >>> import torch
    >>> from wavedistill.flows import Flow, Scale
    >>> flow = Flow(Scale(0.5))  # x = 2 z: a normal distribution with standard deviation 2
    >>> flow.log_prob(torch.zeros(1, 1))
    tensor([-1.6121])
    >>> x, log_prob = flow.rsample_and_log_prob((4, 1), generator=torch.Generator().manual_seed(0))
    >>> bool(torch.allclose(log_prob, flow.log_prob(x)))
    True

References:
    Variational Inference with Normalizing Flows (Rezende & Mohamed, 2015), https://arxiv.org/abs/1505.05770
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from wavedistill.flows.transform import Mapped, Transform
from wavedistill.numerics import LOG_2PI, full_precision


class Base(Protocol):
    """The distribution of the latent."""

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of every element, in z's shape, float32 at least."""

    def sample(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        """Values of the full shape."""


class StandardNormal:
    """Independent N(0, 1)."""

    def log_prob(self, z: Tensor) -> Tensor:
        return -0.5 * (full_precision(z).square() + LOG_2PI)

    def sample(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(shape, generator=generator, device=generator.device if generator else None)


class StandardUniform:
    """Independent U(0, 1): what a Gaussianizing map's probability integral transform leads to."""

    def log_prob(self, z: Tensor) -> Tensor:
        inside = (z >= 0) & (z <= 1)
        return torch.where(inside, 0.0, -math.inf).to(torch.promote_types(z.dtype, torch.float32))

    def sample(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        return torch.rand(shape, generator=generator, device=generator.device if generator else None)


class Likelihood(NamedTuple):
    """Log-probability in nats (batch,), in nats per dimension, and its negative in bits per dimension."""

    nats: Tensor
    nats_per_dimension: Tensor
    bits_per_dimension: Tensor


class Flow(nn.Module):
    """The distribution of x when ``transform.forward(x)`` has the base distribution (standard normal by default).

    Shapes: values (batch, *event); log-probabilities (batch,) in nats.
    """

    def __init__(self, transform: Transform, base: Base | None = None) -> None:
        super().__init__()
        self.transform = transform
        self.base = base or StandardNormal()

    def log_prob(self, x: Tensor, cond: Any = None) -> Tensor:
        latent, log_det = self.transform.forward(x, cond)
        return self._base_log_prob(latent) + log_det

    def likelihood(self, x: Tensor, cond: Any = None) -> Likelihood:
        """`log_prob` in the units of the literature.

        Behind `Dequantize`, bits per dimension bound the length of a lossless code.
        """
        nats = self.log_prob(x, cond)
        per_dimension = nats / x[0].numel()
        return Likelihood(nats, per_dimension, -per_dimension / math.log(2.0))

    def to_latent(self, x: Tensor, cond: Any = None) -> Tensor:
        return self.transform.forward(x, cond).value

    def from_latent(self, z: Tensor, cond: Any = None) -> Tensor:
        return self.transform.inverse(z, cond).value

    def sample(self, shape: tuple[int, ...], cond: Any = None, generator: torch.Generator | None = None) -> Tensor:
        """Draw samples of the full shape (batch, *event) without gradient."""
        with torch.no_grad():
            return self.rsample_and_log_prob(shape, cond, generator).value

    def rsample_and_log_prob(
        self, shape: tuple[int, ...], cond: Any = None, generator: torch.Generator | None = None
    ) -> Mapped:
        """Reparametrised samples and their exact log-probability, from one evaluation of the inverse.

        Noise is drawn on the generator's device and brought to the device and type of the transform's parameters.
        """
        z = self.base.sample(shape, generator)
        like = next((p for p in self.transform.parameters() if p.is_floating_point()), None)
        z = z if like is None else z.to(like)
        x, log_det = self.transform.inverse(z, cond)
        return Mapped(x, self._base_log_prob(z) - log_det)

    def _base_log_prob(self, z: Tensor) -> Tensor:
        return self.base.log_prob(z).flatten(1).sum(1)
