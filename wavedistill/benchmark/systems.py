"""Mel-to-audio systems for the benchmark: students of this package and, built elsewhere, other vocoders."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wavedistill.assets import recipe_path
from wavedistill.audio.io import load_audio
from wavedistill.audio.mel import LogMelSpectrogram, whole_frames
from wavedistill.benchmark.macs import MacCount, marginal_macs
from wavedistill.benchmark.timing import Setting, interleaved, synchronize
from wavedistill.data.manifest import read_manifest
from wavedistill.models.base import WaveformModel

COUNTED_FRAMES = 8
STREAMED_SECONDS = 3.0

Run = Callable[[], Any]


@dataclass(frozen=True)
class TimedSystem:
    """A system that makes audio in one pass.

    Attributes:
        name: for the table.
        module: its network, in eval mode.
        sample_rate: of its audio, Hz.
        hop_length: samples a frame stands for.
        prepare: (batch, frames, device) -> a run that makes that much audio, its input ready.
        group: "student" for those of this package, "peer" for others.
        note: what a reader must know about it.
        in_torch: whether torch runs it: on any device, its arithmetic and memory counted.
    """

    name: str
    module: nn.Module
    sample_rate: int
    hop_length: int
    prepare: Callable[[int, int, str], Run]
    group: Literal["student", "peer"] = "peer"
    note: str = ""
    in_torch: bool = True

    def frames(self, seconds: float) -> int:
        """Whole frames nearest to ``seconds`` of audio, at least one."""
        return whole_frames(seconds, self.sample_rate, self.hop_length)

    def seconds(self, frames: int) -> float:
        return frames * self.hop_length / self.sample_rate

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.module.parameters())

    def macs_per_second(self) -> MacCount:
        """Multiply-adds for one more second of audio, counted on the CPU."""
        self.module.to("cpu")
        found = marginal_macs(lambda frames: self.prepare(1, frames, "cpu"), COUNTED_FRAMES)
        return MacCount(found.macs / self.seconds(COUNTED_FRAMES), found.uncounted)


def timed_model(
    name: str, model: WaveformModel, group: Literal["student", "peer"] = "student", note: str = ""
) -> TimedSystem:
    """A one-pass model of this package as a `TimedSystem`: mel -> `sample`, noise drawn inside."""

    def prepare(batch: int, frames: int, device: str) -> Run:
        arguments = condition(model, batch, frames, device)
        return lambda: model.sample(**arguments, seed=0)

    return TimedSystem(name, model.eval(), model.sample_rate, model.hop_length, prepare, group, note)


def condition(model: WaveformModel, batch: int, frames: int, device: str) -> dict[str, Any]:
    """Arguments of ``sample`` for ``frames`` frames: the mel of real speech; a length for a model without mel."""
    samples = frames * model.hop_length
    arguments: dict[str, Any] = {"num_samples": samples, "batch_size": batch}
    if model.config.mel is not None:
        mel = LogMelSpectrogram(model.config.mel)(speech(samples, model.sample_rate))[..., :frames]
        arguments = {"mel": mel.expand(batch, -1, -1).to(device)}
    if model.config.speakers:
        arguments["speaker"] = torch.zeros(batch, dtype=torch.long, device=device)
    return arguments


@lru_cache(maxsize=8)
def _clips(sample_rate: int) -> Tensor:
    entries = read_manifest(recipe_path("quickstart/clips"))
    return torch.cat([load_audio(entry.audio, sample_rate)[0] for entry in entries if entry.split == "test"])


def speech(samples: int, sample_rate: int) -> Tensor:
    """(1, samples) of the packaged test recordings, one after another and again from the start."""
    clips = _clips(sample_rate)
    return clips.repeat(-(-samples // len(clips)))[None, :samples]


@dataclass(frozen=True)
class Speed:
    """How fast a system synthesises.

    Attributes:
        system, group, sample_rate: see `TimedSystem`.
        device, threads: see `Setting`.
        batch: clips at once.
        audio_seconds: length of each (the nearest whole frames).
        real_time: seconds of audio, over the whole batch, per second of computing; the median of ``repeats`` timings.
    """

    system: str
    group: str
    device: str
    threads: int
    batch: int
    audio_seconds: float
    real_time: float
    repeats: int
    sample_rate: int


@dataclass(frozen=True)
class StreamSpeed:
    """How fast a system streams.

    Attributes:
        chunk_seconds: audio in a chunk.
        look_ahead_ms: milliseconds of mel after a chunk that it waits for.
        first_chunk_ms: milliseconds of computing until the first chunk is there.
        real_time: seconds of audio per second of computing, over the whole stream.
    """

    system: str
    device: str
    threads: int
    chunk_seconds: float
    look_ahead_ms: float
    first_chunk_ms: float
    real_time: float


def time_systems(
    systems: Sequence[TimedSystem],
    setting: Setting,
    cells: Sequence[tuple[int, float]],
    repeats: int,
    budget: float,
    slow_seconds: float,
    tick: Callable[[], None] = lambda: None,
) -> list[Speed]:
    """Speeds for every (batch, seconds) of ``cells``, the systems in turns.

    All take part in the first cell; in the others one is left out where a run would last longer than ``slow_seconds``,
    as far as its speed in the cells before tells.
    """
    found: list[Speed] = []
    best: dict[str, float] = {}
    for system in systems:
        system.module.to(setting.device)
        system.prepare(1, 1, setting.device)()  # compiles what is compiled at its first use
    for batch, seconds in cells:
        runs = {}
        amounts = {}
        for system in systems:
            frames = system.frames(seconds)
            if system.name not in best or batch * system.seconds(frames) / best[system.name] <= slow_seconds:
                runs[system.name] = torch.inference_mode()(system.prepare(batch, frames, setting.device))
                amounts[system.name] = system.seconds(frames)
        timings = interleaved(runs, repeats, budget, setting.device)
        for system in systems:
            if system.name in timings:
                timing = timings[system.name]
                speed = batch * amounts[system.name] / timing.seconds
                best[system.name] = max(best.get(system.name, 0.0), speed)
                found.append(
                    Speed(
                        system.name, system.group, *setting, batch, seconds, speed, timing.repeats, system.sample_rate
                    )
                )
        tick()
    return found


def time_streams(
    models: dict[str, WaveformModel], setting: Setting, chunk_seconds: float, repeats: int, budget: float
) -> list[StreamSpeed]:
    """Latency and rate of ``stream`` over some seconds of speech, the models in turns, students in low latency, too;
    without a mel none streams.
    """
    streams = {name: (model, False) for name, model in models.items() if model.config.mel is not None}
    students = {name: model for name, (model, _) in streams.items() if model.role == "student"}
    streams |= {f"{name}, low latency": (model, True) for name, model in students.items()}
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in streams}

    def run(name: str) -> None:
        model, low_latency = streams[name]
        measured[name].append(_stream_once(model.to(setting.device), setting.device, chunk_seconds, low_latency))

    interleaved({name: partial(run, name) for name in measured}, repeats, budget, setting.device)
    found = []
    for name, values in measured.items():
        first, rate = (median(column) for column in zip(*values[1:], strict=True))  # without the warm-up
        model, low_latency = streams[name]
        frames = whole_frames(chunk_seconds, model.sample_rate, model.hop_length)
        chunk = frames * model.hop_length / model.sample_rate
        waits = model.look_ahead(low_latency)["in all"]
        found.append(StreamSpeed(name, *setting, chunk, waits, 1000.0 * first, rate))
    return found


def _stream_once(model: WaveformModel, device: str, chunk_seconds: float, low_latency: bool) -> tuple[float, float]:
    """Seconds until the first chunk, and seconds of audio per second over the whole stream."""
    frames = whole_frames(STREAMED_SECONDS, model.sample_rate, model.hop_length)
    per_chunk = whole_frames(chunk_seconds, model.sample_rate, model.hop_length)
    arguments = condition(model, 1, frames, device)
    synchronize(device)
    start = time.perf_counter()
    first = None
    for _ in model.stream(frames_per_chunk=per_chunk, seed=0, low_latency=low_latency, **arguments):
        synchronize(device)
        first = first or time.perf_counter() - start
    spent = time.perf_counter() - start
    return first, frames * model.hop_length / model.sample_rate / spent
