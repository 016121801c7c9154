"""Students as files that other runtimes read: ONNX, and a program of `torch.export`.

A student is a function (noise, mel, speaker) -> audio. Both files take any batch and any number of frames, and the ONNX
file carries the settings of its mel: synthesis needs that file and onnxruntime, no torch
(``examples/onnx/synthesize.py``). `wavedistill.inference.export_stream` writes graphs for a mel in chunks.

References:
    https://docs.pytorch.org/docs/stable/export.html
    https://docs.pytorch.org/docs/stable/onnx_export.html
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wavedistill.config import to_dict
from wavedistill.errors import WavedistillError
from wavedistill.files import write_bytes
from wavedistill.inference.onnx_weights import halve, round_to_half
from wavedistill.models.base import WaveformModel
from wavedistill.models.parallel_wavenet import ParallelWaveNet
from wavedistill.models.pretrained import load_pretrained, model_type

Format = Literal["onnx", "torch"]
SUFFIXES: dict[str, Format] = {".onnx": "onnx", ".pt2": "torch"}
METADATA_KEY = "wavedistill"
"""Name of the settings (JSON) in an ONNX file's metadata; with ".json", of the extra file in a saved program."""
EXAMPLE_BATCH = 2
EXAMPLE_FRAMES = 7
"""Sizes of the arguments that the model is traced with. Special sizes (1, or a width of the model) would be taken for
constants.
"""


class OnePass(nn.Module):
    """noise -> audio of a student, as one function of tensors: ``model.sample(mel, noise=noise, speaker=speaker)``.

    Shapes:
        noise (batch, 1, frames * hop_length), standard normal, times a temperature if one is wanted; mel (batch,
        n_mels, frames), natural logarithm, for a model that takes one; speaker (batch,), int64, for a model with
        speakers -> audio (batch, 1, frames * hop_length), not clipped.
    """

    def __init__(self, model: ParallelWaveNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, noise: Tensor, mel: Tensor | None = None, speaker: Tensor | None = None) -> Tensor:
        return self.model.contracted(self.model.rsample(noise, mel, speaker).audio, mel)


def export_model(
    model: WaveformModel | str | Path, path: str | Path, format: Format | None = None, *, half: bool = False
) -> Path:
    """Write a student for other runtimes, and return the file's path.

        export_model("speech-student", "student.onnx")
        session = onnxruntime.InferenceSession("student.onnx")
        audio = session.run(["audio"], {"noise": noise, "mel": mel})[0]  # float32 arrays, any batch, any length

        export_model("speech-student", "student.pt2")
        import wavedistill.dsp.filters  # the program's own operators
        audio = torch.export.load("student.pt2").module()(noise=noise, mel=mel)

    Inputs and output are those of `OnePass`. The settings that make a mel (see `settings`) are in the ONNX file's
    metadata under "wavedistill", in the program's extra file "wavedistill.json".

    Args:
        model: a student, or its checkpoint to load (folder, run, bundled name or hub id).
        path: the file; it appears under its name when it is whole.
        format: "onnx" or "torch"; by default what the path ends with, .onnx or .pt2.
        half: keep the weights of an ONNX file in float16; onnxruntime makes float32 of them while it loads.

    Raises:
        WavedistillError: a teacher (its samples follow one another) or a one-stage flow, an odd n_fft in ONNX, a path
            that tells no format, missing packages, a full disk.
    """
    path = Path(path)
    format = _format(path, format)
    onnx = format == "onnx"
    if onnx:
        need_onnx()
    elif half:
        raise WavedistillError("weights in float16 are for ONNX files: leave half out (--half), or give format onnx.")
    student = load_student(model, half)
    if onnx:
        check_transforms(student)
    with quiet():
        program = _traced(student)
        values = settings(student)
        if onnx:
            content = onnx_model(program, values, ["audio"], half).SerializeToString()
        else:
            content = _torch(program, values)
    write_bytes(path, content)
    return path


def load_student(model: WaveformModel | str | Path, half: bool) -> ParallelWaveNet:
    """The model of a checkpoint, or a copy of one, on the CPU, with ``half`` rounded to float16; refuses what is not a
    student.
    """
    loaded = load_pretrained(model) if isinstance(model, (str, Path)) else copy.deepcopy(model).cpu().eval()
    if loaded.role == "teacher":
        raise WavedistillError(
            "a teacher cannot be exported: it makes one sample after another, and a file holds one pass. Distil a "
            "student from it (`wavedistill distill`) and export that."
        )
    if loaded.role != "student":
        raise WavedistillError(f"only students can be exported, and this is a {loaded.role_name}: give a student.")
    if half:
        round_to_half(loaded)
    return loaded


def check_transforms(model: ParallelWaveNet) -> None:
    """Raises `WavedistillError` where `wavedistill.inference.onnx_fourier` has no transform of the model's length."""
    config = model.config
    transforms = model.source is not None or model.contraction is not None
    if transforms and config.mel.n_fft % 2:
        raise WavedistillError(
            f"ONNX files hold Fourier transforms of even length, and this student's mel has n_fft {config.mel.n_fft}: "
            "export it for torch (file.pt2), or train one with an even model.mel.n_fft."
        )


def settings(model: WaveformModel) -> dict[str, Any]:
    """What a program needs to know beside the network: model_type, sample_rate (Hz), hop_length (samples), mel (the
    fields of `MelConfig`, or None), speakers (names, in the order of their indices).
    """
    config = to_dict(model.config)
    return {
        "model_type": model_type(model),
        "sample_rate": model.sample_rate,
        "hop_length": model.hop_length,
        "mel": config["mel"],
        "speakers": config["speakers"],
    }


def _format(path: Path, format: Format | None) -> Format:
    if format is None and path.suffix not in SUFFIXES:
        raise WavedistillError(
            f"{path} tells no format: end its name in .onnx or .pt2, or give the format, onnx or torch (--format)."
        )
    format = format or SUFFIXES[path.suffix]
    if format not in SUFFIXES.values():
        raise WavedistillError(f"there is no format {format!r}: give onnx or torch.")
    return format


def _traced(model: ParallelWaveNet) -> torch.export.ExportedProgram:
    """The pass as a graph of operators, for any batch and any number of frames."""
    hop = model.hop_length
    config = model.config
    batch, frames = (torch.export.Dim(name, min=1) for name in ("batch", "frames"))
    arguments = {"noise": torch.zeros(EXAMPLE_BATCH, 1, EXAMPLE_FRAMES * hop)}
    shapes: dict[str, dict[int, Any]] = {"noise": {0: batch, 2: hop * frames}}
    if config.mel is not None:
        arguments["mel"] = torch.zeros(EXAMPLE_BATCH, config.mel.n_mels, EXAMPLE_FRAMES)
        shapes["mel"] = {0: batch, 2: frames}
    if config.speakers:
        arguments["speaker"] = torch.zeros(EXAMPLE_BATCH, dtype=torch.long)
        shapes["speaker"] = {0: batch}
    return torch.export.export(OnePass(model), (), arguments, dynamic_shapes=shapes, strict=False)


def _torch(program: torch.export.ExportedProgram, values: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={f"{METADATA_KEY}.json": json.dumps(values)})
    return buffer.getvalue()


def onnx_model(program: torch.export.ExportedProgram, values: dict[str, Any], outputs: list[str], half: bool) -> Any:
    """A traced program as an ``onnx.ModelProto`` with these names of its outputs and settings in its metadata."""
    from onnx_ir.passes.common import (
        ClearMetadataAndDocStringPass,
        DeduplicateInitializersPass,
        LiftConstantsToInitializersPass,
        RemoveUnusedNodesPass,
    )
    from onnxscript.optimizer import fold_constants

    from wavedistill.inference.onnx_fourier import use_products
    from wavedistill.inference.onnx_operators import translations

    written = torch.onnx.export(
        program,
        dynamo=True,
        custom_translation_table=translations(),
        output_names=outputs,
        verbose=False,
        optimize=False,  # among its rules is one that takes 1 + 1e-7 for 1
    )
    fold_constants(written.model)
    use_products(written.model)
    LiftConstantsToInitializersPass()(written.model)
    DeduplicateInitializersPass(size_limit=2**17)(written.model)  # every transform brings its matrices
    RemoveUnusedNodesPass()(written.model)
    ClearMetadataAndDocStringPass()(written.model)  # where in which source file each node was traced
    written.model.metadata_props[METADATA_KEY] = json.dumps(values)
    graph = written.model_proto
    if half:
        halve(graph)
    return graph


def need_onnx() -> None:
    """Raises `WavedistillError` where a package that writes ONNX files is missing."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise WavedistillError(
            f"ONNX files need {error.name}, which is not installed: pip install 'wavedistill[onnx]'"
        ) from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporters, which warn of packages that are missing and not needed."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
