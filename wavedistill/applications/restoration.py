"""`wavedistill restore`: files whose lost samples are drawn anew, see `wavedistill.applications.gap_filling`."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from wavedistill.applications.gap_filling import Gap, RestoreConfig, check_teacher, restore_sound
from wavedistill.applications.restoration_picture import plot_restored
from wavedistill.applications.sounds import MAX_SECONDS, Sound, clip_speaker, find_sounds, made_before
from wavedistill.audio.io import load_audio, save_audio
from wavedistill.errors import OutputError, WavedistillError
from wavedistill.evaluation.systems import Clip, LoadedModel, digest, on_grid
from wavedistill.files import printable, read_json, write_json
from wavedistill.text import markdown_table

_VERSION = "1"  # of what is written: files of another version are made again


@dataclass
class RestoreReport:
    """What `restore` did.

    Attributes:
        sounds: by name, what NAME.json holds: ``gaps``, each with start, end (seconds), effective_size, weights and
            chosen.
        failures: why a sound could not be restored, by its file.
    """

    sounds: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def markdown(self) -> str:
        """The table, one row a gap."""
        rows = [
            [name, f"{gap['start']:.4f}-{gap['end']:.4f}", f"{gap['effective_size']:.1f} of {len(gap['weights'])}"]
            for name, found in self.sounds.items()
            for gap in found["gaps"]
        ]
        return markdown_table(["sound", "gap, s", "effective sample size"], rows)


def restore(
    inputs: str | Path | Sequence[str | Path],
    gaps: Sequence[Gap],
    out: str | Path,
    checkpoint: str | Path | LoadedModel = "speech-teacher",
    config: RestoreConfig | None = None,
    *,
    speaker: str | None = None,
    keep_all: bool = False,
    device: str = "cpu",
    progress: Callable[[Iterable], Iterable] = iter,
) -> RestoreReport:
    """Fill the same gaps of each sound: NAME.wav, NAME.png and, last, NAME.json in a folder.

    All samples outside the gaps are written as they are, in 16 bits where the file's own are 16 or fewer, else as
    floats. Stereo is mixed down.

    Args:
        inputs: files, folders and manifests (``*.jsonl``), at the model's rate.
        gaps: seconds (start, end), 1 to 200 ms each.
        out: the folder; a sound that is there already, made in the same way, is left as it is.
        checkpoint: folder, run folder, bundled name or hub id of a teacher, or a loaded one.
        config: candidates and seed; None: `RestoreConfig()`.
        speaker: of sounds that do not tell theirs, for a model with speakers.
        keep_all: write NAME-candidates/00.wav and so on, too: candidate n in every gap.
        device: where the model runs; of a loaded one its own.
        progress: wraps the iterable of each sound's gaps; tqdm for example.

    Raises:
        WavedistillError: no sounds, or no teacher. A sound that cannot be restored is told in ``failures`` and stops
            nothing.

    Example:
        >>> from wavedistill.applications.restoration import restore
        >>> report = restore("speech.wav", [(0.5, 0.56)], "restored")  # doctest: +SKIP
        >>> print(report.markdown)  # doctest: +SKIP
    """
    config = config or RestoreConfig()
    folder = Path(out)
    loaded = LoadedModel.of(checkpoint, device)
    check_teacher(loaded)
    given = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
    report = RestoreReport()
    for sound in find_sounds(given, folder):
        try:
            report.sounds[sound.name] = _restore(sound, gaps, folder, loaded, config, speaker, keep_all, progress)
        except OutputError:
            raise
        except WavedistillError as error:
            report.failures[printable(sound.path)] = str(error)
    return report


def read_gap(text: str) -> Gap:
    """The gap that ``START-END`` names, in seconds.

    Example:
        >>> read_gap("0.5-0.56")
        (0.5, 0.56)
    """
    match = re.fullmatch(r"\s*(\d*\.?\d+)\s*-\s*(\d*\.?\d+)\s*", text)
    if match is None:
        raise WavedistillError(f"a gap is START-END in seconds, like 0.5-0.56; given {text!r}")
    return float(match[1]), float(match[2])


def read_gaps(path: str | Path) -> list[Gap]:
    """The gaps that a text file lists, one START-END a line; empty lines and what follows a ``#`` are left out."""
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise WavedistillError(
            f"{path}: not readable as a list of gaps ({error}); it is text, START-END a line"
        ) from None
    found = []
    for number, line in enumerate(lines, start=1):
        if content := line.partition("#")[0].strip():
            try:
                found.append(read_gap(content))
            except WavedistillError as error:
                raise WavedistillError(f"{path}, line {number}: {error}") from None
    if not found:
        raise WavedistillError(f"{path}: no gaps in it; write one START-END a line, in seconds")
    return found


def load_known(sound: Sound, loaded: LoadedModel, speaker: str | None) -> Clip:
    """A sound whose known samples are to stay as they are.

    Raises:
        WavedistillError: it has another rate than the model, or a speaker that the model does not know.
    """
    audio, rate = load_audio(sound.path, max_seconds=MAX_SECONDS)
    if rate != loaded.model.sample_rate:
        raise WavedistillError(
            f"{sound.path}: {rate} Hz, but {loaded.name} restores at {loaded.model.sample_rate} Hz and the known "
            "samples are to stay: resample the file first"
        )
    return Clip(sound.name, clip_speaker(sound, loaded, speaker), audio)


def _restore(
    sound: Sound,
    gaps: Sequence[Gap],
    folder: Path,
    loaded: LoadedModel,
    config: RestoreConfig,
    speaker: str | None,
    keep_all: bool,
    progress: Callable[[Iterable], Iterable],
) -> dict[str, Any]:
    clip = load_known(sound, loaded, speaker)
    audio, rate = clip.audio, loaded.model.sample_rate
    voice = loaded.speaker(clip)
    key = digest(clip.key, loaded.key, str(gaps), str(config), str(voice), str(keep_all), _VERSION)
    path = folder / f"{sound.name}.json"
    if (folder / f"{sound.name}.wav").is_file() and (stored := made_before(path, key)) is not None:
        return stored
    made = restore_sound(audio, gaps, loaded, config, voice, progress=progress)
    # 16 bits hold a file of 16 bits or fewer exactly, floats any other
    subtype = "PCM_16" if torch.equal(audio, on_grid(audio)) else "FLOAT"
    save_audio(folder / f"{sound.name}.wav", made.audio, rate, subtype)
    written = {
        save_audio(folder / f"{sound.name}-candidates" / f"{n:02d}.wav", made.with_candidate(n), rate, subtype)
        for n in range(config.candidates if keep_all else 0)
    }
    for left in {*folder.glob(f"{glob.escape(sound.name)}-candidates/*.wav")} - written:  # of more candidates
        left.unlink()
    plot_restored(sound.name, made, rate, folder / f"{sound.name}.png")
    found = [
        {
            "start": filling.start / rate,
            "end": filling.stop / rate,
            "effective_size": filling.effective_size,
            "weights": filling.weights.tolist(),
            "chosen": filling.chosen,
        }
        for filling in made.fillings
    ]
    write_json(path, {"key": key, "gaps": found})
    return read_json(path)
