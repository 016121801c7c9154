"""Ablations: two steps of each variant of a small table, the files they leave, and the bundled table."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from helpers.paths import RECIPES
from helpers.tiny_models import MEL, STACK, speech_like, tiny_student, tiny_teacher

from wavedistill.ablation import ablate as ablations
from wavedistill.ablation import report as ablation_report
from wavedistill.ablation.ablate import AblationConfig, run_ablations
from wavedistill.ablation.table import AblationTable
from wavedistill.audio.io import load_audio, save_audio
from wavedistill.config import dump_yaml, load_yaml
from wavedistill.data.dataset import DataConfig
from wavedistill.data.manifest import Entry, write_manifest
from wavedistill.errors import WavedistillError
from wavedistill.losses.distillation import TERMS, DistillationConfig
from wavedistill.metrics.registry import METRICS
from wavedistill.models.pretrained import load_pretrained, save_pretrained
from wavedistill.models.wavenet import WaveNetConfig
from wavedistill.training import StudentRecipe, TeacherRecipe
from wavedistill.training.config import RunConfig

RECIPE = RECIPES / "ablations"
QUICK = {
    "log_every": 1,
    "validate_every": 100,
    "validate_batches": 1,
    "sample_every": 100,
    "save_every": 100,
    "device": "cpu",
}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data of two speakers, a voice, two recipes and a table of four variants."""
    monkeypatch.setattr(ablations, "QUALITY", ("level",))  # the other metrics are slow and have tests of their own
    monkeypatch.setattr("wavedistill.training.tracker.plot_mels", lambda *arguments: None)
    entries = []
    for number in range(16):
        path = save_audio(tmp_path / "data" / f"{number}.wav", speech_like(1.1, seed=number), 8000)
        split = "valid" if number in (1, 13) else ("train", "train", "test", "test")[number % 4]
        speaker = "ann" if number < 12 else "bob"
        entries.append(Entry(id=f"{number:02d}", audio=str(path), duration=1.1, speaker=speaker, split=split))
    write_manifest(tmp_path / "data" / "manifest.jsonl", entries)
    save_pretrained(tiny_teacher(), tmp_path / "released")
    save_pretrained(tiny_student(), tmp_path / "start")
    data = DataConfig("elsewhere", segment_seconds=0.2, batch_size=2)
    run = RunConfig(dir="elsewhere", **QUICK)
    model = WaveNetConfig(mel=MEL, sample_rate=8000, stack=STACK, cond_channels=8, linear_order=4)
    dump_yaml(TeacherRecipe(model=model, data=data, run=run), tmp_path / "teacher.yaml")
    student = StudentRecipe(
        model=tiny_student().config, data=data, run=run, loss=DistillationConfig(weights={"kl": 1.0})
    )
    dump_yaml(student, tmp_path / "student.yaml")
    table = {
        "teacher_recipe": "teacher.yaml",
        "student_recipe": "student.yaml",
        "speakers": ["ann"],
        "reference": "full",
        "set": {"optim.warmup_steps": 1},
        "student_set": {
            "start_from": str(tmp_path / "start"),
            "loss.weights": {"kl": 1.0, "stft": 1.0},
            "loss.allow_weak_teacher": True,
        },
        "teachers": {
            "released": {"checkpoint": str(tmp_path / "released")},
            "mixture": {"share": 0.5, "set": {"model.distribution": "mol", "model.num_mixtures": 2}},
        },
        "variants": {
            "kl": {"about": "KL only", "teacher": "released", "set": {"loss.weights": {"kl": 1.0}}},
            "full": {"about": "all of it", "teacher": "released"},
            "deep": {"about": "3 flows", "teacher": "released", "set": {"model.num_flows": 3}},
            "mixture": {"about": "a mixture", "teacher": "mixture"},
        },
        "questions": {
            "Which terms?": {"variants": ["kl"]},
            "What else?": {"variants": ["deep", "mixture"], "reference": "kl"},
        },
    }
    (tmp_path / "table.yaml").write_text(yaml.safe_dump(table, sort_keys=False))
    return tmp_path


def go(bench: Path, **options) -> tuple[Path, list[str]]:
    said: list[str] = []
    config = AblationConfig(**{"steps": 2, "num_clips": 6, "device": "cpu"} | options)
    table = run_ablations(bench / "table.yaml", bench / "data", bench / "runs", bench / "out", config, echo=said.append)
    return table, said


def runs(bench: Path) -> list[str]:
    return sorted(
        path.name.rsplit("-", 1)[0] for path in (bench / "runs").iterdir() if path.name not in ("data", "results")
    )


def test_all_variants_are_trained_measured_and_reported_once(bench: Path):
    path, said = go(bench)
    assert said == ["kl: KL only", "full: all of it", "deep: 3 flows", "teacher mixture", "mixture: a mixture"]
    assert runs(bench) == ["deep", "full", "kl", "mixture", "teacher-mixture"]
    record = json.loads((bench / "out" / "table.json").read_text())
    assert record["clips"] == ["02", "03", "06", "07", "10", "11"], "the test clips of the chosen speaker"
    assert {name: one["steps"] for name, one in record["variants"].items()} == dict.fromkeys(
        ("kl", "full", "deep", "mixture"), 2
    )
    for one in record["variants"].values():
        assert {"teacher_bits", "kl", "entropy", "amplitude_ratio"} <= one["means"].keys()
        assert one["means"]["kl"]["n"] == 6
    asked = record["questions"]
    assert {title: (one["reference"], list(one["differences"])) for title, one in asked.items()} == {
        "Which terms?": ("full", ["kl"]),
        "What else?": ("kl", ["deep", "mixture"]),
    }
    kl = [record["variants"][name]["means"]["kl"]["mean"] for name in ("deep", "kl")]
    difference = asked["What else?"]["differences"]["deep"]["kl"]
    assert (
        difference["mean"] == pytest.approx(kl[0] - kl[1])
        and difference["low"] <= difference["mean"] <= difference["high"]
    )
    text = path.read_text()
    assert (
        text.count("\n| **all of it** |") == text.count("\n| **KL only** |") == 1
        and "\n| a mixture |" in text
        and "## Which terms?" in text
    )
    assert (bench / "out" / "curves.png").stat().st_size > 10_000
    samples = {p.name: load_audio(p) for p in (bench / "out" / "samples").iterdir()}
    assert samples.keys() == {"recording.wav", "kl.wav", "full.wav", "deep.wav", "mixture.wav"}
    assert {(len(audio), rate) for audio, rate in samples.values()} == {(137 * 64, 8000)}
    # all is finished: the same tables, without training
    before = (bench / "out" / "table.json").read_text()
    assert go(bench)[1] == [] and (bench / "out" / "table.json").read_text() == before


def test_one_variant_joins_those_finished_before(bench: Path):
    text = go(bench, only=("kl",))[0].read_text()
    assert runs(bench) == ["kl"] and "| KL only |" in text and "Differences" not in text
    path, said = go(bench, only=("full",))
    assert said == ["full: all of it"] and runs(bench) == ["full", "kl"]
    text = path.read_text()
    assert "| KL only |" in text and "Differences from: all of it" in text and "What else?" not in text
    # another budget is another run
    assert go(bench, only=("kl",), steps=3)[1] == ["kl: KL only"]
    with pytest.raises(WavedistillError, match="--only: no 'lk' in the table. It has: kl, full"):
        go(bench, only=("lk",))


def test_nats_are_those_of_the_evaluation_and_the_level_that_of_the_audio(bench: Path):
    from wavedistill.evaluation.likelihood import student_divergence
    from wavedistill.evaluation.systems import LoadedModel, on_grid

    go(bench, only=("full",))
    run = next((bench / "runs").glob("full-*"))
    student = LoadedModel.load(run, "student", "cpu")
    teacher = LoadedModel.load(bench / "released", "teacher", "cpu")
    clip = ablations.load_clips(
        bench / "data", "test", limit=1, speakers=None, min_seconds=1, sample_rate=8000, hop_length=64
    )[0]
    exact = student_divergence(student.model, teacher.model, student.mel(clip), None, None, 0)
    record = json.loads(next((bench / "runs" / "results" / "clips").glob(f"full-nats-*/{clip.id}-*")).read_text())
    assert record["kl"] == pytest.approx(exact["kl"], rel=1e-6)
    assert record["entropy"] == pytest.approx(exact["entropy"], rel=1e-6)
    quality = json.loads((bench / "out" / "table.json").read_text())["variants"]["full"]["means"]
    clips = ablations.load_clips(
        bench / "data" / "manifest.jsonl",
        "test",
        limit=6,
        speakers=["ann"],
        min_seconds=1,
        sample_rate=8000,
        hop_length=64,
    )
    made = [on_grid(audio) for audio in student.system(0).generate(clips)]
    ratios = [
        float(one.square().mean() / clip.audio.square().mean()) ** 0.5 for one, clip in zip(made, clips, strict=True)
    ]
    assert quality["amplitude_ratio"]["mean"] == pytest.approx(sum(ratios) / 6, rel=1e-3)


def test_a_checkpoint_with_other_settings_is_a_teacher(bench: Path):
    values = yaml.safe_load((bench / "table.yaml").read_text())
    floor = {"model.log_scale_min": -6.5}
    values["teachers"]["higher"] = {"checkpoint": str(bench / "released"), "set": floor}
    values["variants"]["higher"] = {"about": "a higher floor", "teacher": "higher"}
    (bench / "table.yaml").write_text(yaml.safe_dump(values))
    go(bench, only=("higher",))
    other, released = (
        load_pretrained(next((bench / "runs").glob("teacher-higher-*"))),
        load_pretrained(bench / "released"),
    )
    assert other.config.log_scale_min == -6.5 != released.config.log_scale_min
    assert all(
        torch.equal(mine, theirs) for mine, theirs in zip(other.parameters(), released.parameters(), strict=True)
    )
    values["teachers"]["higher"]["set"] = {"model.linear_order": 1}
    (bench / "table.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(WavedistillError, match=r"teachers.higher: .*linear_order.* weights"):
        go(bench, only=("higher",))


def test_mistakes_in_the_table_are_named(bench: Path):
    values = yaml.safe_load((bench / "table.yaml").read_text())

    def refused(message: str, **changes) -> None:
        (bench / "table.yaml").write_text(yaml.safe_dump(values | changes))
        with pytest.raises(WavedistillError, match=message):
            go(bench)

    refused("reference: no 'best' in the table", reference="best")
    refused("variants.x.teacher: no 'none'", variants=values["variants"] | {"x": {"about": "", "teacher": "none"}})
    refused("questions.Why.: no 'because'", questions={"Why?": {"variants": ["because"]}})
    refused("full.*unknown key 'num_flow'.*num_flows", student_set=values["student_set"] | {"model.num_flow": 2})


# ---- the bundled table


def test_the_bundled_table_is_what_the_page_says():
    plan = load_yaml(RECIPE / "ablations.yaml", AblationTable)
    assert plan.variants.keys() == {name for title in plan.questions for name in plan.members(title)}
    weights = {term for v in plan.variants.values() for term in v.set.get("loss.weights", {})}
    assert weights <= set(TERMS) and {"kl", "stft", "instructive"} <= weights
    assert {v.teacher for v in plan.variants.values()} == plan.teachers.keys()
    page = (RECIPE / "README.md").read_text()
    assert all(f"`{name}`" in page for name in plan.variants)


def test_two_steps_of_the_script(bench: Path, monkeypatch: pytest.MonkeyPatch):
    """The bundled script on the small table."""
    shutil.copytree(RECIPE, bench / "ablations")
    values = yaml.safe_load((bench / "table.yaml").read_text())
    values |= {"teacher_recipe": "../teacher.yaml", "student_recipe": "../student.yaml"}
    (bench / "ablations" / "ablations.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    command = f"ablate.py --data {bench / 'data'} --runs {bench / 'runs'} --steps 2 --clips 2 --only kl --only full"
    monkeypatch.setattr(sys, "argv", command.split())
    runpy.run_path(str(bench / "ablations" / "ablate.py"), run_name="__main__")
    table = (bench / "ablations" / "results" / "table.md").read_text().strip()
    assert "| KL only |" in table and table in (bench / "ablations" / "README.md").read_text()


def test_quality_metrics_are_those_of_the_evaluation():
    assert set(ablation_report.QUALITY) <= METRICS.keys()
    assert {"pesq_wb", "mcd", "f0_cents", "voicing_percent", "distillmos"} <= ablation_report.METRICS.keys()
