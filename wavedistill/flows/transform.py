"""Bijections with tractable Jacobian determinants, and the distributions they make.

References:
    Normalizing Flows for Probabilistic Modeling and Inference (Papamakarios et al., 2021), https://arxiv.org/abs/1912.02762
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Mapped(NamedTuple):
    """A transformed value and log |det Jacobian| of the map that made it (shape: the batch shape)."""

    value: Tensor
    log_det: Tensor


class Transform(nn.Module):
    """A bijection y = f(x | cond) from data x to latent y.

    `forward` maps data -> latent, `inverse` latent -> data; each returns the value and the log-determinant of the map
    it carried out, from one evaluation. `inv` is the same bijection, with the same weights, read backwards.
    """

    def forward(self, x: Tensor, cond=None) -> Mapped:
        raise NotImplementedError

    def inverse(self, y: Tensor, cond=None) -> Mapped:
        raise NotImplementedError

    @property
    def inv(self) -> Transform:
        return Inverse(self)


class Inverse(Transform):
    """A transform read backwards; ``t.inv.inv`` is ``t``."""

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, x: Tensor, cond=None) -> Mapped:
        return self.transform.inverse(x, cond)

    def inverse(self, y: Tensor, cond=None) -> Mapped:
        return self.transform.forward(y, cond)

    @property
    def inv(self) -> Transform:
        return self.transform


class Compose(Transform):
    """Transforms one after another in the data -> latent direction; log-determinants add up."""

    def __init__(self, *transforms: Transform) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(transforms)

    def forward(self, x: Tensor, cond=None) -> Mapped:
        return self._chain(x, [transform.forward for transform in self.transforms], cond)

    def inverse(self, y: Tensor, cond=None) -> Mapped:
        return self._chain(y, [transform.inverse for transform in reversed(self.transforms)], cond)

    @staticmethod
    def _chain(value: Tensor, maps: list, cond) -> Mapped:
        total = value.new_zeros(value.shape[0], dtype=torch.promote_types(value.dtype, torch.float32))
        for one in maps:
            value, log_det = one(value, cond)
            total = total + log_det
        return Mapped(value, total)


class Flow(nn.Module):
    """The distribution of x when ``transform.forward(x)`` is standard normal.

    Shapes: values (batch, *event); log-probabilities (batch,) in nats.
    """

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.transform = transform

    def log_prob(self, x: Tensor, cond=None) -> Tensor:
        latent, log_det = self.transform.forward(x, cond)
        return standard_normal_log_prob(latent) + log_det

    def to_latent(self, x: Tensor, cond=None) -> Tensor:
        return self.transform.forward(x, cond).value

    def from_latent(self, z: Tensor, cond=None) -> Tensor:
        return self.transform.inverse(z, cond).value

    def sample(self, shape: tuple[int, ...], cond=None, generator: torch.Generator | None = None) -> Tensor:
        """Draw samples of the full shape (batch, *event) without gradient."""
        with torch.no_grad():
            return self.rsample_and_log_prob(shape, cond, generator).value

    def rsample_and_log_prob(self, shape: tuple[int, ...], cond=None, generator: torch.Generator | None = None) -> Mapped:
        """Reparametrised samples and their exact log-probability, from one evaluation of the inverse."""
        z = torch.randn(shape, generator=generator)
        x, log_det = self.transform.inverse(z, cond)
        return Mapped(x, standard_normal_log_prob(z) - log_det)


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """Sum over all event dimensions of log N(z; 0, 1), shape (batch,)."""
    events = z.reshape(z.shape[0], -1)
    return -0.5 * (events.square().sum(-1) + events.shape[1] * math.log(2.0 * math.pi))
