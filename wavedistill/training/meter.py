"""Means of logged values, summed on the device so that no step waits for them, and the speed of training."""

from __future__ import annotations

import time
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


class Speed:
    """Steps and seconds of audio per second since the last log."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._steps = 0
        self._samples = 0

    def add(self, samples: int) -> None:
        """Count a step that has seen so many samples of audio, over all processes."""
        self._steps += 1
        self._samples += samples

    def flush(self, sample_rate: int) -> dict[str, float]:
        """``steps_per_second`` and ``audio_seconds_per_second`` since the last flush."""
        now = time.monotonic()
        seconds = now - self._since
        values = {
            "steps_per_second": self._steps / seconds,
            "audio_seconds_per_second": self._samples / sample_rate / seconds,
        }
        self._since = now
        self._steps = self._samples = 0
        return values
