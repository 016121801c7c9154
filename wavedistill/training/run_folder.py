"""What a run folder tells: recipe, logged numbers, the newest samples beside their originals, and what stopped it."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from wavedistill.assets import bundled_checkpoints
from wavedistill.audio.io import load_audio
from wavedistill.errors import WavedistillError
from wavedistill.training.lock import run_lock
from wavedistill.training.metrics_file import METRICS_FILE, read_metrics
from wavedistill.training.recipe import FlowRecipe, Recipe, StudentRecipe, load_recipe
from wavedistill.training.schedule import progress

Kind = Literal["train", "valid"]


@dataclass(frozen=True)
class SamplePair:
    """A held-out recording and what the model made of it, cut to the shorter one: (samples,) each."""

    name: str
    original: Tensor
    generated: Tensor


class Samples(NamedTuple):
    """The newest samples of a run.

    Attributes:
        step: at which they were made, None where there are none.
        pairs: each sample beside its original.
        sample_rate: of both, Hz.
    """

    step: int | None
    pairs: list[SamplePair]
    sample_rate: int

    @property
    def seconds(self) -> float:
        """Length of all of them."""
        return sum(len(pair.original) for pair in self.pairs) / self.sample_rate if self.pairs else 0.0


@dataclass(frozen=True)
class RunFolder:
    """A run as it lies on disk (`read_run`).

    Attributes:
        folder: the run folder.
        recipe: its config.yaml.
        lines: of metrics.jsonl; numbers that were not finite are NaN.
        samples: the newest ones.
        nonfinite: step at which the loss was not finite and its batch was kept, if that happened.
        is_training: a process trains there now.
        idle_seconds: since the last line of metrics.jsonl was written.
    """

    folder: Path
    recipe: Recipe
    lines: list[dict[str, Any]]
    samples: Samples
    nonfinite: int | None
    is_training: bool
    idle_seconds: float

    @property
    def role(self) -> str:
        """teacher, student or one-stage flow."""
        if isinstance(self.recipe, StudentRecipe):
            return "student"
        return "one-stage flow" if isinstance(self.recipe, FlowRecipe) else "teacher"

    @property
    def step(self) -> int:
        """The last step that was logged."""
        return self.lines[-1]["step"] if self.lines else 0

    @property
    def elapsed(self) -> float:
        """Seconds trained."""
        return self.lines[-1]["elapsed"] if self.lines else 0.0

    @property
    def done(self) -> float:
        """Share of the schedule, 0 to 1."""
        run = self.recipe.run
        return progress(self.step, run.steps, self.elapsed, run.minutes)

    @property
    def objective(self) -> str:
        """The number that training brings down: ``bits`` of a teacher or a flow, a student's ``loss``.

        ``stft`` of a student where a discriminator takes part, since the loss rises when the discriminator learns.
        """
        if not isinstance(self.recipe, StudentRecipe):
            return "bits"
        return "stft" if {"adversarial", "stft"} <= self.recipe.loss.weights.keys() else "loss"

    def values(self, name: str, kind: Kind = "train") -> np.ndarray:
        """A metric by line, (lines,); NaN where it was not finite, empty where it was never logged."""
        return np.array([line[name] for line in self.lines if line["kind"] == kind and name in line], dtype=float)

    def steps(self, name: str, kind: Kind = "train") -> np.ndarray:
        """The steps of `values`."""
        return np.array([line["step"] for line in self.lines if line["kind"] == kind and name in line])

    def last(self, name: str) -> float | None:
        """The newest validation's number, else the mean of the last five logs; None where it was never logged."""
        held_out = self.values(name, "valid")
        newest = held_out[-1:] if len(held_out) else self.values(name)[-5:]
        return float(newest.mean()) if len(newest) and np.isfinite(newest).all() else None

    def command(self, *options: str, fresh_run: bool = False) -> str:
        """The command that continues this run with other options, or starts a new one beside it (``fresh_run``)."""
        verb = "distill" if isinstance(self.recipe, StudentRecipe) else "train"
        words = ["wavedistill", verb, str(self.folder / "config.yaml")]
        if fresh_run:
            words += ["--run.dir", str(self.folder.with_name(f"{self.folder.name}-again"))]
        elif Path(self.recipe.run.dir).resolve() != self.folder:
            words += ["--run.dir", str(self.folder)]
        return shlex.join([*words, *options])

    def longer(self, factor: float) -> list[str]:
        """Options that make the schedule ``factor`` times as long."""
        run = self.recipe.run
        if run.minutes is not None and self.elapsed / (60 * run.minutes) >= self.step / run.steps:
            return ["--run.minutes", f"{factor * run.minutes:g}"]
        return ["--run.steps", str(round(factor * run.steps))]


def read_run(run: str | Path) -> RunFolder:
    """Read a run folder.

    Raises:
        WavedistillError: no run folder, a broken config.yaml, or a run that has logged nothing yet.
    """
    folder = Path(run).expanduser().resolve()
    if not (folder / "config.yaml").is_file():
        what = "holds no config.yaml" if folder.is_dir() else "is no folder"
        if (folder / "config.json").is_file() or str(run) in bundled_checkpoints():
            what = "is a checkpoint"
        raise WavedistillError(
            f"{run} {what}: give the folder of a run (its recipe's run.dir), which holds config.yaml and metrics.jsonl."
        )
    recipe = load_recipe(folder / "config.yaml")
    metrics = folder / METRICS_FILE
    lines = read_metrics(metrics) if metrics.exists() else []
    idle = max(0.0, time.time() - metrics.stat().st_mtime) if metrics.exists() else 0.0
    nonfinite = _nonfinite_step(folder)
    if nonfinite is None and not any(line["kind"] == "train" for line in lines):
        raise WavedistillError(
            f"{run} has logged nothing yet: let it train for run.log_every = {recipe.run.log_every} steps, then "
            "ask again."
        )
    return RunFolder(
        folder=folder,
        recipe=recipe,
        lines=lines,
        samples=_newest_samples(folder / "samples"),
        nonfinite=nonfinite,
        is_training=_is_training(folder),
        idle_seconds=idle,
    )


def _nonfinite_step(folder: Path) -> int | None:
    """The step whose batch the loop kept because its loss was not finite."""
    steps = []
    for path in folder.glob("nonfinite-batch*.pt"):
        try:
            steps.append(int(torch.load(path, map_location="cpu", weights_only=True)["step"]))
        except Exception:  # torn, or something else of that name: that it is there says enough
            steps.append(0)
    return max(steps, default=None)


def _newest_samples(folder: Path) -> Samples:
    steps = sorted((int(path.name[5:]), path) for path in folder.glob("step-*") if path.name[5:].isdecimal())
    if not steps:
        return Samples(None, [], 0)
    step, newest = steps[-1]
    pairs = []
    rate = 0
    for original in sorted(newest.glob("*original.wav")):
        name = original.name.removesuffix("original.wav")
        for role in ("student", "flow", "teacher"):
            generated = newest / f"{name}{role}.wav"
            if generated.is_file():
                first, rate = load_audio(original)
                second, _ = load_audio(generated)
                length = min(len(first), len(second))
                pairs.append(SamplePair(name.rstrip("-") or role, first[:length], second[:length]))
    return Samples(step, pairs, rate)


def _is_training(folder: Path) -> bool:
    try:
        with run_lock(folder):
            return False
    except WavedistillError:
        return True
