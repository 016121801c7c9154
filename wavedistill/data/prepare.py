"""Turn recordings into training data: trimmed 16-bit mono wavs, a manifest and a report of refusals."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from wavedistill.audio.io import AUDIO_SUFFIXES, check_audible, load_audio, resample, save_audio
from wavedistill.data.manifest import Entry, assign_splits, write_manifest
from wavedistill.errors import WavedistillError
from wavedistill.files import read_json, write_json

Decoder = Callable[[Path, float], tuple[Tensor, int]]  # (file, most seconds) -> audio (samples,), sample rate


@dataclass(frozen=True)
class PrepareConfig:
    """How recordings become training data; kept in the output folder, so that a change of it redoes the work."""

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


@dataclass(frozen=True)
class Recording:
    """One source file: ``id`` names its wav, ``text`` (or the id) decides its split."""

    id: str
    source: Path
    speaker: str
    text: str | None = None


@dataclass(frozen=True)
class PrepareReport:
    """What became of the recordings; written as report.json beside the manifest."""

    manifest: str
    accepted: int
    seconds: float
    refused: dict[str, str] = field(default_factory=dict)
    """Source file -> reason."""


def prepare_folder(
    folder: str | Path,
    out: str | Path,
    config: PrepareConfig | None = None,
    *,
    speaker: str | None = None,
    workers: int | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> PrepareReport:
    """Prepare every wav, flac, ogg and mp3 below ``folder``.

    The speaker is ``speaker``, or else the name of the first subfolder a file lies in (the folder's own name
    for files at the top). ``name.txt`` beside ``name.wav`` is its text. Other arguments: ``prepare_recordings``.
    """
    folder = Path(folder)
    out = Path(out)
    if not folder.is_dir():
        raise WavedistillError(f"{folder}: no such folder of recordings")
    paths = sorted(
        p for p in folder.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES and p.is_file() and not _is_inside(p, out)
    )
    if not paths:
        raise WavedistillError(f"{folder}: no {', '.join(AUDIO_SUFFIXES)} files in it or below it")
    recordings = []
    for path in paths:
        relative = path.relative_to(folder)
        name = relative.parts[0] if len(relative.parts) > 1 else folder.absolute().name
        recordings.append(
            Recording("_".join(relative.with_suffix("").parts), path, speaker or name, _text_beside(path))
        )
    return prepare_recordings(recordings, out, config, workers=workers, progress=progress)


def prepare_recordings(
    recordings: Iterable[Recording],
    out: str | Path,
    config: PrepareConfig | None = None,
    *,
    decode: Decoder | None = None,
    workers: int | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> PrepareReport:
    """Write ``out``/wavs/<id>.wav, ``out``/manifest.jsonl and ``out``/report.json.

    Finished wavs of an earlier run with the same config are kept unless their source is newer, and the
    manifest is written last and atomically, so an interrupted run is simply started again.

    Args:
        config: the limits and the rate; ``PrepareConfig()`` by default.
        decode: reads a source file; ``load_audio`` by default.
        workers: processes; one per core by default.
        progress: wraps the iterable of results, tqdm for example.

    Raises:
        WavedistillError: the output folder cannot be written, or no recording was accepted.
    """
    config = config or PrepareConfig()
    out = Path(out)
    recordings, refused = _refuse_double_ids(recordings)
    fresh = _settings_changed(out / "prepare.json", config)
    jobs = [(r, out / "wavs" / f"{r.id}.wav", config, decode, fresh) for r in recordings]
    accepted = []
    with _mapper(jobs, workers) as results:
        for recording, (path, seconds, reason) in zip(recordings, progress(results), strict=True):
            if reason is not None:
                refused[str(recording.source)] = reason
                continue
            accepted.append((recording, path, seconds))
    splits = assign_splits([recording.text or recording.id for recording, _, _ in accepted])
    entries = [
        Entry(
            id=recording.id,
            audio=str(path.absolute()),
            duration=seconds,
            speaker=recording.speaker,
            text=recording.text,
            split=split,
        )
        for (recording, path, seconds), split in zip(accepted, splits, strict=True)
    ]
    report = PrepareReport(
        str(out / "manifest.jsonl"), len(entries), round(sum(e.duration for e in entries), 3), refused
    )
    write_json(out / "report.json", asdict(report))
    if not entries:
        source, reason = next(iter(refused.items()), ("no recording", "nothing was given"))
        raise WavedistillError(f"none of {len(refused)} recordings was accepted; {source}: {reason}")
    write_manifest(out / "manifest.jsonl", entries)
    return report


def trim_silence(audio: Tensor, sample_rate: int, *, top_db: float, margin_seconds: float) -> Tensor:
    """Cut audio (samples,) to what is within ``top_db`` of its loudest frame, and a margin at each end."""
    import librosa

    frame = max(64, sample_rate // 32)
    _, (start, end) = librosa.effects.trim(audio.numpy(), top_db=top_db, frame_length=frame, hop_length=frame // 4)
    # librosa's frames are centred: speech may begin up to half a frame away from the frame that shows it.
    margin = max(0, round(margin_seconds * sample_rate) - frame // 2)
    return audio[max(0, start - margin) : end + margin]


def clipped_share(audio: Tensor) -> float:
    """Share of the samples that stand at full scale (|x| >= 0.999)."""
    return float((audio.abs() >= 0.999).float().mean())


def _prepare_one(
    job: tuple[Recording, Path, PrepareConfig, Decoder | None, bool],
) -> tuple[Path, float, str | None]:
    """(wav, seconds, None) or (wav, 0, reason of refusal)."""
    import soundfile

    recording, path, config, decode, fresh = job
    if not fresh and _is_finished(path, recording.source):
        return path, soundfile.info(str(path)).duration, None
    try:
        audio, rate = (decode or _decode)(recording.source, config.max_seconds)
        _check_source(audio, rate, config)
        audio = resample(audio, rate, config.sample_rate)
        audio = trim_silence(audio, config.sample_rate, top_db=config.top_db, margin_seconds=config.margin_seconds)
        check_audible(audio, config.sample_rate, min_seconds=config.min_seconds, name="after trimming")
    except WavedistillError as error:
        path.unlink(missing_ok=True)
        return path, 0.0, str(error).removeprefix(f"{recording.source}: ")
    save_audio(path, audio, config.sample_rate)
    return path, audio.shape[0] / config.sample_rate, None


def _is_finished(path: Path, source: Path) -> bool:
    return path.is_file() and not (source.is_file() and source.stat().st_mtime > path.stat().st_mtime)


def _check_source(audio: Tensor, rate: int, config: PrepareConfig) -> None:
    check_audible(audio, rate, min_seconds=config.min_seconds, name="the recording")
    if (share := clipped_share(audio)) > config.max_clipped:
        raise WavedistillError(
            f"clipped: {share:.2%} of its samples are at full scale, at most {config.max_clipped:.2%} are taken"
        )


def _decode(path: Path, max_seconds: float) -> tuple[Tensor, int]:
    return load_audio(path, max_seconds=max_seconds)


def _refuse_double_ids(recordings: Iterable[Recording]) -> tuple[list[Recording], dict[str, str]]:
    kept: dict[str, Recording] = {}
    refused = {}
    for recording in recordings:
        if recording.id in kept:
            refused[str(recording.source)] = f"has the same id {recording.id!r} as {kept[recording.id].source}"
        else:
            kept[recording.id] = recording
    return list(kept.values()), refused


def _settings_changed(path: Path, config: PrepareConfig) -> bool:
    """Compare the settings kept in ``path`` with ``config`` and store the latter."""
    settings = asdict(config)
    try:
        same = read_json(path) == settings
    except WavedistillError:  # a first run, or a damaged file
        same = False
    if not same:
        write_json(path, settings)
    return not same


@contextmanager
def _mapper(jobs: list, workers: int | None) -> Iterator[Iterator]:
    workers = min(workers or os.cpu_count() or 1, max(1, len(jobs) // 8))
    if workers <= 1:
        yield map(_prepare_one, jobs)
        return
    # Not fork: torch's threads do not survive it.
    with ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(1,),
    ) as pool:
        try:
            yield pool.map(_prepare_one, jobs, chunksize=4)
        except BaseException:  # a full disk, Ctrl-C: don't work through the rest
            pool.shutdown(cancel_futures=True)
            raise


def _text_beside(path: Path) -> str | None:
    sidecar = path.with_suffix(".txt")
    if not sidecar.is_file():
        return None
    return " ".join(sidecar.read_text(encoding="utf-8", errors="replace").split()) or None


def _is_inside(path: Path, folder: Path) -> bool:
    return folder.absolute() in path.absolute().parents
