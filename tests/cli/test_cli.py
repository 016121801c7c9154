"""The command line as it is typed: output, exit codes, one-line errors."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile
import torch
from helpers.paths import PACKAGE
from helpers.tiny_models import speech_like, tiny_student, tiny_teacher

from wavedistill import cli, distributed, save_audio
from wavedistill.assets import bundled_checkpoints
from wavedistill.cli import benchmark, options, train
from wavedistill.models.pretrained import save_pretrained

VERBS = [
    "quickstart",
    "prepare",
    "train",
    "distill",
    "synthesize",
    "sample",
    "evaluate",
    "score",
    "morph",
    "restore",
    "doctor",
    "playground",
    "export",
    "info",
    "demo",
    "benchmark",
]


@pytest.fixture(scope="module")
def student(tmp_path_factory) -> str:
    return str(save_pretrained(tiny_student(), tmp_path_factory.mktemp("models") / "student"))


@pytest.fixture(scope="module")
def free(tmp_path_factory) -> str:
    return str(save_pretrained(tiny_teacher(mel=None), tmp_path_factory.mktemp("models") / "free"))


@pytest.fixture
def speech(tmp_path) -> Path:
    return save_audio(tmp_path / "in" / "speech.wav", speech_like(0.3), 8000)


def exit_code(*argv: object) -> int:
    try:
        return cli.main([str(arg) for arg in argv])
    except SystemExit as stop:
        return stop.code


def test_help_lists_every_verb(capsys):
    assert exit_code() == 0
    without = capsys.readouterr().out
    assert exit_code("--help") == 0
    assert capsys.readouterr().out == without
    assert [verb for verb in VERBS if re.search(rf"^    {verb} ", without, re.MULTILINE)] == VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_a_function(verb, capsys):
    assert exit_code(verb, "--help") == 0
    assert f"usage: wavedistill {verb}" in capsys.readouterr().out
    assert callable(importlib.import_module(f"wavedistill.cli.{verb}").run)


@pytest.mark.parametrize(
    "verb", ["synthesize", "sample", "evaluate", "score", "morph", "restore", "export", "info", "demo", "distill"]
)
def test_help_names_every_bundled_checkpoint(verb, capsys):
    assert exit_code(verb, "--help") == 0
    out = capsys.readouterr().out
    assert len(bundled_checkpoints()) == 11
    assert [name for name in bundled_checkpoints() if not re.search(rf"[ (]{name}[,)\n]", out)] == []


def test_help_of_evaluate_takes_a_folder_or_a_file(capsys):
    assert exit_code("evaluate", "--help") == 0
    assert "folder of prepared data, or its manifest.jsonl" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [["--help"], ["synthesize", "--help"], ["fly"], ["--version"]])
def test_torch_is_not_loaded_before_a_command_runs(argv):
    code = (
        "import sys\nfrom wavedistill import cli\n"
        f"try:\n    cli.main({argv})\nexcept SystemExit:\n    pass\n"
        "print(*sorted({'torch', 'numpy', 'yaml', 'tyro', 'gradio'} & set(sys.modules)), 'loaded')"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1].split() == ["loaded"]


def test_version(capsys):
    assert exit_code("--version") == 0
    assert re.fullmatch(r"wavedistill \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    "argv, message",
    [
        (["fly"], "invalid choice: 'fly'"),
        (["trian", "recipe.yaml"], "invalid choice: 'trian'. Did you mean train?"),
        (["synthesise", "a.wav"], "Did you mean synthesize?"),
        (["eval"], "Did you mean evaluate?"),
        (["prepare", "x"], "--out"),
        (["train"], "recipe comes first"),
        (["train", "--run.dir", "x", "recipe.yaml"], "recipe comes first"),
        (["train", "no-such.yaml"], "no-such.yaml"),
        (["distill", "recipes/no-such/student.yaml"], "no-such"),
        (["synthesize", "a.wav", "--out", "o", "--checkpoint", "c", "--shard", "2/2"], "0/2 to 1/2"),
        (["synthesize", "a.wav", "--out", "o", "--checkpoint", "c", "--shard", "half"], "0/4"),
        (["synthesize", "a.wav", "--out", "o", "--checkpoint", "c", "--sede", "1"], "--sede"),
        (["synthesize", "no-such.wav", "--out", "o", "--checkpoint", "speech-student"], "no-such.wav"),
        (
            ["synthesize", "a.wav", "--out", "o", "--checkpoint", "speech-teacher", "--precision", "bf16"],
            "speech-teacher is a teacher: leave it at fp32",
        ),
        (
            ["synthesize", "a.wav", "--out", "o", "--checkpoint", "c", "--precision", "bf16", "--engine", "ray"],
            "bf16 is for --engine local",
        ),
        (["info", "speech-studnet"], "no checkpoint 'speech-studnet'"),
        (
            [
                "sample",
                "--checkpoint",
                "speech-student",
                "--seconds",
                "1",
                "--out",
                "x.wav",
                "--device",
                "tpu9",
            ],
            "tpu9",
        ),
        (["prepare", "no-such-folder", "--out", "o"], "no-such-folder"),
    ],
)
def test_wrong_use_is_told_in_two_lines(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert exit_code(*argv) == 2
    out, error = capsys.readouterr()
    assert error.startswith("error: ") and message in error
    assert len(error.strip().splitlines()) <= 2 and "Traceback" not in error
    assert out == ""


def test_evaluate_without_data(student, capsys):
    assert exit_code("evaluate", "no-such.jsonl", "--checkpoint", student) == 2
    assert "no-such.jsonl" in capsys.readouterr().err


def test_synthesize(student, speech, tmp_path, capsys):
    assert exit_code("synthesize", speech, "--checkpoint", student, "--out", tmp_path / "out", "--seed", 3) == 0
    assert soundfile.info(tmp_path / "out" / "speech.wav").frames == 2400
    assert "1 written" in capsys.readouterr().out
    command = ["synthesize", speech, "--checkpoint", student, "--out", tmp_path / "out", "--seed"]
    assert exit_code(*command, 3) == 0
    assert "0 written" in (out := capsys.readouterr().out) and "1 there already" in out
    assert exit_code(*command, 4) == 2
    assert "another seed" in capsys.readouterr().err


def test_synthesize_exit_codes(student, speech, tmp_path, capsys):
    bad = tmp_path / "in" / "bad.wav"
    bad.write_bytes(b"")
    command = ["synthesize", "--checkpoint", student, "--out"]
    assert exit_code(*command, tmp_path / "all-bad", bad) == 1
    assert f"failed {bad}: the file is empty" in capsys.readouterr().err
    assert exit_code(*command, tmp_path / "some-bad", tmp_path / "in") == 1
    assert [path.name for path in (tmp_path / "some-bad").glob("*.wav")] == ["speech.wav"]
    assert exit_code(*command, tmp_path / "one-good", speech) == 0


def test_synthesize_a_shard(student, speech, tmp_path):
    save_audio(tmp_path / "in" / "more.wav", speech_like(0.2), 8000)
    command = [
        "synthesize",
        tmp_path / "in",
        "--checkpoint",
        student,
        "--out",
        tmp_path / "out",
        "--batch-seconds",
        "0.1",
    ]
    assert exit_code(*command, "--shard", "0/2") == 0
    assert len(list((tmp_path / "out").glob("*.wav"))) == 1
    assert exit_code(*command, "--shard", "1/2") == 0
    assert len(list((tmp_path / "out").glob("*.wav"))) == 2


def test_sample(free, tmp_path, capsys):
    files = [tmp_path / name for name in ("a.wav", "b.wav", "c.flac")]
    for path, seed in zip(files, (1, 1, 2), strict=True):
        assert exit_code("sample", "--checkpoint", free, "--seconds", 0.02, "--out", path, "--seed", seed) == 0
    same, again, other = (soundfile.read(path)[0] for path in files)
    assert len(same) == 160 and (same == again).all() and not (same == other).all()
    assert "0.02 s" in capsys.readouterr().out


def test_sample_of_a_conditioned_model(student, tmp_path, capsys):
    assert exit_code("sample", "--checkpoint", student, "--seconds", 1, "--out", tmp_path / "a.wav") == 2
    assert "wavedistill synthesize" in capsys.readouterr().err


def test_info_says_what_it_is(student, capsys):
    assert exit_code("info", student) == 0
    out = capsys.readouterr().out
    assert "student" in out and "8000 Hz" in out and "hop_length: 64" in out and student in out
    waits = dict(re.findall(r"look-ahead (of a stream|in low latency): (\d+) ms", out))
    assert 0 < int(waits["in low latency"]) < int(waits["of a stream"])


def test_info_of_a_run_folder(tmp_path, capsys):
    save_pretrained(tiny_teacher(speakers=("ann",)), tmp_path / "run" / "checkpoint")
    assert exit_code("info", tmp_path / "run") == 0
    assert "teacher" in (out := capsys.readouterr().out) and "ann" in out
    (tmp_path / "run" / "checkpoint" / "README.md").unlink()
    assert exit_code("info", tmp_path / "run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "speakers: ann" in lines
    assert not [line for line in lines if line.startswith(("languages", "licence", "measured", "card"))]


@pytest.mark.parametrize("name", bundled_checkpoints())
def test_info_says_language_speakers_licence_and_quality(name, capsys):
    assert exit_code("info", name) == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines() if ": " in line)
    assert lines["licence"] == "apache-2.0" and lines["speakers"] and lines["credit"]
    assert re.fullmatch(r"[a-z]{2}(, [a-z]{2})*", lines.get("languages", "en")) and Path(lines["card"]).is_file()
    assert ("languages" in lines) == (not name.startswith("notes"))
    card = Path(lines["card"]).read_text()
    for value in lines["measured"].split("; ")[1:]:
        assert value.split(" ")[-1].strip("()") in card
    expected = {"speech": "PESQ-wb", "festvox": "DistillMOS", "notes": "Frechet"}[name.split("-")[0]]
    assert f"{expected} " in lines["measured"]


def test_prepare(tmp_path, capsys):
    for index in range(3):
        save_audio(tmp_path / "in" / "ann" / f"{index}.wav", speech_like(1.0, 16000, index), 16000)
    (tmp_path / "in" / "bad.wav").write_bytes(b"")
    assert exit_code("prepare", tmp_path / "in", "--out", tmp_path / "out", "--workers", 1) == 0
    out, error = capsys.readouterr()
    assert "3 recordings" in out and "1 refused" in out
    assert "bad.wav" in error
    lines = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
    assert {json.loads(line)["speaker"] for line in lines} == {"ann"}


@pytest.mark.parametrize(
    "verb, function, text",
    [
        ("train", "train_teacher", ""),
        ("train", "train_flow", "kind: flow"),
        ("train", "train_flow", "kind: waveform_flow"),
        ("train", "train_teacher", "kind: teacher"),
        ("distill", "distill_student", ""),
    ],
)
def test_recipe_verbs_hand_over_the_file_and_the_fields(verb, function, text, tmp_path, monkeypatch, capsys):
    import wavedistill.training

    def run(recipe, overrides=()):
        assert (recipe, overrides) == (tmp_path / "mine.yaml", ["--run.minutes", "2", "--optim.lr=1e-3"])
        return tmp_path / "run"

    monkeypatch.setattr(wavedistill.training, function, run)
    (tmp_path / "mine.yaml").write_text(text)
    assert exit_code(verb, tmp_path / "mine.yaml", "--run.minutes", 2, "--optim.lr=1e-3") == 0
    assert str(tmp_path / "run") in capsys.readouterr().out


def test_packaged_recipes_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert options.recipe_file("recipes/toy/teacher.yaml").is_file()
    assert options.recipe_file("mine.yaml") == Path("mine.yaml")


def test_demo_hands_over_port_and_checkpoints(monkeypatch):
    calls = []
    app = type("App", (), {"launch": lambda **k: calls.append(k)})
    monkeypatch.setattr("wavedistill.assets.load_web_app", lambda: app)
    assert exit_code("demo", "--port", 7999, "--checkpoint", "a", "--checkpoint", "b", "--root-path", "/voice") == 0
    assert calls == [{"port": 7999, "checkpoints": ["a", "b"], "root_path": "/voice"}]


def test_demo_says_at_once_what_it_loads_and_where_the_page_will_be(monkeypatch, capsys):
    said = []

    def load():
        said.append(capsys.readouterr().out)
        return type("App", (), {"launch": lambda **options: None})

    monkeypatch.setattr("wavedistill.assets.load_web_app", load)
    assert exit_code("demo", "--port", 7999) == 0
    assert f"loading {len(bundled_checkpoints())} voices" in said[0] and "http://127.0.0.1:7999" in said[0]


def test_ctrl_c_prints_one_line(capsys, monkeypatch):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "run", interrupted)
    assert exit_code("benchmark") == 130
    assert capsys.readouterr().err.strip() == "stopped by Ctrl-C"


def test_ctrl_c_in_a_real_process(free, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "wavedistill", "sample", "--checkpoint", free, "--seconds", "600", "--out", "x.wav"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)},
    )
    while "sampling" not in process.stderr.readline(1 << 10):  # the bar has begun
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.strip().splitlines()[-1] == "stopped by Ctrl-C" and "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_interrupted_training_says_how_to_go_on(capsys, monkeypatch):
    from wavedistill.training.signals import TrainingInterrupted

    def interrupted(args):
        raise TrainingInterrupted("continue with: wavedistill train x.yaml", signal.SIGTERM)

    monkeypatch.setattr(train, "run", interrupted)
    assert exit_code("train", "x.yaml") == 143
    assert capsys.readouterr().err.strip() == "continue with: wavedistill train x.yaml"


def test_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert distributed.resolve_device("auto").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert distributed.resolve_device("auto").type == "cuda"
