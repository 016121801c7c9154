"""The table of an ablation: which variants of a recipe are trained, and which questions they answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from wavedistill.errors import WavedistillError


@dataclass
class TeacherVariant:
    """A teacher that is trained for the table, or a checkpoint.

    Attributes:
        checkpoint: its weights are used; None: train one by the table's teacher recipe.
        share: of the teachers' budget.
        set: changes of the recipe, or of the checkpoint in what has no weights; dotted name -> value.
    """

    checkpoint: str | None = None
    share: float = 1.0
    set: dict[str, Any] = field(default_factory=dict)


@dataclass
class Variant:
    """A student.

    Attributes:
        about: what it is, for the table.
        teacher: one of the table's teachers.
        set: changes of the recipe, dotted name -> value.
    """

    about: str
    teacher: str
    set: dict[str, Any] = field(default_factory=dict)


@dataclass
class Question:
    """What some variants answer.

    Attributes:
        variants: beside the reference.
        reference: the variant that they are compared with; None: the table's.
    """

    variants: list[str]
    reference: str | None = None


@dataclass
class AblationTable:
    """What to compare.

    Attributes:
        teacher_recipe, student_recipe: YAML files, relative to the table's.
        reference: the variant that the others are compared with, where a question says no other.
        questions: by their titles.
        speakers: of the data; empty: all.
        set: changes of both recipes, teacher_set of the one, student_set of the other; dotted name -> value.
    """

    teacher_recipe: str
    student_recipe: str
    reference: str
    teachers: dict[str, TeacherVariant]
    variants: dict[str, Variant]
    questions: dict[str, Question]
    speakers: list[str] = field(default_factory=list)
    set: dict[str, Any] = field(default_factory=dict)
    teacher_set: dict[str, Any] = field(default_factory=dict)
    student_set: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, variant in self.variants.items():
            check_name(variant.teacher, self.teachers, f"variants.{name}.teacher")
        check_name(self.reference, self.variants, "reference")
        for title, question in self.questions.items():
            for name in (self.reference_of(title), *question.variants):
                check_name(name, self.variants, f"questions.{title}")

    def reference_of(self, title: str) -> str:
        """The variant that those of a question are compared with."""
        return self.questions[title].reference or self.reference

    def members(self, title: str) -> list[str]:
        """A question's reference and variants, in the table's order."""
        names = {self.reference_of(title), *self.questions[title].variants}
        return [name for name in self.variants if name in names]


def check_name(name: str, names: Iterable[str], where: str) -> None:
    """Raise WavedistillError where ``name`` is none of ``names``."""
    if name not in names:
        raise WavedistillError(f"{where}: no '{name}' in the table. It has: {', '.join(names)}.")
