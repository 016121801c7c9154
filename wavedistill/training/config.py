"""Options of a training run that teacher and student share; a recipe (``recipe.py``) holds them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from wavedistill.distributed import Ranks
from wavedistill.errors import WavedistillError, check_number


@dataclass
class OptimConfig:
    """AdamW and Muon, their schedule, gradient clipping and the moving average of the weights."""

    lr: float = 1e-3
    """Peak learning rate, reached after the warm-up."""
    muon_lr: float = 0.0
    """Peak learning rate of Muon for the networks' hidden matrices; 0: AdamW for all."""
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    """Decoupled weight decay of the matrices and kernels (never of biases and gains)."""
    clip_norm: float = 1.0
    """Largest global norm of a gradient; longer ones are scaled down to it."""
    warmup_steps: int = 500
    """Steps in which the learning rate rises linearly from nearly 0 to ``lr``."""
    decay: Literal["cosine", "linear", "exponential", "constant"] = "cosine"
    """How the learning rate falls over the run, from ``lr`` to ``lr * final_lr_ratio``."""
    final_lr_ratio: float = 0.01
    ema: float = 0.9999
    """Decay of the moving average after t steps: min(ema, (1 + t) / (10 + t)). 0 keeps the newest weights."""

    def __post_init__(self) -> None:
        for name in ("lr", "clip_norm"):
            check_number(f"optim.{name}", getattr(self, name), above=True)
        for name in ("muon_lr", "weight_decay", "warmup_steps", "final_lr_ratio"):
            check_number(f"optim.{name}", getattr(self, name))
        check_number("optim.ema", self.ema, below=1.0)
        for index, beta in enumerate(self.betas):
            check_number(f"optim.betas[{index}]", beta, below=1.0)


@dataclass(kw_only=True)
class RunConfig:
    """Where a run writes, how long it lasts and how it computes."""

    dir: str
    """The run folder: configuration, metrics, samples, training state and the checkpoint to use."""
    steps: int = 100_000
    minutes: float | None = None
    """Time budget over all resumes. The schedule follows max(step / steps, elapsed / minutes)."""
    seed: int = 0
    device: str = "auto"
    """auto (CUDA where there is one), cpu, cuda or cuda:N."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    """auto: bf16 where the device has instructions for it, else fp32."""
    compile: bool = False
    """Compile the task's forward with torch.compile."""
    accumulate: int = 1
    """Batches whose gradients are averaged into one step."""
    log_every: int = 50
    validate_every: int = 1000
    validate_batches: int = 8
    sample_every: int = 5000
    save_every: int = 1000
    save_minutes: float | None = 10.0
    """Save as well when this long has passed since the last save."""
    keep: int = 3
    """Newest training states that are kept."""
    resume: str = "auto"
    """auto: continue where the run folder has state; never: refuse such a folder; or a state file or run folder to
    start from (the run folder's own state wins, so the same command also continues)."""
    init_from: str | None = None
    """Fine-tuning, or a last stage with other terms: a checkpoint all of whose weights a fresh run starts from."""
    init_resize: bool = False
    """Let ``init_from`` be of another size, say of another sample rate: what fits is taken, the rest starts fresh."""
    wandb: Literal["auto", "off"] = "auto"
    """auto: Weights & Biases, offline where no key is set."""
    wandb_project: str = "wavedistill"


def check_run(config: RunConfig, batch_size: int, device: torch.device, ranks: Ranks) -> None:
    """Refuse options with which no run can work.

    Raises:
        WavedistillError: names the option and what it must be.
    """
    for name in ("steps", "accumulate", "log_every", "validate_every", "sample_every", "save_every", "keep"):
        if getattr(config, name) < 1:
            raise WavedistillError(f"run.{name} is {getattr(config, name)}; it must be at least 1.")
    for name in ("minutes", "save_minutes"):
        if getattr(config, name) is not None and not 0 < getattr(config, name) < math.inf:
            raise WavedistillError(f"run.{name} is {getattr(config, name)}; it must be above 0, or null for none.")
    if config.precision == "fp16" and device.type == "cpu":
        raise WavedistillError("run.precision fp16 needs a GPU. Use --run.precision auto, bf16 or fp32 on a CPU.")
    if batch_size % ranks.world_size:
        raise WavedistillError(
            f"data.batch_size {batch_size} cannot be shared by {ranks.world_size} processes. Give a multiple of it."
        )
