"""Synthesis of folders: length-bucketed batches, resumable, shardable, with failures listed instead of fatal.

What an item sounds like depends on the item, its name and the seed only, not on the items around it: each has noise of
its own. Batches are formed from the whole input before finished items are left out and before shards are dealt, so a
run that was killed and started again, or spread over shards, ends with the same bytes.
"""

from __future__ import annotations

import glob
import hashlib
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wavedistill.audio.io import check_audible, load_audio, save_audio
from wavedistill.audio.mel import check_mel
from wavedistill.config import read_json, write_json
from wavedistill.errors import WavedistillError
from wavedistill.inference.items import MEL_SUFFIX, Item, find_items
from wavedistill.inference.vocoder import Vocoder
from wavedistill.models.pretrained import fingerprint

MAX_SECONDS = 3600.0
"""Longer audio files are refused (and listed): cut them first."""
SETTINGS_FILE = "synthesis.json"
"""Says which voice and seed an output folder belongs to."""
MIN_SECONDS = 0.02
"""Shorter audio files are refused: they hold no mel frame worth the name."""


@dataclass(frozen=True)
class Failure:
    """An input that gave no output, and why."""

    input: str
    reason: str


@dataclass
class SynthesisReport:
    """What `synthesize` did.

    Attributes:
        written: output files made by this call, in the order of their names.
        skipped: output files that were there already.
        failures: inputs without an output.
        seconds: length of the audio written.
        compute_seconds: time the whole call took.
    """

    written: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0
    compute_seconds: float = 0.0


def synthesize(
    inputs: str | Path | Sequence[str | Path],
    checkpoint: str | Path | Vocoder,
    out: str | Path,
    *,
    seed: int = 0,
    batch_seconds: float = 20.0,
    shard: tuple[int, int] = (0, 1),
    temperature: float = 1.0,
    speaker: int | str | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> SynthesisReport:
    """Synthesise files and folders of recordings or mels into ``out``.

    Args:
        inputs: files or folders (searched with their sub-folders): wav, flac, ogg, mp3, or log-mel ``.npy`` of shape
            (n_mels, frames).
        checkpoint: folder, run folder, bundled name or hub id; or a loaded `Vocoder`.
        out: output folder. An item keeps its sub-folder and stem: ``in/a/b.flac`` becomes ``out/a/b.wav``; where two inputs
            would so get one name, both keep their suffix (``b.flac.wav``, ``b.mp3.wav``).
        seed: with the item's name it decides the item's noise.
        batch_seconds: most audio computed at once, padding included; longer items are computed alone, in chunks.
        shard: (i, n): do only the i-th of n disjoint parts (i from 0).
        temperature: scale of the noise.
        speaker: index or name, for a model with speakers.
        device: where to compute, if ``checkpoint`` is to be loaded.
        progress: show a bar.

    Outputs are written whole or not at all, so one that exists is finished and is skipped. Inputs that fail are listed in
    the report and in ``out/failures.json`` (``failures-i-of-n.json`` of a shard), which is removed when none fails.

    Raises:
        WavedistillError: missing inputs or checkpoint, a model without mel conditioning, a folder that cannot be written
            (full or read-only), or one that holds speech of another voice or seed: then nothing after it could succeed either.
    """
    start = time.perf_counter()
    index, count = shard
    if not 0 <= index < count:
        raise WavedistillError(
            f"there is no shard {index}/{count}: of {count} the shards are 0/{count} to {count - 1}/{count}"
        )
    out = Path(out)
    items = find_items([inputs] if isinstance(inputs, (str, Path)) else inputs, out)
    vocoder = checkpoint if isinstance(checkpoint, Vocoder) else Vocoder.from_pretrained(checkpoint, device)
    if vocoder.mel_config is None:
        raise WavedistillError(
            "this model takes no mel (it is unconditional): use `wavedistill sample --seconds S --out FILE`"
        )
    _check_writable(out)
    _check_same_settings(
        out, {"weights": fingerprint(vocoder.model), "seed": seed, "temperature": temperature, "speaker": speaker}
    )

    report = SynthesisReport()
    measured, unreadable = _measure(items, vocoder)
    report.failures = unreadable[index::count]
    batches = make_batches(measured, batch_seconds * vocoder.sample_rate / vocoder.hop_length)[index::count]
    for batch in _with_progress(batches, progress):
        missing = [item for item, _ in batch if not item.output.exists()]
        report.skipped += [item.output for item, _ in batch if item.output.exists()]
        if missing:
            # finished members are computed too: a batch of the same shape gives the same bytes
            for item, audio in _run(batch, vocoder, report, seed, temperature, speaker):
                if item in missing:
                    _remove_leftovers(item.output)
                    save_audio(item.output, audio, vocoder.sample_rate)
                    report.written.append(item.output)
                    report.seconds += len(audio) / vocoder.sample_rate
    report.written.sort()
    report.skipped.sort()
    report.compute_seconds = time.perf_counter() - start
    _write_failures(
        report.failures, out / ("failures.json" if count == 1 else f"failures-{index}-of-{count}.json")
    )
    return report


def _check_same_settings(out: Path, settings: dict) -> None:
    """Outputs that exist are taken for finished, so a folder must not mix two voices or seeds: it says whose it is."""
    path = out / SETTINGS_FILE
    if path.is_file():
        changed = [name for name, value in read_json(path).items() if settings.get(name) != value]
        if changed:
            raise WavedistillError(
                f"{out} holds speech made with another {' and '.join(changed)}: give another --out, or delete {path} and "
                "the outputs to make anew."
            )
    else:
        write_json(path, settings)


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


def item_seed(seed: int, name: str) -> int:
    """The seed of one item's noise, from the run's seed and the item's name (its output path without the suffix)."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:6], "big")


def load_mel(path: Path, vocoder: Vocoder) -> Tensor:
    """A log-mel (n_mels, frames) from a ``.npy`` file; errors name the file."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise WavedistillError(f"{path}: not readable as a numpy array ({error})") from error
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2 or array.dtype.kind != "f":
        raise WavedistillError(
            f"{path}: a float array ({vocoder.mel_config.n_mels}, frames) is needed, not {array.dtype} {array.shape}"
        )
    try:
        return check_mel(torch.from_numpy(array.astype(np.float32)), vocoder.mel_config)
    except WavedistillError as error:
        raise WavedistillError(f"{path}: {error}") from error


def _run(
    batch: Sequence[tuple[Item, int]], vocoder: Vocoder, report: SynthesisReport, seed: int, temperature: float,
    speaker: int | str | None,
) -> Iterator[tuple[Item, Tensor]]:  # fmt: skip
    """Synthesise one batch; inputs that turn out to be unusable go to the report."""
    items, mels, lengths = [], [], []
    for item, _ in batch:
        try:
            mel, length = _load(item, vocoder)
        except WavedistillError as error:
            report.failures.append(Failure(str(item.input), str(error)))
            continue
        items.append(item)
        mels.append(mel)
        lengths.append(length)
    if not items:
        return
    # models take a mel as continued by its last frame, so padding it that way changes nothing
    padded = max(mel.shape[-1] for mel in mels)
    stacked = torch.stack(
        [torch.nn.functional.pad(mel, (0, padded - mel.shape[-1]), mode="replicate") for mel in mels]
    )
    seeds = [item_seed(seed, item.name) for item in items]
    audio = vocoder.render(stacked, seeds, temperature=temperature, speaker=speaker).cpu()
    for item, wave, length in zip(items, audio, lengths, strict=True):
        yield item, wave[:length]


def _measure(items: Sequence[Item], vocoder: Vocoder) -> tuple[list[tuple[Item, int]], list[Failure]]:
    """Each item's length in frames, from its header, and the inputs whose header cannot be read."""
    measured, failures = [], []
    for item in items:
        try:
            measured.append((item, _num_frames(item.input, vocoder)))
        except WavedistillError as error:
            failures.append(Failure(str(item.input), str(error)))
    return measured, failures


def _num_frames(path: Path, vocoder: Vocoder) -> int:
    import soundfile

    if path.suffix.lower() == MEL_SUFFIX:
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False).shape[-1]
        except (OSError, ValueError, EOFError, IndexError) as error:
            raise WavedistillError(f"{path}: not readable as a numpy array ({error})") from error
    try:
        info = soundfile.info(str(path))
    except (OSError, soundfile.LibsndfileError):
        load_audio(path, max_seconds=MAX_SECONDS)  # says why
        raise
    return -(-info.frames * vocoder.sample_rate // (info.samplerate * vocoder.hop_length))


def _load(item: Item, vocoder: Vocoder) -> tuple[Tensor, int]:
    """The item's mel (n_mels, frames) and how many samples its output has."""
    if item.input.suffix.lower() == MEL_SUFFIX:
        mel = load_mel(item.input, vocoder)
        return mel, mel.shape[-1] * vocoder.hop_length
    audio, _ = load_audio(item.input, vocoder.sample_rate, max_seconds=MAX_SECONDS)
    check_audible(audio, vocoder.sample_rate, min_seconds=MIN_SECONDS, name=str(item.input))
    return vocoder.mel(audio), len(audio)


def _check_writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out) as file:
            file.write(b"\0" * 4096)
    except OSError as error:
        raise WavedistillError(
            f"the output folder {out} cannot be written ({error.strerror or error}): choose another --out or free some space"
        ) from error


def _remove_leftovers(output: Path) -> None:
    """Half-written files of a run that was killed."""
    for path in output.parent.glob(f".{glob.escape(output.name)}.*.tmp"):
        path.unlink(missing_ok=True)


def _write_failures(failures: Sequence[Failure], path: Path) -> None:
    if failures:
        write_json(path, [asdict(failure) for failure in failures])
    else:
        path.unlink(missing_ok=True)


def _with_progress(batches: list, progress: bool) -> Iterator[list[tuple[Item, int]]]:
    from tqdm import tqdm

    with tqdm(total=sum(map(len, batches)), unit="file", disable=not progress) as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch))
