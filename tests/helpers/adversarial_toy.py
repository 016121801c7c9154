"""An adversarial task that trains in milliseconds. Run as a script, it trains it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from helpers.training_toy import ToyBatch, ToyDataset, ToyModelConfig, ToyTask, recipe, run_as_script
from wavedistill.nn.discriminators import DiscriminatorConfig, Discriminators
from wavedistill.training.loop import fit

DISCRIMINATOR = DiscriminatorConfig(periods=(2, 3), resolutions_ms=(), channels=2, lr=1e-2)


@dataclass
class Doubled(ToyBatch):
    """Waveforms of 32 samples, which discriminators can see: each clip of 16 twice."""

    @property
    def real(self) -> Tensor:
        return torch.cat([self.audio, self.audio], dim=1)


class AdversarialToy(ToyTask):
    """`ToyTask`, judged by discriminators as well."""

    def __init__(
        self, noise: float = 0.1, signals: dict[int, int] | None = None, config: DiscriminatorConfig = DISCRIMINATOR
    ) -> None:
        super().__init__(ToyModelConfig(), noise, signals)
        self.discriminators = Discriminators(config, 16000).requires_grad_(False)

    def made(self, batch: ToyBatch) -> Tensor:
        copy = self.model(batch.audio + self.noise * torch.randn_like(batch.audio))
        return torch.cat([copy, copy], dim=1)

    def discriminate(self, batch: ToyBatch) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            made = self.made(batch)
        fake = self.discriminators(made).scores
        real = self.discriminators(Doubled(batch.audio).real).scores
        loss = sum((r - 1).square().float().mean() + f.square().float().mean() for r, f in zip(real, fake, strict=True))
        return loss, {"discriminator_loss": loss.detach()}

    def forward(self, batch: ToyBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        loss, values = super().forward(batch, step)
        judged = sum((score - 1).square().float().mean() for score in self.discriminators(self.made(batch)).scores)
        return loss + 0.1 * judged, values | {"adversarial": judged.detach()}


def main(folder: str, noise: str) -> None:
    fit(AdversarialToy(float(noise)), ToyDataset(), ToyDataset(), recipe(folder))


if __name__ == "__main__":
    run_as_script(main)
