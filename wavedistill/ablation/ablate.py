"""Ablations: variants of one recipe, each trained alike for a small budget and measured on the same held-out clips.

A table (YAML, `AblationTable`) names the variants by what they change; `run_ablations` trains the teachers they need,
trains and measures the variants, and writes the results (`ablation_report`). Whatever is finished is not done again.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wavedistill.ablation.report import QUALITY, Outcome, write_ablation_report
from wavedistill.ablation.table import AblationTable, check_name
from wavedistill.config import from_dict, load_yaml, to_dict
from wavedistill.data.baseline import bits_per_sample
from wavedistill.data.manifest import read_manifest, write_manifest
from wavedistill.errors import WavedistillError
from wavedistill.evaluation.likelihood import student_divergence
from wavedistill.evaluation.results_cache import Results
from wavedistill.evaluation.systems import Clip, LoadedModel, digest, load_clips
from wavedistill.metrics.registry import installed_metrics
from wavedistill.models.pretrained import fingerprint, load_pretrained, save_pretrained
from wavedistill.training import StudentRecipe, TeacherRecipe, distill_student, load_recipe, train_teacher

SHORTEST_CLIP = 1.0
"""Seconds; shorter ones are not measured."""
_VERSION = "2"  # of the nats' definition: stored results of another one are not read


@dataclass(frozen=True)
class AblationConfig:
    """How long to train, and what to measure.

    Attributes:
        seconds, teacher_seconds: training time of a student, and of a teacher.
        steps: of training instead of a time, for a student and for a teacher.
        only: these variants; the results then hold them and what was finished before. Empty: all.
        num_clips: held-out clips (test split) that are measured.
        seed: of training and of the measured noise.
        device: for training.
    """

    seconds: float = 60.0
    teacher_seconds: float = 120.0
    steps: int | None = None
    only: tuple[str, ...] = ()
    num_clips: int = 12
    seed: int = 0
    device: str = "auto"

    def budget(self, seconds: float, share: float = 1.0) -> dict[str, Any]:
        """A recipe's fields for so much of it."""
        if self.steps is not None:
            return {"run.steps": max(1, round(share * self.steps)), "run.minutes": None}
        return {"run.minutes": share * seconds / 60.0}


def run_ablations(
    table: str | Path,
    manifest: str | Path,
    runs: str | Path,
    out: str | Path,
    config: AblationConfig | None = None,
    *,
    echo: Callable[[str], None] = lambda line: None,
) -> Path:
    """Train and measure the variants of a table, and write table.md, table.json, curves.png and samples/ into ``out``.

    Args:
        table: YAML file of an `AblationTable`.
        manifest: prepared data.
        runs: folder for the training runs and for the results of each clip. What is finished there, with the same
            settings, is used.
        config: None: `AblationConfig()`.
        echo: told what is being done.

    Returns:
        The path of table.md.
    """
    table = Path(table)
    runs = Path(runs)
    config = config or AblationConfig()
    plan: AblationTable = load_yaml(table, AblationTable)
    for name in config.only:
        check_name(name, plan.variants, "--only")
    if plan.speakers:
        chosen = [entry for entry in read_manifest(manifest) if entry.speaker in plan.speakers]
        manifest = write_manifest(runs / "data" / "manifest.jsonl", chosen)
    recipes = {
        TeacherRecipe: load_recipe(table.parent / plan.teacher_recipe),
        StudentRecipe: load_recipe(table.parent / plan.student_recipe),
    }
    bench = _Bench(plan, recipes, str(manifest), runs, config, echo)
    outcomes: dict[str, Outcome] = {}
    for name in plan.variants:
        if (outcome := bench.outcome(name, train=not config.only or name in config.only)) is not None:
            outcomes[name] = outcome
    return write_ablation_report(plan, outcomes, bench.clips, bench.rate, out)


class _Bench:
    """Trains and measures one variant after the other."""

    def __init__(
        self,
        plan: AblationTable,
        recipes: dict[type, Any],
        manifest: str,
        runs: Path,
        config: AblationConfig,
        echo: Callable[[str], None],
    ) -> None:
        self.plan = plan
        self.recipes = {kind: to_dict(recipe) for kind, recipe in recipes.items()}
        self.runs = runs
        self.config = config
        self.echo = echo
        self.common = {
            **plan.set,
            "data.manifest": manifest,
            "run.wandb": "off",
            "run.keep": 1,
            "run.device": config.device,
            "run.seed": config.seed,
        }
        mel = self.student_recipe(plan.reference, "").model.mel
        self.rate = mel.sample_rate
        self.clips = load_clips(
            manifest,
            "test",
            limit=config.num_clips,
            speakers=None,
            min_seconds=SHORTEST_CLIP,
            sample_rate=mel.sample_rate,
            hop_length=mel.hop_length,
        )
        self.results = Results(runs / "results", installed_metrics(QUALITY), progress=False)

    def student_recipe(self, name: str, teacher: str) -> StudentRecipe:
        changes = self.plan.student_set | self.plan.variants[name].set | {"teacher": teacher}
        return self._recipe(StudentRecipe, name, changes | self.config.budget(self.config.seconds))

    def teacher_recipe(self, name: str) -> TeacherRecipe:
        teacher = self.plan.teachers[name]
        budget = self.config.budget(self.config.teacher_seconds, teacher.share)
        return self._recipe(TeacherRecipe, f"teacher-{name}", self.plan.teacher_set | teacher.set | budget)

    def outcome(self, name: str, train: bool) -> Outcome | None:
        """The variant's results; where it may not ``train``, None for a variant that was not finished before."""
        checkpoint = self._teacher(self.plan.variants[name].teacher, train)
        if checkpoint is None:
            return None
        recipe = self.student_recipe(name, checkpoint)
        run = Path(recipe.run.dir)
        if not _finished(run):
            if not train:
                return None
            self.echo(f"{name}: {self.plan.variants[name].about}")
            distill_student(recipe)
            _finish(run)
        student = LoadedModel.load(run, name, "cpu")
        clips = self._measure(student, LoadedModel.load(checkpoint, "teacher", "cpu"))
        audio = student.system(self.config.seed).generate(self.clips[:1])[0]
        return Outcome(clips, audio, run / "metrics.jsonl")

    def _teacher(self, name: str, train: bool) -> str | None:
        """A checkpoint; where it may not ``train``, None for a teacher that was not finished before."""
        plan = self.plan.teachers[name]
        if plan.checkpoint is not None:
            return self._altered(plan.checkpoint, name, plan.set) if plan.set else plan.checkpoint
        recipe = self.teacher_recipe(name)
        if not _finished(Path(recipe.run.dir)):
            if not train:
                return None
            self.echo(f"teacher {name}")
            train_teacher(recipe)
            _finish(Path(recipe.run.dir))
        return recipe.run.dir

    def _altered(self, checkpoint: str, name: str, changes: dict[str, Any]) -> str:
        """A copy of a checkpoint with other settings, of which none may change its weights."""
        model = load_pretrained(checkpoint)
        settings = to_dict(model.config)
        _set(settings, {key.removeprefix("model."): value for key, value in changes.items()})
        other = type(model)(from_dict(type(model.config), settings, where=f"teachers.{name}"))
        try:
            other.load_state_dict(model.state_dict())
        except RuntimeError as error:
            raise WavedistillError(
                f"teachers.{name}: {', '.join(changes)} would need other weights than those of {checkpoint}: leave "
                "the checkpoint out, so that a teacher is trained."
            ) from error
        return str(save_pretrained(other, self.runs / f"teacher-{name}-{fingerprint(other)[:8]}"))

    def _recipe(self, kind: type, name: str, changes: dict[str, Any]) -> Any:
        """The base recipe with the changes; its run folder's name changes with everything that decides the result."""
        values = copy.deepcopy(self.recipes[kind])
        _set(values, self.common | changes)
        values["run"]["dir"] = ""
        recipe = from_dict(kind, values, where=name)
        used = [getattr(recipe, part, None) for part in ("teacher", "start_from")]
        weights = [fingerprint(load_pretrained(checkpoint)) for checkpoint in used if checkpoint]
        folder = f"{name}-{digest(json.dumps(to_dict(recipe), sort_keys=True), *weights)[:8]}"
        return dataclasses.replace(recipe, run=dataclasses.replace(recipe.run, dir=str(self.runs / folder)))

    def _measure(self, student: LoadedModel, teacher: LoadedModel) -> list[dict[str, float]]:
        """Of every clip: quality, the student's divergence from its teacher, and the teacher's bits."""
        name = student.name
        seed = self.config.seed
        key = digest(student.key, teacher.key, str(seed), _VERSION)
        quality = self.results.quality([student.system(seed)], self.clips, self.rate)[name]
        nats = self.results.each(f"{name}-nats", key, self.clips, lambda clip: _nats(student, teacher, clip, seed))
        bits = self.results.each(f"{name}-teacher", teacher.key, self.clips, lambda clip: _bits(teacher, clip, seed))
        return [
            one | {"amplitude_ratio": 10 ** (one["level_db"] / 20)} | theirs | coded
            for one, theirs, coded in zip(quality, nats, bits, strict=True)
        ]


def _set(values: dict[str, Any], changes: dict[str, Any]) -> None:
    """Set dotted names in nested settings."""
    for key, value in changes.items():
        *groups, last = key.split(".")
        place = values
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value


def _nats(student: LoadedModel, teacher: LoadedModel, clip: Clip, seed: int) -> dict[str, float]:
    """``kl`` and ``entropy`` of one sample of the student, in nats per sample of audio."""
    found = student_divergence(
        student.model, teacher.model, student.mel(clip), student.speaker(clip), teacher.speaker(clip), seed
    )
    return {name: found[name] for name in ("kl", "entropy")}


@torch.inference_mode()
def _bits(teacher: LoadedModel, clip: Clip, seed: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(seed)
    log_prob = teacher.model.log_prob_per_sample(
        clip.audio[None, None], teacher.mel(clip), teacher.speaker(clip), generator=generator
    )
    return {"teacher_bits": bits_per_sample(float(log_prob.double().mean()))}


def _finished(run: Path) -> bool:
    return (run / "finished").is_file()


def _finish(run: Path) -> None:
    (run / "finished").touch()
