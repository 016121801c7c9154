"""Speed on this machine, in one run: students, the teacher's samplers, training steps, and other vocoders.

Other vocoders are imported by ``peers.py`` alone, which builds those that are installed, in a process of its own, and
hands them to `run_benchmark`.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import torch

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
    time_voices,
    voice_of,
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

STUDENTS = ("speech-student", "speech-student-fast")
"""The bundled students that are compared; the others are their shapes again."""
CHUNK_SECONDS = 0.1
BUDGET_SECONDS = 2.0
"""Timings of one system that have taken this long are not repeated."""
SLOW_SECONDS = 5.0
"""A system that would need longer for one run is left out of a cell of the table (never of the first)."""


def run_benchmark(
    teacher: str | Path | WaveNet = "speech-teacher",
    students: Sequence[str | Path | ParallelWaveNet | WaveformFlow] | None = None,
    *,
    peers: Sequence[TimedSystem] = (),
    missing: Sequence[str] = (),
    devices: Sequence[str] | None = None,
    threads: Sequence[int] | None = None,
    seconds: Sequence[float] = (1.0, 10.0),
    batch_sizes: Sequence[int] = (1, 8),
    repeats: int = 5,
    teacher_seconds: float = 0.5,
    parallel_seconds: float = 1.0,
    out: str | Path | None = None,
    progress: bool = False,
) -> BenchmarkResult:
    """Measure synthesis, sampling, training, memory and arithmetic. Medians of repeats after a warm-up, the systems in
    turns.

    Args:
        teacher: the model, or a checkpoint.
        students: models that make audio in one pass, or checkpoints; by default `STUDENTS`. Those with bfloat16
            networks (`ParallelWaveNet.compute_in`) are measured with them too.
        peers: other vocoders, which take part in the synthesis and nothing else, in float32.
        missing: lines about systems that could not take part, for the report.
        devices: "cpu", "cuda" or "cuda:N"; by default the CPU and, where there is one, the GPU.
        threads: thread counts on the CPU; by default 1 and 2 (as far as there are cores).
        seconds: lengths of audio made at once.
        batch_sizes: clips made at once.
        repeats: timings of each measurement; fewer where they take long.
        teacher_seconds: audio in a timing of the cached sampler; the sampler that runs the whole network for every
            sample is timed on single samples.
        parallel_seconds: audio that the teacher's parallel samplers make; with the greatest number of threads only.
        out: folder for benchmark.md and benchmark.json.
        progress: show a bar on stderr.
    """
    name, teacher = _loaded(teacher, "teacher")
    if teacher.role != "teacher":
        raise WavedistillError(
            f"the benchmark's teacher must be a WaveNet, and {name} is a {type(teacher).__name__}: name it with "
            "--student."
        )
    loaded: dict[str, ParallelWaveNet | WaveformFlow] = {}
    for given in students or STUDENTS:
        key, model = _loaded(given, "student")
        loaded[f"{key} ({len(loaded) + 1})" if key in loaded else key] = model
    for key, model in loaded.items():
        if not model.one_pass:
            raise WavedistillError(
                f"the benchmark's students make audio in one pass, and {key} is a {type(model).__name__}: name it "
                "with --teacher."
            )
    distilled = {key: model for key, model in loaded.items() if model.role == "student"}
    variants = {}
    for key, model in loaded.items():
        variants[key] = model
        if key in distilled:
            variants[f"{key}, bf16"] = copy.deepcopy(model).compute_in(torch.bfloat16)
    voices = [*(voice_of(key, model) for key, model in variants.items()), *peers]
    settings = _settings(devices, threads)
    cells = sorted(product(batch_sizes, seconds), key=lambda cell: cell[0] * cell[1])

    from tqdm import tqdm

    speeds = []
    streams = []
    samplers = []
    training = []
    peaks = []
    with (
        threads_restored(),
        tqdm(
            total=len(settings) * (len(cells) + 3) + len(voices) + 2,
            desc="benchmark",
            disable=not progress,
            dynamic_ncols=True,
        ) as bar,
    ):
        for setting in settings:
            torch.set_num_threads(setting.threads)
            last = setting == [other for other in settings if other.device == setting.device][-1]
            peaks += [GemmPeak(*setting, precision, gemm_peak(setting.device, precision)) for precision in PRECISIONS]
            speeds += time_voices(voices, setting, cells, repeats, BUDGET_SECONDS, SLOW_SECONDS, bar.update)
            streams += time_streams(variants, setting, CHUNK_SECONDS, repeats, BUDGET_SECONDS)
            bar.update()
            parallel = parallel_seconds if last else None
            samplers += time_samplers(teacher, setting, teacher_seconds, repeats, BUDGET_SECONDS, parallel, distilled)
            bar.update()
            if last:
                training += time_training(teacher, distilled, setting, repeats, BUDGET_SECONDS)
            bar.update()
        costs = []
        for voice in voices:
            costs.append(_cost_of(voice, speeds, settings, max(seconds)))
            bar.update()
        costs.append(_cost_of_teacher(name, teacher))
        bar.update(2)
    result = BenchmarkResult(speeds, streams, samplers, training, costs, peaks, list(missing), machine())
    if out is not None:
        result.save(out)
    return result


def _settings(devices: Sequence[str] | None, threads: Sequence[int] | None) -> list[Setting]:
    if devices is None:
        devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    if threads is None:
        threads = (1, 2) if (os.cpu_count() or 1) > 1 else (1,)
    return [Setting(device, count) for device in devices for count in (threads if device == "cpu" else threads[-1:])]


def _loaded(model: str | Path | WaveNet | ParallelWaveNet | WaveformFlow, default: str) -> tuple[str, torch.nn.Module]:
    """A name for the table (what was typed), and the model."""
    return (str(model), load_pretrained(model)) if isinstance(model, (str, Path)) else (default, model.eval())


def _cost_of(voice: TimedSystem, speeds: Sequence[Speed], settings: Sequence[Setting], seconds: float) -> Cost:
    """Arithmetic and memory; the latter where the speeds say that a run does not take long."""
    counted = voice.macs_per_second()
    memory = {}
    for device in dict.fromkeys(setting.device for setting in settings):
        rate = max(s.real_time for s in speeds if s.system == voice.name and s.device == device)
        if seconds / rate <= 2 * SLOW_SECONDS:
            voice.module.to(device)
            run: Run = torch.inference_mode()(voice.prepare(1, voice.frames(seconds), device))
            used = peak_memory(run, device)
            memory |= {} if used is None else {device: used}
    return Cost(
        voice.name,
        voice.group,
        voice.sample_rate,
        voice.parameters / 1e6,
        counted.macs / 1e9,
        sorted(counted.uncounted),
        memory,
        seconds,
        voice.note,
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
