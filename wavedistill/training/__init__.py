"""Training of teachers, students and one-stage flows: recipes, the loop, and what a run leaves behind.

A run folder holds::

    config.yaml                       the recipe, as it was run
    metrics.jsonl                     one line {"step", "kind", "elapsed", ...} for each log and validation
    samples/step-XXXXXXX/             audio and mel pictures
    state/step-XXXXXXX.pt             training state, to resume
    checkpoint/                       averaged weights, to use
    wandb/                            Weights & Biases, where it is on
"""

from __future__ import annotations

from wavedistill.training.loop import fit
from wavedistill.training.recipe import FlowRecipe, StudentRecipe, TeacherRecipe, load_recipe, recipe_type
from wavedistill.training.runs import distill_student, train_flow, train_teacher
from wavedistill.training.signals import TrainingInterrupted

__all__ = [
    "FlowRecipe",
    "StudentRecipe",
    "TeacherRecipe",
    "TrainingInterrupted",
    "distill_student",
    "fit",
    "load_recipe",
    "recipe_type",
    "train_flow",
    "train_teacher",
]
