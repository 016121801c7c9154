"""Results of every clip, stored as they come: an interrupted or widened evaluation computes only what is missing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from wavedistill.audio.io import load_audio, save_audio, to_int16
from wavedistill.errors import WavedistillError
from wavedistill.evaluation.statistics import Values, plain
from wavedistill.evaluation.systems import Clip, System, digest, on_grid, timed
from wavedistill.files import read_json, write_json
from wavedistill.metrics.registry import Metric, Reference

_VERSION = "3"  # of what is stored: files of another one are not read


class Generated(NamedTuple):
    """A system's waveform of one clip, and the seconds of audio it makes per second of computing."""

    audio: Tensor
    real_time: float


class Results:
    """Results of each (system, clip), one small file each.

    Args:
        folder: for the files (``clips/``) and the systems' audio (``audio/``); None keeps nothing.
        metrics: what to compute of every clip.
        progress: show bars on stderr.
    """

    def __init__(self, folder: Path | None, metrics: Mapping[str, Metric], progress: bool) -> None:
        self.folder = folder
        self.metrics = metrics
        self.progress = progress
        self.warm: set[str] = set()

    def quality(self, systems: list[System], clips: list[Clip], rate: int, together: Iterable[str] = ()) -> Values:
        """Metrics of each system on each clip; systems named in ``together`` make their clips as one batch.

        What is measured is the audio on the 16-bit grid, as it is written: a metric that is added later reads it from
        there.
        """
        values: Values = {system.name: [] for system in systems}
        batches: dict[str, dict[str, Generated]] = {}
        for clip in self._bar(clips, "quality"):
            for system in systems:
                record = self._read(system, clip)
                if missing := [name for name, metric in self.metrics.items() if _entry(name, metric) not in record]:
                    audio = self._stored_audio(system, clip, record)
                    if audio is None:
                        if system.name in together and system.name not in batches:
                            batches[system.name] = self._generate_batch(system, clips, rate)
                        batch = batches.get(system.name)
                        made = self._generate(system, clip, rate) if batch is None else batch[clip.key]
                        audio = self._store_audio(system, clip, made, rate, record)
                    for name in missing:
                        metric = self.metrics[name]
                        record[_entry(name, metric)] = metric.compute(Reference(clip.audio, clip.text), audio, rate)
                    if self.folder is not None:
                        write_json(self._path(system.name, system.key, clip), plain(record))
                values[system.name].append(self._values(record))
        return values

    def each(
        self, name: str, key: str, clips: list[Clip], compute: Callable[[Clip], dict[str, float]]
    ) -> list[dict[str, float]]:
        """``compute(clip)`` for every clip, stored under ``name``; ``key`` changes with what it would give."""
        found = []
        for clip in self._bar(clips, name):
            path = None if self.folder is None else self._path(name, key, clip)
            if path is not None and path.is_file():
                found.append(_numbers(read_json(path)))
                continue
            found.append(compute(clip))
            if path is not None:
                write_json(path, plain(found[-1]))
        return found

    def _generate(self, system: System, clip: Clip, rate: int) -> Generated:
        if system.has_speed and system.name not in self.warm:  # the first call compiles and allocates
            system.generate([clip])
            self.warm.add(system.name)
        made, seconds = timed(system, [clip])
        return Generated(_written(made[0], system, clip), len(clip.audio) / rate / max(seconds, 1e-9))

    def _generate_batch(self, system: System, clips: list[Clip], rate: int) -> dict[str, Generated]:
        """By clip key, of the clips whose audio is not stored."""
        chosen = [clip for clip in clips if self._stored_audio(system, clip, self._read(system, clip)) is None]
        made, seconds = timed(system, chosen)
        speed = sum(len(clip.audio) for clip in chosen) / rate / max(seconds, 1e-9)
        pairs = zip(chosen, made, strict=True)
        return {clip.key: Generated(_written(audio, system, clip), speed) for clip, audio in pairs}

    def _store_audio(self, system: System, clip: Clip, made: Generated, rate: int, record: dict[str, Any]) -> Tensor:
        record["spoken"] = {"digest": _digest(made.audio)}
        if system.has_speed:
            record["spoken"]["real_time"] = made.real_time
        if self.folder is not None:
            save_audio(self._audio_path(system, clip), made.audio, rate)
        return made.audio

    def _values(self, record: dict[str, Any]) -> dict[str, float]:
        values = {name: value for name, value in record["spoken"].items() if name == "real_time"}
        for name, metric in self.metrics.items():
            values |= record[_entry(name, metric)]
        return _numbers(values)

    def _read(self, system: System, clip: Clip) -> dict[str, Any]:
        path = None if self.folder is None else self._path(system.name, system.key, clip)
        return read_json(path) if path is not None and path.is_file() else {}

    def _stored_audio(self, system: System, clip: Clip, record: dict[str, Any]) -> Tensor | None:
        """The system's audio of an earlier run; None where it is not there, or another run wrote over it."""
        if "spoken" not in record or not self._audio_path(system, clip).is_file():
            return None
        try:
            audio = load_audio(self._audio_path(system, clip))[0]
        except WavedistillError:
            return None
        return audio if _digest(audio) == record["spoken"]["digest"] else None

    def _audio_path(self, system: System, clip: Clip) -> Path:
        return self.folder / "audio" / _safe(system.name) / f"{_safe(clip.id)}-{clip.key[:6]}.wav"

    def _path(self, name: str, key: str, clip: Clip) -> Path:
        system = f"{_safe(name)}-{digest(key, _VERSION)[:8]}"
        return self.folder / "clips" / system / f"{_safe(clip.id)}-{clip.key[:8]}.json"

    def _bar(self, clips: list[Clip], name: str) -> Iterable[Clip]:
        return tqdm(clips, desc=name, unit="clip", disable=not self.progress, dynamic_ncols=True)


def _entry(name: str, metric: Metric) -> str:
    return f"{name}-{metric.version}"


def _numbers(values: dict[str, float | None]) -> dict[str, float]:
    return {k: math.nan if v is None else v for k, v in values.items()}


def _written(audio: Tensor, system: System, clip: Clip) -> Tensor:
    if not torch.isfinite(audio).all():
        raise WavedistillError(
            f"{system.name} gives NaN or infinity for clip {clip.id}: its weights are broken, train it again."
        )
    return on_grid(audio)


def _digest(audio: Tensor) -> str:
    return digest(to_int16(audio).tobytes())


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("_.") or "clip"
