"""Fit a flow to a two-dimensional density by maximum likelihood, in seconds on one core.

Example:
    >>> from wavedistill.playground import fit_density
    >>> fit = fit_density("realnvp", "two_moons", depth=2, steps=20)
    >>> fit.steps, len(fit.flow.transform) == 2, fit.nats > fit.entropy
    (20, True, True)
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wavedistill.errors import WavedistillError
from wavedistill.flows import Flow
from wavedistill.playground.densities import DENSITIES, Density
from wavedistill.playground.families import FAMILIES, Family

HELD_OUT = 10_000
HELD_OUT_SEED = 1
REPORTS = 25
WARM_UP = 0.05
MAX_GRADIENT_NORM = 5.0


class Progress(NamedTuple):
    """A training's state.

    Attributes:
        share: of the training that is done, 0 to 1.
        step: optimiser steps so far.
        seconds: of training so far.
        train_nats: mean negative log-likelihood of the batches since the last report.
        held_out_nats: the same of samples that are in no batch.
    """

    share: float
    step: int
    seconds: float
    train_nats: float
    held_out_nats: float


@dataclass(frozen=True)
class Fit:
    """A trained flow and how well it models its density.

    Attributes:
        flow: in eval mode.
        nats: mean negative log-likelihood of `HELD_OUT` fresh samples; the density's entropy is its lower bound.
        standard_error: of ``nats``.
        gap: KL(density || flow) in nats, estimated on the same samples: mean of log p(x) - log q(x).
        gap_standard_error: of ``gap``.
        seconds, cpu_seconds: of training; on a busy machine the first is longer.
        skipped: steps left out because the loss or a gradient was not finite.
        history: the training's reports.
    """

    flow: Flow
    family: str
    density: str
    depth: int
    steps: int
    seed: int
    parameters: int
    nats: float
    standard_error: float
    gap: float
    gap_standard_error: float
    entropy: float
    seconds: float
    cpu_seconds: float
    skipped: int
    history: tuple[Progress, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything but the flow; numbers that are not finite are null."""
        values = {
            field.name: getattr(self, field.name) for field in fields(self) if field.name not in ("flow", "history")
        }
        values["history"] = [progress._asdict() for progress in self.history]
        return _finite(values)


def fit_density(
    family: str,
    density: str,
    depth: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    seconds: float | None = None,
) -> Fit:
    """Train a flow of a family on a density; arguments as in `training`."""
    run = training(family, density, depth, steps, seed, seconds)
    while True:
        try:
            next(run)
        except StopIteration as end:
            return end.value


def training(
    family: str,
    density: str,
    depth: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    seconds: float | None = None,
) -> Generator[Progress, bool | None, Fit]:
    """Train and report on the way: a generator of `Progress` that returns the `Fit`.

    ``send(True)`` in answer to a report ends the training there, with a `Fit` of what has been learned; ``close()``
    drops it.

    Adam with a warm-up and a cosine to zero, fresh samples in every batch. The same seed, depth and steps give the same
    flow.

    Args:
        family: key of `FAMILIES`.
        density: key of `DENSITIES`.
        depth: number of layers (of blocks, for families whose layer is several transforms); None: the family's own.
        steps: of the optimiser; None: the family's own, or without limit if ``seconds`` is given.
        seed: of weights and batches.
        seconds: stop after this time.

    Raises:
        WavedistillError: for an unknown name or a number out of range.
    """
    kind = find(FAMILIES, family, "flow family")
    target = find(DENSITIES, density, "density")
    depth = kind.depth if depth is None else depth
    for name, value in (("depth", depth), ("steps", steps), ("seconds", seconds)):
        if value is not None and not value > 0:
            raise WavedistillError(f"{name} must be above 0, got {value}")
    if steps is None and seconds is None:
        steps = kind.steps
    return _training(kind, target, depth, steps, seed, seconds)


def find(known: dict[str, Any], name: str, what: str) -> Any:
    """``known[name]``, or an error that lists what there is."""
    if name not in known:
        raise WavedistillError(f"there is no {what} {name!r}: choose from {', '.join(known)}")
    return known[name]


def _training(
    kind: Family, target: Density, depth: int, steps: int | None, seed: int, seconds: float | None
) -> Generator[Progress, bool | None, Fit]:
    random = _OwnRandomness(seed)
    with random:
        flow = Flow(kind.build(depth))
    optimizer = torch.optim.Adam(flow.parameters(), lr=kind.learning_rate, betas=(0.9, 0.99))
    batches = torch.Generator().manual_seed(2 * seed)  # even; the held-out samples' seed is odd
    held_out = target.sample(HELD_OUT, torch.Generator().manual_seed(HELD_OUT_SEED))
    history: list[Progress] = []
    step = 0
    skipped = 0
    reported = 0
    share = 0.0
    spent = 0.0
    cpu = 0.0
    losses: list[float] = []
    while share < 1.0:
        began = time.perf_counter()
        cpu_began = time.process_time()
        with random:
            warm_up = min(1.0, (share + 1e-3) / WARM_UP)
            cosine = 0.5 * (1.0 + math.cos(math.pi * share))
            for group in optimizer.param_groups:
                group["lr"] = kind.learning_rate * warm_up * cosine
            loss = train_step(flow, optimizer, target.sample(kind.batch_size, batches))
        step += 1
        skipped += not math.isfinite(loss)
        losses.append(loss)
        spent += time.perf_counter() - began
        cpu += time.process_time() - cpu_began
        share = max(step / steps if steps else 0.0, spent / seconds if seconds else 0.0)
        if share >= (reported + 1) / REPORTS:
            reported = int(share * REPORTS)
            finite = [value for value in losses if math.isfinite(value)]
            mean = sum(finite) / len(finite) if finite else math.nan
            report = Progress(min(share, 1.0), step, spent, mean, float(-log_probs(flow, held_out[:2000]).mean()))
            history.append(report)
            losses = []
            if (yield report):
                break
    flow.eval()
    model = log_probs(flow, held_out)
    truth = target.log_prob(held_out).double()
    error = 1.0 / math.sqrt(HELD_OUT)
    return Fit(
        flow=flow,
        family=kind.name,
        density=target.name,
        depth=depth,
        steps=step,
        seed=seed,
        parameters=sum(p.numel() for p in flow.parameters()),
        nats=float(-model.mean()),
        standard_error=float(model.std()) * error,
        gap=float((truth - model).mean()),
        gap_standard_error=float((truth - model).std()) * error,
        entropy=target.entropy,
        seconds=spent,
        cpu_seconds=cpu,
        skipped=skipped,
        history=tuple(history),
    )


def train_step(flow: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> float:
    """One step on the mean negative log-likelihood, which is returned.

    There is no step, and NaN is returned, if the likelihood or a gradient is not finite.
    """
    flow.train()
    loss = -flow.log_prob(x).mean()
    optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(flow.parameters(), MAX_GRADIENT_NORM)
    if not bool(torch.isfinite(loss) & torch.isfinite(norm)):
        return math.nan
    optimizer.step()
    return float(loss.detach())


@torch.no_grad()
def log_probs(flow: Flow, x: Tensor) -> Tensor:
    """Log-densities (count,) in float64 of the flow in eval mode."""
    flow.eval()
    return torch.cat([flow.log_prob(part) for part in x.split(2500)]).double()


class _OwnRandomness:
    """A state of its own for torch's global generator, for layers that draw from it; afterwards the old one is back."""

    def __init__(self, seed: int) -> None:
        self._own = torch.Generator().manual_seed(seed).get_state()

    def __enter__(self) -> None:
        self._others = torch.get_rng_state()
        torch.set_rng_state(self._own)

    def __exit__(self, *_: object) -> None:
        self._own = torch.get_rng_state()
        torch.set_rng_state(self._others)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
