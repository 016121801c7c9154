"""Files of ONNX as systems of the benchmark, run by ONNX Runtime on the CPU."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from wavedistill.benchmark.systems import Run, TimedSystem, condition
from wavedistill.inference.export import export_model
from wavedistill.models.parallel_wavenet import ParallelWaveNet

SUFFIX = ", ONNX"
"""Of the names of such systems."""


def onnx_system(
    name: str,
    content: bytes,
    sample_rate: int,
    hop_length: int,
    inputs: Callable[[int, int], dict[str, Any]],
    group: Literal["student", "peer"],
    note: str = "",
) -> TimedSystem:
    """A system whose run is a pass of an ONNX file.

    Args:
        content: the file's.
        inputs: (batch, frames) -> the arrays that it takes, by name.
        name, sample_rate, hop_length, group, note: as of `TimedSystem`.

    Raises:
        ImportError: where onnxruntime is missing.
    """
    import onnxruntime

    @functools.cache
    def session(threads: int) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # or its threads keep a core busy in the next system's turn, which then takes twice as long (measured)
        options.add_session_config_entry("session.force_spinning_stop", "1")
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def prepare(batch: int, frames: int, device: str) -> Run:
        arrays = inputs(batch, frames)
        return lambda: session(torch.get_num_threads()).run(None, arrays)[0]

    return TimedSystem(name + SUFFIX, nn.Identity(), sample_rate, hop_length, prepare, group, note, in_torch=False)


def exported_student(name: str, model: ParallelWaveNet) -> TimedSystem:
    """A student as `wavedistill export` writes it; its noise is drawn before the run.

    Raises:
        ImportError, WavedistillError: where onnxruntime is missing, or a package that the export needs.
    """

    def inputs(batch: int, frames: int) -> dict[str, Any]:
        given = condition(model, batch, frames, "cpu")
        noise = model.draw_noise(batch, frames * model.hop_length, 0)
        arrays = {"noise": noise} | {key: given[key] for key in ("mel", "speaker") if key in given}
        return {key: value.contiguous().numpy() for key, value in arrays.items()}

    with tempfile.TemporaryDirectory() as folder:
        content = export_model(model, Path(folder) / "student.onnx").read_bytes()
    return onnx_system(name, content, model.sample_rate, model.hop_length, inputs, "student")
