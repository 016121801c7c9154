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
    bars: list[tuple[str, int]] = []

    def progress(clips, title):
        bars.append((title, len(clips)))
        return clips

    out = run_quickstart(tmp_path / "out", echo=said.append, progress=progress, minutes=60, excerpt_seconds=0.02)
    text = "\n".join(said)
    for row in ("original", "speech-student", "Griffin-Lim"):
        assert re.search(rf"^{row}.* [1-5]\.\d\d +(\d+\.\d|nan) +\d+\.\d$", text, re.MULTILINE)
    assert re.search(r"^speech-teacher \(excerpt\) +[\d.e-]+ +- +- +-$", text, re.MULTILINE)
    assert re.search(r"^original .* 0\.0 +0\.0$", text, re.MULTILINE)  # no errors of pitch against itself
    assert re.search(r"the student is [\d,]+ times as fast", text)
    assert [title for title, _ in bars if "speaking" in title or "scores" in title] == [
        "student: speaking",
        "Griffin-Lim: speaking",
        "teacher: speaking",
        "scores of original",
        "scores of student",
        "scores of Griffin-Lim",
    ]
    for title in ("student", "Griffin-Lim", "teacher"):  # what is timed has been compiled before
        assert bars.index((f"{title}: compiling", 1)) < bars.index((f"{title}: speaking", 1))
    assert f"play first: {out}/audio/1-original.wav" in text
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


def test_without_a_progress_nothing_is_shown_beside_what_is_echoed(tiny_assets, tmp_path, capsys):
    run_quickstart(tmp_path / "out", echo=lambda line: None, minutes=60, excerpt_seconds=0.02)
    out, error = capsys.readouterr()
    assert out == "" and "speaking" not in error and "sampling" not in error


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
    rows = [line.split() for line in "\n".join(said).splitlines()]
    opinion = {
        row[0]: float(row[-3]) for row in rows if row and row[0] in ("original", "speech-student", "Griffin-Lim")
    }
    assert opinion["original"] > opinion["speech-student"] > opinion["Griffin-Lim"] + 1
    curves = [
        read_curve(tmp_path / "out" / f"tiny-{who}" / "metrics.jsonl", name)
        for who, name in (("teacher", "bits"), ("student", "loss"))
    ]
    for curve in curves:
        third = max(1, len(curve) // 3)
        first, last = (sum(value for _, value in part) / len(part) for part in (curve[:third], curve[-third:]))
        assert last < first
