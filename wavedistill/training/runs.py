"""From a recipe to a run: data, model and task put together and handed to the loop."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from wavedistill.data.dataset import SpeechDataset
from wavedistill.distributed import current_ranks, resolve_device
from wavedistill.errors import WavedistillError
from wavedistill.models.base import WaveformModel
from wavedistill.models.parallel_wavenet import ParallelWaveNet
from wavedistill.models.pretrained import load_pretrained
from wavedistill.models.waveform_flow import WaveformFlow
from wavedistill.models.wavenet import WaveNet
from wavedistill.training.checkpoint import list_states
from wavedistill.training.distill import DistillTask, check_teacher, inherit
from wavedistill.training.flow import FlowTask
from wavedistill.training.loop import fit
from wavedistill.training.recipe import (
    FlowRecipe,
    Recipe,
    StudentRecipe,
    TeacherRecipe,
    load_recipe,
    override,
)
from wavedistill.training.run_card import run_card
from wavedistill.training.task import Task
from wavedistill.training.teacher import TeacherTask

logger = logging.getLogger(__name__)


def train_teacher(recipe: TeacherRecipe | str | Path, overrides: Sequence[str] = ()) -> Path:
    """Train a WaveNet on recordings, or continue to.

    Args:
        recipe: a recipe or the path of its YAML file.
        overrides: options as on the command line, for example ``["--run.dir", "runs/teacher", "--run.minutes", "30"]``.

    Returns:
        The run folder; it can be used as a checkpoint.
    """
    recipe = _resolve(recipe, overrides, TeacherRecipe, "train_teacher", "wavedistill distill")
    torch.manual_seed(recipe.run.seed)
    model = WaveNet(recipe.model)
    return _fit(TeacherTask(model, recipe.loss), recipe)


def train_flow(recipe: FlowRecipe | str | Path, overrides: Sequence[str] = ()) -> Path:
    """Train a WaveformFlow on recordings by maximum likelihood, without a teacher, or continue to.

    Args:
        recipe: a recipe or the path of its YAML file.
        overrides: options as on the command line.

    Returns:
        The run folder; it can be used as a checkpoint.
    """
    recipe = _resolve(recipe, overrides, FlowRecipe, "train_flow", "a recipe with kind: flow")
    torch.manual_seed(recipe.run.seed)
    model = WaveformFlow(recipe.model)
    return _fit(FlowTask(model), recipe, with_f0=model.pitch is not None)


def distill_student(
    recipe: StudentRecipe | str | Path, teacher: str | Path | None = None, overrides: Sequence[str] = ()
) -> Path:
    """Distil a ParallelWaveNet from a trained teacher, or continue to.

    Args:
        recipe: a recipe or the path of its YAML file.
        teacher: the teacher's checkpoint (folder, run folder or bundled name); the recipe's own by default.
        overrides: options as on the command line.

    Returns:
        The run folder; it can be used as a checkpoint.
    """
    recipe = _resolve(recipe, overrides, StudentRecipe, "distill_student", "wavedistill train")
    if teacher is not None:
        recipe = dataclasses.replace(recipe, teacher=str(teacher))
    torch.manual_seed(recipe.run.seed)
    model = ParallelWaveNet(recipe.model)
    device = resolve_device(recipe.run.device, current_ranks(), "--run.device")
    given = load_pretrained(recipe.teacher, device)
    if given.role != "teacher":
        raise WavedistillError(
            f"teacher {recipe.teacher} is a {given.role_name}. Give the checkpoint of a teacher (a WaveNet)."
        )
    fresh = not list_states(Path(recipe.run.dir))
    inherit(model, given)
    if fresh and recipe.start_from is not None:
        donor = load_pretrained(recipe.start_from)
        if donor.role != "student" or not inherit(model, donor):
            raise WavedistillError(
                f"start_from {recipe.start_from}: a student whose conditioning network or pitch predictor has this "
                f"model's size is needed, this is a {donor.role_name}. "
                "Give another checkpoint, or leave start_from out."
            )
    warn_of_short_crops(recipe, model)
    task = DistillTask(model, given, recipe.loss)
    with_f0 = "pitch" in recipe.loss.weights
    train, valid = (_dataset(recipe, model, split, with_f0) for split in ("train", "valid"))
    if fresh and not recipe.loss.allow_weak_teacher:
        check_teacher(given, valid, recipe.teacher)
    return fit(task, train, valid, recipe, run_card(model, recipe, train))


def _fit(task: Task, recipe: Recipe, with_f0: bool = False) -> Path:
    train, valid = (_dataset(recipe, task.model, split, with_f0) for split in ("train", "valid"))
    return fit(task, train, valid, recipe, run_card(task.model, recipe, train))


def warn_of_short_crops(recipe: StudentRecipe, model: ParallelWaveNet) -> None:
    """Flows that never saw more past than a crop's silent one lose level beyond its length (recipes/speech)."""
    crop = recipe.data.segment_frames(model.sample_rate, model.hop_length) * model.hop_length
    if crop <= model.receptive_field:
        logger.warning(
            "data.segment_seconds gives crops of %.2f s, and the student sees %.2f s of the past: speech longer than "
            "the crops may come out too quiet. Give more, 1.2 for example.",
            crop / model.sample_rate,
            model.receptive_field / model.sample_rate,
        )


def _resolve(recipe, overrides: Sequence[str], expected: type, function: str, other: str):
    if isinstance(recipe, (str, Path)):
        recipe = load_recipe(recipe, overrides)
    else:
        recipe = override(recipe, overrides)
    if not isinstance(recipe, expected):
        raise WavedistillError(
            f"{function} needs a {expected.__name__}, this is a {type(recipe).__name__}. Use: {other}."
        )
    return recipe


def _dataset(recipe: Recipe, model: WaveformModel, split: str, with_f0: bool = False) -> SpeechDataset:
    data = recipe.data
    config = recipe.model
    frames = data.segment_frames(model.sample_rate, model.hop_length)
    training = split == "train"
    return SpeechDataset(
        data.manifest,
        split,
        config.mel,
        frames,
        with_f0=with_f0,
        speakers=config.speakers or None,
        gain_augment_db=data.gain_augment_db if training else 0.0,
        beginnings=data.beginnings if training else 0.0,
    )
