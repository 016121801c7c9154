"""``wavedistill quickstart``: hear and measure the bundled voice, then train and distil a tiny one, in five minutes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wavedistill.assets import recipe_path
from wavedistill.audio.io import load_audio, save_audio
from wavedistill.audio.plot import plot_mels
from wavedistill.data.manifest import read_manifest
from wavedistill.errors import WavedistillError
from wavedistill.evaluation.anchors import griffin_lim
from wavedistill.inference.vocoder import Vocoder
from wavedistill.metrics.registry import measure, missing_packages
from wavedistill.training import distill_student, train_teacher
from wavedistill.training.curves import plot_curves, read_curve

COLUMNS = {
    "pesq_wb": "PESQ-wb",
    "mcd": "MCD dB",
    "f0_cents": "F0 cents",
    "voicing_percent": "V/UV %",
    "log_spectral_distance": "LSD dB",
}

METRICS = ("pesq_wb", "mcd", "f0", "level")
"""Groups of numbers that are computed, as far as their packages are installed."""

Echo = Callable[[str], object]


@dataclass
class Spoken:
    """What one system made of the held-out clips: ``speed`` in seconds of audio per second of computing."""

    audio: list[Tensor]
    speed: float
    scores: dict[str, float]


def run_quickstart(out: str | Path, *, echo: Echo, minutes: float = 1.0, excerpt_seconds: float = 0.5) -> Path:
    """Write wavs, pictures and two small runs into ``out`` and tell about it through ``echo``.

    Args:
        out: output folder; a second run there continues where a stopped one was.
        echo: takes the lines to show, for example ``print``.
        minutes: training time of the tiny teacher, and again of the tiny student.
        excerpt_seconds: what the bundled teacher samples; a second takes it a minute or so.
    """
    out = Path(out)
    start = time.perf_counter()
    clips = _copy_clips(out)
    bundled = Vocoder.from_pretrained("speech-student")
    test = [entry.audio for entry in read_manifest(clips) if entry.split == "test"]
    held_out = [load_audio(path, bundled.sample_rate)[0] for path in test]
    echo(f"[1/3] {len(held_out)} held-out recordings, through the bundled voice (speech-student, speech-teacher)")
    mels = _listen(held_out, bundled, out, echo, excerpt_seconds)

    echo(f"\n[2/3] a tiny teacher, trained for {60 * minutes:.0f} s on a few bundled recordings")
    options = [
        "--data.manifest",
        str(clips),
        "--run.minutes",
        str(minutes),
        "--run.wandb",
        "off",
        "--run.dir",
    ]
    teacher = train_teacher(recipe_path("quickstart/teacher.yaml"), [*options, str(out / "tiny-teacher")])
    teacher_curve = read_curve(teacher / "metrics.jsonl", "bits")
    echo(f"bits per sample: {_summary(teacher_curve)} (fewer is better: the teacher predicts the recordings better)")

    echo(f"\n[3/3] a tiny student, distilled from it for {60 * minutes:.0f} s")
    student = distill_student(recipe_path("quickstart/student.yaml"), teacher, [*options, str(out / "tiny-student")])
    student_curve = read_curve(student / "metrics.jsonl", "loss")
    echo(f"distillation loss: {_summary(student_curve)}")
    voice = Vocoder.from_pretrained(student)
    audio = voice(held_out[0], seed=0)
    save_audio(out / "audio" / "tiny-student.wav", audio, voice.sample_rate)
    mels["tiny student, after a minute each of training and distilling"] = voice.mel(audio)

    plot_mels(mels, out / "mels.png", voice.hop_length, voice.sample_rate)
    plot_curves(
        {"teacher: bits per sample": {"": teacher_curve}, "student: distillation loss": {"": student_curve}},
        out / "curves.png",
    )
    echo(_farewell(out, time.perf_counter() - start))
    return out


def _copy_clips(out: Path) -> Path:
    """The bundled clips' manifest in ``out``: training caches features beside it, and a package may be read-only."""
    try:
        shutil.copytree(recipe_path("quickstart/clips"), out / "clips", dirs_exist_ok=True)
    except (OSError, shutil.Error) as error:
        raise WavedistillError(f"the output folder {out} cannot be written ({error}): choose another --out") from error
    return out / "clips" / "manifest.jsonl"


def _listen(
    held_out: Sequence[Tensor], student: Vocoder, out: Path, echo: Echo, excerpt_seconds: float
) -> dict[str, Tensor]:
    """Re-synthesise, write wavs, print the table; returns the mels of the first clip by title."""
    teacher = Vocoder.from_pretrained("speech-teacher")
    rate = student.sample_rate
    student(held_out[0][: rate // 4])  # the first pass allocates buffers: not to be timed
    spoken = _speak(held_out, rate, lambda audio: student(audio, seed=0))
    classic = _speak(held_out, rate, lambda audio: griffin_lim(student.mel(audio), student.mel_config)[: len(audio)])
    begin = _loudest(held_out[0], int(excerpt_seconds * rate), teacher.hop_length)
    excerpt = [held_out[0][begin : begin + int(excerpt_seconds * rate)]]
    slow = _speak(excerpt, rate, lambda audio: teacher(audio, seed=0, progress=True), score=False)

    for index, original in enumerate(held_out):
        for name, audio in (
            ("original", original),
            ("student", spoken.audio[index]),
            ("griffin-lim", classic.audio[index]),
        ):
            save_audio(out / "audio" / f"{index + 1}-{name}.wav", audio, rate)
    save_audio(out / "audio" / "1-teacher-excerpt.wav", slow.audio[0], rate)
    rows = {
        "speech-student": spoken,
        "Griffin-Lim (60 iterations)": classic,
        "speech-teacher (excerpt)": slow,
    }
    echo(_table(rows))
    echo("less is better but for speed and PESQ; LSD sees magnitudes only, which is all that Griffin-Lim fits")
    echo(f"the student is {spoken.speed / slow.speed:,.0f} times as fast as its teacher on this machine")
    if missing := missing_packages(METRICS):
        echo(
            f'not measured: {", ".join(COLUMNS.get(name, name) for name in missing)} (pip install "wavedistill[eval]")'
        )
    return {
        "original": student.mel(held_out[0]),
        "speech-student": student.mel(spoken.audio[0]),
        "Griffin-Lim from the same mel": student.mel(classic.audio[0]),
        f"speech-teacher, {begin / rate:.2f} to {begin / rate + excerpt_seconds:.2f} s": student.mel(slow.audio[0]),
    }


def _speak(clips: Sequence[Tensor], rate: int, system: Callable[[Tensor], Tensor], score: bool = True) -> Spoken:
    start = time.perf_counter()
    audio = [system(clip) for clip in clips]
    spent = time.perf_counter() - start
    scores = [measure(clip, made, rate, METRICS) for clip, made in zip(clips, audio, strict=True)] if score else []
    means = {name: sum(one[name] for one in scores) / len(scores) for name in (scores[0] if scores else ())}
    return Spoken(audio, sum(map(len, clips)) / rate / spent, means)


def _loudest(audio: Tensor, length: int, hop_length: int) -> int:
    """Start of the ``length`` samples with the most energy, on the frame grid."""
    energy = torch.nn.functional.pad(audio.square().cumsum(0), (1, 0))
    return int((energy[length:] - energy[:-length])[::hop_length].argmax()) * hop_length if len(audio) > length else 0


def _table(rows: Mapping[str, Spoken]) -> str:
    shown = {name: title for name, title in COLUMNS.items() if any(name in row.scores for row in rows.values())}
    lines = [f"{'':<28}{'x real time':>12}" + "".join(f"{title:>10}" for title in shown.values())]
    for name, row in rows.items():
        cells = (f"{row.scores[column]:>10.2f}" if column in row.scores else f"{'-':>10}" for column in shown)
        lines.append(f"{name:<28}{row.speed:>12.3g}" + "".join(cells))
    return "\n".join(lines)


def _summary(curve: Sequence[tuple[int, float]]) -> str:
    """Means of up to six equal parts of a curve: single batches are noisy."""
    parts = torch.tensor([value for _, value in curve]).tensor_split(min(6, len(curve)))
    return " -> ".join(f"{float(part.mean()):.2f}" for part in parts) + f" over {curve[-1][0]} steps"


def _farewell(out: Path, seconds: float) -> str:
    return f"""
done in {seconds / 60:.1f} minutes; everything is in {out}/
  audio/        originals, student, Griffin-Lim, teacher (excerpt), the tiny student
  mels.png      mel spectrograms of the first recording on one scale
  curves.png    the two training curves
  tiny-teacher/, tiny-student/   run folders, usable wherever a checkpoint is

next:
  wavedistill synthesize YOUR.wav --checkpoint speech-student --out spoken
  wavedistill demo
  wavedistill prepare FOLDER_OF_RECORDINGS --out data/mine
  wavedistill train recipes/quickstart/teacher.yaml --data.manifest data/mine --run.dir runs/teacher --run.minutes 60
  wavedistill distill recipes/quickstart/student.yaml --teacher runs/teacher --data.manifest data/mine \\
      --run.dir runs/student --run.minutes 60"""
