"""Manifests: one JSON object a line, one utterance an object.

    {"id": "a_0001", "audio": "wavs/a_0001.wav", "duration": 3.21, "speaker": "a", "text": "...", "split": "train"}

``audio`` is stored relative to the manifest's folder, ``duration`` is in seconds, ``text`` may be missing.

``condition``, which may be missing too, is another recording of the same length, stored like ``audio``: mel and pitch
are then taken from it, while ``audio`` stays what is to be learned. A model is so trained on pairs: notes given their
pitch (recipes/notes), or clean speech given what a codec left of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from wavedistill.data.splits import SPLITS
from wavedistill.errors import WavedistillError
from wavedistill.files import write_text

OPTIONAL = ("text", "condition")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One utterance; its paths are absolute here, and in the file relative to the manifest."""

    id: str
    audio: str
    duration: float
    speaker: str
    text: str | None = None
    split: str
    condition: str | None = None
    """The recording whose mel and pitch go with ``audio``; None: ``audio`` itself."""


def read_manifest(path: str | Path) -> list[Entry]:
    """Read a manifest; the paths of the result are absolute.

    Raises WavedistillError for a missing file, a line that is not an entry (with its number), an unknown
    split, or an id that occurs twice. That the audio exists is not checked here.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "manifest.jsonl"
    if not path.is_file():
        raise WavedistillError(f"{path}: no such manifest; make one with: wavedistill prepare DIR --out {path.parent}")
    folder = path.parent.absolute()
    entries = []
    seen = set()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise WavedistillError(f"{path}: not readable as a manifest ({error}); it is text in UTF-8") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        entry = _parse(line, f"{path}, line {number}")
        if entry.id in seen:
            raise WavedistillError(f"{path}, line {number}: id {entry.id!r} occurs twice")
        seen.add(entry.id)
        entries.append(
            replace(entry, **{name: os.path.normpath(folder / path) for name, path in _paths(entry).items()})
        )
    if not entries:
        raise WavedistillError(f"{path}: the manifest has no entries")
    return entries


def write_manifest(path: str | Path, entries: Iterable[Entry]) -> Path:
    """Write entries atomically, sorted by id, with paths relative to the manifest's folder."""
    path = Path(path)
    folder = path.parent.absolute()
    lines = []
    for entry in sorted(entries, key=lambda e: e.id):
        record = asdict(entry)
        record |= {
            name: Path(os.path.relpath(folder / path, folder)).as_posix() for name, path in _paths(entry).items()
        }
        record["duration"] = round(entry.duration, 4)
        for name in OPTIONAL:
            if record[name] is None:
                del record[name]
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    write_text(path, "".join(lines))
    return path


def _paths(entry: Entry) -> dict[str, str]:
    """The fields that name files."""
    return {name: path for name in ("audio", "condition") if (path := getattr(entry, name)) is not None}


def _parse(line: str, where: str) -> Entry:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits, brackets without end
        raise WavedistillError(f"{where}: not JSON ({error})") from error
    if not isinstance(record, dict):
        raise WavedistillError(f"{where}: an object {{...}} is needed, given {type(record).__name__}")
    known = {field.name for field in fields(Entry)}
    if unknown := sorted(set(record) - known):
        raise WavedistillError(f"{where}: unknown field {unknown[0]!r}; known are {', '.join(sorted(known))}")
    if missing := sorted(known - {*OPTIONAL} - set(record)):
        raise WavedistillError(f"{where}: field {missing[0]!r} is missing")
    for name, value in record.items():
        if name == "duration":
            valid = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
        else:
            valid = isinstance(value, str) or (name in OPTIONAL and value is None)
        if not valid:
            raise WavedistillError(f"{where}: field {name!r} cannot be {value!r}")
    if record["split"] not in SPLITS:
        raise WavedistillError(f"{where}: split {record['split']!r} is none of {', '.join(SPLITS)}")
    return Entry(**record)
