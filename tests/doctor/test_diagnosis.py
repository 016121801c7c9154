"""`wavedistill doctor`: released runs come out healthy, broken ones by the name of what broke them."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.tiny_models import FRONTS, MEL, STACK, prepared_speech, tiny_teacher

from wavedistill import Vocoder, cli, load_audio, save_audio
from wavedistill.assets import recipe_path
from wavedistill.config import dump_yaml
from wavedistill.data.dataset import DataConfig
from wavedistill.doctor.diagnosis import Diagnosis, diagnose
from wavedistill.doctor.symptoms import SYMPTOMS
from wavedistill.doctor.verdict import Verdict, graded, worse
from wavedistill.errors import WavedistillError
from wavedistill.losses.distillation import DistillationConfig
from wavedistill.models.parallel_wavenet import ParallelWaveNetConfig
from wavedistill.models.pretrained import save_pretrained
from wavedistill.models.wavenet import WaveNetConfig
from wavedistill.training import StudentRecipe, TeacherRecipe, distill_student, load_recipe, train_teacher
from wavedistill.training.config import OptimConfig, RunConfig
from wavedistill.training.lock import run_lock

Lines = list[dict]
NAMES = [symptom.name for symptom in SYMPTOMS]


MINUTES = {"student": "42", "teacher": "135", "flow": "55"}


def released(folder: Path, name: str = "student", overrides: tuple[str, ...] = ()) -> tuple[Path, Lines]:
    """A run folder as one that made a voice of an earlier release in one go, without its samples."""
    budget = ["--run.dir", str(folder), "--run.minutes", MINUTES[name]]
    recipe = load_recipe(recipe_path(f"speech/{name}.yaml"), [*budget, *overrides])
    dump_yaml(recipe, folder / "config.yaml")
    metrics = Path(__file__).parent / "runs" / f"metrics-{name}.jsonl"
    if name == "flow":  # the released one is such a run
        metrics = recipe_path("speech/results/metrics-flow.jsonl")
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    write(folder, lines)
    return folder, lines


def write(folder: Path, lines: Lines) -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def severities(diagnosis: Diagnosis) -> dict[str, str]:
    return {symptom.name: verdict.severity for symptom, verdict in diagnosis.verdicts}


def check_commands(diagnosis: Diagnosis) -> None:
    """Every command line can be typed, and changes the run or starts another one."""
    for symptom, verdict in diagnosis.verdicts:
        if verdict.severity not in ("wrong", "worth knowing"):
            assert verdict.command is None, symptom.name
        if verdict.command is not None:
            program, verb, path, *overrides = shlex.split(verdict.command)
            before = load_recipe(path)
            after = load_recipe(path, overrides)
            assert (program, verb) == ("wavedistill", "distill" if isinstance(before, StudentRecipe) else "train")
            assert after != before or symptom.name == "not finished"


# ---- healthy runs


@pytest.mark.parametrize("name", ["teacher", "student", "flow"])
def test_the_runs_of_the_released_voices_are_healthy(name, tmp_path):
    diagnosis = diagnose(released(tmp_path / name, name)[0])
    found = severities(diagnosis)
    assert set(found.values()) <= {"healthy", "not checked"}
    assert {"not finite", "learning rate too high", "finished too early", "overfitting"} <= {
        s.name for s, _ in diagnosis.of("healthy")
    }
    assert diagnosis.markdown.startswith(f"# {name}: healthy\n") and "## Healthy" in diagnosis.markdown
    if "student" in name:
        assert all(
            found[term] == "healthy"
            for term in ("whisper", "floor collapse", "pitch not learned", "far from the teacher")
        )


# ---- samples


@pytest.fixture(scope="module")
def spoken() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Two clips and what the bundled student makes of their mels."""
    voice = Vocoder.from_pretrained("speech-student")
    pairs = []
    for clip in ("en_agent-user", "en_auth-incorrect"):
        audio, rate = load_audio(recipe_path(f"quickstart/clips/audio/{clip}.flac"))
        pairs.append((audio, voice(audio, rate)[: len(audio)]))
    return pairs


def noise(audio: torch.Tensor) -> torch.Tensor:
    return 0.003 * torch.randn(audio.shape, generator=torch.Generator().manual_seed(0))


def filtered(audio: torch.Tensor, gain: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """A zero-phase filter by its gain at each frequency in Hz."""
    spectrum = torch.fft.rfft(audio)
    return torch.fft.irfft(spectrum * gain(torch.linspace(0, 8000, len(spectrum))), len(audio))


def higher(audio: torch.Tensor) -> torch.Tensor:
    """Played 8 % faster and then over again, so that time does not move by more than a frame or two: in pieces."""
    pieces = [
        torch.nn.functional.interpolate(p[None, None], scale_factor=1 / 1.08, mode="linear")[0, 0]
        for p in audio.split(2000)
    ]
    return torch.cat(
        [torch.cat([p, p])[: len(original)] for p, original in zip(pieces, audio.split(2000), strict=True)]
    )


SPOILT = {
    "whisper": lambda audio: 0.6 * audio,
    "too loud": lambda audio: (3.0 * audio).clamp(-1, 1),
    "hiss": lambda audio: audio + noise(audio),
    "dull": lambda audio: filtered(audio, lambda hz: (hz < 3500).float()),
    "mel mismatch": lambda audio: filtered(audio, lambda hz: torch.exp(0.9 * torch.sin(hz.clamp_min(100).log() * 4))),
    "wrong pitch": higher,
}


@pytest.mark.parametrize("name", [None, *SPOILT])
def test_samples_are_heard(name, spoken, tmp_path):
    folder, _ = released(tmp_path / "run")
    for step in (500, 2000):  # only the newest samples count
        for index, (original, made) in enumerate(spoken):
            audio = made if name is None or step == 500 else SPOILT[name](made)
            save_audio(folder / "samples" / f"step-{step:07d}" / f"{index}-original.wav", original, 16000)
            save_audio(folder / "samples" / f"step-{step:07d}" / f"{index}-student.wav", audio, 16000)
    diagnosis = diagnose(folder)
    found = severities(diagnosis)
    assert {key for key in SPOILT if found[key] == "not checked"} == set()
    if name is None:
        assert set(found.values()) == {"healthy"}
    else:
        assert found[name] in ("wrong", "worth knowing"), diagnosis.markdown
        # a filter changes the mel with the band, and two the level: the rest is innocent
        others = {"dull": {"mel mismatch"}, "mel mismatch": {"too loud", "hiss"}}.get(name, set())
        assert {key for key, value in found.items() if value != "healthy"} <= {name} | others, diagnosis.markdown
    check_commands(diagnosis)


# ---- synthetic curves


def over(lines: Lines, kind: str, name: str, curve: Callable[[float], float]) -> None:
    """Give a metric the values of curve(share of the run)."""
    for line in (line for line in lines if line["kind"] == kind and name in line):
        line[name] = curve(line["step"] / lines[-1]["step"])


def spikes(lines: Lines) -> None:
    for line in [line for line in lines if line["kind"] == "train"][20::20]:
        line["grad_norm"] = 400.0


def diverging(lines: Lines) -> None:
    over(lines, "train", "loss", lambda t: 5.0 - 2 * t if t < 0.6 else 3.8 + 2 * (t - 0.6))


def overfitted(lines: Lines) -> None:
    over(lines, "train", "loss", lambda t: 3.0 - t)
    over(lines, "valid", "loss", lambda t: 3.0 - t if t < 0.5 else 2.2 + 0.6 * t)


def steep(lines: Lines) -> None:
    over(lines, "valid", "loss", lambda t: 5.0 - 2.0 * t)


def stopped(lines: Lines) -> None:
    del lines[len(lines) // 2 :]


def few(lines: Lines) -> None:
    for line in lines:
        line["step"] //= 10


def slow(lines: Lines) -> None:
    over(lines, "train", "audio_seconds_per_second", lambda t: 2.0 if t < 0.7 else 0.5)


def standing(lines: Lines) -> None:
    over(lines, "valid", "stft", lambda t: 1.4 - 0.02 * t)
    over(lines, "valid", "pitch", lambda t: 4.0 - 2 * t)


def clipped(lines: Lines) -> None:
    over(lines, "train", "kl", lambda t: 0.3)
    over(lines, "train", "kl_nats", lambda t: 0.5)


def last(name: str, value: float) -> Callable[[Lines], None]:
    return lambda lines: lines[-1].update({name: value})


def null(lines: Lines) -> None:
    lines[-2]["loss"] = None


BROKEN = [
    ("not finite", "wrong", null, ()),
    ("learning rate too high", "wrong", spikes, ()),
    ("learning rate too high", "wrong", diverging, ()),
    ("overfitting", "wrong", overfitted, ()),
    ("finished too early", "worth knowing", steep, ()),
    ("not finished", "worth knowing", stopped, ()),
    ("few steps", "worth knowing", few, ()),
    ("slowed down", "worth knowing", slow, ()),
    ("spectrum stands still", "worth knowing", standing, ()),
    ("divergence still clipped", "worth knowing", clipped, ()),
    ("far from the teacher", "worth knowing", last("kl_nats", 1.4), ()),
    ("far from the teacher", "wrong", last("kl_nats", 4.0), ()),
    ("entropy too low", "worth knowing", last("entropy", -5.6), ()),
    ("entropy too low", "wrong", last("entropy", -7.0), ()),
    ("floor collapse", "wrong", last("floor_share", 0.4), ()),
    ("pitch not learned", "wrong", last("pitch", 4.0), ()),
    ("whisper", "wrong", last("amplitude_std", 0.05), ()),
    ("too loud", "wrong", last("amplitude_std", 0.2), ()),
    ("scales cut off", "wrong", None, ("--model.log_scale_min", "0")),
    ("no average", "worth knowing", None, ("--optim.ema", "0")),
    ("raw samples", "wrong", None, ("--model.front.mel_prediction_order", "0")),
    ("teacher too weak", "worth knowing", None, ("--loss.allow_weak_teacher",)),
    ("no divergence", "worth knowing", None, ("--loss.weights.kl", "0")),
    ("divergence alone", "wrong", None, ("--loss.weights.stft", "0", "--loss.weights.mel", "0")),
]


@pytest.mark.parametrize(
    ("name", "severity", "change", "overrides"), BROKEN, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_broken_run_is_named(name, severity, change, overrides, tmp_path):
    folder, lines = released(tmp_path / "run", overrides=overrides)
    if change is not None:
        change(lines)
        write(folder, lines)
    diagnosis = diagnose(folder)
    found = severities(diagnosis)
    assert found[name] == severity, diagnosis.markdown
    sound = {key for key, value in found.items() if value in ("wrong", "worth knowing")} - {name}
    assert sound <= {"overfitting": {"finished too early"}, "not finite": set()}.get(name, set()), diagnosis.markdown
    (symptom,) = [symptom for symptom in SYMPTOMS if symptom.name == name]
    assert symptom.cause in diagnosis.markdown and symptom.remedy in diagnosis.markdown
    check_commands(diagnosis)


def test_every_symptom_can_be_found():
    assert {name for name, *_ in BROKEN} | SPOILT.keys() | {"learning rate too low"} == set(NAMES) and len(
        set(NAMES)
    ) == len(NAMES)


def test_a_run_that_trains_is_not_unfinished_and_one_that_hangs_is(tmp_path):
    folder, lines = released(tmp_path / "run")
    stopped(lines)
    write(folder, lines)
    with run_lock(folder):
        assert severities(diagnose(folder))["not finished"] == "healthy"
        long_ago = time.time() - 7200
        os.utime(folder / "metrics.jsonl", (long_ago, long_ago))
        hanging = diagnose(folder)
    assert severities(hanging)["not finished"] == "wrong" and "120 min ago" in hanging.markdown
    assert severities(diagnose(folder))["not finished"] == "worth knowing"


def test_nothing_takes_a_ruined_run_further(tmp_path):
    folder, lines = released(tmp_path / "run")
    diverging(lines)
    few(lines)
    write(folder, lines)
    commands = {symptom.name: verdict.command for symptom, verdict in diagnose(folder).verdicts if verdict.command}
    assert commands.keys() == {"learning rate too high"} and "--optim.lr 0.001" in commands["learning rate too high"]


def test_a_slower_run_halves_both_optimizers_rates(tmp_path):
    folder, lines = released(tmp_path / "run", overrides=("--optim.muon_lr", "0.02"))
    diverging(lines)
    write(folder, lines)
    diagnosis = diagnose(folder)
    (command,) = [
        verdict.command for symptom, verdict in diagnosis.verdicts if symptom.name == "learning rate too high"
    ]
    assert "--optim.lr 0.001 --optim.muon_lr 0.01 " in command
    check_commands(diagnosis)


def test_a_moved_run_is_continued_where_it_lies(tmp_path):
    folder, lines = released(tmp_path / "run")
    stopped(lines)
    write(folder, lines)
    moved = folder.rename(tmp_path / "moved here")
    (verdict,) = [verdict for symptom, verdict in diagnose(moved).verdicts if symptom.name == "not finished"]
    words = shlex.split(verdict.command)
    assert words[2] == str(moved / "config.yaml") and words[-2:] == ["--run.dir", str(moved)]


# ---- real runs of tiny models, badly set


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return prepared_speech(tmp_path_factory.mktemp("data"), train=3, valid=1)


@pytest.fixture
def bad_teacher(manifest: Path, tmp_path: Path) -> TeacherRecipe:
    model = WaveNetConfig(
        mel=MEL, sample_rate=8000, stack=STACK, cond_channels=8, linear_order=4, front=FRONTS["mel-prediction"]
    )
    run = RunConfig(
        dir=str(tmp_path / "teacher"),
        steps=12,
        log_every=1,
        validate_every=6,
        validate_batches=1,
        save_every=100,
        wandb="off",
        device="cpu",
    )
    data = DataConfig(str(manifest), segment_seconds=0.1, batch_size=2)
    return TeacherRecipe(model=model, data=data, optim=OptimConfig(warmup_steps=1), run=run)


@pytest.fixture
def bad_student(bad_teacher: TeacherRecipe, tmp_path: Path) -> StudentRecipe:
    save_pretrained(tiny_teacher(front=FRONTS["mel-prediction"]), tmp_path / "voice")
    model = ParallelWaveNetConfig(
        mel=MEL,
        sample_rate=8000,
        num_flows=1,
        stack=STACK,
        cond_channels=8,
        linear_order=4,
        source_order=4,
        source_iterations=0,
        front=FRONTS["mel-prediction"],
    )
    run = dataclasses.replace(bad_teacher.run, dir=str(tmp_path / "student"))
    loss = DistillationConfig(allow_weak_teacher=True)
    return StudentRecipe(
        model=model, data=bad_teacher.data, loss=loss, optim=bad_teacher.optim, run=run, teacher=str(tmp_path / "voice")
    )


@pytest.mark.parametrize(("rate", "name"), [("1.0", "learning rate too high"), ("1e-9", "learning rate too low")])
def test_a_teacher_of_a_bad_rate(rate, name, bad_teacher):
    diagnosis = diagnose(train_teacher(bad_teacher, ["--optim.lr", rate]))
    assert severities(diagnosis)[name] == "wrong", diagnosis.markdown
    check_commands(diagnosis)


def test_a_teacher_that_stops_at_once(bad_teacher):
    with pytest.raises(WavedistillError, match="not finite"):
        train_teacher(bad_teacher, ["--optim.lr", "1e30"])
    diagnosis = diagnose(bad_teacher.run.dir)
    assert severities(diagnosis)["not finite"] == "wrong" and "at step 1," in diagnosis.markdown
    check_commands(diagnosis)
    train_teacher(bad_teacher, ["--optim.lr", "1e-3"])  # the run goes on by a lower rate
    assert severities(diagnose(bad_teacher.run.dir))["not finite"] == "worth knowing"


def test_a_student_of_the_divergence_alone_whispers(bad_student):
    bad_student.loss.weights = {"kl": 1.0}
    found = severities(diagnose(distill_student(bad_student)))
    assert {found[name] for name in ("divergence alone", "whisper", "pitch not learned")} == {"wrong"}


def test_a_student_on_its_floor(bad_student):
    diagnosis = diagnose(distill_student(bad_student, overrides=["--loss.log_scale_floor", "1", "--run.steps", "4"]))
    assert severities(diagnosis)["floor collapse"] == "wrong"
    check_commands(diagnosis)


@pytest.mark.parametrize(("bits", "severity"), [(16.0, "wrong"), (4.0, "healthy")])
def test_a_teacher_is_held_against_linear_prediction_on_the_same_crops(bits, severity, bad_teacher):
    folder = Path(bad_teacher.run.dir)
    dump_yaml(bad_teacher, folder / "config.yaml")
    write(folder, [{"step": 1, "kind": kind, "elapsed": 1.0, "loss": 1.0, "bits": bits} for kind in ("train", "valid")])
    diagnosis = diagnose(folder)
    assert severities(diagnosis)["teacher too weak"] == severity and f"{bits:.2f} bits per sample" in diagnosis.markdown


# ---- what is no run


def test_what_is_no_run_is_refused_in_one_line(tmp_path):
    save_pretrained(tiny_teacher(), tmp_path / "voice")
    (tmp_path / "empty").mkdir()
    for name, message in (("nowhere", "is no folder"), ("empty", "holds no config.yaml"), ("voice", "is a checkpoint")):
        with pytest.raises(WavedistillError, match=message) as error:
            diagnose(tmp_path / name)
        assert "metrics.jsonl" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(WavedistillError, match="is a checkpoint"):
        diagnose("speech-student")
    folder, lines = released(tmp_path / "run")
    write(folder, [])
    with pytest.raises(WavedistillError, match="logged nothing yet.*run.log_every = "):
        diagnose(folder)
    write(folder, lines)
    whole = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(whole + '{"step": 9')  # killed while it wrote
    assert set(severities(diagnose(folder)).values()) <= {"healthy", "not checked"}
    (folder / "metrics.jsonl").write_text(whole.replace('"kind": "train"', '"kin', 1))
    with pytest.raises(WavedistillError, match="metrics.jsonl, line 1 is no line"):
        diagnose(folder)
    (folder / "config.yaml").write_text("modle: {}\n")
    with pytest.raises(WavedistillError, match="config.yaml.*unknown key 'modle'"):
        diagnose(folder)


# ---- the verb, and verdicts


def test_the_verb_prints_and_writes(tmp_path, capsys):
    folder, lines = released(tmp_path / "run")
    last("amplitude_std", 0.05)(lines)
    write(folder, lines)
    assert cli.main(["doctor", str(folder), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("# run: 1 wrong\n") and "## whisper (wrong)" in printed
    assert (tmp_path / "out" / "doctor.md").read_text() == printed
    report = json.loads((tmp_path / "out" / "doctor.json").read_text())
    (wrong,) = [verdict for verdict in report["verdicts"] if verdict["severity"] == "wrong"]
    assert (report["role"], report["step"], wrong["symptom"]) == ("student", lines[-1]["step"], "whisper")
    assert {"evidence", "cause", "change", "command"} <= wrong.keys()
    assert cli.main(["doctor", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_verdicts_are_graded_either_way():
    assert [graded(value, 1.0, 2.0, "", "go").severity for value in (1.0, 1.5, 2.5)] == [
        "healthy",
        "worth knowing",
        "wrong",
    ]
    assert [graded(value, 0.9, 0.8, "", "go").severity for value in (0.9, 0.85, 0.7)] == [
        "healthy",
        "worth knowing",
        "wrong",
    ]
    assert graded(0.0, 1.0, 2.0, "", "go").command is None and graded(3.0, 1.0, 2.0, "", "go").command == "go"
    note = Verdict("worth knowing", "a")
    skipped = Verdict("not checked", "b")
    assert worse(skipped, note) == worse(note, skipped) == note
    assert worse(note, Verdict("wrong", "c", "go")) == Verdict("wrong", "a; c", "go")
