"""Turn recordings into training data: trimmed 16-bit mono wavs, a manifest and a report of refusals."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from wavedistill.audio.bandwidth import bandwidth
from wavedistill.audio.io import AUDIO_SUFFIXES, check_audible, load_audio, resample, save_audio
from wavedistill.audio.silence import clipped_share, trim_silence
from wavedistill.data.manifest import Entry, write_manifest
from wavedistill.data.parallel import over_processes
from wavedistill.data.prepare_report import PrepareReport
from wavedistill.data.splits import SPLITS, HeldOut, assign_splits
from wavedistill.errors import WavedistillError
from wavedistill.files import check_name, folder_lock, printable, read_json, remove_leftovers, walk, write_json

SETTINGS_FILE = "prepare.json"
"""Says with which `PrepareConfig` the wavs of a folder were made."""
WIDE_BAND = 8500.0
"""Hz: what was recorded or coded at 16 kHz reaches 8,000 at most."""
_BYTES_A_WORKER = 1 << 26  # of recordings: a process takes 2 s to start, and to prepare this much no longer
Decoder = Callable[[Path, float], tuple[Tensor, int]]  # (file, most seconds) -> audio (samples,), sample rate


@dataclass(frozen=True)
class PrepareConfig:
    """How recordings become training data; kept in the output folder, so that with other settings all is done again."""

    sample_rate: int = 16000
    top_db: float = 45.0
    """What stays this far below the loudest frame at either end is silence."""
    margin_seconds: float = 0.1
    """Silence kept at each end."""
    min_seconds: float = 0.3
    """Shorter recordings (after trimming) are refused."""
    max_seconds: float = 300.0
    """Longer recordings (before trimming) are refused, by their header, without being loaded."""
    max_clipped: float = 1e-3
    """Largest share of samples at full scale."""
    min_bandwidth: float | None = None
    """Recordings that hold nothing above so many Hz are refused. None: 0, but `WIDE_BAND` for rates that are there to
    carry more than telephone speech."""

    @property
    def bandwidth(self) -> float:
        """The bandwidth in Hz that is asked for."""
        if self.min_bandwidth is not None:
            return self.min_bandwidth
        return WIDE_BAND if self.sample_rate / 2 > WIDE_BAND else 0.0


@dataclass(frozen=True)
class Recording:
    """One source file: ``id`` names its wav, ``text`` (or the id) decides its split."""

    id: str
    source: Path
    speaker: str
    text: str | None = None


class _Task(NamedTuple):
    """What a process is given: one recording and how to prepare it."""

    recording: Recording
    path: Path
    config: PrepareConfig
    decode: Decoder | None


class _Outcome(NamedTuple):
    """What became of it: a wav of so many seconds, or the reason of refusal."""

    path: Path
    seconds: float
    refusal: str | None = None
    renewed: bool = False
    """A wav was there already, of another recording."""


def prepare_folder(
    folder: str | Path,
    out: str | Path,
    config: PrepareConfig | None = None,
    *,
    speaker: str | None = None,
    held_out: HeldOut | None = None,
    workers: int | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> PrepareReport:
    """Prepare every wav, flac, ogg and mp3 below ``folder`` and the folders that links in it lead to.

    The speaker is ``speaker``, or else the name of the first subfolder a file lies in (the folder's own name
    for files at the top). ``name.txt`` beside ``name.wav`` is its text. Other arguments: ``prepare_recordings``.
    """
    folder = Path(folder)
    out = Path(out)
    if not folder.is_dir():
        raise WavedistillError(f"{folder}: no such folder of recordings")
    paths = walk(folder, AUDIO_SUFFIXES, skip=out)
    if not paths:
        raise WavedistillError(f"{folder}: no {', '.join(AUDIO_SUFFIXES)} files in it or below it")
    recordings = []
    for path in paths:
        relative = path.relative_to(folder)
        name = relative.parts[0] if len(relative.parts) > 1 else folder.absolute().name
        recordings.append(
            Recording("_".join(relative.with_suffix("").parts), path, speaker or name, _text_beside(path))
        )
    return prepare_recordings(recordings, out, config, held_out=held_out, workers=workers, progress=progress)


def prepare_recordings(
    recordings: Iterable[Recording],
    out: str | Path,
    config: PrepareConfig | None = None,
    *,
    decode: Decoder | None = None,
    held_out: HeldOut | None = None,
    workers: int | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> PrepareReport:
    """Write ``out``/wavs/<id>.wav, ``out``/manifest.jsonl and ``out``/report.json.

    Finished wavs of an earlier run with the same config are kept unless their source has another date now, and the
    manifest is written last and atomically, so an interrupted run is simply started again. One process at a time
    prepares into a folder.

    Args:
        config: the limits and the rate; ``PrepareConfig()`` by default.
        decode: reads a source file; ``load_audio`` by default.
        held_out: the fewest recordings for validation and for testing; a change of it does not redo the wavs.
        workers: processes; by default as many as the recordings are worth, one per core at most.
        progress: wraps the iterable of results, which knows its length; tqdm for example.

    Raises:
        WavedistillError: the output folder cannot be written, another process prepares into it, no recording was
            accepted, or ``held_out`` leaves none for training.
    """
    config = config or PrepareConfig()
    out = Path(out)
    recordings, refused = _refuse_double_ids(recordings)
    tasks = [_Task(r, out / "wavs" / f"{r.id}.wav", config, decode) for r in recordings]
    accepted = []
    with folder_lock(out, "preparing recordings", "--out"):
        _make_ready(out, config, tasks)
        with over_processes(_prepare_one, tasks, workers or _enough_workers(tasks)) as outcomes:
            for recording, outcome in zip(recordings, progress(outcomes), strict=True):
                if outcome.refusal is None:
                    accepted.append((recording, outcome))
                else:
                    refused[printable(recording.source)] = outcome.refusal
        return _record(out, accepted, refused, held_out)


def _make_ready(out: Path, config: PrepareConfig, tasks: Sequence[_Task]) -> None:
    """Remove what killed processes left, and wavs that were made with other settings."""
    remove_leftovers(out)
    remove_leftovers(out / "wavs")
    if _settings_changed(out / SETTINGS_FILE, config):
        # before the new settings are kept, or this run, killed and started again, would take these wavs for its own
        _remove([out / "manifest.jsonl", *(task.path for task in tasks)])
        write_json(out / SETTINGS_FILE, asdict(config))


def _record(
    out: Path, accepted: Sequence[tuple[Recording, _Outcome]], refused: dict[str, str], held_out: HeldOut | None
) -> PrepareReport:
    """Write report and manifest."""
    entries = _entries(accepted, held_out)
    clips = Counter(entry.split for entry in entries)
    report = PrepareReport(
        str(out / "manifest.jsonl"),
        len(entries),
        round(sum(e.duration for e in entries), 3),
        refused,
        {split: clips[split] for split in SPLITS},
        sum(e.text is not None for e in entries),
        sum(outcome.renewed for _, outcome in accepted),
    )
    write_json(out / "report.json", asdict(report))
    if not entries:
        source, reason = next(iter(refused.items()), ("no recording", "nothing was given"))
        raise WavedistillError(f"none of {len(refused)} recordings was accepted; {source}: {reason}")
    write_manifest(out / "manifest.jsonl", entries)
    return report


def _entries(accepted: Sequence[tuple[Recording, _Outcome]], held_out: HeldOut | None) -> list[Entry]:
    if not accepted:
        return []
    splits = assign_splits([recording.text or recording.id for recording, _ in accepted], held_out)
    return [
        Entry(
            id=recording.id,
            audio=str(outcome.path.absolute()),
            duration=outcome.seconds,
            speaker=recording.speaker,
            text=recording.text,
            split=split,
        )
        for (recording, outcome), split in zip(accepted, splits, strict=True)
    ]


def _prepare_one(task: _Task) -> _Outcome:
    import soundfile

    source = task.recording.source
    config = task.config
    try:
        check_name(source)
        check_name(task.path)
    except WavedistillError as error:
        return _Outcome(task.path, 0.0, str(error).removeprefix(f"{printable(source)}: "))
    if _is_finished(task.path, source):
        return _Outcome(task.path, soundfile.info(str(task.path)).duration)
    renewed = task.path.is_file()
    try:
        audio, rate = (task.decode or _decode)(source, config.max_seconds)
        _check_source(audio, rate, config)
        audio = resample(audio, rate, config.sample_rate)
        audio = trim_silence(audio, config.sample_rate, top_db=config.top_db, margin_seconds=config.margin_seconds)
        check_audible(audio, config.sample_rate, min_seconds=config.min_seconds, name="after trimming")
        _check_bandwidth(audio, config)
    except WavedistillError as error:
        task.path.unlink(missing_ok=True)
        return _Outcome(task.path, 0.0, str(error).removeprefix(f"{source}: "))
    save_audio(task.path, audio, config.sample_rate)
    if source.is_file():
        stat = source.stat()
        os.utime(task.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    return _Outcome(task.path, audio.shape[0] / config.sample_rate, renewed=renewed)


def _is_finished(path: Path, source: Path) -> bool:
    """Whether a wav is there, of this very recording: it bears the recording's date, which may be older or newer."""
    return path.is_file() and not (source.is_file() and source.stat().st_mtime_ns != path.stat().st_mtime_ns)


def _check_source(audio: Tensor, rate: int, config: PrepareConfig) -> None:
    check_audible(audio, rate, min_seconds=config.min_seconds, name="the recording")
    if (share := clipped_share(audio)) > config.max_clipped:
        raise WavedistillError(
            f"clipped: {share:.2%} of its samples are at full scale, at most {config.max_clipped:.2%} are taken"
        )


def _check_bandwidth(audio: Tensor, config: PrepareConfig) -> None:
    if config.bandwidth and (found := bandwidth(audio, config.sample_rate)) < config.bandwidth:
        raise WavedistillError(
            f"narrow: it holds nothing above {found:.0f} Hz, so that a voice of {config.sample_rate} Hz would learn "
            f"silence there; at least {config.bandwidth:.0f} Hz are wanted (--min-bandwidth 0 takes all)"
        )


def _decode(path: Path, max_seconds: float) -> tuple[Tensor, int]:
    return load_audio(path, max_seconds=max_seconds)


def _refuse_double_ids(recordings: Iterable[Recording]) -> tuple[list[Recording], dict[str, str]]:
    kept: dict[str, Recording] = {}
    refused = {}
    for recording in recordings:
        if recording.id in kept:
            refused[printable(recording.source)] = f"has the same id {recording.id!r} as {kept[recording.id].source}"
        else:
            kept[recording.id] = recording
    return list(kept.values()), refused


def _settings_changed(path: Path, config: PrepareConfig) -> bool:
    """Whether ``path`` keeps other settings than ``config``, or none."""
    try:
        return read_json(path) != asdict(config)
    except WavedistillError:  # a first run, or a damaged file
        return True


def _remove(paths: Iterable[Path]) -> None:
    for path in filter(os.path.exists, paths):  # which a name too long for the disk does not
        try:
            path.unlink()
        except OSError as error:
            raise WavedistillError(
                f"cannot replace {path}: {error.strerror}. Give a folder you can write to."
            ) from error


def _enough_workers(tasks: Sequence[_Task]) -> int:
    sources = [task.recording.source for task in tasks]
    size = sum(source.stat().st_size for source in sources if source.is_file())
    return min(os.cpu_count() or 1, 1 + size // _BYTES_A_WORKER)


def _text_beside(path: Path) -> str | None:
    sidecar = path.with_suffix(".txt")
    if not sidecar.is_file():
        return None
    return " ".join(sidecar.read_text(encoding="utf-8", errors="replace").split()) or None
