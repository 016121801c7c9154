"""The quickstart: all of it on tiny stand-ins for the packaged voice and recipes, and on the real ones (slow)."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import soundfile
from helpers.tiny_models import speech_like, tiny_student, tiny_teacher

from wavedistill import assets, save_audio
from wavedistill.config import dump_yaml
from wavedistill.data.dataset import DataConfig
from wavedistill.data.manifest import Entry, write_manifest
from wavedistill.losses.distillation import DistillationConfig
from wavedistill.models.pretrained import save_pretrained
from wavedistill.quickstart import read_curve, run_quickstart
from wavedistill.training import StudentRecipe, TeacherRecipe
from wavedistill.training.config import RunConfig


@pytest.fixture
def tiny_assets(tmp_path, monkeypatch) -> Path:
    """What is packaged, in miniature: two voices, two recipes and four clips."""
    root = tmp_path / "package" / "_assets"
    teacher = tiny_teacher()
    student = tiny_student()
    save_pretrained(teacher, root / "checkpoints" / "speech-teacher")
    save_pretrained(student, root / "checkpoints" / "speech-student")
    clips = root / "recipes" / "quickstart" / "clips"
    entries = []
    for index, split in enumerate(["train", "train", "valid", "test"]):
        audio = speech_like(1.0 + 0.25 * index, seed=index)
        save_audio(clips / f"{index}.flac", audio, 8000)
        file = f"{index}.flac"
        seconds = len(audio) / 8000
        entries.append(Entry(id=f"{index}", audio=file, duration=seconds, speaker="ann", split=split))
    write_manifest(clips / "manifest.jsonl", entries)
    data = DataConfig("elsewhere", segment_seconds=0.1, batch_size=2)
    run = RunConfig(dir="elsewhere", steps=4, log_every=1, validate_batches=1)
    dump_yaml(TeacherRecipe(model=teacher.config, data=data, run=run), clips.parent / "teacher.yaml")
    recipe = StudentRecipe(
        model=student.config,
        data=data,
        run=run,
        loss=DistillationConfig(weights={"kl": 1.0}, allow_weak_teacher=True),
        teacher="speech-teacher",
    )
    dump_yaml(recipe, clips.parent / "student.yaml")
    monkeypatch.setattr(assets, "_PACKAGE", tmp_path / "package")
    return root


def test_all_of_it_in_miniature(tiny_assets, tmp_path):
    said: list[str] = []
    out = run_quickstart(tmp_path / "out", echo=said.append, minutes=60, excerpt_seconds=0.02)
    text = "\n".join(said)
    for row in ("speech-student", "Griffin-Lim", "speech-teacher"):
        assert re.search(rf"^{row}.*\d", text, re.MULTILINE)
    assert re.search(r"the student is [\d,]+ times as fast", text)
    assert re.search(r"bits per sample: [\d.]+ ->", text) and re.search(r"distillation loss: [\d.-]+ ->", text)
    assert str(out) in text and "wavedistill demo" in text
    names = {path.name for path in (out / "audio").iterdir()}
    wanted = {
        "1-original.wav",
        "1-student.wav",
        "1-griffin-lim.wav",
        "1-teacher-excerpt.wav",
        "tiny-student.wav",
    }
    assert names == wanted
    assert soundfile.info(out / "audio" / "1-student.wav").frames == 14000
    assert soundfile.info(out / "audio" / "1-teacher-excerpt.wav").frames == 160
    assert (out / "mels.png").stat().st_size > 10_000 and (out / "curves.png").stat().st_size > 5_000
    assert (out / "tiny-student" / "checkpoint" / "model.safetensors").is_file()
    assert {path.name for path in tiny_assets.rglob("clips/*")} == {
        *(f"{i}.flac" for i in range(4)),
        "manifest.jsonl",
    }


def test_curves_leave_out_what_is_not_finite(tmp_path):
    lines = [
        {"step": 1, "kind": "train", "bits": 9.0},
        {"step": 2, "kind": "valid", "bits": 5.0},
        {"step": 3, "kind": "train", "bits": None},
        {"step": 4, "kind": "train", "loss": 1.0},
        {"step": 5, "kind": "train", "bits": 8.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert read_curve(tmp_path / "metrics.jsonl", "bits") == [(1, 9.0), (5, 8.0)]


@pytest.mark.slow
def test_the_real_one(tmp_path):
    said: list[str] = []
    run_quickstart(tmp_path / "out", echo=said.append, minutes=0.5, excerpt_seconds=0.1)
    curves = [
        read_curve(tmp_path / "out" / f"tiny-{who}" / "metrics.jsonl", name)
        for who, name in (("teacher", "bits"), ("student", "loss"))
    ]
    for curve in curves:
        third = max(1, len(curve) // 3)
        first, last = (sum(value for _, value in part) / len(part) for part in (curve[:third], curve[-third:]))
        assert last < first
