"""Speed on this machine, in one run: students, the teacher's samplers, training steps, and other vocoders.

Other vocoders are built by ``peers.py`` alone; ``python -m wavedistill.benchmark`` hands them to `run_benchmark`.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch

from wavedistill.benchmark.exported import exported_student
from wavedistill.benchmark.macs import MacCount, marginal_macs
from wavedistill.benchmark.report import BenchmarkResult, Cost, GemmPeak
from wavedistill.benchmark.systems import (
    COUNTED_FRAMES,
    Run,
    Speed,
    TimedSystem,
    condition,
    speech,
    time_streams,
    time_systems,
    timed_model,
)
from wavedistill.benchmark.teacher import time_samplers, time_training
from wavedistill.benchmark.timing import (
    PRECISIONS,
    Setting,
    gemm_peak,
    machine,
    peak_memory,
    threads_restored,
)
from wavedistill.errors import WavedistillError
from wavedistill.models.parallel_wavenet import ParallelWaveNet
from wavedistill.models.pretrained import load_pretrained
from wavedistill.models.waveform_flow import WaveformFlow
from wavedistill.models.wavenet import WaveNet

STUDENTS = ("speech-student", "speech-24k")
"""The bundled students that are measured; the others have its shape, or nearly so."""
CHUNK_SECONDS = 0.1
BUDGET_SECONDS = 2.0
"""Timings of one system that have taken this long are not repeated."""
SLOW_SECONDS = 5.0
"""A system that would need longer for one run is left out of a cell of the table (never of the first)."""


@dataclass(frozen=True)
class BenchmarkConfig:
    """How much `run_benchmark` measures.

    Attributes:
        devices: "cpu", "cuda" or "cuda:N"; by default the CPU and, where there is one, the GPU.
        threads: thread counts on the CPU; by default 1 and 2 (as far as there are cores).
        seconds: lengths of audio made at once.
        batch_sizes: clips made at once.
        repeats: timings of each measurement; fewer where they take long.
        teacher_seconds: audio in a timing of the cached sampler; the sampler that runs the whole network for every
            sample is timed on single samples.
        parallel_seconds: audio that the teacher's parallel samplers make; with the greatest number of threads only.
        onnx: measure the students as ONNX files, too, where the packages are installed; writing one takes a minute.
    """

    devices: Sequence[str] | None = None
    threads: Sequence[int] | None = None
    seconds: Sequence[float] = (1.0, 10.0)
    batch_sizes: Sequence[int] = (1, 8)
    repeats: int = 5
    teacher_seconds: float = 0.5
    parallel_seconds: float = 1.0
    onnx: bool = True

    @property
    def settings(self) -> list[Setting]:
        """Where everything is computed; a GPU has the greatest number of threads only."""
        devices = self.devices
        if devices is None:
            devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
        threads = self.threads
        if threads is None:
            threads = (1, 2) if (os.cpu_count() or 1) > 1 else (1,)
        counts = {device: threads if device == "cpu" else threads[-1:] for device in devices}
        return [Setting(device, count) for device in devices for count in counts[device]]

    @property
    def cells(self) -> list[tuple[int, float]]:
        """Every (batch, seconds), the least audio first."""
        return sorted(product(self.batch_sizes, self.seconds), key=lambda cell: cell[0] * cell[1])


def run_benchmark(
    teacher: str | Path | WaveNet = "speech-teacher",
    students: Sequence[str | Path | ParallelWaveNet | WaveformFlow] | None = None,
    config: BenchmarkConfig | None = None,
    *,
    peers: Sequence[TimedSystem] = (),
    missing: Sequence[str] = (),
    progress: bool = False,
) -> BenchmarkResult:
    """Measure synthesis, sampling, training, memory and arithmetic: medians after a warm-up, the systems in turns.

    Args:
        teacher: the model, or a checkpoint.
        students: models that make audio in one pass, or checkpoints; by default `STUDENTS`. Those with bfloat16
            networks (`ParallelWaveNet.compute_in`) are measured with them too.
        config: how much is measured.
        peers: other vocoders, which take part in the synthesis and nothing else, in float32.
        missing: lines about systems that could not take part, for the report.
        progress: show a bar on stderr.
    """
    config = config or BenchmarkConfig()
    name, teacher = _loaded(teacher, "teacher")
    if teacher.role != "teacher":
        raise WavedistillError(
            f"the benchmark's teacher must be a WaveNet, and {name} is a {type(teacher).__name__}: name it with "
            "--student."
        )
    loaded = _load_students(students or STUDENTS)
    variants = {}
    distilled = {}
    for key, model in loaded.items():
        variants[key] = model
        if model.role == "student":
            if model.config.mel == teacher.config.mel:  # else it is another teacher's
                distilled[key] = model
            variants[f"{key}, bf16"] = copy.deepcopy(model).compute_in(torch.bfloat16)
    systems = [*(timed_model(key, model) for key, model in variants.items()), *peers]
    settings = config.settings
    missing = list(missing)

    from tqdm import tqdm

    steps = len(settings) * (len(config.cells) + 3) + sum(system.in_torch for system in systems) + 2
    with threads_restored(), tqdm(total=steps, desc="benchmark", disable=not progress, dynamic_ncols=True) as bar:
        if config.onnx:
            systems += _exported(loaded, missing)
        result = BenchmarkResult(missing=missing, machine=machine())
        for setting in settings:
            _measure(result, config, setting, _Models(teacher, distilled, variants, systems), bar.update)
        for system in systems:
            if system.in_torch:
                result.costs.append(_cost_of(system, result.speeds, settings, max(config.seconds)))
                bar.update()
        result.costs.append(_cost_of_teacher(name, teacher))
        bar.update(2)
    return result


@dataclass(frozen=True)
class _Models:
    """What takes part: students of the teacher's mel by name, and all models, students with bfloat16 networks too."""

    teacher: WaveNet
    distilled: dict[str, ParallelWaveNet]
    variants: dict[str, ParallelWaveNet | WaveformFlow]
    systems: list[TimedSystem]


def _measure(
    result: BenchmarkResult, config: BenchmarkConfig, setting: Setting, models: _Models, tick: Callable[[], object]
) -> None:
    """Everything that is measured in one setting, added to ``result``.

    The peak of matrix products is taken before, between and after the others, and the best counts: a short
    disturbance of the machine spoils one of them, not the column that is computed from it.
    """
    torch.set_num_threads(setting.threads)
    last = setting == [other for other in config.settings if other.device == setting.device][-1]
    limits = (config.repeats, BUDGET_SECONDS)
    peaks = dict.fromkeys(PRECISIONS, 0.0)

    def take_peaks() -> None:
        for precision in PRECISIONS:
            peaks[precision] = max(peaks[precision], gemm_peak(setting.device, precision))

    take_peaks()
    systems = [system for system in models.systems if system.in_torch or setting.device == "cpu"]
    result.speeds.extend(time_systems(systems, setting, config.cells, *limits, SLOW_SECONDS, tick))
    take_peaks()
    result.streams.extend(time_streams(models.variants, setting, CHUNK_SECONDS, *limits))
    tick()
    take_peaks()
    parallel = config.parallel_seconds if last else None
    result.samplers.extend(
        time_samplers(models.teacher, setting, config.teacher_seconds, *limits, parallel, models.distilled)
    )
    tick()
    if last:
        result.training.extend(time_training(models.teacher, models.distilled, setting, *limits))
    tick()
    take_peaks()
    result.peaks.extend([GemmPeak(*setting, precision, peak) for precision, peak in peaks.items()])


def _load_students(
    given: Sequence[str | Path | ParallelWaveNet | WaveformFlow],
) -> dict[str, ParallelWaveNet | WaveformFlow]:
    """Models by name; a name that is there already gets a number."""
    loaded: dict[str, ParallelWaveNet | WaveformFlow] = {}
    for one in given:
        key, model = _loaded(one, "student")
        loaded[f"{key} ({len(loaded) + 1})" if key in loaded else key] = model
    for key, model in loaded.items():
        if not model.one_pass:
            raise WavedistillError(
                f"the benchmark's students make audio in one pass, and {key} is a {type(model).__name__}: name it "
                "with --teacher."
            )
    return loaded


def _exported(models: dict[str, ParallelWaveNet | WaveformFlow], missing: list[str]) -> list[TimedSystem]:
    """The students as ONNX files; why they cannot be had is added to ``missing``."""
    try:
        return [exported_student(key, model) for key, model in models.items() if model.role == "student"]
    except (ImportError, WavedistillError) as error:
        missing.append(f"ONNX files are not measured ({error}): pip install 'wavedistill[onnx]'.")
        return []


def _loaded(model: str | Path | WaveNet | ParallelWaveNet | WaveformFlow, default: str) -> tuple[str, torch.nn.Module]:
    """A name for the table (what was typed), and the model."""
    if isinstance(model, (str, Path)):
        return str(model), load_pretrained(model)
    return default, model.eval()


def _cost_of(system: TimedSystem, speeds: Sequence[Speed], settings: Sequence[Setting], seconds: float) -> Cost:
    """Arithmetic and memory; the latter where the speeds say that a run does not take long."""
    counted = system.macs_per_second()
    memory = {}
    for device in dict.fromkeys(setting.device for setting in settings):
        rate = max(s.real_time for s in speeds if s.system == system.name and s.device == device)
        if seconds / rate <= 2 * SLOW_SECONDS:
            system.module.to(device)
            run: Run = torch.inference_mode()(system.prepare(1, system.frames(seconds), device))
            used = peak_memory(run, device)
            memory |= {} if used is None else {device: used}
    return Cost(
        system.name,
        system.group,
        system.sample_rate,
        system.parameters / 1e6,
        counted.macs / 1e9,
        sorted(counted.uncounted),
        memory,
        seconds,
        system.note,
    )


def _cost_of_teacher(name: str, teacher: WaveNet) -> Cost:
    """A sampler does the arithmetic of one parallel pass, sample by sample; the pass can be counted."""
    teacher.to("cpu")

    def prepare(frames: int) -> Run:
        arguments = condition(teacher, 1, frames, "cpu")
        signal = speech(frames * teacher.hop_length, teacher.sample_rate).unsqueeze(1)
        return lambda: teacher.log_prob_per_sample(signal, arguments.get("mel"), arguments.get("speaker"))

    found: MacCount = marginal_macs(prepare, COUNTED_FRAMES)
    gmacs = found.macs * teacher.sample_rate / (COUNTED_FRAMES * teacher.hop_length) / 1e9
    parameters = sum(p.numel() for p in teacher.parameters()) / 1e6
    return Cost(name, "teacher", teacher.sample_rate, parameters, gmacs, sorted(found.uncounted), {}, 0.0)
