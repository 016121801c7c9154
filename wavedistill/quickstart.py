"""``wavedistill quickstart``: hear and measure the bundled voice, then train and distil a tiny one, in five minutes."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from wavedistill.assets import recipe_path
from wavedistill.audio.io import load_audio, save_audio
from wavedistill.audio.plot import plot_mels
from wavedistill.data.manifest import read_manifest
from wavedistill.errors import WavedistillError
from wavedistill.evaluation.anchors import griffin_lim
from wavedistill.inference.vocoder import Vocoder
from wavedistill.metrics.registry import measure
from wavedistill.training import distill_student, train_teacher
from wavedistill.training.curves import plot_curves, read_curve

Clip = TypeVar("Clip")
Echo = Callable[[str], object]
Progress = Callable[[Sequence[Clip], str], Iterable[Clip]]
"""(what is gone through, a title) -> the same, one by one; tqdm for example."""


class Scores(NamedTuple):
    """What ears hear of a clip: an opinion score, and errors of pitch and voicing against the original."""

    distillmos: float
    pitch_cents: float
    pitch_voicing_percent: float


@dataclass
class Resynthesis:
    """What one system made of the held-out clips: ``speed`` in seconds of audio per second of computing."""

    audio: list[Tensor]
    speed: float
    scores: Scores | None = None


def run_quickstart(
    out: str | Path,
    *,
    echo: Echo,
    progress: Progress | None = None,
    minutes: float = 1.0,
    excerpt_seconds: float = 0.5,
) -> Path:
    """Write wavs, pictures and two small runs into ``out`` and tell about it through ``echo``.

    Args:
        out: output folder; a second run there continues where a stopped one was.
        echo: takes the lines to show, for example ``print``.
        progress: wraps each list of clips with a title; None: nothing is shown while a system speaks.
        minutes: training time of the tiny teacher, and again of the tiny student.
        excerpt_seconds: what the bundled teacher samples; a second takes it a minute or so.
    """
    out = Path(out)
    start = time.perf_counter()
    echo(f"about {3 + 2 * minutes:.0f} minutes on two cores; Ctrl-C stops, the same command continues the trainings")
    clips = _copy_clips(out)
    bundled = Vocoder.from_pretrained("speech-student")
    test = [entry.audio for entry in read_manifest(clips) if entry.split == "test"]
    held_out = [load_audio(path, bundled.sample_rate)[0] for path in test]
    seconds = sum(map(len, held_out)) / bundled.sample_rate
    systems = "the bundled student, Griffin-Lim and the bundled teacher"
    echo(f"\n[1/3] {len(held_out)} held-out recordings ({seconds:.0f} s), resynthesised by {systems}")
    mels = _listen(held_out, bundled, out, echo, progress, excerpt_seconds)

    echo(f"\n[2/3] a tiny teacher, trained for {60 * minutes:.0f} s on a few bundled recordings")
    options = ["--data.manifest", str(clips), "--run.minutes", str(minutes), "--run.wandb", "off", "--run.dir"]
    teacher = train_teacher(recipe_path("quickstart/teacher.yaml"), [*options, str(out / "tiny-teacher")])
    teacher_curve = read_curve(teacher / "metrics.jsonl", "bits")
    echo(f"bits per sample: {_summary(teacher_curve)} (fewer is better: the teacher predicts the recordings better)")

    echo(f"\n[3/3] a tiny student, distilled from it for {60 * minutes:.0f} s")
    student = distill_student(recipe_path("quickstart/student.yaml"), teacher, [*options, str(out / "tiny-student")])
    student_curve = read_curve(student / "metrics.jsonl", "loss")
    echo(f"distillation loss: {_summary(student_curve)} (less is better: the student comes closer to its teacher)")
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
    held_out: Sequence[Tensor],
    student: Vocoder,
    out: Path,
    echo: Echo,
    progress: Progress | None,
    excerpt_seconds: float,
) -> dict[str, Tensor]:
    """Re-synthesise, write wavs, print the table; returns the mels of the first clip by title."""
    teacher = Vocoder.from_pretrained("speech-teacher")
    rate = student.sample_rate
    length = int(excerpt_seconds * rate)
    begin = _loudest(held_out[0], length, teacher.hop_length)
    excerpt = [held_out[0][begin : begin + length]]

    def rebuild(audio: Tensor) -> Tensor:
        return griffin_lim(student.mel(audio), student.mel_config)[: len(audio)]

    def sample(audio: Tensor) -> Tensor:
        return teacher(audio, seed=0, progress=progress is not None)

    bar = progress or (lambda clips, title: clips)
    spoken = _speak(held_out, rate, lambda audio: student(audio, seed=0), bar, "student")
    classic = _speak(held_out, rate, rebuild, bar, "Griffin-Lim")
    slow = _speak(excerpt, rate, sample, bar, "teacher", warm_up=2 * teacher.hop_length)
    original = Resynthesis(list(held_out), math.nan)
    for title, system in (("original", original), ("student", spoken), ("Griffin-Lim", classic)):
        system.scores = _measure(held_out, system.audio, rate, bar, f"scores of {title}")
        for index, audio in enumerate(system.audio, start=1):
            save_audio(out / "audio" / f"{index}-{title.lower()}.wav", audio, rate)
    save_audio(out / "audio" / "1-teacher-excerpt.wav", slow.audio[0], rate)
    rows = {
        "original": original,
        "speech-student": spoken,
        "Griffin-Lim (60 iterations)": classic,
        "speech-teacher (excerpt)": slow,
    }
    echo(_table(rows))
    echo(f"the student is {spoken.speed / slow.speed:,.0f} times as fast as its teacher on this machine")
    return {
        "original": student.mel(held_out[0]),
        "speech-student": student.mel(spoken.audio[0]),
        "Griffin-Lim from the same mel": student.mel(classic.audio[0]),
        f"speech-teacher, {begin / rate:.2f} to {begin / rate + excerpt_seconds:.2f} s": student.mel(slow.audio[0]),
    }


def _speak(
    clips: Sequence[Tensor],
    rate: int,
    system: Callable[[Tensor], Tensor],
    bar: Progress,
    title: str,
    warm_up: int | None = None,
) -> Resynthesis:
    """Every clip through ``system``, timed; its first pass, on ``warm_up`` samples, compiles and is not timed."""
    for clip in bar([clips[0][: warm_up or rate]], f"{title}: compiling"):
        system(clip)
    audio = []
    spent = 0.0
    for clip in bar(clips, f"{title}: speaking"):
        start = time.perf_counter()
        audio.append(system(clip))
        spent += time.perf_counter() - start
    return Resynthesis(audio, sum(map(len, clips)) / rate / spent)


def _measure(originals: Sequence[Tensor], made: Sequence[Tensor], rate: int, bar: Progress, title: str) -> Scores:
    """Means over the clips."""
    pairs = list(zip(originals, made, strict=True))
    found = [measure(original, audio, rate, ("distillmos", "pitch")) for original, audio in bar(pairs, title)]
    return Scores(*(sum(one[name] for one in found) / len(found) for name in Scores._fields))


def _loudest(audio: Tensor, length: int, hop_length: int) -> int:
    """Start of the ``length`` samples with the most energy, on the frame grid."""
    energy = torch.nn.functional.pad(audio.square().cumsum(0), (1, 0))
    return int((energy[length:] - energy[:-length])[::hop_length].argmax()) * hop_length if len(audio) > length else 0


def _table(rows: Mapping[str, Resynthesis]) -> str:
    lines = [f"{'':<28}{'x real time':>12}{'DistillMOS':>12}{'pitch cents':>13}{'pitch V/UV %':>14}"]
    for name, row in rows.items():
        speed = "-" if math.isnan(row.speed) else f"{row.speed:.3g}"
        cells = f"{'-':>12}{'-':>13}{'-':>14}"
        if row.scores is not None:
            mos, cents, voicing = row.scores
            cells = f"{mos:>12.2f}{cents:>13.1f}{voicing:>14.1f}"
        lines.append(f"{name:<28}{speed:>12}{cells}")
    return "\n".join(
        [
            *lines,
            "x real time: seconds of audio made in a second. DistillMOS: the opinion of listeners, predicted by a "
            "network (1 bad to 5 excellent).",
            "pitch cents: error of the pitch (100 cents are a semitone). V/UV: moments that are voiced in one of "
            "original and copy only.",
        ]
    )


def _summary(curve: Sequence[tuple[int, float]]) -> str:
    """Means of up to six equal parts of a curve: single batches are noisy."""
    parts = torch.tensor([value for _, value in curve]).tensor_split(min(6, len(curve)))
    return " -> ".join(f"{float(part.mean()):.2f}" for part in parts) + f" over {curve[-1][0]} steps"


def _farewell(out: Path, seconds: float) -> str:
    return f"""
done in {seconds / 60:.1f} minutes; everything is in {out}/

play first: {out}/audio/1-original.wav, a recording, then
            {out}/audio/1-student.wav, what the student makes of its mel spectrogram, and
            {out}/audio/1-griffin-lim.wav, the same without a model

  audio/        originals, student, Griffin-Lim, teacher (excerpt), the tiny student (noisy: it learned for a minute)
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
