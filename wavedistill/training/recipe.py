"""Recipes: everything that defines a run, read from YAML with overrides from the command line."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from wavedistill.config import load_yaml
from wavedistill.data.dataset import DataConfig
from wavedistill.errors import WavedistillError
from wavedistill.losses.distillation import DistillationConfig
from wavedistill.models.parallel_wavenet import ParallelWaveNetConfig
from wavedistill.models.waveform_flow import WaveformFlowConfig
from wavedistill.models.wavenet import WaveNetConfig
from wavedistill.training.config import OptimConfig, RunConfig


@dataclass(kw_only=True)
class TeacherRecipe:
    """A teacher: which model, on which data, trained how."""

    model: WaveNetConfig
    data: DataConfig
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig


@dataclass(kw_only=True)
class StudentRecipe:
    """A student: which model, distilled from which teacher, by which loss, on which data."""

    model: ParallelWaveNetConfig
    data: DataConfig
    loss: DistillationConfig = field(default_factory=DistillationConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig
    teacher: str = "speech-teacher"
    """Checkpoint of the teacher: a folder, a run folder or a bundled name."""
    start_from: str | None = None
    """A student, of any shape, whose conditioning network and pitch predictor this one starts with (default: the
    teacher's conditioning).
    """


@dataclass(kw_only=True)
class FlowRecipe:
    """A one-stage flow: which model, on which data, trained how. No teacher."""

    kind: Literal["waveform_flow"]
    """Tells the file from a teacher's."""
    model: WaveformFlowConfig
    data: DataConfig
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig


Recipe = TeacherRecipe | StudentRecipe | FlowRecipe


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe's YAML file; one with a ``teacher`` or a ``loss`` is a student's, one with ``kind: waveform_flow``
    a flow's.

    Args:
        path: the file.
        overrides: as on the command line, for example ``["--run.minutes", "5", "--optim.lr=3e-4"]``.

    Raises:
        WavedistillError: for a missing file, an unknown key or flag (with the closest known one), a wrong type.
    """
    return override(load_yaml(path, recipe_type(path)), overrides)


def recipe_type(path: str | Path) -> type[Recipe]:
    """What kind of recipe a file holds; a teacher's where it cannot be read: `load_recipe` says what is wrong."""
    try:
        values = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError):
        values = None
    keys = values.keys() if isinstance(values, dict) else set()
    if "kind" in keys:
        return FlowRecipe
    return StudentRecipe if {"teacher", "loss"} & keys else TeacherRecipe


def override(recipe: Any, overrides: Sequence[str]) -> Any:
    """The recipe with dotted command-line options applied to it."""
    if not overrides:
        return recipe
    known = _option_names(recipe)
    for argument in overrides:
        name = argument.split("=")[0].replace("_", "-")
        # "--no-run.compile" and "--run.no-compile" are tyro's way of saying False
        positive = re.sub(r"(^--|\.)no-", r"\1", name)
        if name.startswith("--") and not {name, positive} & known and name != "--help":
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f" Did you mean {close[0].replace('-', '_').replace('__', '--', 1)}?" if close else ""
            raise WavedistillError(f"unknown option {argument.split('=')[0]}.{hint}")
    import tyro

    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):
            return tyro.cli(type(recipe), default=recipe, args=list(overrides), config=(tyro.conf.AvoidSubcommands,))
    except SystemExit as stop:
        if stop.code == 0:  # --help
            raise
        # a box with a title line; the first paragraph says what is wrong
        lines = [line.strip("│╭╮╰╯─ ") for line in messages.getvalue().splitlines()]
        text = " ".join(line for line in lines[1:] if line).split(" Got errors:")[0].split(" For full helptext")[0]
        raise WavedistillError(f"cannot use {' '.join(overrides)}: {text}") from None


def _option_names(values: Any, prefix: str = "--") -> set[str]:
    if dataclasses.is_dataclass(values):
        values = {item.name: getattr(values, item.name) for item in dataclasses.fields(values)}
    names: set[str] = set()
    for key, value in values.items():
        name = f"{prefix}{key}".replace("_", "-")
        is_group = dataclasses.is_dataclass(value) or (isinstance(value, dict) and value)
        names |= _option_names(value, f"{name}.") if is_group else {name}
    return names
