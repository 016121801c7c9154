"""A task that trains in milliseconds, for the tests of the training loop. Run as a script, it trains it."""

from __future__ import annotations

import os
import signal
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wavedistill.training import metrics_file
from wavedistill.training.checkpoint import load_state, state_path
from wavedistill.training.config import OptimConfig, RunConfig
from wavedistill.training.loop import fit
from wavedistill.training.task import Sample


@dataclass
class ToyModelConfig:
    width: int = 8
    mel: None = None


@dataclass
class ToyDataConfig:
    batch_size: int = 4


@dataclass(kw_only=True)
class ToyRecipe:
    model: ToyModelConfig = field(default_factory=ToyModelConfig)
    data: ToyDataConfig = field(default_factory=ToyDataConfig)
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-2, warmup_steps=3))
    run: RunConfig


@dataclass
class ToyBatch:
    audio: Tensor
    mel: Tensor | None = None


class ToyModel(nn.Module):
    sample_rate = 16000
    hop_length = 256

    def __init__(self, config: ToyModelConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.Sequential(nn.Linear(16, config.width), nn.Tanh(), nn.Linear(config.width, 16))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class ToyDataset:
    """Batches addressed by (seed, index); ranks share one batch."""

    def __init__(self) -> None:
        self.served: list[int] = []

    def batch(self, step: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> ToyBatch:
        self.served.append(step)
        generator = torch.Generator().manual_seed(1000 * seed + step)
        audio = torch.rand(batch_size, 16, generator=generator) - 0.5
        share = batch_size // world_size
        return ToyBatch(audio[rank * share : (rank + 1) * share])


class ToyTask(nn.Module):
    """Learns to copy its input, with noise from torch's global generator.

    Args:
        signals: signal number to send to this process, by the step in which it is sent.
    """

    def __init__(self, config: ToyModelConfig, noise: float = 0.1, signals: dict[int, int] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = ToyModel(config)
        self.noise = noise
        self.signals = signals or {}
        self.discriminators = None
        self.frozen = nn.Linear(2, 2).requires_grad_(False)

    def forward(self, batch: ToyBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        if step in self.signals:
            os.kill(os.getpid(), self.signals.pop(step))
        target = batch.audio
        error = (self.model(target + self.noise * torch.randn_like(target)) - target).float()
        loss = error.square().mean()
        return loss, {"absolute_error": error.detach().abs().mean()}

    def validate(self, dataset: ToyDataset, num_batches: int) -> dict[str, float]:
        assert not self.model.training
        losses = [self(dataset.batch(i, 4, seed=99), 10**9)[0] for i in range(num_batches)]
        return {"loss": float(torch.stack(losses).mean())}

    def samples(self, dataset: ToyDataset) -> list[Sample]:
        return [Sample("tone", 0.5 * torch.sin(torch.arange(4096) / 8))]


def save_toy(model: nn.Module, folder: Path, **ignored: Any) -> None:
    """Stands in for save_pretrained, which knows the real models only."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), Path(folder) / "weights.pt")


def run_files(folder: Path) -> list[str]:
    """Every file of a run folder, by its path inside it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what depends on the clock."""
    clock = ("elapsed", "steps_per_second", "audio_seconds_per_second")
    lines = metrics_file.read_metrics(folder / metrics_file.METRICS_FILE)
    return [{key: value for key, value in line.items() if key not in clock} for line in lines]


def assert_same_training(one: Path, other: Path, kinds: tuple[str, ...] = ("train", "valid")) -> None:
    """Bitwise equal weights, optimizer, average and metrics after ten steps."""
    states = [load_state(state_path(folder, 10)) for folder in (one, other)]
    for name in ("model", "optimizer", "ema"):
        leaves = [torch.utils._pytree.tree_flatten(state[name])[0] for state in states]
        assert len(leaves[0]) == len(leaves[1]) > 0
        for a, b in zip(*leaves, strict=True):
            assert torch.equal(a, b) if isinstance(a, Tensor) else a == b
    metrics = [[line for line in read_metrics(folder) if line["kind"] in kinds] for folder in (one, other)]
    assert metrics[0] == metrics[1] and len(metrics[0]) >= 10


def recipe(folder: Path | str, **run: Any) -> ToyRecipe:
    options = {"steps": 10, "save_every": 5, "save_minutes": None, "log_every": 1, "wandb": "off", "device": "cpu"}
    options |= {"validate_every": 5, "sample_every": 10, "validate_batches": 2}
    return ToyRecipe(run=RunConfig(dir=str(folder), **options | run))


def main(folder: str, steps: str, noise: str, kill_at: str) -> None:
    """Train; ``kill_at`` is the step in which the process kills itself with SIGKILL, or -1."""
    signals = {int(kill_at): signal.SIGKILL} if int(kill_at) >= 0 else {}
    task = ToyTask(ToyModelConfig(), float(noise), signals)
    fit(task, ToyDataset(), ToyDataset(), recipe(folder, steps=int(steps)))


def run_as_script(function: Callable[..., None]) -> None:
    """Call it with the script's arguments, in a process that saves toys."""
    toy = types.SimpleNamespace(save_pretrained=save_toy)
    sys.modules["wavedistill.models.pretrained"] = toy  # type: ignore[assignment]
    torch.set_num_threads(1)
    function(*sys.argv[1:])


if __name__ == "__main__":
    run_as_script(main)
