"""Recordings of any other system, as a folder of files named by clip id."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from wavedistill.audio.io import load_audio
from wavedistill.errors import WavedistillError
from wavedistill.evaluation.systems import Clip, System, digest

SUFFIXES = (".wav", ".flac")


def folder_system(name: str, folder: str | Path, clips: Sequence[Clip], sample_rate: int, hop_length: int) -> System:
    """Another system's recordings of these clips, ``<clip id>.wav`` or ``.flac`` each.

    They are resampled to ``sample_rate``, and cut or padded with silence to the clip's length; the system's ``notes``
    say where that was needed.

    Args:
        name: for the tables.
        folder: with the files; a "/" in an id is a subfolder.
        clips: to find there.
        sample_rate: of the clips, Hz.
        hop_length: of the clips' frames; a file that is longer than its clip by less than a frame gets no note.

    Raises:
        WavedistillError: no such folder, or clips without a file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise WavedistillError(
            f"{folder}: no such folder. Give the folder with the recordings of {name}, named by clip id."
        )
    files = {clip.id: path for clip in clips if (path := _find(folder, clip.id)) is not None}
    if missing := [clip.id for clip in clips if clip.id not in files]:
        some = ", ".join(f"{i}.wav" for i in missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise WavedistillError(
            f"{folder}: {len(missing)} of {len(clips)} clips have no .wav or .flac file named by their id: {some}. "
            "Add them, or evaluate fewer clips."
        )

    def read(some: list[Clip]) -> list[Tensor]:
        made = []
        for clip in some:
            audio = load_audio(files[clip.id], sample_rate)[0][: len(clip.audio)]
            made.append(torch.nn.functional.pad(audio, (0, len(clip.audio) - len(audio))))
        return made

    key = digest("folder", *(files[clip.id].read_bytes() for clip in clips))
    return System(name, key, read, has_speed=False, notes=_notes(name, files, clips, sample_rate, hop_length))


def _find(folder: Path, clip_id: str) -> Path | None:
    return next((path for suffix in SUFFIXES if (path := folder / f"{clip_id}{suffix}").is_file()), None)


def _notes(
    name: str, files: dict[str, Path], clips: Sequence[Clip], sample_rate: int, hop_length: int
) -> tuple[str, ...]:
    rates = set()
    shorter = []
    longer = []
    for clip in clips:
        audio, rate = load_audio(files[clip.id])
        excess = len(audio) / rate - len(clip.audio) / sample_rate
        if rate != sample_rate:
            rates.add(rate)
        if excess < -0.5 / rate:
            shorter.append(-excess)
        if excess >= hop_length / sample_rate:
            longer.append(excess)
    notes = []
    if rates:
        notes.append(f"{name}: resampled from {', '.join(map(str, sorted(rates)))} Hz to {sample_rate} Hz.")
    if shorter:
        notes.append(
            f"{name}: {len(shorter)} of {len(clips)} files are shorter than the clip, by up to {max(shorter):.2f} "
            "s: padded with silence."
        )
    if longer:
        notes.append(
            f"{name}: {len(longer)} of {len(clips)} files are longer than the clip, by up to {max(longer):.2f} s: "
            "cut at the end."
        )
    return tuple(notes)
