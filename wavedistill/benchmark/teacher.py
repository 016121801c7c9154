"""The teacher's samplers beside one another, and training steps beside the plain conv1d network's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from wavedistill.audio.mel import whole_frames
from wavedistill.benchmark.plain_wavenet import PlainSampler, PlainWaveNet
from wavedistill.benchmark.systems import Run, condition, speech
from wavedistill.benchmark.timing import PRECISIONS, Setting, interleaved
from wavedistill.errors import WavedistillError
from wavedistill.losses.distillation import DistillationConfig, DistillationLoss
from wavedistill.models.parallel_sampling import ParallelSample, differences, sample_parallel
from wavedistill.models.parallel_wavenet import ParallelWaveNet
from wavedistill.models.wavenet import WaveNet

NAIVE = "naive: whole receptive field anew"
PLAIN = "plain ring-buffer loop"
CACHED = "cached"
BATCHED = "cached, 16 streams"
FROM_ZEROS = "parallel sweeps, from zeros"
LIKELIHOOD = "teacher (likelihood)"
OURS = "ours"
PLAIN_NETWORK = "plain conv1d"
STREAMS = 16
PLAIN_SHARE = 0.125
"""The plain loop and the batch sample this share of the audio that the cached sampler does: they take longer."""
TRAINING_BATCH = 4
TRAINING_SECONDS = 0.5
TOLERANCE = 1e-3
"""Of the parallel samplers, in standard deviations of the front's signal."""


@dataclass(frozen=True)
class SamplerSpeed:
    """How fast the teacher samples.

    Attributes:
        sampler: its name in the table.
        device, threads: see `Setting`.
        streams: signals sampled at once.
        audio_seconds: length of each in a timing.
        real_time: seconds of audio, over all streams, per second of computing; the median of ``repeats`` timings.
        passes: of a parallel sampler, evaluations of the network in units of the whole signal (work).
        sweeps: of a parallel sampler, evaluations that had to wait for one another.
    """

    sampler: str
    device: str
    threads: int
    streams: int
    audio_seconds: float
    real_time: float
    repeats: int
    passes: float | None = None
    sweeps: int | None = None


@dataclass(frozen=True)
class TrainingSpeed:
    """Samples per second of a forward and a backward pass; ``network`` is "ours" or "plain conv1d"."""

    task: str
    network: str
    precision: str
    device: str
    threads: int
    samples_per_second: float


class _Sampler(NamedTuple):
    sample: Callable[..., Any]
    streams: int
    seconds: float


def time_samplers(
    teacher: WaveNet,
    setting: Setting,
    seconds: float,
    repeats: int,
    budget: float,
    parallel_seconds: float | None = None,
    drafts: dict[str, ParallelWaveNet] | None = None,
) -> list[SamplerSpeed]:
    """All ways to sample from the teacher, in turns.

    Args:
        seconds: of audio in a timing of the cached sampler.
        parallel_seconds: of audio that the parallel samplers make; None leaves them out.
        drafts: students whose one-shot output starts a parallel sampler, by name; those of another teacher are left
            out.
    """
    teacher.to(setting.device)
    samplers = {
        PLAIN: _Sampler(PlainSampler(teacher).sample, 1, PLAIN_SHARE * seconds),
        CACHED: _Sampler(teacher.sample, 1, seconds),
        BATCHED: _Sampler(teacher.sample, STREAMS, PLAIN_SHARE * seconds),
    }
    if parallel_seconds is not None and teacher.config.distribution == "gaussian":
        in_parallel = partial(sample_parallel, teacher, tolerance=TOLERANCE)
        samplers[FROM_ZEROS] = _Sampler(in_parallel, 1, parallel_seconds)
        for name, student in (drafts or {}).items():
            if not differences(teacher, student):
                samplers[f"draft-verified, {name}"] = _Sampler(
                    partial(in_parallel, draft=student.to(setting.device)), 1, parallel_seconds
                )

    def prepare(sampler: _Sampler, frames: int) -> Run:
        arguments = condition(teacher, sampler.streams, frames, setting.device)
        return lambda: sampler.sample(**arguments, seed=0)

    frames = {
        name: whole_frames(sampler.seconds, teacher.sample_rate, teacher.hop_length)
        for name, sampler in samplers.items()
    }
    naive = _naive(teacher, setting.device)
    runs = {NAIVE: naive} | {name: prepare(sampler, frames[name]) for name, sampler in samplers.items()}
    warm_ups = [naive, *(prepare(sampler, 1) for sampler in samplers.values())]
    found = []
    for name, timing in interleaved(runs, repeats, budget, setting.device, warm_ups).items():
        streams = samplers[name].streams if name in samplers else 1
        length = frames[name] * teacher.hop_length / teacher.sample_rate if name in frames else 1 / teacher.sample_rate
        speed = SamplerSpeed(name, *setting, streams, length, streams * length / timing.seconds, timing.repeats)
        if isinstance(timing.result, ParallelSample):
            speed = replace(speed, passes=timing.result.passes, sweeps=int(timing.result.sweeps.max()))
        found.append(speed)
    return found


def _naive(teacher: WaveNet, device: str) -> Run:
    """One sample by the network over its whole receptive field: what sampling costs without caches."""
    frames = -(-teacher.receptive_field // teacher.hop_length)
    arguments = condition(teacher, 1, frames, device)
    signal = speech(frames * teacher.hop_length, teacher.sample_rate).to(device)
    return torch.inference_mode()(lambda: teacher.predict(signal, arguments.get("mel"), arguments.get("speaker")))


def time_training(
    teacher: WaveNet, students: dict[str, ParallelWaveNet], setting: Setting, repeats: int, budget: float
) -> list[TrainingSpeed]:
    """Forward and backward passes in float32 and bfloat16: teacher, the same network written plainly, students."""
    frames = whole_frames(TRAINING_SECONDS, teacher.sample_rate, teacher.hop_length)
    samples = frames * teacher.hop_length
    arguments = condition(teacher, TRAINING_BATCH, frames, setting.device)
    mel = arguments.get("mel")
    speaker = arguments.get("speaker")
    audio = speech(samples, teacher.sample_rate).expand(TRAINING_BATCH, 1, -1).to(setting.device)
    teacher.to(setting.device)
    plain = PlainWaveNet(teacher).to(setting.device)

    def likelihood(model: Any) -> Run:
        return lambda: -model.log_prob_per_sample(audio, mel, speaker).mean()

    losses = {
        (LIKELIHOOD, OURS): (teacher, likelihood(teacher)),
        (LIKELIHOOD, PLAIN_NETWORK): (plain, likelihood(plain)),
    }
    for name, student in students.items():
        student.to(setting.device)
        try:
            loss = DistillationLoss(DistillationConfig(weights={"kl": 1.0, "stft": 1.0}), student, teacher).to(
                setting.device
            )
        except WavedistillError:  # a student of another teacher has no such loss
            continue
        losses[f"{name} (KL + STFT)", OURS] = (
            student,
            lambda loss=loss, s=student: loss(s, audio, mel, speaker, None, 0)[0],
        )
    steps = {
        (task, network, precision): _step(model, loss, precision, setting.device, None if model is teacher else teacher)
        for (task, network), (model, loss) in losses.items()
        for precision in PRECISIONS
    }
    timings = interleaved(steps, repeats, budget, setting.device)
    for model, _ in losses.values():
        model.zero_grad(set_to_none=True)
    return [TrainingSpeed(*key, *setting, audio.shape[0] * samples / timing.seconds) for key, timing in timings.items()]


def _step(model: nn.Module, loss: Run, precision: str, device: str, frozen: nn.Module | None) -> Run:
    def run() -> None:
        model.zero_grad(set_to_none=True)
        with _without_gradient(frozen):
            with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=precision == "bf16"):
                value = loss()
            value.backward()

    return run


@contextlib.contextmanager
def _without_gradient(module: nn.Module | None) -> Iterator[None]:
    trained = [] if module is None else [p for p in module.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def speed_ups(speeds: Sequence[SamplerSpeed], reference: str) -> dict[tuple[str, str, int], float]:
    """(sampler, device, threads) -> its rate over that of ``reference`` in the same setting, if measured."""
    of = {(s.device, s.threads): s.real_time for s in speeds if s.sampler == reference}
    return {
        (s.sampler, s.device, s.threads): s.real_time / of[s.device, s.threads]
        for s in speeds
        if (s.device, s.threads) in of
    }
