"""Speed on this machine: student against teacher, in one run."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wavedistill.audio.mel import LogMelSpectrogram
from wavedistill.config import write_json, write_text
from wavedistill.errors import WavedistillError
from wavedistill.losses import DistillationConfig, DistillationLoss
from wavedistill.models.parallel_wavenet import ParallelWaveNet
from wavedistill.models.pretrained import load_pretrained
from wavedistill.models.wavenet import WaveNet

TRAINING_BATCH, TRAINING_SECONDS = 2, 0.25


@dataclass(frozen=True)
class Speed:
    """One measurement: ``real_time`` is seconds of audio per second of computing, the median of ``repeats`` timings."""

    what: str
    threads: int
    batch: int
    audio_seconds: float
    real_time: float
    repeats: int


@dataclass(frozen=True)
class BenchmarkResult:
    """What `run_benchmark` measured.

    Attributes:
        speeds: every measurement.
        ratio: student (one clip at a time, the longest length) over cached teacher sampling, each at its best number of threads.
        training_samples_per_second: of a forward and backward pass, by task.
        peak_memory_mb: most memory the process had in use so far.
        machine: what it ran on.
    """

    speeds: list[Speed]
    ratio: float
    training_samples_per_second: dict[str, float]
    peak_memory_mb: float
    machine: dict[str, Any]

    @property
    def markdown(self) -> str:
        lines = ["| what | threads | batch | audio, s | x real time |", "|---|---:|---:|---:|---:|"]
        lines += [f"| {s.what} | {s.threads} | {s.batch} | {s.audio_seconds:g} | {s.real_time:.4g} |" for s in self.speeds]
        lines += ["", f"The student is {self.ratio:.0f} times as fast as the teacher's cached sampler (one clip, each with the number of threads it is fastest with).", ""]
        lines += [f"* {name}: {value:.0f} samples/s trained" for name, value in self.training_samples_per_second.items()]
        lines += [f"* peak memory of the process: {self.peak_memory_mb:.0f} MB"]
        lines += ["* " + ", ".join(f"{name} {value}" for name, value in self.machine.items())]
        return "\n".join(lines) + "\n"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def save(self, folder: str | Path) -> None:
        """Write benchmark.md and benchmark.json."""
        write_json(Path(folder) / "benchmark.json", self.to_json())
        write_text(Path(folder) / "benchmark.md", self.markdown)


def run_benchmark(
    teacher: str | Path | WaveNet = "speech-teacher",
    student: str | Path | ParallelWaveNet = "speech-student",
    *,
    seconds: Sequence[float] = (1.0, 5.0),
    batch_sizes: Sequence[int] = (1, 8),
    threads: Sequence[int] | None = None,
    repeats: int = 3,
    teacher_seconds: float = 0.25,
    out: str | Path | None = None,
    progress: bool = False,
) -> BenchmarkResult:
    """Measure synthesis, sampling and training speed on the CPU. Medians of ``repeats`` timings after a warm-up.

    Args:
        teacher, student: models, or checkpoints to load.
        seconds: lengths of audio the student makes at once.
        batch_sizes: clips it makes at once.
        threads: thread counts to try; by default 1 and 2 (as far as there are cores).
        repeats: timings of each measurement; teacher and training take at most 3.
        teacher_seconds: audio the teacher samples in each timing. The sampler that runs the whole network for every sample
            is timed on single samples, and its speed for a second of audio extrapolated.
        out: folder for benchmark.md and benchmark.json.
        progress: show a bar on stderr.
    """
    teacher = load_pretrained(teacher) if isinstance(teacher, (str, Path)) else teacher
    student = load_pretrained(student) if isinstance(student, (str, Path)) else student
    if not isinstance(teacher, WaveNet) or not isinstance(student, ParallelWaveNet):
        raise WavedistillError("the benchmark needs a teacher (WaveNet) and a student (ParallelWaveNet), in this order.")
    if threads is None:
        threads = (1, 2) if (os.cpu_count() or 1) > 1 else (1,)
    bench = _Bench(teacher, student, repeats)
    steps: list[tuple[int, Callable[[], Speed]]] = []
    for count in threads:
        for length in seconds:
            for batch in batch_sizes:
                steps.append((count, lambda c=count, b=batch, s=length: bench.student(c, b, s)))
        steps.append((count, lambda c=count: bench.cached(c, teacher_seconds)))
        steps.append((count, lambda c=count: bench.naive(c)))
    from tqdm import tqdm

    speeds, training = [], {}
    with threads_restored():
        for count, step in tqdm(steps, desc="benchmark", disable=not progress, dynamic_ncols=True):
            torch.set_num_threads(count)
            speeds.append(step())
        training = bench.training()
    result = BenchmarkResult(speeds, _ratio(speeds), training, _peak_memory(), machine())
    if out is not None:
        result.save(out)
    return result


class _Bench:
    """The two models and an input for them; a speed does not depend on what is said, so a hum will do."""

    def __init__(self, teacher: WaveNet, student: ParallelWaveNet, repeats: int) -> None:
        self.models = {"teacher": teacher.eval(), "student": student.eval()}
        self.repeats = repeats

    def student(self, threads: int, batch: int, seconds: float) -> Speed:
        arguments, length = _condition(self.models["student"], batch, seconds)
        median = _median(lambda: self.models["student"].sample(**arguments, seed=0), self.repeats)
        return Speed("student, one pass", threads, batch, length, batch * length / median, self.repeats)

    def cached(self, threads: int, seconds: float) -> Speed:
        arguments, length = _condition(self.models["teacher"], 1, seconds)
        repeats = min(3, self.repeats)
        first, _ = _condition(self.models["teacher"], 1, 0)
        self.models["teacher"].sample(**first, seed=0)  # a short warm-up: each timing takes seconds
        median = _median(lambda: self.models["teacher"].sample(**arguments, seed=0), repeats, warm_up=False)
        return Speed("teacher, cached sampler", threads, 1, length, length / median, repeats)

    def naive(self, threads: int) -> Speed:
        """The whole receptive field again for every sample: what sampling costs without caches."""
        model = self.models["teacher"]
        window = -(-model.receptive_field // model.hop_length) * model.hop_length
        arguments, length = _condition(model, 1, window / model.sample_rate)
        signal = 0.1 * torch.randn(1, round(length * model.sample_rate), generator=torch.Generator().manual_seed(0))
        repeats = min(3, self.repeats)

        @torch.inference_mode()
        def one_sample() -> None:
            model.predict(signal, arguments.get("mel"), arguments.get("speaker"))

        what = "teacher, without caches (extrapolated from single samples)"
        return Speed(what, threads, 1, 1 / model.sample_rate, 1 / model.sample_rate / _median(one_sample, repeats), repeats)

    def training(self) -> dict[str, float]:
        """Samples per second of a forward and backward pass, with as many threads as were used last."""
        teacher, student = self.models["teacher"], self.models["student"]
        arguments, length = _condition(teacher, TRAINING_BATCH, TRAINING_SECONDS)
        audio = _hum(round(length * teacher.sample_rate), teacher.sample_rate).expand(TRAINING_BATCH, 1, -1)
        mel, speaker = arguments.get("mel"), arguments.get("speaker")
        repeats = min(3, self.repeats)
        speeds = {}

        def teacher_step() -> None:
            (-teacher.log_prob(audio, mel, speaker).mean()).backward()

        tasks = {"teacher (likelihood)": teacher_step}
        with contextlib.suppress(WavedistillError):  # a student of another teacher has no such loss
            loss = DistillationLoss(DistillationConfig(weights={"kl": 1.0, "stft": 1.0}), student, teacher)
            tasks["student (KL + STFT)"] = lambda: loss(student, audio, mel, speaker, None, 0)[0].backward()
        for name, step in tasks.items():
            speeds[name] = audio.numel() / _median(step, repeats)
        for model in (teacher, student):
            model.zero_grad(set_to_none=True)
        return speeds


def machine() -> dict[str, Any]:
    """The processor, its cores and the versions that matter to speed."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return {"cpu": name, "cores": os.cpu_count(), "system": platform.system(), "python": platform.python_version(), "torch": torch.__version__}


def _condition(model: WaveNet | ParallelWaveNet, batch: int, seconds: float) -> tuple[dict[str, Any], float]:
    """Arguments of ``sample`` for about ``seconds`` of audio, and the exact length in seconds."""
    frames = max(1, round(seconds * model.sample_rate / model.hop_length))
    samples = frames * model.hop_length
    arguments: dict[str, Any] = {}
    if model.config.mel is None:
        arguments |= {"num_samples": samples, "batch_size": batch}
    else:
        mel = LogMelSpectrogram(model.config.mel)(_hum(samples, model.sample_rate))[..., :frames]
        arguments["mel"] = mel.expand(batch, -1, -1)
    if model.config.speakers:
        arguments["speaker"] = torch.zeros(batch, dtype=torch.long)
    return arguments, samples / model.sample_rate


def _hum(samples: int, sample_rate: int) -> Tensor:
    time_axis = torch.arange(samples) / sample_rate
    noise = 0.01 * torch.randn(samples, generator=torch.Generator().manual_seed(0))
    return 0.2 * torch.sin(2 * torch.pi * 150 * time_axis) + noise


def _median(run: Callable[[], Any], repeats: int, warm_up: bool = True) -> float:
    """Median seconds of ``repeats`` calls, with ``warm_up`` after one that is not counted."""
    if warm_up:
        run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _ratio(speeds: list[Speed]) -> float:
    """Student over cached teacher, one clip of the longest length, each with the number of threads it is fastest with."""
    students = [s for s in speeds if s.what.startswith("student")]
    longest, smallest = max(s.audio_seconds for s in students), min(s.batch for s in students)
    student = max(s.real_time for s in students if s.audio_seconds == longest and s.batch == smallest)
    return student / max(s.real_time for s in speeds if s.what.startswith("teacher, cached"))


def _peak_memory() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


@contextlib.contextmanager
def threads_restored() -> Iterator[None]:
    """Sets torch's number of threads back at the end."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
