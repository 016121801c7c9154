"""Which sounds are meant by files, folders and manifests, and each as a model takes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from wavedistill.audio.io import AUDIO_SUFFIXES, load_audio
from wavedistill.data.manifest import read_manifest
from wavedistill.errors import WavedistillError
from wavedistill.evaluation.systems import Clip, LoadedModel, on_grid
from wavedistill.files import files_of, read_json

MIN_SECONDS = 0.1
"""Shorter sounds are refused: they hold too few samples for any statistic."""
MAX_SECONDS = 3600.0
"""Longer ones are refused: cut them first."""


@dataclass(frozen=True)
class Sound:
    """A recording to look at.

    Attributes:
        name: path below the folder it was found in, without suffix, or its id in the manifest.
        path: the file.
        speaker: of a manifest's entry; None elsewhere.
        condition: the recording whose mel goes with it, of a manifest's entry; None: its own.
    """

    name: str
    path: Path
    speaker: str | None = None
    condition: Path | None = None


def find_sounds(given: Sequence[str | Path], out: Path | None = None) -> list[Sound]:
    """The sounds that files, folders (with their sub-folders) and manifests (``*.jsonl``) hold, sorted by name.

    Args:
        out: a folder that is not searched.

    Raises:
        WavedistillError: nothing there, or two sounds with one name.
    """
    found = [sound for place in given for sound in _sounds(Path(place), out)]
    if not found:
        raise WavedistillError("no sounds given: name files, folders or a manifest.jsonl")
    named: dict[str, Sound] = {}
    for sound in found:
        if sound.name in named:
            raise WavedistillError(
                f"{named[sound.name].path} and {sound.path} have one name, {sound.name}: give the folder above both, "
                "or rename one"
            )
        named[sound.name] = sound
    return [named[name] for name in sorted(named)]


def load_sound(sound: Sound, loaded: LoadedModel, speaker: str | None = None) -> tuple[Clip, Tensor]:
    """A sound at the model's rate, on the 16-bit grid and cut to whole frames, and its mel (1, n_mels, frames).

    Args:
        speaker: of a sound that does not tell its own.
    """
    config = loaded.model.config.mel
    audio, _ = load_audio(sound.path, config.sample_rate, max_seconds=MAX_SECONDS)
    frames = len(audio) // config.hop_length
    if frames < max(2, MIN_SECONDS * config.sample_rate // config.hop_length):
        raise WavedistillError(
            f"{sound.path}: {len(audio) / config.sample_rate:.3f} s, at least {MIN_SECONDS:g} s are needed"
        )
    clip = Clip(sound.name, sound.speaker or speaker or "", on_grid(audio[: frames * config.hop_length]))
    if sound.condition is None:
        return clip, loaded.mel(clip)
    condition, _ = load_audio(sound.condition, config.sample_rate, max_seconds=MAX_SECONDS)
    if len(condition) < len(clip.audio):
        raise WavedistillError(
            f"{sound.condition}: shorter than {sound.path}, whose condition it is; they must have one length"
        )
    return clip, loaded.mel(Clip(sound.name, clip.speaker, condition[: len(clip.audio)]))


def clip_speaker(sound: Sound, loaded: LoadedModel, speaker: str | None) -> str:
    """The speaker of a sound, or the one given where it tells none; empty where nothing does."""
    found = sound.speaker or speaker or ""
    if (known := loaded.model.config.speakers) and found not in known:
        raise WavedistillError(
            f"{sound.path}: {loaded.name} does not know its speaker, {found or 'which nothing tells'}: give one of "
            f"{', '.join(known)} with --speaker"
        )
    return found


def made_before(path: Path, key: str) -> dict[str, Any] | None:
    """What a JSON file holds that was written under this key; None where it is another's, or not there."""
    stored = read_json(path) if path.is_file() else None
    return stored if isinstance(stored, dict) and stored.get("key") == key else None


def _sounds(given: Path, out: Path | None) -> list[Sound]:
    if given.is_file() and given.suffix == ".jsonl":
        return [
            Sound(entry.id, Path(entry.audio), entry.speaker, Path(entry.condition) if entry.condition else None)
            for entry in read_manifest(given)
        ]
    if given.is_file() and given.suffix.lower() not in AUDIO_SUFFIXES:
        raise WavedistillError(
            f"{given}: {', '.join(AUDIO_SUFFIXES)} files are taken, a manifest.jsonl, or folders of sounds"
        )
    found = files_of(given, AUDIO_SUFFIXES, skip=out)
    return [Sound(Path(relative).with_suffix("").as_posix(), path) for relative, path in found]
