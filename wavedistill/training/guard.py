"""A loss or a gradient that is not finite ends the run, and its batches are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wavedistill.errors import WavedistillError
from wavedistill.training.checkpoint import save_atomically
from wavedistill.training.state import Run

if TYPE_CHECKING:
    from wavedistill.data.dataset import Batch


class FiniteGuard:
    """Remembers, on the device, the first step whose loss or gradient was not finite.

    Args:
        run: the run it watches.
        fetch: makes a batch of this process again, by its index.
    """

    def __init__(self, run: Run, fetch: Callable[[int], Batch]) -> None:
        self._run = run
        self._fetch = fetch
        self._bad_step = torch.full((), -1, dtype=torch.int64, device=run.device)

    def note(self, finite: Tensor) -> None:
        """Note whether this step, before it changes the weights, was finite: a boolean on the device."""
        self._bad_step = torch.where(finite | (self._bad_step >= 0), self._bad_step, self._run.step)
        if self._run.device.type == "cpu":  # elsewhere looking would make every step wait
            self.check()

    def check(self) -> None:
        """Look.

        Raises:
            WavedistillError: a step was not finite; names the file that keeps its batches.
        """
        step = int(self._bad_step)
        if step < 0:
            return
        config = self._run.recipe.run
        rank = self._run.ranks.rank
        name = "nonfinite-batch.pt" if self._run.ranks.world_size == 1 else f"nonfinite-batch-rank{rank}.pt"
        path = Path(config.dir) / name
        first = step * config.accumulate
        batches = [asdict(self._fetch(index)) for index in range(first, first + config.accumulate)]
        save_atomically(path, {"step": step, "seed": config.seed, "rank": rank, "batches": batches})
        raise WavedistillError(
            f"the loss or its gradient is not finite at step {step}; the batch is kept in {path}. "
            f"Try a lower --optim.lr, or --run.precision fp32; the last save is kept: {self._run.resume_command}"
        )
