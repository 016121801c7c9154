"""What is to be done for an output folder, and what became of it: the same for every engine.

Batches are formed from the whole input before finished items are left out and before shards are dealt, so that a run
that was killed and started again, or spread over shards or machines, computes the same batches.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from wavedistill.errors import WavedistillError
from wavedistill.files import read_json, write_json
from wavedistill.inference.batch.inputs import Item, find_items, num_frames
from wavedistill.inference.vocoder import Vocoder
from wavedistill.models.pretrained import fingerprint

SETTINGS_FILE = "synthesis.json"
"""Says which voice and seed an output folder belongs to."""


@dataclass(frozen=True)
class RenderOptions:
    """What decides how an output sounds, beside the voice and the input; see `synthesize`."""

    seed: int = 0
    temperature: float = 1.0
    speaker: int | str | None = None


@dataclass(frozen=True)
class Batch:
    """Items computed together; only those of ``missing`` are written, the others are there already."""

    items: list[Item]
    missing: frozenset[Item]


@dataclass(frozen=True)
class Failure:
    """An input that gave no output, and why."""

    input: str
    reason: str


@dataclass
class SynthesisReport:
    """What a synthesis did.

    Attributes:
        written: output files made by this call, in the order of their names.
        skipped: output files that were there already.
        failures: inputs without an output.
        seconds: length of the audio written.
        compute_seconds: time it took, once the voice was loaded (with Ray: from planning on, its start included).
    """

    written: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0
    compute_seconds: float = 0.0

    def add(self, part: SynthesisReport) -> None:
        """Take in what a part of the job did."""
        self.written += part.written
        self.failures += part.failures
        self.seconds += part.seconds


class Job:
    """The unfinished batches of an output folder.

    Args:
        inputs, out, shard, batch_seconds: as in `synthesize`.
        vocoder: the voice, on any device.
        options: how it is to sound.

    Attributes:
        batches: what is left to do, in groups of equal cost; those of the shard only.
        report: what is known before anything is computed: outputs that are there, inputs whose header cannot be read.

    Raises:
        WavedistillError: as `synthesize`.
    """

    def __init__(
        self,
        inputs: str | Path | Sequence[str | Path],
        out: Path,
        vocoder: Vocoder,
        options: RenderOptions,
        batch_seconds: float,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        self._start = time.perf_counter()
        index, count = shard
        if not 0 <= index < count:
            raise WavedistillError(
                f"there is no shard {index}/{count}: of {count} the shards are 0/{count} to {count - 1}/{count}"
            )
        items = find_items([inputs] if isinstance(inputs, (str, Path)) else inputs, out)
        if vocoder.mel_config is None:
            raise WavedistillError(
                "this model takes no mel (it is unconditional): use `wavedistill sample --seconds S --out FILE`"
            )
        _check_writable(out)
        _check_same_settings(out, {"weights": fingerprint(vocoder.model), **asdict(options)})
        self._failures_file = out / ("failures.json" if count == 1 else f"failures-{index}-of-{count}.json")

        measured = []
        unreadable = []
        for item in items:
            try:
                measured.append((item, num_frames(item.input, vocoder.mel_config)))
            except WavedistillError as error:
                unreadable.append(Failure(str(item.input), str(error)))
        self.report = SynthesisReport(failures=unreadable[index::count])
        self.batches: list[Batch] = []
        max_frames = batch_seconds * vocoder.sample_rate / vocoder.hop_length
        for group in deal(make_batches(measured, max_frames), count)[index]:
            members = [item for item, _ in group]
            missing = frozenset(item for item in members if not item.output.exists())
            self.report.skipped += [item.output for item in members if item not in missing]
            if missing:
                self.batches.append(Batch(members, missing))

    def finish(self) -> SynthesisReport:
        """The report in order, after the work: its failures are written down beside the outputs."""
        self.report.written.sort()
        self.report.skipped.sort()
        self.report.compute_seconds = time.perf_counter() - self._start
        if self.report.failures:
            write_json(self._failures_file, [asdict(failure) for failure in self.report.failures])
        else:
            self._failures_file.unlink(missing_ok=True)
        return self.report

    @contextmanager
    def progress_bar(self, shown: bool) -> Iterator[Any]:
        """A bar over the files of `batches`: call its ``update`` with how many more are done."""
        from tqdm import tqdm

        with tqdm(
            total=sum(len(batch.items) for batch in self.batches), unit="file", disable=not (shown and self.batches)
        ) as bar:
            yield bar


def make_batches(measured: Iterable[tuple[Item, int]], max_frames: float) -> list[list[tuple[Item, int]]]:
    """Group (item, frames) by length so that padding is little and no batch, padded, exceeds ``max_frames``."""
    batches: list[list[tuple[Item, int]]] = []
    for item, frames in sorted(measured, key=lambda pair: (-pair[1], pair[0].name)):
        # sorted from long to short: a batch's first item sets its padded length
        if batches and (len(batches[-1]) + 1) * batches[-1][0][1] <= max_frames:
            batches[-1].append((item, frames))
        else:
            batches.append([(item, frames)])
    return batches


def deal(batches: Iterable[list[tuple[Item, int]]], count: int) -> list[list[list[tuple[Item, int]]]]:
    """The batches in ``count`` shards, whose padded lengths differ by one batch at most.

    The largest batch that is left goes to the shard that has least (the LPT rule of Graham, Bounds on Multiprocessing
    Timing Anomalies, 1969).
    """
    shards: list[list[list[tuple[Item, int]]]] = [[] for _ in range(count)]
    loads = [0] * count
    for batch in sorted(batches, key=padded_frames, reverse=True):
        least = loads.index(min(loads))
        shards[least].append(batch)
        loads[least] += padded_frames(batch)
    return shards


def padded_frames(batch: list[tuple[Item, int]]) -> int:
    """What a batch of (item, frames), longest first, costs."""
    return len(batch) * batch[0][1]


def _check_same_settings(out: Path, settings: dict) -> None:
    """Outputs that exist are taken for finished, so a folder must not mix two voices or seeds: it says whose it is."""
    path = out / SETTINGS_FILE
    if path.is_file():
        changed = [name for name, value in read_json(path).items() if settings.get(name) != value]
        if changed:
            raise WavedistillError(
                f"{out} holds speech made with another {' and '.join(changed)}: give another --out, or delete "
                f"{path} and "
                "the outputs to make anew."
            )
    else:
        write_json(path, settings)


def _check_writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out) as file:
            file.write(b"\0" * 4096)
    except OSError as error:
        raise WavedistillError(
            f"the output folder {out} cannot be written ({error.strerror or error}): choose another --out or free "
            "some space"
        ) from error
