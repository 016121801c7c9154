"""Recipes: everything that defines a run, read from YAML with overrides from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from wavedistill.config import from_dict, read_yaml
from wavedistill.data.dataset import DataConfig
from wavedistill.errors import WavedistillError
from wavedistill.losses.distillation import DistillationConfig
from wavedistill.models.parallel_wavenet import ParallelWaveNetConfig
from wavedistill.models.waveform_flow import WaveformFlowConfig
from wavedistill.models.wavenet import WaveNetConfig
from wavedistill.training.config import OptimConfig, RunConfig
from wavedistill.training.overrides import override
from wavedistill.training.teacher import LikelihoodConfig


@dataclass(kw_only=True)
class TeacherRecipe:
    """A teacher: which model, on which data, trained how."""

    kind: Literal["teacher"] = field(init=False, default="teacher")
    model: WaveNetConfig
    data: DataConfig
    loss: LikelihoodConfig = field(default_factory=LikelihoodConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig


@dataclass(kw_only=True)
class StudentRecipe:
    """A student: which model, distilled from which teacher, by which loss, on which data."""

    kind: Literal["student"] = field(init=False, default="student")
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

    kind: Literal["flow"] = field(init=False, default="flow")
    model: WaveformFlowConfig
    data: DataConfig
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig


Recipe = TeacherRecipe | StudentRecipe | FlowRecipe
_TYPES: dict[str, type[Recipe]] = {"teacher": TeacherRecipe, "student": StudentRecipe, "flow": FlowRecipe}
_OLD_KINDS = {"waveform_flow": "flow"}
_TEACHER_LOSS = {one.name for one in fields(LikelihoodConfig)}


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe's YAML file, whose ``kind`` says whether it is a teacher's, a student's or a flow's.

    Recipes and run folders of earlier versions have no ``kind``: one with a ``teacher``, or a ``loss`` that is not a
    teacher's, is a student's, any other a teacher's; a flow's kind was ``waveform_flow``.

    Args:
        path: the file.
        overrides: as on the command line, for example ``["--run.minutes", "5", "--optim.lr=3e-4"]``.

    Raises:
        WavedistillError: for a missing file, an unknown kind, key or option (with the closest known one), a wrong type.
    """
    values = read_yaml(path)
    kind = _kind(values)
    if kind not in _TYPES:
        raise WavedistillError(f"{path}.kind: {kind!r} is not one of {', '.join(map(repr, _TYPES))}.")
    if isinstance(values, dict):
        values = values | {"kind": kind}
    return override(from_dict(_TYPES[kind], values, where=str(path)), overrides)


def recipe_type(path: str | Path) -> type[Recipe]:
    """What kind of recipe a file holds; a teacher's where it cannot be read: `load_recipe` says what is wrong."""
    try:
        kind = _kind(read_yaml(path))
    except WavedistillError:
        kind = "teacher"
    return _TYPES.get(kind, TeacherRecipe)


def _kind(values: Any) -> str:
    """A recipe's kind, as it is written or as the other keys tell."""
    values = values if isinstance(values, dict) else {}
    if "kind" in values:
        kind = str(values["kind"])
        return _OLD_KINDS.get(kind, kind)
    loss = values.get("loss")
    of_teacher = "loss" not in values or (isinstance(loss, dict) and _TEACHER_LOSS & loss.keys())
    return "teacher" if of_teacher and "teacher" not in values else "student"
