"""A student's stream as ONNX: a mel in chunks, with the state between them as inputs and outputs.

What a stream remembers is a tree of tensors (`wavedistill.inference.state_tree`). After the first piece, pieces of one
length leave its form as it is: so a step is a function (chunk of noise and mel, tensors) -> (audio, tensors), and is
traced with the tree around other tensors. ``examples/onnx/stream.py`` runs the files without torch.

References:
    https://docs.pytorch.org/docs/stable/export.html
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wavedistill.audio.mel import whole_frames
from wavedistill.dsp.memory import Queue
from wavedistill.errors import WavedistillError
from wavedistill.files import write_bytes
from wavedistill.inference.export import check_transforms, load_student, need_onnx, onnx_model, quiet, settings
from wavedistill.inference.onnx_weights import move_out
from wavedistill.inference.state_tree import form, replaced, tensors
from wavedistill.models.base import WaveformModel
from wavedistill.models.parallel_wavenet import ParallelWaveNet, StudentStream

Part = Literal["start", "step", "end"]
PARTS: tuple[Part, ...] = ("step", "end", "start")
"""In the order in which they are written: a folder with the last of them has all."""
WEIGHTS_FILE = "weights.bin"
EXAMPLE_REST = 5
"""Frames of the last piece that its graph is traced with, for any number."""


@dataclass
class Plan:
    """Pieces that a stream is fed with, and its state after the first of them.

    Attributes:
        chunk_frames: of every piece but the first and the last.
        first_frames: of the first.
        low_latency: as in `WaveformModel.stream`.
        state: a tree.
        fixed: of each of its tensors, whether it stays what it is.
    """

    chunk_frames: int
    first_frames: int
    low_latency: bool
    state: PairedStream
    fixed: list[bool]


class PairedStream:
    """A student's stream that is given the noise of a piece together with its mel, and all that it remembers.

    Shapes: noise (1, 1, frames * hop_length), mel (1, n_mels, frames), speaker (1,) -> audio (1, 1, samples), what has
        become final.
    """

    def __init__(self, model: ParallelWaveNet, low_latency: bool) -> None:
        self.model = model
        self.student = StudentStream(model, low_latency)
        self.noise = Queue()
        self.contraction = model.contraction.stream_state(low_latency) if model.contraction is not None else None

    def push(self, noise: Tensor, mel: Tensor, speaker: Tensor | None, last: bool) -> Tensor:
        self.noise.put(noise[:, 0])
        condition = self.student.condition(mel, speaker, last)
        samples = self.student.frames(condition) * self.model.hop_length
        audio = self.student.audio(self.noise.take(samples), condition)
        if self.contraction is None:
            return audio
        return self.model.contraction.contract_chunk(audio, mel, self.contraction, last)


class StreamPart(nn.Module):
    """The first piece of a stream, a further one, or the last, as a function of tensors: audio and new state.

    Shapes: as in `PairedStream`; the state is a list, without the tensors that stay as they are.
    """

    def __init__(self, model: ParallelWaveNet, plan: Plan, part: Part) -> None:
        super().__init__()
        self.model = model
        self.plan = plan
        self.part = part

    def forward(
        self, noise: Tensor, mel: Tensor, speaker: Tensor | None = None, state: list[Tensor] | None = None
    ) -> list[Tensor]:
        plan = self.plan
        if state is None:
            stream = PairedStream(self.model, plan.low_latency)
        else:
            given = iter(state)
            known = zip(tensors(plan.state), plan.fixed, strict=True)
            stream = replaced(plan.state, [value if fixed else next(given) for value, fixed in known])
        audio = stream.push(noise, mel, speaker, last=self.part == "end")
        return [audio] if self.part == "end" else [audio, *moving(stream, plan.fixed)]


def export_stream(
    model: WaveformModel | str | Path,
    folder: str | Path,
    chunk_seconds: float = 0.1,
    *,
    low_latency: bool = False,
    half: bool = False,
    progress: bool = False,
) -> Path:
    """Write a student's stream as ONNX graphs into a folder, and return its path.

    ``start.onnx`` takes the first ``first_frames`` of a mel, ``step.onnx`` each time ``chunk_frames`` more, and
    ``end.onnx`` the rest, from none to ``chunk_frames`` - 1; ``weights.bin`` holds the weights of all three. Inputs are
    noise (1, 1, frames * hop_length), mel (1, n_mels, frames), for a model with speakers speaker (1,), int64, and for
    ``step`` and ``end`` state_0, state_1, ...: what the outputs next_0, next_1, ... of the graph before were. The
    output audio (1, 1, samples) is what has become final; joined, it equals that of the file of
    `wavedistill.inference.export.export_model` from the same noise, or of the stream in low latency.

    The metadata "wavedistill" of each graph are the settings of a file of one pass and under "stream" chunk_frames,
    first_frames, low_latency and look_ahead_ms, by which the audio lags behind the mel.

    Args:
        model: a student that takes a mel, or its checkpoint to load (folder, run, bundled name or hub id).
        folder: made if it is missing.
        chunk_seconds: length of a chunk, in whole frames; fixed in the graphs.
        low_latency: as in `WaveformModel.stream`.
        half: as in `wavedistill.inference.export.export_model`.
        progress: show a progress bar; tracing takes minutes.

    Raises:
        WavedistillError: a model that is no student or takes no mel, a length that is no chunk, the name of a file,
            missing packages, a full disk.
    """
    from tqdm import tqdm

    folder = Path(folder)
    if folder.suffix in (".onnx", ".pt2"):
        raise WavedistillError(
            f"a stream is a folder of graphs: give a folder, {folder.with_suffix('')}, not {folder}."
        )
    if not chunk_seconds > 0:
        raise WavedistillError(f"chunks of {chunk_seconds:g} seconds are no audio: give a positive length")
    need_onnx()
    student = load_student(model, half)
    check_transforms(student)
    if student.config.mel is None:
        raise WavedistillError("this model takes no mel, and only mels are streamed: export it as one file.")
    chunk = whole_frames(chunk_seconds, student.sample_rate, student.hop_length)
    plan = planned(student, chunk, low_latency)
    values = settings(student) | {
        "stream": {
            "chunk_frames": plan.chunk_frames,
            "first_frames": plan.first_frames,
            "low_latency": low_latency,
            "look_ahead_ms": student.look_ahead(low_latency)["in all"],
        }
    }
    graphs = {}
    with quiet(), torch.no_grad():
        for part in tqdm(PARTS, unit="graph", disable=not progress):
            moved = 0 if part == "end" else plan.fixed.count(False)
            outputs = ["audio", *(f"next_{index}" for index in range(moved))]
            graphs[part] = onnx_model(_traced(student, plan, part), values, outputs, half)
    weights = move_out(graphs.values(), WEIGHTS_FILE)
    for part in reversed(PARTS):  # a process killed while it writes leaves no folder that looks whole
        (folder / f"{part}.onnx").unlink(missing_ok=True)
    write_bytes(folder / WEIGHTS_FILE, weights)
    for part in PARTS:
        write_bytes(folder / f"{part}.onnx", graphs[part].SerializeToString())
    return folder


def planned(model: ParallelWaveNet, chunk_frames: int, low_latency: bool) -> Plan:
    """The shortest first piece that gives a chunk of audio and after which steps leave the state's form as it is."""
    first_frames = chunk_frames + model.frames_ahead(low_latency)
    while True:
        stream = PairedStream(model, low_latency)
        with torch.no_grad():
            stream.push(*_example(model, first_frames).values(), last=False)
            start, before = form(stream), tensors(stream)
            stream.push(*_example(model, chunk_frames).values(), last=False)
        if form(stream) == start:
            fixed = [old is new or not old.numel() for old, new in zip(before, tensors(stream), strict=True)]
            return Plan(chunk_frames, first_frames, low_latency, stream, fixed)
        first_frames += 1


def moving(state: Any, fixed: list[bool]) -> list[Tensor]:
    """The tensors of a tree that change from step to step."""
    return [value for value, stays in zip(tensors(state), fixed, strict=True) if not stays]


def _example(model: ParallelWaveNet, frames: int) -> dict[str, Tensor | None]:
    """A piece of noise and mel."""
    return {
        "noise": torch.zeros(1, 1, frames * model.hop_length),
        "mel": torch.zeros(1, model.config.mel.n_mels, frames),
        "speaker": torch.zeros(1, dtype=torch.long) if model.config.speakers else None,
    }


def _traced(model: ParallelWaveNet, plan: Plan, part: Part) -> torch.export.ExportedProgram:
    frames = {"start": plan.first_frames, "step": plan.chunk_frames, "end": EXAMPLE_REST}[part]
    arguments: dict[str, Any] = {name: value for name, value in _example(model, frames).items() if value is not None}
    if part != "start":
        arguments["state"] = [value.clone() for value in moving(plan.state, plan.fixed)]
    shapes: dict[str, Any] | None = None
    if part == "end":
        rest = torch.export.Dim("rest", min=0)
        fixed = {"state": [None] * len(arguments["state"])}
        shapes = dict.fromkeys(arguments) | fixed | {"noise": {2: model.hop_length * rest}, "mel": {2: rest}}
    return torch.export.export(StreamPart(model, plan, part), (), arguments, dynamic_shapes=shapes, strict=False)
