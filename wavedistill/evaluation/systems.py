"""What a report compares: held-out clips, and systems that make them again from their mel or their waveform."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wavedistill.audio.io import load_audio, to_int16
from wavedistill.audio.mel import LogMelSpectrogram, MelConfig
from wavedistill.config import to_dict
from wavedistill.data.manifest import read_manifest
from wavedistill.errors import WavedistillError
from wavedistill.evaluation import anchors
from wavedistill.metrics.registry import missing_packages
from wavedistill.metrics.word_errors import is_english
from wavedistill.models.base import WaveformModel
from wavedistill.models.pretrained import fingerprint, load_pretrained


@dataclass(frozen=True)
class Clip:
    """A held-out recording.

    Attributes:
        id, speaker: as in the manifest.
        audio: (samples,) in [-1, 1), a whole number of mel frames long.
        text: what is said in it, where that is English.
    """

    id: str
    speaker: str
    audio: Tensor
    text: str | None = None

    @property
    def key(self) -> str:
        """Changes with the content."""
        return digest(self.id, self.audio.numpy().tobytes(), self.text or "")

    def excerpt(self, samples: int) -> Clip:
        """Its first ``samples`` samples; all and its text, if it is not longer."""
        return self if len(self.audio) <= samples else Clip(self.id, self.speaker, self.audio[:samples])


@dataclass(frozen=True)
class System:
    """Anything that is evaluated: it makes a waveform for every clip.

    Attributes:
        name: in the tables.
        key: changes with the waveforms it would make.
        generate: clips -> one waveform (samples,) each.
        has_speed: whether the time of ``generate`` is worth reporting; not so where it only reads files.
        notes: what a reader has to know about it.
    """

    name: str
    key: str
    generate: Callable[[list[Clip]], list[Tensor]]
    has_speed: bool = True
    notes: tuple[str, ...] = ()


@dataclass
class LoadedModel:
    """A checkpoint to evaluate."""

    name: str
    key: str
    model: WaveformModel
    front_end: LogMelSpectrogram = field(init=False)

    def __post_init__(self) -> None:
        if self.model.config.mel is None:
            raise WavedistillError(
                f"{self.name} takes no mel, so it cannot make a recording again: give a mel-conditioned checkpoint."
            )
        self.front_end = LogMelSpectrogram(self.model.config.mel)

    @staticmethod
    def load(checkpoint: str | Path, name: str, device: str) -> LoadedModel:
        model = load_pretrained(checkpoint, device)
        return LoadedModel(name, fingerprint(model), model)

    @staticmethod
    def of(checkpoint: str | Path | LoadedModel, device: str) -> LoadedModel:
        """One that is loaded already, as it is; else a checkpoint, under the name that was given."""
        if isinstance(checkpoint, LoadedModel):
            return checkpoint
        return LoadedModel.load(checkpoint, str(checkpoint), device)

    @property
    def is_teacher(self) -> bool:
        return self.model.role == "teacher"

    @property
    def is_student(self) -> bool:
        return self.model.role == "student"

    @property
    def scores_audio(self) -> bool:
        """Whether it gives any recording a density in one pass; a student's needs `student_likelihood`."""
        return not self.is_student

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def mel(self, clip: Clip) -> Tensor:
        """(1, n_mels, frames) on the model's device; of centred frames without the one beyond the last sample."""
        frames = -(-len(clip.audio) // self.model.hop_length)
        return self.front_end(clip.audio)[:, :frames].unsqueeze(0).to(self.device)

    def speaker(self, clip: Clip) -> Tensor | None:
        """Index (1,) of the clip's speaker; None for a model without speakers."""
        known = self.model.config.speakers
        if not known:
            return None
        if clip.speaker not in known:
            raise WavedistillError(
                f"{self.name} does not know speaker '{clip.speaker}' of clip {clip.id} (known: {', '.join(known)}): "
                "choose with speakers=[...]."
            )
        return torch.tensor([known.index(clip.speaker)], device=self.device)

    def system(self, seed: int) -> System:
        """The model as a system; every clip has the same seed, so that no result depends on the other clips."""
        generate = self._generate_batch if self.is_teacher else self._generate_each
        return System(self.name, digest(self.key, str(seed)), lambda clips: generate(clips, seed))

    def _generate_each(self, clips: list[Clip], seed: int) -> list[Tensor]:
        return [self.model.sample(self.mel(c), seed=seed, speaker=self.speaker(c))[0, 0].cpu() for c in clips]

    def _generate_batch(self, clips: list[Clip], seed: int) -> list[Tensor]:
        """All clips as one batch, padded: a teacher's step costs little more for many than for one."""
        mels = [self.mel(clip)[0] for clip in clips]
        frames = max(mel.shape[1] for mel in mels)
        batch = torch.stack([torch.cat([m, m[:, -1:].expand(-1, frames - m.shape[1])], dim=1) for m in mels])
        speakers = [self.speaker(clip) for clip in clips]
        audio = self.model.sample(
            batch, seed=[seed] * len(clips), speaker=None if speakers[0] is None else torch.cat(speakers)
        )
        return [made[0, : len(clip.audio)].cpu() for made, clip in zip(audio, clips, strict=True)]


def load_models(checkpoints: list[str], device: str) -> list[LoadedModel]:
    """Load checkpoints, named by the last part of their path where that tells them apart."""
    short = [Path(c).name for c in checkpoints]
    names = [s if short.count(s) == 1 else c for s, c in zip(short, checkpoints, strict=True)]
    models = [LoadedModel.load(c, name, device) for c, name in zip(checkpoints, names, strict=True)]
    rates = {loaded.model.sample_rate for loaded in models}
    if len(rates) > 1:
        raise WavedistillError(
            f"the checkpoints work at different rates ({sorted(rates)} Hz): evaluate them one by one."
        )
    return models


def load_clips(
    manifest: str | Path,
    split: str,
    *,
    limit: int | None,
    speakers: Sequence[str] | None,
    min_seconds: float,
    sample_rate: int,
    hop_length: int,
) -> list[Clip]:
    """The clips of a split in an order that is random but always the same, so that a limit takes a fair sample."""
    entries = read_manifest(manifest)
    chosen = [e for e in entries if e.split == split and e.duration >= min_seconds]
    if speakers is not None:
        if unknown := sorted(set(speakers) - {e.speaker for e in entries}):
            known = ", ".join(sorted({e.speaker for e in entries}))
            raise WavedistillError(f"{manifest} has no speaker '{unknown[0]}'. Speakers: {known}.")
        chosen = [e for e in chosen if e.speaker in speakers]
    if limit is not None and limit < 1:
        raise WavedistillError(f"limit is a number of clips, at least 1: given {limit}.")
    if not chosen:
        raise WavedistillError(
            f"{manifest} has no clip of at least {min_seconds:g} s in split '{split}': nothing to evaluate."
        )
    chosen = sorted(chosen, key=lambda e: digest(e.id))[:limit]
    english = {s for s in {e.speaker for e in chosen} if is_english(e.text or "" for e in entries if e.speaker == s)}
    clips = []
    for entry in sorted(chosen, key=lambda e: e.id):
        audio, _ = load_audio(entry.audio, sample_rate)
        text = entry.text if entry.speaker in english else None
        clips.append(Clip(entry.id, entry.speaker, on_grid(audio[: len(audio) // hop_length * hop_length]), text))
    return clips


def on_grid(audio: Tensor) -> Tensor:
    """Audio as a 16-bit file would hold it: rounded to multiples of 1/32768, clipped to [-1, 1)."""
    return torch.from_numpy(to_int16(audio).astype(np.float32) / 32768)


def original() -> System:
    """The recording itself: the value of each metric where there is no difference at all."""
    return System("original", "original", lambda clips: [clip.audio for clip in clips], has_speed=False)


def anchor_systems(config: MelConfig, seed: int) -> list[System]:
    """WORLD (where pyworld is installed), Griffin-Lim from the mel of ``config``, and 8-bit mu-law."""
    front_end = LogMelSpectrogram(config)
    rate = config.sample_rate

    def from_mel(clip: Clip) -> Tensor:
        return anchors.griffin_lim(front_end(clip.audio), config, seed=seed)[: len(clip.audio)]

    systems = [
        System(
            "Griffin-Lim",
            digest("griffin-lim", str(seed), str(to_dict(config))),
            lambda clips: [from_mel(c) for c in clips],
        ),
        System("8-bit mu-law", "mulaw8", lambda clips: [anchors.mulaw8(c.audio) for c in clips]),
    ]
    if not missing_packages(["mcd"]):  # needs pyworld, too
        systems.insert(0, System("WORLD", "world", lambda clips: [anchors.world(c.audio, rate) for c in clips]))
    return systems


def timed(system: System, clips: list[Clip]) -> tuple[list[Tensor], float]:
    """The system's waveforms, and the seconds it took to make them."""
    start = time.perf_counter()
    made = system.generate(clips)
    return made, time.perf_counter() - start


def digest(*parts: str | bytes) -> str:
    """Short hash of the parts, for names of stored results."""
    sha = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        sha.update(len(data).to_bytes(8, "big") + data)
    return sha.hexdigest()[:16]
