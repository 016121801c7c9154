"""What is to be computed for an output folder, and what came of it: the same for every engine.

Batches are formed from all inputs, before finished ones are left out and before shards are dealt. So a run that was
killed and started again, or spread over shards or machines, computes the same batches.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from wavedistill.errors import WavedistillError
from wavedistill.files import printable, read_json, write_json, write_json_once
from wavedistill.inference.batch.inputs import Input, find_inputs, num_frames
from wavedistill.inference.vocoder import Vocoder
from wavedistill.models.pretrained import fingerprint

SETTINGS_FILE = "synthesis.json"
"""Says with which model and which `RenderOptions` the outputs of a folder were made."""


@dataclass(frozen=True)
class RenderOptions:
    """What decides how an output sounds, beside the model and the input; see `synthesize`."""

    seed: int = 0
    temperature: float = 1.0
    speaker: int | str | None = None


@dataclass(frozen=True)
class ExecutionConfig:
    """How a synthesis is carried out.

    Attributes:
        engine: "local", this process; or "ray", workers on a Ray cluster or on this machine's cores.
        workers: processes of the engine "ray" (default: one for each CPU or GPU of the cluster).
        shard: (i, n): compute only the i-th of n disjoint parts, i from 0. By default all; under torchrun each process
            takes the part of its rank.
        batch_seconds: most audio computed at once, padding included; longer inputs are computed alone, in chunks.
        precision: of a student's networks, see `Vocoder.from_pretrained`.
        progress: show a bar.
    """

    engine: Literal["local", "ray"] = "local"
    workers: int | None = None
    shard: tuple[int, int] | None = None
    batch_seconds: float = 20.0
    precision: Literal["fp32", "bf16"] = "fp32"
    progress: bool = False

    def check(self, num_processes: int) -> None:
        """Refuse what does not go together, where torchrun has started ``num_processes`` (1: no torchrun).

        Raises:
            WavedistillError: says which option to leave out.
        """
        if self.engine not in ("local", "ray"):
            raise WavedistillError(f"there is no engine {self.engine!r}: give local or ray")
        if self.engine == "ray":
            if self.shard is not None or num_processes > 1:
                raise WavedistillError(
                    "--engine ray deals the work to its workers itself: leave out --shard and torchrun"
                )
            if self.precision != "fp32":
                raise WavedistillError(f"--precision {self.precision} is for --engine local: leave one of the two out")
            if self.workers is not None and self.workers < 1:
                raise WavedistillError(f"at least one worker is needed, not {self.workers}")
            return
        if self.workers is not None:
            raise WavedistillError(
                "--workers is for --engine ray: add it, or start several processes with torchrun or --shard"
            )
        if self.shard is not None and num_processes > 1:
            raise WavedistillError(
                f"torchrun deals {num_processes} shards itself, and with --shard each of its processes would do the "
                "same one: leave --shard out"
            )


@dataclass(frozen=True)
class InputBatch:
    """Inputs computed together; only the outputs of ``missing`` are written, the others are there already."""

    inputs: list[Input]
    missing: frozenset[Input]


class MeasuredInput(NamedTuple):
    """An input and its length in mel frames."""

    source: Input
    frames: int


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
        compute_seconds: time it took once the model was loaded (with Ray: with the start of its workers).
    """

    written: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0
    compute_seconds: float = 0.0

    def add(self, part: SynthesisReport) -> None:
        """Add what was done for some of the batches."""
        self.written += part.written
        self.failures += part.failures
        self.seconds += part.seconds


class Plan:
    """The unfinished batches of an output folder.

    Args:
        given: files and folders.
        out: the output folder.
        vocoder: the model with its mel front end, on any device.
        options: how the outputs are to sound.
        batch_seconds: most audio in a batch.
        shard: (i, n): only the i-th of n parts.

    Attributes:
        batches: what is left to compute, those of the shard only.
        report: what is known before anything is computed: outputs that are there, inputs whose header cannot be read.

    Raises:
        WavedistillError: as `synthesize`.
    """

    def __init__(
        self,
        given: Sequence[str | Path],
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
        inputs = find_inputs(given, out)
        if vocoder.mel_config is None:
            raise WavedistillError(
                "this model takes no mel (it is unconditional): use `wavedistill sample --seconds S --out FILE`"
            )
        _check_writable(out)
        _check_same_settings(out, {"weights": fingerprint(vocoder.model), **asdict(options)})
        self._failures_file = out / ("failures.json" if count == 1 else f"failures-{index}-of-{count}.json")

        measured = []
        unreadable = []
        for source in inputs:
            try:
                measured.append(MeasuredInput(source, num_frames(source, vocoder.mel_config)))
            except WavedistillError as error:
                unreadable.append(Failure(printable(source.path), str(error)))
        self.report = SynthesisReport(failures=unreadable[index::count])
        self.batches: list[InputBatch] = []
        max_frames = batch_seconds * vocoder.sample_rate / vocoder.hop_length
        for batch in deal(make_batches(measured, max_frames), count)[index]:
            members = [source for source, _ in batch]
            missing = frozenset(source for source in members if not source.output.exists())
            self.report.skipped += [source.output for source in members if source not in missing]
            if missing:
                self.batches.append(InputBatch(members, missing))

    def finish(self) -> SynthesisReport:
        """The report, in order, once all batches are done; its failures are written beside the outputs."""
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

        total = sum(len(batch.inputs) for batch in self.batches)
        with tqdm(total=total, unit="file", disable=not (shown and self.batches)) as bar:
            yield bar


def make_batches(measured: Iterable[MeasuredInput], max_frames: float) -> list[list[MeasuredInput]]:
    """Group inputs by length, so that there is little padding and no batch, padded, exceeds ``max_frames``."""
    batches: list[list[MeasuredInput]] = []
    for item in sorted(measured, key=lambda item: (-item.frames, item.source.name)):
        # sorted from long to short: a batch's first input sets its padded length
        if batches and (len(batches[-1]) + 1) * batches[-1][0].frames <= max_frames:
            batches[-1].append(item)
        else:
            batches.append([item])
    return batches


def deal(batches: Iterable[list[MeasuredInput]], count: int) -> list[list[list[MeasuredInput]]]:
    """The batches in ``count`` shards, whose padded lengths differ by one batch at most.

    The largest batch that is left goes to the shard that has least (the LPT rule of Graham, Bounds on Multiprocessing
    Timing Anomalies, 1969).
    """
    shards: list[list[list[MeasuredInput]]] = [[] for _ in range(count)]
    loads = [0] * count
    for batch in sorted(batches, key=padded_frames, reverse=True):
        least = loads.index(min(loads))
        shards[least].append(batch)
        loads[least] += padded_frames(batch)
    return shards


def padded_frames(batch: list[MeasuredInput]) -> int:
    """What a batch, longest input first, costs: its frames with padding."""
    return len(batch) * batch[0].frames


def _check_same_settings(out: Path, settings: dict) -> None:
    """Outputs that exist are taken for finished, so a folder must not mix two models or seeds: a file says which."""
    path = out / SETTINGS_FILE
    if not path.is_file() and write_json_once(path, settings):
        return
    changed = [name for name, value in read_json(path).items() if settings.get(name) != value]
    if changed:
        raise WavedistillError(
            f"{out} holds speech made with another {' and '.join(changed)}: give another --out, or delete "
            f"{path} and the outputs to make anew."
        )


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
