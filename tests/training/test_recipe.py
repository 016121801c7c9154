"""Recipes, and whole runs of tiny real models from a recipe's YAML file to a checkpoint."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from helpers.paths import ROOT
from helpers.tiny_models import MEL, STACK, prepared_speech, tiny_flow, tiny_student

from wavedistill import cli
from wavedistill.audio.mel import MelConfig
from wavedistill.config import dump_yaml, from_dict, to_dict
from wavedistill.data.dataset import DataConfig
from wavedistill.errors import WavedistillError
from wavedistill.models.card import read_card
from wavedistill.models.parallel_wavenet import ParallelWaveNet, ParallelWaveNetConfig
from wavedistill.models.pretrained import load_pretrained, save_pretrained
from wavedistill.models.waveform_flow import WaveformFlow
from wavedistill.models.wavenet import WaveNet, WaveNetConfig
from wavedistill.training import (
    FlowRecipe,
    StudentRecipe,
    TeacherRecipe,
    distill_student,
    load_recipe,
    recipe_type,
    train_flow,
    train_teacher,
)
from wavedistill.training.checkpoint import load_newest_state
from wavedistill.training.config import OptimConfig, RunConfig

QUICK = dict(steps=4, log_every=2, validate_every=2, validate_batches=1, sample_every=4, save_every=2, wandb="off")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared_speech(tmp_path_factory.mktemp("data"), train=4, valid=2)


@pytest.fixture
def teacher_recipe(manifest: Path, tmp_path: Path) -> TeacherRecipe:
    model = WaveNetConfig(mel=MEL, sample_rate=8000, stack=STACK, cond_channels=8, linear_order=4)
    data = DataConfig(str(manifest), segment_seconds=0.3, batch_size=2)
    run = RunConfig(dir=str(tmp_path / "teacher"), device="cpu", **QUICK)
    return TeacherRecipe(model=model, data=data, optim=OptimConfig(warmup_steps=1), run=run)


@pytest.fixture
def student_recipe(teacher_recipe: TeacherRecipe, tmp_path: Path) -> StudentRecipe:
    model = ParallelWaveNetConfig(
        mel=MEL, sample_rate=8000, num_flows=2, stack=STACK, cond_channels=8, linear_order=4, source_order=4
    )
    run = dataclasses.replace(teacher_recipe.run, dir=str(tmp_path / "student"))
    return StudentRecipe(
        model=model, data=teacher_recipe.data, optim=teacher_recipe.optim, run=run, teacher=str(tmp_path / "teacher")
    )


@pytest.fixture
def flow_recipe(teacher_recipe: TeacherRecipe, tmp_path: Path) -> FlowRecipe:
    run = dataclasses.replace(teacher_recipe.run, dir=str(tmp_path / "flow"))
    model = tiny_flow().config
    return FlowRecipe(model=model, data=teacher_recipe.data, optim=teacher_recipe.optim, run=run)


# ---- files and overrides


def test_a_recipe_survives_its_file(
    teacher_recipe: TeacherRecipe, student_recipe: StudentRecipe, flow_recipe: FlowRecipe, tmp_path: Path
) -> None:
    for name, recipe in (("t.yaml", teacher_recipe), ("s.yaml", student_recipe), ("f.yaml", flow_recipe)):
        dump_yaml(recipe, tmp_path / name)
        assert load_recipe(tmp_path / name) == recipe


def test_overrides_reach_every_depth(student_recipe: StudentRecipe, tmp_path: Path) -> None:
    dump_yaml(student_recipe, tmp_path / "s.yaml")
    overrides = ["--run.minutes", "5", "--optim.lr=3e-4", "--model.stack.num_layers", "8", "--loss.weights.kl", "0.25"]
    overrides += ["--loss.allow-weak-teacher", "--teacher", "other", "--model.speakers", "a", "b"]
    recipe = load_recipe(tmp_path / "s.yaml", overrides)
    assert (recipe.run.minutes, recipe.optim.lr, recipe.model.stack.num_layers) == (5.0, 3e-4, 8)
    assert recipe.loss.weights == student_recipe.loss.weights | {"kl": 0.25}
    assert (recipe.loss.allow_weak_teacher, recipe.teacher, recipe.model.speakers) == (True, "other", ["a", "b"])
    assert recipe.run.steps == student_recipe.run.steps and recipe.model.mel == student_recipe.model.mel


def test_a_preset_s_name_stands_for_the_settings_of_a_mel(teacher_recipe: TeacherRecipe, tmp_path: Path) -> None:
    values = to_dict(teacher_recipe)
    values["model"] |= {"mel": "tacotron2", "sample_rate": 22050}
    assert from_dict(TeacherRecipe, values).model.mel == MelConfig.preset("tacotron2")
    dump_yaml(teacher_recipe, tmp_path / "t.yaml")
    overrides = ["--model.mel", "vocos-24khz", "--model.mel.n_mels", "40", "--model.sample_rate", "24000"]
    mel = load_recipe(tmp_path / "t.yaml", overrides).model.mel
    assert mel == dataclasses.replace(MelConfig.preset("vocos-24khz"), n_mels=40)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--model.mel", "vocos"], "unknown mel preset 'vocos'. Known presets: .*vocos-24khz"),
        (["--run.minuts", "5"], r"unknown option --run.minuts. Did you mean --run.minutes\?"),
        (["--optim.warmup_step=5"], r"Did you mean --optim.warmup_steps\?"),
        (["--run.minutes", "five"], "run.minutes.*five"),
        (["--optim.decay", "linaer"], "linear"),
        (["stray"], "stray"),
        (["--run.minutes"], "--run.minutes takes one value, given none"),
        (["--run.minutes", "5", "6"], "--run.minutes takes one value, given 5 6"),
        (["--run.steps", "5.0"], "--run.steps 5.0: a whole number is needed"),
        (["--run.compile", "yes"], "--run.compile is a switch and takes no value, given yes"),
        (["--optim.betas", "0.8"], "--optim.betas takes 2 values, given 0.8"),
        (["--run.no-steps"], "unknown option --run.no-steps. Did you mean --run.steps"),
        (["--kind", "student"], "unknown option --kind"),
        (["--model.stack.num_layers", "5"], "multiple of num_cycles"),
        (["--optim.muon_lr", "-0.02"], "optim.muon_lr is -0.02; it must be at least 0"),
        (["--optim.lr", "nan"], "optim.lr is nan; it must be above 0"),
        (["--optim.clip_norm", "0"], "optim.clip_norm is 0; it must be above 0"),
        (["--optim.betas", "0.9", "9e8"], r"optim.betas\[1\] is 9e\+08; it must be at least 0 and below 1"),
        (["--optim.ema", "1"], "optim.ema is 1; it must be at least 0 and below 1"),
    ],
)
def test_wrong_overrides_say_what_to_type(
    teacher_recipe: TeacherRecipe, tmp_path: Path, overrides: list[str], message: str
) -> None:
    dump_yaml(teacher_recipe, tmp_path / "t.yaml")
    with pytest.raises(WavedistillError, match=message) as error:
        load_recipe(tmp_path / "t.yaml", overrides)
    assert len(str(error.value).splitlines()) <= 2


def test_wrong_files_are_refused_by_name(teacher_recipe: TeacherRecipe, tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    with pytest.raises(WavedistillError, match="t.yaml"):
        load_recipe(path)
    dump_yaml(teacher_recipe, path)
    values = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(values | {"optm": {}}))
    with pytest.raises(WavedistillError, match="unknown key 'optm'.*'optim'"):
        load_recipe(path)
    for content in (b"model: [", b"model: \xff\xfe", b"date: 2020-99-99", b"[" * 5000):
        path.write_bytes(content)
        with pytest.raises(WavedistillError, match="not valid YAML"):
            load_recipe(path)
    with pytest.raises(WavedistillError, match="StudentRecipe.*wavedistill train"):
        distill_student(teacher_recipe)
    with pytest.raises(WavedistillError, match="FlowRecipe, this is a TeacherRecipe.*kind: flow"):
        train_flow(teacher_recipe)
    path.write_text(yaml.safe_dump(values | {"kind": "waveflow"}))
    with pytest.raises(WavedistillError, match="kind: 'waveflow' is not one of 'teacher', 'student', 'flow'"):
        load_recipe(path)
    path.write_text(yaml.safe_dump(values | {"kind": "flow"}))
    with pytest.raises(WavedistillError, match="unknown key '(loss|distribution)'"):
        load_recipe(path)


def test_overrides_of_every_type(student_recipe: StudentRecipe, tmp_path: Path) -> None:
    dump_yaml(student_recipe, tmp_path / "s.yaml")
    overrides = ["--optim.betas", "0.8", "0.9", "--run.minutes=None", "--model.mel.norm", "None", "--run.dir", "2026"]
    overrides += ["--model.log-scale-min", "-6.5", "--run.compile", "--run.no-compile", "--optim.decay=constant"]
    recipe = load_recipe(tmp_path / "s.yaml", [*overrides, "--model.speakers", "ann"])
    assert (recipe.optim.betas, recipe.run.minutes, recipe.model.mel.norm) == ((0.8, 0.9), None, None)
    assert (recipe.run.dir, recipe.model.log_scale_min, recipe.run.compile) == ("2026", -6.5, False)
    assert (recipe.optim.decay, recipe.model.speakers) == ("constant", ["ann"])
    assert load_recipe(tmp_path / "s.yaml", ["--run.compile"]).run.compile
    assert load_recipe(tmp_path / "s.yaml", ["--model.speakers"]).model.speakers == []


@pytest.mark.parametrize("name", ["toy/teacher.yaml", "toy/student.yaml", "toy/flow.yaml"])
def test_every_option_of_the_help_is_known(name: str, capsys: pytest.CaptureFixture) -> None:
    """Words are parsed by `override`, the page of help is drawn by another library: they must agree."""
    with pytest.raises(SystemExit) as stop:
        load_recipe(ROOT / "recipes" / name, ["--run.minutes", "77", "--help"])
    assert stop.value.code == 0
    page = capsys.readouterr().out
    assert "77.0" in page  # the values are those with the other options applied
    options = set(re.findall(r"^\W* (--[a-z][\w.-]+)(?: (\S+))?", page, re.MULTILINE))
    assert len(options) > 40
    example = {"INT": "1", "FLOAT": "0.5", "STR": "x", "[STR": "x", "{None}|STR": "x", "{None}|FLOAT": "0.5"}
    for option, kind in options - {("--help", "")}:
        try:
            load_recipe(ROOT / "recipes" / name, [option, example[kind]] if kind in example else [option])
        except WavedistillError as error:  # of a value that does not go with the others
            assert "unknown option" not in str(error), option


# ---- kinds


def test_kind_comes_first_in_every_recipe() -> None:
    """The first field after the comment, in the recipes and in what a run writes down."""
    kinds = {TeacherRecipe: "teacher", StudentRecipe: "student", FlowRecipe: "flow"}
    paths = [path for path in (ROOT / "recipes").glob("*/*.yaml") if path.name != "ablations.yaml"]
    assert len(paths) >= 18
    for path in paths:
        lines = [line for line in path.read_text().splitlines() if line[:1] not in ("#", "")]
        recipe = load_recipe(path)
        assert lines[0] == f"kind: {kinds[type(recipe)]}" == f"kind: {recipe.kind}", path


def test_a_run_writes_its_kind(
    teacher_recipe: TeacherRecipe, student_recipe: StudentRecipe, flow_recipe: FlowRecipe, tmp_path: Path
) -> None:
    for recipe, kind in ((teacher_recipe, "teacher"), (student_recipe, "student"), (flow_recipe, "flow")):
        dump_yaml(recipe, tmp_path / "config.yaml")
        assert (tmp_path / "config.yaml").read_text().startswith(f"kind: {kind}\n")


def test_files_of_earlier_versions_have_no_kind(
    teacher_recipe: TeacherRecipe, student_recipe: StudentRecipe, flow_recipe: FlowRecipe, tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    for recipe in (teacher_recipe, student_recipe, flow_recipe):
        dump_yaml(recipe, path)
        values = yaml.safe_load(path.read_text())
        del values["kind"]
        if isinstance(recipe, FlowRecipe):
            values["kind"] = "waveform_flow"
        path.write_text(yaml.safe_dump(values))
        assert load_recipe(path) == recipe and recipe_type(path) is type(recipe)


def test_a_recipe_of_another_kind_says_which_command_takes_it(
    teacher_recipe: TeacherRecipe, student_recipe: StudentRecipe, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    dump_yaml(student_recipe, tmp_path / "s.yaml")
    dump_yaml(teacher_recipe, tmp_path / "t.yaml")
    assert cli.main(["train", str(tmp_path / "s.yaml")]) == 2
    assert "Use: wavedistill distill." in capsys.readouterr().err
    assert cli.main(["distill", str(tmp_path / "t.yaml")]) == 2
    assert "Use: wavedistill train." in capsys.readouterr().err
    values = yaml.safe_load((tmp_path / "s.yaml").read_text())
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(values | {"kind": "teacher"}))
    with pytest.raises(WavedistillError, match="unknown key '(weights|teacher|start_from)'"):
        load_recipe(tmp_path / "s.yaml")
    with pytest.raises(WavedistillError, match="kind: 'student' is not one of 'teacher'"):
        from_dict(TeacherRecipe, to_dict(teacher_recipe) | {"kind": "student"})


# ---- whole runs


def test_from_recipe_to_teacher_to_student(
    teacher_recipe: TeacherRecipe, student_recipe: StudentRecipe, tmp_path: Path
) -> None:
    dump_yaml(teacher_recipe, tmp_path / "t.yaml")
    run = train_teacher(tmp_path / "t.yaml", ["--run.precision", "bf16"])
    assert run == tmp_path / "teacher"
    assert isinstance(load_pretrained(run), WaveNet)
    assert {path.suffix for path in (run / "samples" / "step-0000004").iterdir()} == {".wav", ".png"}
    assert load_recipe(run / "config.yaml").run.precision == "bf16"

    with pytest.raises(WavedistillError, match="bits per sample.*--loss.allow_weak_teacher"):
        distill_student(student_recipe)
    student = distill_student(student_recipe, overrides=["--loss.allow_weak_teacher"])
    assert isinstance(load_pretrained(student), ParallelWaveNet)
    lines = [json.loads(line) for line in (student / "metrics.jsonl").read_text().splitlines()]
    assert {"loss", *student_recipe.loss.weights} <= lines[0].keys()
    with pytest.raises(WavedistillError, match="is a student"):
        distill_student(student_recipe, teacher=student)

    dump_yaml(student_recipe, tmp_path / "s.yaml")  # resuming: the teacher has passed the gate before
    more = distill_student(tmp_path / "s.yaml", teacher=run, overrides=["--run.steps", "6"])
    assert load_newest_state(more)["step"] == 6


def test_a_student_of_sub_bands_starts_from_the_teachers_conditioning_network(
    teacher_recipe: TeacherRecipe, student_recipe: StudentRecipe
) -> None:
    bands = ["--model.front.bands", "4"]
    with pytest.raises(WavedistillError, match="loss.band_weights: 4 numbers above 0"):
        train_teacher(teacher_recipe, [*bands, "--loss.band_weights", "1"])
    weights = ["--loss.band_weights", "1", "2", "2", "1.5"]
    teacher = load_pretrained(train_teacher(teacher_recipe, [*bands, *weights]))
    overrides = ["--loss.allow_weak_teacher", "--optim.lr", "1e-12", *bands, "--model.patch_size", "2"]
    student = load_pretrained(distill_student(student_recipe, overrides=overrides))
    assert (teacher.step_size, student.step_size) == (4, 8)
    for name, weight in teacher.conditioning.state_dict().items():
        torch.testing.assert_close(student.conditioning.state_dict()[name], weight, rtol=0, atol=1e-6)


def test_a_student_starts_from_another_student(
    teacher_recipe: TeacherRecipe, student_recipe: StudentRecipe, tmp_path: Path
) -> None:
    teacher = train_teacher(teacher_recipe)
    overrides = ["--loss.allow_weak_teacher", "--optim.lr", "1e-12", "--run.dir", str(tmp_path / "more")]
    with pytest.raises(WavedistillError, match="start_from .*: a student whose.*this is a teacher"):
        distill_student(student_recipe, overrides=[*overrides, "--start_from", str(teacher)])
    donor = tiny_student(
        mel=student_recipe.model.mel, patch_size=4, cond_channels=student_recipe.model.cond_channels, seed=3
    )
    save_pretrained(donor, tmp_path / "donor")
    overrides += ["--start_from", str(tmp_path / "donor")]
    student = load_pretrained(distill_student(student_recipe, overrides=overrides))
    for part in ("conditioning", "pitch"):
        given, own = (getattr(model, part).state_dict() for model in (donor, student))
        for name, weight in given.items():
            torch.testing.assert_close(own[name], weight, rtol=0, atol=1e-6)
    shutil.rmtree(tmp_path / "donor")  # a run that goes on has no more need of it
    assert load_newest_state(distill_student(student_recipe, overrides=[*overrides, "--run.steps", "6"]))["step"] == 6


def test_from_recipe_to_flow(flow_recipe: FlowRecipe, student_recipe: StudentRecipe, tmp_path: Path) -> None:
    dump_yaml(flow_recipe, tmp_path / "f.yaml")
    run = train_flow(tmp_path / "f.yaml", ["--run.precision", "bf16"])
    assert run == tmp_path / "flow" and isinstance(load_pretrained(run), WaveformFlow)
    assert {path.suffix for path in (run / "samples" / "step-0000004").iterdir()} == {".wav", ".png"}
    assert load_recipe(run / "config.yaml") == load_recipe(tmp_path / "f.yaml", ["--run.precision", "bf16"])
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all({"bits", "pitch"} <= line.keys() for line in lines)
    more = train_flow(run / "config.yaml", ["--run.steps", "6"])
    assert load_newest_state(more)["step"] == 6
    with pytest.raises(WavedistillError, match="is a one-stage flow"):
        distill_student(student_recipe, teacher=run)


def test_fine_tuning_starts_from_a_checkpoint(teacher_recipe: TeacherRecipe, tmp_path: Path) -> None:
    first = train_teacher(teacher_recipe)
    card = first / "checkpoint" / "README.md"
    assert read_card(card.parent).speakers and not read_card(card.parent).licence
    card.write_text("---\nlicense: mit\ncredit: Ann\n---\n" + card.read_text())
    overrides = ["--run.dir", str(tmp_path / "tuned"), "--run.init_from", str(first), "--optim.lr", "1e-12"]
    tuned = train_teacher(teacher_recipe, overrides)
    before = load_pretrained(first).state_dict()
    after = load_pretrained(tuned).state_dict()
    for name, weight in before.items():
        torch.testing.assert_close(after[name], weight, rtol=0, atol=1e-6)
    new = read_card(tuned / "checkpoint")
    assert (new.licence, new.credit) == ("mit", "Ann") and new.speakers
    assert f"It goes on from {first}" in new.path.read_text() and f"Mel: {MEL.n_mels} bands" in new.path.read_text()
    with pytest.raises(WavedistillError, match="init_from.*has shape"):
        other = ["--model.cond_channels", "4", "--run.dir", str(tmp_path / "other")]
        train_teacher(teacher_recipe, overrides[2:] + other)
