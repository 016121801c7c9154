"""Ablations: variants of one recipe, each trained alike for a small budget and measured on the same held-out clips.

A table (YAML, `AblationTable`) names the variants by what they change; `run_ablations` trains the teachers they need,
trains and measures the variants, and writes the results (`ablation_report`). Whatever is finished is not done again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from wavedistill.ablation.report import QUALITY, Outcome, write_ablation_report
from wavedistill.config import from_dict, load_yaml, to_dict
from wavedistill.data.baseline import bits_per_sample
from wavedistill.data.manifest import read_manifest, write_manifest
from wavedistill.errors import WavedistillError
from wavedistill.evaluation.quality import GROUPS
from wavedistill.evaluation.results_cache import Results
from wavedistill.evaluation.systems import Clip, LoadedModel, digest, load_clips
from wavedistill.losses.distillation import first_counted
from wavedistill.metrics.signal import missing_packages
from wavedistill.models.pretrained import fingerprint, load_pretrained
from wavedistill.training import StudentRecipe, TeacherRecipe, distill_student, load_recipe, train_teacher

SHORTEST_CLIP = 1.0


@dataclass
class TeacherVariant:
    """A teacher that is trained for the table, or a checkpoint.

    Attributes:
        checkpoint: used as it is; None: train one by the table's teacher recipe.
        share: of the teachers' budget.
        set: changes of the recipe, dotted name -> value.
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
class AblationTable:
    """What to compare.

    Attributes:
        teacher_recipe, student_recipe: YAML files, relative to the table's.
        reference: the variant that the others are compared with.
        questions: title -> the variants (beside the reference) that answer it.
        speakers: of the data; empty: all.
        set: changes of both recipes, teacher_set of the one, student_set of the other; dotted name -> value.
    """

    teacher_recipe: str
    student_recipe: str
    reference: str
    teachers: dict[str, TeacherVariant]
    variants: dict[str, Variant]
    questions: dict[str, list[str]]
    speakers: list[str] = field(default_factory=list)
    set: dict[str, Any] = field(default_factory=dict)
    teacher_set: dict[str, Any] = field(default_factory=dict)
    student_set: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, variant in self.variants.items():
            _known(variant.teacher, self.teachers, f"variants.{name}.teacher")
        _known(self.reference, self.variants, "reference")
        for title, names in self.questions.items():
            for name in names:
                _known(name, self.variants, f"questions.{title}")


@dataclass(frozen=True)
class Budget:
    """How long to train: ``seconds`` a student and ``teacher_seconds`` a teacher; or ``steps`` each."""

    seconds: float = 60.0
    teacher_seconds: float = 120.0
    steps: int | None = None

    def options(self, seconds: float, share: float) -> dict[str, Any]:
        if self.steps is not None:
            return {"run.steps": max(1, round(share * self.steps)), "run.minutes": None}
        return {"run.minutes": share * seconds / 60.0}


def run_ablations(
    table: str | Path,
    manifest: str | Path,
    runs: str | Path,
    out: str | Path,
    *,
    budget: Budget,
    only: Sequence[str] = (),
    num_clips: int = 12,
    seed: int = 0,
    device: str = "auto",
    echo: Callable[[str], None] = lambda line: None,
) -> Path:
    """Train and measure the variants of a table, and write table.md, table.json, curves.png and samples/ into ``out``.

    Args:
        table: YAML file of an `AblationTable`.
        manifest: prepared data.
        runs: folder for the training runs and for the results of each clip. What is finished there, with the same
            settings, is used.
        only: these variants; the tables then hold them and what was finished before.
        num_clips: held-out clips (test split) that are measured.
        echo: told what is being done.

    Returns:
        The path of table.md.
    """
    table = Path(table)
    runs = Path(runs)
    plan: AblationTable = load_yaml(table, AblationTable)
    for name in only:
        _known(name, plan.variants, "--only")
    if plan.speakers:
        chosen = [entry for entry in read_manifest(manifest) if entry.speaker in plan.speakers]
        manifest = write_manifest(runs / "data" / "manifest.jsonl", chosen)
    bench = _Bench(plan, table, str(manifest), runs, budget, device, num_clips, seed, echo)
    outcomes: dict[str, Outcome] = {}
    for name in plan.variants:
        if (outcome := bench.outcome(name, train=not only or name in only)) is not None:
            outcomes[name] = outcome
    return write_ablation_report(plan, outcomes, bench.clips, bench.rate, out)


class _Bench:
    """Trains and measures one variant after the other."""

    def __init__(
        self,
        plan: AblationTable,
        table: Path,
        manifest: str,
        runs: Path,
        budget: Budget,
        device: str,
        num_clips: int,
        seed: int,
        echo: Callable[[str], None],
    ) -> None:
        self.plan = plan
        self.runs = runs
        self.budget = budget
        self.seed = seed
        self.echo = echo
        self.common = {
            **plan.set,
            "data.manifest": manifest,
            "run.wandb": "off",
            "run.keep": 1,
            "run.device": device,
            "run.seed": seed,
        }
        self.recipes = {
            cls: to_dict(load_recipe(table.parent / name))
            for cls, name in ((TeacherRecipe, plan.teacher_recipe), (StudentRecipe, plan.student_recipe))
        }
        mel = self.student_recipe(plan.reference, "").model.mel
        self.rate, self.clips = (
            mel.sample_rate,
            load_clips(
                manifest,
                "test",
                limit=num_clips,
                speakers=None,
                min_seconds=SHORTEST_CLIP,
                sample_rate=mel.sample_rate,
                hop_length=mel.hop_length,
            ),
        )
        wanted = {name: GROUPS[name] for name in QUALITY}
        missing = missing_packages(wanted)
        self.results = Results(
            runs / "results", {n: group for n, group in wanted.items() if n not in missing}, progress=False
        )

    def student_recipe(self, name: str, teacher: str) -> StudentRecipe:
        variant = self.plan.variants[name]
        changes = {
            **self.common,
            **self.plan.student_set,
            **variant.set,
            "teacher": teacher,
            **self.budget.options(self.budget.seconds, 1.0),
        }
        return self._recipe(StudentRecipe, name, changes)

    def teacher_recipe(self, name: str) -> TeacherRecipe:
        teacher = self.plan.teachers[name]
        budget = self.budget.options(self.budget.teacher_seconds, teacher.share)
        return self._recipe(
            TeacherRecipe, f"teacher-{name}", {**self.common, **self.plan.teacher_set, **teacher.set, **budget}
        )

    def outcome(self, name: str, train: bool) -> Outcome | None:
        """The variant's results; where it may not ``train``, None for a variant that was not finished before."""
        teacher = self._teacher(self.plan.variants[name].teacher, train)
        if teacher is None:
            return None
        recipe = self.student_recipe(name, teacher)
        run = Path(recipe.run.dir)
        if not _finished(run):
            if not train:
                return None
            self.echo(f"{name}: {self.plan.variants[name].about}")
            distill_student(recipe)
            _finish(run)
        student = LoadedModel.load(run, name, "cpu")
        teacher = LoadedModel.load(teacher, "teacher", "cpu")
        key = digest(student.key, teacher.key, str(self.seed))
        values = self.results.quality([student.system(self.seed)], self.clips, self.rate)[name]
        ours = self.results.each(f"{name}-nats", key, self.clips, lambda clip: self._nats(student, teacher, clip))
        bits = self.results.each(f"{name}-teacher", teacher.key, self.clips, lambda clip: self._bits(teacher, clip))
        audio = student.system(self.seed).speak(self.clips[:1])[0]
        clips = [quality | nats | b for quality, nats, b in zip(values, ours, bits, strict=True)]
        return Outcome(clips, audio, run / "metrics.jsonl")

    def _teacher(self, name: str, train: bool) -> str | None:
        plan = self.plan.teachers[name]
        if plan.checkpoint is not None:
            return plan.checkpoint
        recipe = self.teacher_recipe(name)
        if not _finished(Path(recipe.run.dir)):
            if not train:
                return None
            self.echo(f"teacher {name}")
            train_teacher(recipe)
            _finish(Path(recipe.run.dir))
        return recipe.run.dir

    def _recipe(self, cls: type, name: str, changes: dict[str, Any]) -> Any:
        """The base recipe with the changes; its run folder's name changes with everything that decides the result."""
        values = json.loads(json.dumps(self.recipes[cls]))
        for key, value in changes.items():
            *groups, last = key.split(".")
            place = values
            for group in groups:
                place = place.setdefault(group, {})
            place[last] = value
        values["run"]["dir"] = ""
        recipe = from_dict(cls, values, where=name)
        used = [getattr(recipe, part, None) for part in ("teacher", "start_from")]
        marks = [fingerprint(load_pretrained(checkpoint)) for checkpoint in used if checkpoint]
        folder = f"{name}-{digest(json.dumps(to_dict(recipe), sort_keys=True), *marks)[:8]}"
        return dataclasses.replace(recipe, run=dataclasses.replace(recipe.run, dir=str(self.runs / folder)))

    @torch.inference_mode()
    def _nats(self, student: LoadedModel, teacher: LoadedModel, clip: Clip) -> dict[str, float]:
        """Means over one sample of the student, in nats per sample of audio: log q - log p and -log q; whatever the
        teacher's distribution.
        """
        mel = student.mel(clip)
        noise = torch.randn(1, 1, len(clip.audio), generator=torch.Generator().manual_seed(self.seed))
        output = student.model.rsample(noise, mel, student.speaker(clip), in_pieces=True)
        log_q = student.model.own_log_prob(output)
        parameters, shift = teacher.model.predict(output.excitation, mel, teacher.speaker(clip))
        slope = student.model.front.log_slope(output.excitation, output.lpc)
        log_p = teacher.model.distribution.log_prob(parameters, shift, output.excitation) + slope
        skip = first_counted(student.model, teacher.model, len(clip.audio))
        std = float(output.refined.std() / clip.audio.std().clamp_min(1e-9))
        means = {"kl": (log_q - log_p)[:, skip:].double().mean(), "entropy": -log_q[:, skip:].double().mean()}
        return {name: float(value) for name, value in means.items()} | {"amplitude_ratio": std}

    @torch.inference_mode()
    def _bits(self, teacher: LoadedModel, clip: Clip) -> dict[str, float]:
        generator = torch.Generator().manual_seed(self.seed)
        log_prob = teacher.model.log_prob_per_sample(
            clip.audio[None, None], teacher.mel(clip), teacher.speaker(clip), generator=generator
        )
        return {"teacher_bits": bits_per_sample(float(log_prob.double().mean()))}


def _finished(run: Path) -> bool:
    return (run / "finished").is_file()


def _finish(run: Path) -> None:
    (run / "finished").touch()


def _known(name: str, names: Sequence[str] | dict[str, Any], where: str) -> None:
    if name not in names:
        raise WavedistillError(f"{where}: no '{name}' in the table. It has: {', '.join(names)}.")
