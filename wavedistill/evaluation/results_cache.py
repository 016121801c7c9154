"""Results of every clip, stored as they come, so that an interrupted or widened evaluation computes only what is
missing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from wavedistill.audio.io import load_audio, save_audio, to_int16
from wavedistill.errors import WavedistillError
from wavedistill.evaluation.likelihood import Statistic, weighted
from wavedistill.evaluation.quality import Group, clip_weights
from wavedistill.evaluation.systems import Clip, System, digest, on_grid, timed
from wavedistill.files import read_json, write_json

Values = dict[str, list[dict[str, float]]]
"""system -> metrics of each clip"""
Rows = dict[str, dict[str, Statistic]]
"""system -> metric -> mean over clips"""
_VERSION = "3"  # of what is stored: files of another one are not read


class Results:
    """Results of each (system, clip), one small file each.

    Args:
        folder: for the files (``clips/``) and what the systems said (``audio/``); None keeps nothing.
        groups: the metrics to compute.
        progress: show bars on stderr.
    """

    def __init__(self, folder: Path | None, groups: Mapping[str, Group], progress: bool) -> None:
        self.folder = folder
        self.groups = groups
        self.progress = progress
        self.warm: set[str] = set()

    def quality(self, systems: list[System], clips: list[Clip], rate: int, together: Iterable[str] = ()) -> Values:
        """Metrics of each system on each clip; systems named in ``together`` say their clips as one batch.

        What is measured is the audio on the 16-bit grid, as it is written: a metric that is added later reads it from
        there.
        """
        values: Values = {system.name: [] for system in systems}
        spoken: dict[str, dict[str, tuple[Tensor, float]]] = {}
        for clip in self._bar(clips, "quality"):
            for system in systems:
                record = self._read(system, clip)
                if todo := [name for name in self.groups if _entry(name, self.groups[name]) not in record]:
                    made = self._stored_audio(system, clip, record)
                    if made is None:
                        if system.name in together and system.name not in spoken:
                            spoken[system.name] = self._speak_together(system, clips, rate)
                        made, speed = (
                            spoken[system.name][clip.key]
                            if system.name in together
                            else self._speak(system, clip, rate)
                        )
                        record["spoken"] = {"digest": _digest(made)} | (
                            {"real_time": speed} if system.has_speed else {}
                        )
                        if self.folder is not None:
                            save_audio(self._audio_path(system, clip), made, rate)
                    for name in todo:
                        record[_entry(name, self.groups[name])] = self.groups[name].compute(clip, made, rate)
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

    def _speak(self, system: System, clip: Clip, rate: int) -> tuple[Tensor, float]:
        if system.has_speed and system.name not in self.warm:  # the first call compiles and allocates
            system.speak([clip])
            self.warm.add(system.name)
        made, seconds = timed(system, [clip])
        return _written(made[0], system, clip), len(clip.audio) / rate / max(seconds, 1e-9)

    def _speak_together(self, system: System, clips: list[Clip], rate: int) -> dict[str, tuple[Tensor, float]]:
        todo = [clip for clip in clips if self._stored_audio(system, clip, self._read(system, clip)) is None]
        made, seconds = timed(system, todo)
        speed = sum(len(clip.audio) for clip in todo) / rate / max(seconds, 1e-9)
        return {clip.key: (_written(audio, system, clip), speed) for clip, audio in zip(todo, made, strict=True)}

    def _values(self, record: dict[str, Any]) -> dict[str, float]:
        values = {k: v for k, v in record["spoken"].items() if k == "real_time"}
        for name, group in self.groups.items():
            values |= record[_entry(name, group)]
        return _numbers(values)

    def _read(self, system: System, clip: Clip) -> dict[str, Any]:
        path = None if self.folder is None else self._path(system.name, system.key, clip)
        return read_json(path) if path is not None and path.is_file() else {}

    def _stored_audio(self, system: System, clip: Clip, record: dict[str, Any]) -> Tensor | None:
        """What the system said in an earlier run; None where it is not there, or another run wrote over it."""
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
        return (
            self.folder
            / "clips"
            / f"{_safe(name)}-{digest(key, _VERSION)[:8]}"
            / f"{_safe(clip.id)}-{clip.key[:8]}.json"
        )

    def _bar(self, clips: list[Clip], name: str) -> Iterable[Clip]:
        return tqdm(clips, desc=name, unit="clip", disable=not self.progress, dynamic_ncols=True)


def means(values: Values, members: Sequence[int] | None = None) -> Rows:
    """Each system's means over the clips, or over those with the indices ``members``."""
    rows: Rows = {}
    for system, each in values.items():
        chosen = each if members is None else [each[i] for i in members]
        metrics = dict.fromkeys(metric for one in chosen for metric in one if metric != "words")
        rows[system] = {m: weighted([v.get(m, math.nan) for v in chosen], clip_weights(m, chosen)) for m in metrics}
    return rows


def plain(value: Any) -> Any:
    """For JSON: a `Statistic` becomes {mean, standard_error, n, interval}, records become dictionaries, NaN and
    infinity null.
    """
    if is_dataclass(value):
        return plain(vars(value))
    if isinstance(value, Statistic):
        return plain(value._asdict() | {"interval": confidence_interval(value)})
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def confidence_interval(value: Statistic, confidence: float = 0.95) -> tuple[float, float]:
    """Student's interval of a mean: mean ± t_{n-1} standard errors; NaN for one clip."""
    from scipy.special import stdtrit

    if value.n < 2:
        return math.nan, math.nan
    half = float(stdtrit(value.n - 1, (1 + confidence) / 2)) * value.standard_error
    return value.mean - half, value.mean + half


def _entry(name: str, group: Group) -> str:
    return f"{name}-{group.version}"


def _numbers(values: dict[str, float | None]) -> dict[str, float]:
    return {k: math.nan if v is None else v for k, v in values.items()}


def _written(audio: Tensor, system: System, clip: Clip) -> Tensor:
    if not torch.isfinite(audio).all():
        raise WavedistillError(
            f"{system.name} says NaN or infinity for clip {clip.id}: its weights are broken, train it again."
        )
    return on_grid(audio)


def _digest(audio: Tensor) -> str:
    return digest(to_int16(audio).tobytes())


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("_.") or "clip"
