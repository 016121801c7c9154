"""`wavedistill restore --declip`: files with their clipped samples drawn anew, see the module `declipping`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wavedistill.applications.declipping import DeclipConfig, check_declipper, declip_sound
from wavedistill.applications.restoration import load_known
from wavedistill.applications.restoration_picture import plot_declipped
from wavedistill.applications.sounds import Sound, find_sounds, made_before
from wavedistill.audio.io import save_audio
from wavedistill.errors import OutputError, WavedistillError
from wavedistill.evaluation.systems import LoadedModel, digest
from wavedistill.files import printable, read_json, write_json
from wavedistill.text import markdown_table

_VERSION = "1"  # of what is written: files of another version are made again


@dataclass
class DeclipReport:
    """What `declip` did.

    Attributes:
        sounds: by name, what NAME.json holds: ``clipped`` samples, the thresholds ``above`` and ``below`` (0: not
            clipped there), ``peak`` of what was drawn, ``effective_size``.
        failures: why a sound could not be restored, by its file.
    """

    sounds: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def markdown(self) -> str:
        """The table, one row a sound."""
        names = ("above", "below", "peak")
        rows = [
            [name, found["clipped"], *(f"{found[one]:.4f}" for one in names), f"{found['effective_size']:.1f}"]
            for name, found in self.sounds.items()
        ]
        return markdown_table(["sound", "clipped samples", *names, "effective sample size"], rows)


def declip(
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    checkpoint: str | Path | LoadedModel = "speech-teacher",
    config: DeclipConfig | None = None,
    *,
    speaker: str | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> DeclipReport:
    """Draw the clipped samples of each sound: NAME.wav (floats), NAME.png and, last, NAME.json in a folder.

    Args:
        inputs: files, folders and manifests (``*.jsonl``), at the model's rate; stereo is mixed down.
        out: the folder; a sound that is there already, made in the same way, is left as it is.
        checkpoint: folder, run folder, bundled name or hub id of a Gaussian teacher, or a loaded one.
        config: candidates, seed and threshold; None: `DeclipConfig()`.
        speaker: of sounds that do not tell theirs, for a model with speakers.
        progress: wraps the iterable of the teacher's steps, once a round; tqdm for example.

    Raises:
        WavedistillError: no sounds, or no Gaussian teacher. A sound that cannot be restored is told in ``failures`` and
            stops nothing.

    Example:
        >>> from wavedistill.applications.declipped_files import declip
        >>> report = declip("loud.wav", "restored")  # doctest: +SKIP
        >>> print(report.markdown)  # doctest: +SKIP
    """
    config = config or DeclipConfig()
    folder = Path(out)
    loaded = LoadedModel.of(checkpoint, "cpu")
    check_declipper(loaded)
    given = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
    report = DeclipReport()
    for sound in find_sounds(given, folder):
        try:
            report.sounds[sound.name] = _declip(sound, folder, loaded, config, speaker, progress)
        except OutputError:
            raise
        except WavedistillError as error:
            report.failures[printable(sound.path)] = str(error)
    return report


def _declip(
    sound: Sound,
    folder: Path,
    loaded: LoadedModel,
    config: DeclipConfig,
    speaker: str | None,
    progress: Callable[[Iterable], Iterable],
) -> dict[str, Any]:
    clip = load_known(sound, loaded, speaker)
    voice = loaded.speaker(clip)
    key = digest(clip.key, loaded.key, str(config), str(voice), _VERSION)
    path = folder / f"{sound.name}.json"
    if (folder / f"{sound.name}.wav").is_file() and (stored := made_before(path, key)) is not None:
        return stored
    made = declip_sound(clip.audio, loaded, config, voice, progress=progress)
    rate = loaded.model.sample_rate
    save_audio(folder / f"{sound.name}.wav", made.audio, rate, "FLOAT")  # which may lie beyond full scale
    plot_declipped(sound.name, clip.audio, made, rate, folder / f"{sound.name}.png")
    limits = made.clipped.limits * made.clipped.signs
    found = {
        "clipped": made.clipped.count,
        "above": max(0.0, float(limits.max())),
        "below": min(0.0, float(limits.min())),
        "peak": float(made.audio.abs().max()),
        "effective_size": made.effective_size,
    }
    write_json(path, {"key": key} | found)
    return read_json(path)
