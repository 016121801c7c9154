"""Exponential moving average of a model's weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class EMA:
    """Float32 moving average of the trainable parameters, with a decay that warms up.

    After ``t`` updates the decay is ``min(decay, (1 + t) / (10 + t))``, so that early averages are not dominated by the
    random start. Frozen parameters and buffers are not averaged.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._average = {name: p.detach().float().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the current weights, which ``step`` optimizer steps have made."""
        decay = min(self.decay, (1 + step) / (10 + step))
        weights = [p.detach().float() for p in self._parameters.values()]
        torch._foreach_lerp_(list(self._average.values()), weights, 1.0 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within this context the model holds the averaged weights."""
        own = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._copy_in(self._average)
        try:
            yield
        finally:
            self._copy_in(own)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by parameter name."""
        return self._average

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over averages written by :meth:`state_dict`."""
        for name, average in self._average.items():
            average.copy_(state[name])

    @torch.no_grad()
    def _copy_in(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(values[name])
