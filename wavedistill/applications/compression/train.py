"""Training of the codec's network by maximum likelihood: python -m wavedistill.applications.compression.train --help

The cascade adapts by itself, so it runs once over the recordings; the network then sees samples in any order.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from wavedistill.applications.compression.features import DIFFERENCES, FEATURES, FLOOR
from wavedistill.applications.compression.model import save_codec
from wavedistill.applications.compression.network import (
    COMPONENTS,
    HIDDEN,
    LARGEST_LOG2,
    NETWORK,
    OUTPUTS,
    SHARPEST,
)
from wavedistill.applications.compression.training_data import Observations, observe

BATCH = 2048
LEARNING_RATE = 2e-3


def build_network() -> nn.Sequential:
    """The network in torch, to train: ``(batch, FEATURES) -> (batch, OUTPUTS)``.

    Its mixtures start as five components of different scales about the cascade's prediction.
    """
    network = nn.Sequential(
        nn.Linear(FEATURES, HIDDEN[0]),
        nn.ReLU(),
        nn.Linear(HIDDEN[0], HIDDEN[1]),
        nn.ReLU(),
        nn.Linear(HIDDEN[1], OUTPUTS),
    )
    with torch.no_grad():
        network[-1].weight.mul_(0.1)
        network[-1].bias.zero_()
        network[-1].bias[2 * COMPONENTS : 3 * COMPONENTS] = torch.linspace(-2.0, 1.0, COMPONENTS)
    return network


def code_length(outputs: Tensor, inputs: Tensor, errors: Tensor, scales: Tensor) -> Tensor:
    """-log2 of the probability of every sample, by the same mixture as `network.mix`.

    Shapes: outputs (batch, OUTPUTS), inputs (batch, FEATURES), errors and scales (batch,), both in steps of the grid
    -> (batch,), bits.
    """
    logits, centres, octaves, gates = outputs.split((*(3 * [COMPONENTS]), DIFFERENCES), dim=-1)
    centres = centres + (gates * inputs[:, :DIFFERENCES]).sum(-1, keepdim=True)
    unit = (scales + FLOOR)[:, None]
    scale = (unit * torch.exp2(octaves.clamp(-LARGEST_LOG2, LARGEST_LOG2))).clamp(min=SHARPEST)
    distance = (errors[:, None] - unit * centres).abs() / scale
    half = 0.5 / scale
    # sigmoid(half - d) - sigmoid(-half - d), without the cancellation where both are small
    log_mass = (
        -distance
        + half
        + torch.log(-torch.expm1(-2 * half))
        - nn.functional.softplus(half - distance)
        - nn.functional.softplus(-half - distance)
    )
    return -torch.logsumexp(torch.log_softmax(logits, -1) + log_mass, -1) / math.log(2)


def fit(training: Observations, validation: Observations, epochs: int, seed: int = 0) -> nn.Sequential:
    """Train for so many passes with Adam, the learning rate falling as a cosine; prints bits per sample."""
    from tqdm import tqdm

    torch.manual_seed(seed)
    network = build_network()
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE, betas=(0.9, 0.99))
    inputs, errors, scales = (torch.from_numpy(part) for part in (training.inputs, training.errors, training.scales))
    steps = epochs * (len(errors) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with tqdm(total=steps, desc="training", unit="step") as bar:
        for epoch in range(epochs):
            order = torch.randperm(len(errors))
            for start in range(0, len(order) - BATCH + 1, BATCH):
                chosen = order[start : start + BATCH]
                loss = code_length(network(inputs[chosen]), inputs[chosen], errors[chosen], scales[chosen]).mean()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                bar.update()
            bits = mean_bits(network, validation)
            bar.write(f"pass {epoch + 1}: " + ", ".join(f"{name} {value:.4f}" for name, value in bits.items()))
    return network


@torch.no_grad()
def mean_bits(network: nn.Sequential, observations: Observations) -> dict[str, float]:
    """Bits per sample of each speaker."""
    speakers = np.repeat(observations.names, observations.lengths)
    bits = torch.cat(
        [
            code_length(network(inputs), inputs, errors, scales)
            for inputs, errors, scales in zip(
                torch.from_numpy(observations.inputs).split(1 << 14),
                torch.from_numpy(observations.errors).split(1 << 14),
                torch.from_numpy(observations.scales).split(1 << 14),
                strict=True,
            )
        ]
    ).numpy()
    return {str(name): float(bits[speakers == name].mean()) for name in sorted(set(observations.names))}


def to_record(network: nn.Sequential) -> np.ndarray:
    """The weights as the compiled codec reads them: (1,) of `NETWORK`."""
    record = np.zeros(1, NETWORK)
    for number, layer in enumerate((network[0], network[2], network[4]), 1):
        record[f"weight_{number}"][0] = layer.weight.detach().numpy().T
        record[f"bias_{number}"][0] = layer.bias.detach().numpy()
    return record


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the network of the lossless codec.")
    parser.add_argument("manifests", nargs="+", metavar="MANIFEST", help="manifest.jsonl of prepared corpora")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="checkpoint folder")
    parser.add_argument("--clips", type=int, default=8, help="recordings of each speaker (default: %(default)d)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each recording at most (default: %(default)g)")
    parser.add_argument("--epochs", type=int, default=8, help="passes over them (default: %(default)d)")
    args = parser.parse_args(argv)
    training = observe(args.manifests, "train", args.clips, args.seconds)
    validation = observe(args.manifests, "valid", 2, args.seconds)
    save_codec(to_record(fit(training, validation, args.epochs)), args.out)


if __name__ == "__main__":
    main()
