"""Small jobs of the commands that work for long, and what must be the same however often they were interrupted."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from helpers.tiny_models import prepared_speech, speech_like, tiny_student, tiny_teacher

from reliability.isolated import Ended, Running, warm_up
from wavedistill.audio.io import save_audio
from wavedistill.models.pretrained import save_pretrained
from wavedistill.training.checkpoint import load_state
from wavedistill.training.metrics_file import METRICS_FILE, read_metrics

RATE = 8000
CLOCK = ("elapsed", "steps_per_second", "audio_seconds_per_second")
STACK = "{num_layers: 2, num_cycles: 1, kernel_size: 2, channels: 4, skip_channels: 4}"
MEL = "{sample_rate: 8000, n_fft: 256, win_length: 256, hop_length: 64, n_mels: 20, f_max: 4000.0}"
RECIPE = f"""\
kind: KIND
model: {{mel: {MEL}, sample_rate: 8000, stack: {STACK}, cond_channels: CHANNELS, linear_order: 4MORE}}
data: {{manifest: MANIFEST, batch_size: 2, segment_seconds: 0.25}}
optim: {{warmup_steps: 2}}
run:
  {{dir: RUN, steps: 12, log_every: 1, validate_every: 6, validate_batches: 1, sample_every: 6, save_every: 3, keep: 9,
    device: cpu, wandb: "off"}}
"""


@dataclass(frozen=True)
class Job:
    """A command, and where its work lies.

    Attributes:
        name: the command.
        words: what is typed.
        out: the folder it fills.
        kept: pattern of the files in it that are finished as soon as they are there: they must never be made again.
    """

    name: str
    words: list[str]
    out: Path
    kept: str

    def begin(self, before: Callable[[], None] = lambda: None) -> Running:
        """Start the command; `Running.wait` waits for it."""
        return Running(self.words, before)

    def run(self, before: Callable[[], None] = lambda: None) -> Ended:
        """Run the command undisturbed."""
        return self.begin(before).wait()

    def result(self) -> dict[str, str]:
        """Each file of the output folder and a hash of what must not depend on interruptions."""
        files = [path for path in sorted(self.out.rglob("*")) if path.is_file()]
        return {str(path.relative_to(self.out)): _hash(path) for path in files}

    def finished(self) -> dict[str, tuple[int, int]]:
        """The files that must not be made again: their inodes, which a rename changes, and dates."""
        return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in self.out.glob(self.kept)}

    def clear(self) -> None:
        """Remove the output."""
        shutil.rmtree(self.out, ignore_errors=True)


def make_jobs(folder: Path) -> dict[str, Job]:
    """The five commands over small models and recordings in ``folder``; imports what they need."""
    teacher = save_pretrained(tiny_teacher(), folder / "teacher")
    student = save_pretrained(tiny_student(), folder / "student")
    warm_up(student, teacher)
    for number in range(8):
        save_audio(folder / "in" / f"{number}.flac", speech_like(1.0 + 0.2 * number, RATE, seed=number), RATE)
    manifest = prepared_speech(folder / "speech", train=3, valid=1)
    runs = {
        "train": RECIPE.replace("KIND", "teacher").replace("CHANNELS", "4").replace("MORE", ""),
        "distill": RECIPE.replace("KIND", "student").replace("CHANNELS", "8").replace("MORE", ", source_order: 4")
        + f"loss: {{allow_weak_teacher: true}}\nteacher: {teacher}\n",
    }
    jobs = [
        Job("prepare", ["prepare", f"{folder}/in", "--sample-rate", f"{RATE}"], folder / "prepared", "wavs/*.wav"),
        Job(
            "synthesize",
            ["synthesize", f"{folder}/in", "--checkpoint", f"{student}", "--batch-seconds", "3"],
            folder / "spoken",
            "*.wav",
        ),
        Job("compress", ["compress", f"{folder}/in"], folder / "packed", "*.wdc"),
    ]
    for job in jobs:
        job.words.extend(["--out", str(job.out)])
    for name, text in runs.items():
        out = folder / f"{name}-run"
        recipe = folder / f"{name}.yaml"
        recipe.write_text(text.replace("MANIFEST", str(manifest)).replace("RUN", str(out)))
        jobs.append(Job(name, [name, str(recipe)], out, "state/*.pt"))
    return {job.name: job for job in jobs}


def _hash(path: Path) -> str:
    if path.name == METRICS_FILE:
        content = [{name: v for name, v in line.items() if name not in CLOCK} for line in read_metrics(path)]
    elif path.suffix == ".pt":
        state = {name: value for name, value in load_state(path).items() if name not in ("elapsed", "wandb_id")}
        leaves = torch.utils._pytree.tree_flatten(state)[0]
        content = [leaf.tolist() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
    else:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return hashlib.sha256(repr(content).encode()).hexdigest()
