"""The toolbox's transforms in torch.distributions.

Example:
    >>> import torch
    >>> from torch.distributions import Independent, Normal, TransformedDistribution
    >>> from wavedistill.flows import Scale, TorchTransform
    >>> base = Independent(Normal(torch.zeros(3), torch.ones(3)), 1)
    >>> wide = TransformedDistribution(base, [TorchTransform(Scale(0.5).inv)])  # x = 2 z
    >>> wide.log_prob(torch.zeros(5, 3)).shape
    torch.Size([5])
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.distributions import Transform as DistributionTransform
from torch.distributions import constraints

from wavedistill.flows.transform import Transform


class TorchTransform(DistributionTransform):
    """A `Transform` as a torch.distributions.Transform; torch's name for our ``forward`` is a call.

    A flow's samples come from its inverse, so `TransformedDistribution` wants ``TorchTransform(flow.transform.inv)``.

    Args:
        transform: the bijection.
        cond: its condition, fixed.
        event_dim: 1 for vectors, 2 for waveforms (channels, samples).
        cache_size: 1 keeps the last pair of values with its log-determinant, which saves one evaluation in ``log_prob``
            of a fresh sample.

    Shapes: any number of batch axes before the event's.
    """

    bijective = True

    def __init__(self, transform: Transform, cond: Any = None, event_dim: int = 1, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.transform = transform
        self.cond = cond
        self.domain = self.codomain = constraints.independent(constraints.real, event_dim)
        self._last: tuple[Tensor, Tensor, Tensor] | None = None

    def with_cache(self, cache_size: int = 1) -> TorchTransform:
        return TorchTransform(self.transform, self.cond, self.domain.event_dim, cache_size)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        if self._last is not None and self._last[0] is x and self._last[1] is y:
            return self._last[2]
        return self._map(x, inverse=False)[1]

    def _call(self, x: Tensor) -> Tensor:
        y, log_det = self._map(x, inverse=False)
        self._last = (x, y, log_det) if self._cache_size else None
        return y

    def _inverse(self, y: Tensor) -> Tensor:
        x, log_det = self._map(y, inverse=True)
        self._last = (x, y, -log_det) if self._cache_size else None
        return x

    def _map(self, value: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        batch = value.shape[: value.dim() - self.domain.event_dim]
        event = value.shape[value.dim() - self.domain.event_dim :]
        direction = self.transform.inverse if inverse else self.transform.forward
        mapped, log_det = direction(value.reshape(-1, *event), self.cond)
        return mapped.reshape(*batch, *mapped.shape[1:]), log_det.reshape(batch)
