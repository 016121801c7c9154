"""Several processes on one job, as started by torchrun."""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from wavedistill.errors import WavedistillError


@dataclass(frozen=True)
class Ranks:
    """This process among those of the job. Without torchrun there is one: rank 0 of 1."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes files, validates and shows progress."""
        return self.rank == 0

    def maximum(self, values: list[float]) -> list[float]:
        """Element-wise maximum over the processes."""
        if self.world_size == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=_collective_device())
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tensor.tolist()

    def mean(self, values: Tensor) -> Tensor:
        """Element-wise mean over the processes."""
        if self.world_size > 1:
            dist.all_reduce(values)
            values = values / self.world_size
        return values


def current_ranks() -> Ranks:
    """What torchrun says about this process, from its environment variables."""
    return Ranks(
        rank=int(os.environ.get("RANK", 0)),
        world_size=int(os.environ.get("WORLD_SIZE", 1)),
        local_rank=int(os.environ.get("LOCAL_RANK", 0)),
    )


def pick_device(device: str, ranks: Ranks) -> torch.device:
    """The device of this process: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        picked = torch.device(name)
    except RuntimeError:
        raise WavedistillError(f"run.device '{device}' is unknown. Use auto, cpu, cuda or cuda:N.") from None
    if picked.type == "cuda":
        if not torch.cuda.is_available():
            raise WavedistillError(f"run.device is '{device}', but torch sees no GPU. Use --run.device cpu.")
        picked = torch.device("cuda", ranks.local_rank if picked.index is None else picked.index)
        if picked.index >= torch.cuda.device_count():
            raise WavedistillError(
                f"{picked} is needed, but torch sees {torch.cuda.device_count()} GPU(s). Start fewer processes, "
                "or give another device."
            )
        torch.cuda.set_device(picked)
    return picked


def join(ranks: Ranks, device: torch.device) -> bool:
    """Join the other processes. Returns whether this call did it, so that the caller leaves again."""
    if ranks.world_size == 1 or dist.is_initialized():
        return False
    # rank 0 validates and writes samples alone, which can take minutes on a CPU
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=datetime.timedelta(hours=2))
    return True


def leave() -> None:
    """Leave the group that :func:`join` joined."""
    dist.destroy_process_group()


def _collective_device() -> str:
    return "cuda" if dist.get_backend() == "nccl" else "cpu"
