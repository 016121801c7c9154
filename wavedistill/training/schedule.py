"""Learning rate over a run."""

from __future__ import annotations

import math

from wavedistill.training.config import OptimConfig


def progress(step: int, steps: int, elapsed: float, minutes: float | None) -> float:
    """How much of the run is done, 0 to 1: by steps or by its time budget, whichever is further on.

    Args:
        step: finished steps.
        steps: steps of the whole run.
        elapsed: seconds trained so far, over all resumes.
        minutes: time budget, or None.
    """
    by_time = elapsed / (60.0 * minutes) if minutes else 0.0
    return min(1.0, max(step / max(steps, 1), by_time))


def lr_scale(optim: OptimConfig, step: int, done: float) -> float:
    """Learning rates over their peaks in the step after ``step`` finished ones, ``done`` of the run being over.

    All are between 0 and 1.
    """
    warmup = min(1.0, (step + 1) / max(optim.warmup_steps, 1))
    if optim.decay == "cosine":
        scale = optim.final_lr_ratio + (1.0 - optim.final_lr_ratio) * 0.5 * (1.0 + math.cos(math.pi * done))
    elif optim.decay == "linear":
        scale = optim.final_lr_ratio + (1.0 - optim.final_lr_ratio) * (1.0 - done)
    elif optim.decay == "exponential":
        scale = optim.final_lr_ratio**done
    else:
        scale = 1.0
    return warmup * scale
