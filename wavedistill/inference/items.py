"""Which inputs a batch synthesis has, and what their outputs are called."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wavedistill.audio.io import AUDIO_SUFFIXES
from wavedistill.errors import WavedistillError

MEL_SUFFIX = ".npy"
SUFFIXES = (*AUDIO_SUFFIXES, MEL_SUFFIX)


@dataclass(frozen=True)
class Item:
    """One input: ``name`` is its output's path below the output folder, without ``.wav``."""

    name: str
    input: Path
    output: Path


def find_items(inputs: Sequence[str | Path], out: Path) -> list[Item]:
    """The items of files and folders, sorted by name.

    A folder is searched with its sub-folders, which are kept below ``out``; hidden files, and ``out`` itself where it
    lies inside, are left out. Where two inputs would share an output name, each keeps its suffix (``b.flac.wav``).

    Raises:
        WavedistillError: an input is missing, nothing is found, two inputs cannot be told apart by name, or an output
            would overwrite an input.
    """
    if not inputs:
        raise WavedistillError("there is nothing to synthesise: give files or folders")
    sources = sorted({pair for given in inputs for pair in _sources(Path(given), out)})
    by_name: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for relative, path in sources:
        by_name[os.path.splitext(relative)[0]].append((relative, path))
    named: dict[str, Path] = {}
    for name, group in by_name.items():
        for relative, path in group:
            unique = name if len(group) == 1 else relative
            if unique in named:
                raise WavedistillError(
                    f"{named[unique]} and {path} would both be written as {out / unique}.wav\n"
                    "synthesise them into two output folders, or give the folder above both"
                )
            named[unique] = path
    items = [Item(name, path, out / f"{name}.wav") for name, path in sorted(named.items())]
    originals = {path.resolve() for path in named.values()}
    for item in items:
        if item.output.resolve() in originals:
            raise WavedistillError(f"the output {item.output} would overwrite an input: choose another output folder")
    return items


def _sources(given: Path, out: Path) -> list[tuple[str, Path]]:
    """(path below the output folder, input path) of all inputs that ``given`` means."""
    if given.is_file():
        if given.suffix.lower() not in SUFFIXES:
            raise WavedistillError(f"{given}: inputs are {', '.join(SUFFIXES)} files, or folders of them")
        return [(given.name, given)]
    if not given.is_dir():
        raise WavedistillError(f"{given}: no such file or folder")
    skip = out.resolve()
    found = []
    for folder, subfolders, files in os.walk(given):
        subfolders[:] = [d for d in subfolders if d[0] != "." and (Path(folder) / d).resolve() != skip]
        for file in files:
            if file[0] != "." and os.path.splitext(file)[1].lower() in SUFFIXES:
                path = Path(folder) / file
                found.append((str(path.relative_to(given)), path))
    if not found:
        raise WavedistillError(f"{given}: no {', '.join(SUFFIXES)} files in this folder")
    return found
