"""Means of logged values, summed on the device so that no step waits for them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from wavedistill.distributed import Ranks


class Meter:
    """Running means by name."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add one scalar per name."""
        for name, value in values.items():
            value = torch.as_tensor(value).detach().double()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def flush(self, ranks: Ranks) -> dict[str, float]:
        """Means since the last flush, over all processes (which must have logged the same names)."""
        names = list(self._sums)
        if not names:
            return {}
        means = ranks.mean(torch.stack([self._sums[name] / self._counts[name] for name in names]))
        self._sums = {}
        self._counts = {}
        return dict(zip(names, means.tolist(), strict=True))
