"""A task with hidden matrices for Muon that trains in milliseconds. Run as a script, it trains it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from helpers.training_toy import ToyDataset, ToyModel, ToyModelConfig, ToyRecipe, ToyTask, recipe, run_as_script
from wavedistill.nn.wavenet_stack import StackConfig, WaveNetStack
from wavedistill.training.config import OptimConfig
from wavedistill.training.loop import fit

STACK = StackConfig(num_layers=2, num_cycles=1, kernel_size=2, channels=4, skip_channels=6)


class StackModel(ToyModel):
    """`ToyModel` and a `WaveNetStack` over the samples."""

    def __init__(self, config: ToyModelConfig) -> None:
        super().__init__(config)
        self.stack = WaveNetStack(1, 1, STACK)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + self.stack(x.unsqueeze(-1)).squeeze(-1)


class MuonToy(ToyTask):
    """`ToyTask` with a `StackModel`."""

    def __init__(self, noise: float = 0.1, signals: dict[int, int] | None = None) -> None:
        super().__init__(ToyModelConfig(), noise, signals)
        self.model = StackModel(ToyModelConfig())


def muon_recipe(folder: Path | str, muon_lr: float = 0.02, **run: Any) -> ToyRecipe:
    options = recipe(folder, **run)
    options.optim = OptimConfig(lr=1e-2, muon_lr=muon_lr, warmup_steps=3)
    return options


def main(folder: str, noise: str) -> None:
    fit(MuonToy(float(noise)), ToyDataset(), ToyDataset(), muon_recipe(folder))


if __name__ == "__main__":
    run_as_script(main)
