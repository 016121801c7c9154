"""Several processes on one job, as started by torchrun, and devices by name."""

from __future__ import annotations

import datetime
import gc
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


def resolve_device(name: str, ranks: Ranks | None = None, option: str = "--device") -> torch.device:
    """The device that a name means: ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Args:
        ranks: with several processes on one machine, ``cuda`` is a GPU of its own for each. It becomes the process's
            current one.
        option: where the name came from, for the error.

    Raises:
        WavedistillError: for an unknown name, or a GPU that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        if ranks is None:
            return torch.device(name)
    try:
        device = torch.device(name)
    except RuntimeError:
        raise WavedistillError(f"unknown device {name!r}: give auto, cpu, cuda or cuda:N as {option}") from None
    if device.type != "cuda":
        return device
    if ranks is not None and device.index is None:
        device = torch.device("cuda", ranks.local_rank)
    if not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count():
        raise WavedistillError(
            f"there is no device {device} here ({torch.cuda.device_count()} CUDA devices): try {option} cpu"
        )
    if ranks is not None:
        torch.cuda.set_device(device)
    return device


def join(ranks: Ranks, device: torch.device) -> bool:
    """Join the other processes. Returns whether this call did it, so that the caller leaves again."""
    if ranks.world_size == 1 or dist.is_initialized():
        return False
    # rank 0 validates and writes samples alone, which can take minutes on a CPU
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=datetime.timedelta(hours=2))
    return True


def leave() -> None:
    """Leave the group that :func:`join` joined.

    Nothing may keep it until the interpreter ends: freed there, it can abort the process.
    """
    gc.collect()
    dist.destroy_process_group()


def _collective_device() -> str:
    return "cuda" if dist.get_backend() == "nccl" else "cpu"
