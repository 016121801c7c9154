"""Training crops from a manifest, addressed by (seed, step, index) so that a resumed run sees the same ones."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, log
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wavedistill.audio.mel import LogMelSpectrogram, MelConfig, whole_frames
from wavedistill.audio.pitch import estimate_f0
from wavedistill.data.cache import cached_frames, content_hash
from wavedistill.data.manifest import Entry, read_manifest
from wavedistill.errors import WavedistillError, check_number

DEFAULT_HOP_LENGTH = 256  # the crop grid where there is no mel spectrogram


@dataclass
class DataConfig:
    """What a recipe says about its data.

    Attributes:
        manifest: manifest.jsonl, or the folder it lies in.
        segment_seconds: length of a training crop, rounded to whole frames.
        batch_size: crops a step, over all ranks together.
        gain_augment_db: each crop's level is changed by up to this many dB, up or down.
        beginnings: share of the crops that begin where their recording does, in place of anywhere in it.
    """

    manifest: str
    segment_seconds: float = 0.5
    batch_size: int = 8
    gain_augment_db: float = 0.0
    beginnings: float = 0.0

    def __post_init__(self) -> None:
        check_number("data.batch_size", self.batch_size, 1)
        check_number("data.segment_seconds", self.segment_seconds, above=True)
        if not 0.0 <= self.gain_augment_db < inf:
            raise WavedistillError(f"data.gain_augment_db is {self.gain_augment_db:g}; it must be 0 or above.")
        if not 0.0 <= self.beginnings <= 1.0:
            raise WavedistillError(f"data.beginnings is {self.beginnings:g}; it must be from 0 to 1, a share of crops.")

    def segment_frames(self, sample_rate: int, hop_length: int) -> int:
        """``segment_seconds`` in frames, at least 1."""
        return whole_frames(self.segment_seconds, sample_rate, hop_length)


@dataclass
class Batch:
    """Training crops; T = F * hop_length."""

    audio: Tensor
    """(batch, T) float32 in [-1, 1), on the 16-bit grid."""
    mel: Tensor | None = None
    """(batch, n_mels, F) natural-log mel of the whole recordings (or of their ``condition``), cropped."""
    f0: Tensor | None = None
    """(batch, F) in Hz, 0 where unvoiced."""
    speaker: Tensor | None = None
    """(batch,) long, indices into the model's speakers."""
    begins: Tensor | None = None
    """(batch,) bool, of crops that begin where their recording does; None: unknown."""

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on ``device``."""
        parts = (self.audio, self.mel, self.f0, self.speaker, self.begins)
        return Batch(*(None if part is None else part.to(device) for part in parts))


@dataclass
class Utterance:
    """A whole recording, cut to full frames: T = F * hop_length."""

    id: str
    audio: Tensor
    """(T,) float32."""
    mel: Tensor | None
    """(n_mels, F)."""
    f0: Tensor | None
    """(F,) Hz."""
    speaker: int | None
    text: str | None


class _Window(NamedTuple):
    """Some frames of one recording: audio (T,), mel (n_mels, F), f0 (F,)."""

    audio: Tensor
    mel: Tensor | None
    f0: Tensor | None


class _Crop(NamedTuple):
    """One row of a `Batch`; ``speaker`` and ``begins`` are scalars."""

    audio: Tensor
    mel: Tensor | None
    f0: Tensor | None
    speaker: Tensor | None
    begins: Tensor


class SpeechDataset:
    """One split of a manifest: audio in memory, mel and f0 computed once and cached beside the manifest.

    Mel and f0 are those of an entry's ``condition`` where it has one.

    Args:
        manifest: manifest.jsonl or its folder.
        split: "train", "valid" or "test".
        mel: settings of the mel spectrogram; None for models that are given none.
        segment_frames: length of a crop.
        with_f0: also give the pitch.
        speakers: names in the order of the model's speaker table; None for models without one.
        gain_augment_db, beginnings: see ``DataConfig``.

    Attributes:
        sample_rate, hop_length: Hz; samples (256 without a mel).
        num_skipped: recordings shorter than a crop; ``batch`` never draws from them.
        seconds: length of all recordings.

    Raises:
        WavedistillError: bad manifest, empty split, a wav that is not 16-bit mono at the mel's rate, a condition that
            is missing or not as long as its audio, a speaker that is not among ``speakers``, or every recording shorter
            than a crop.
    """

    def __init__(
        self,
        manifest: str,
        split: str,
        mel: MelConfig | None,
        segment_frames: int,
        *,
        with_f0: bool = False,
        speakers: list[str] | None = None,
        gain_augment_db: float = 0.0,
        beginnings: float = 0.0,
    ) -> None:
        self.mel_config = mel
        self.segment_frames = segment_frames
        self.gain_augment_db = gain_augment_db
        self.beginnings = beginnings
        self.entries = [entry for entry in read_manifest(manifest) if entry.split == split]
        if not self.entries:
            raise WavedistillError(f"{manifest}: no recording in split {split!r}; prepare more recordings")
        self._speaker_ids = _speaker_ids(self.entries, speakers, manifest)
        self.hop_length = mel.hop_length if mel else DEFAULT_HOP_LENGTH
        recordings, self.sample_rate = _read_all(
            [entry.audio for entry in self.entries], mel.sample_rate if mel else None
        )
        self._audio = torch.from_numpy(np.concatenate(recordings))
        self._audio_start = np.cumsum([0, *(len(r) for r in recordings)])
        self._num_frames = np.array([len(r) // self.hop_length for r in recordings])
        self._frame_start = np.cumsum([0, *self._num_frames])
        del recordings  # hours of audio are gigabytes: not twice
        self._mel = self._f0 = None
        if mel or with_f0:
            conditions = self._conditions()
            key = content_hash(conditions.numpy(), self._audio_start)
            folder = _folder(manifest)
            if mel:
                features = self._mel_frames(conditions)
                self._mel = cached_frames(
                    folder, f"{split}-mel", (key, vars(mel)), self._num_frames, mel.n_mels, features
                )
            if with_f0:
                grid = {"hop_length": self.hop_length, "sample_rate": self.sample_rate}
                self._f0 = cached_frames(
                    folder, f"{split}-f0", (key, grid), self._num_frames, 1, self._f0_frames(conditions)
                )
        starts = np.maximum(self._num_frames - segment_frames + 1, 0)
        self.num_skipped = int((starts == 0).sum())
        self._first_crop = np.cumsum([0, *starts]).tolist()
        self.seconds = len(self._audio) / self.sample_rate
        if self._first_crop[-1] == 0:
            raise WavedistillError(
                f"{manifest}: all {len(self.entries)} recordings in split {split!r} are shorter than a crop of "
                f"{segment_frames * self.hop_length / self.sample_rate:.2f} s; lower data.segment_seconds"
            )

    def __len__(self) -> int:
        """Number of recordings."""
        return len(self.entries)

    def batch(self, step: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> Batch:
        """The crops of ``step``: every position in time of every recording is equally likely, but for ``beginnings``.

        Crop i depends on (seed, step, i) only. ``batch_size`` counts the crops of all ranks together; this rank gets
        its ``batch_size / world_size`` of them, in order, so that the ranks' batches laid end to end are the batch of
        a single rank.
        """
        if batch_size % world_size:
            raise WavedistillError(f"data.batch_size {batch_size} does not divide among {world_size} processes")
        size = batch_size // world_size
        crops = [self._crop(seed, step, index) for index in range(rank * size, (rank + 1) * size)]
        columns = zip(*crops, strict=True)
        return Batch(*(None if column[0] is None else torch.stack(column) for column in columns))

    def utterances(self) -> Iterator[Utterance]:
        """Every recording of the split, whole, the short ones too, in the manifest's order."""
        for recording, entry in enumerate(self.entries):
            window = self._window(recording, 0, int(self._num_frames[recording]))
            speaker = None if self._speaker_ids is None else self._speaker_ids[recording]
            yield Utterance(entry.id, *window, speaker, entry.text)

    def _crop(self, seed: int, step: int, index: int) -> _Crop:
        # A counter-based generator: no state to save, any crop of any step can be drawn on its own.
        random = np.random.Generator(np.random.Philox(key=[seed, step], counter=[0, 0, 0, index]))
        crop = int(random.integers(self._first_crop[-1]))
        recording = bisect_right(self._first_crop, crop) - 1
        frame = crop - self._first_crop[recording]
        if self.beginnings and random.random() < self.beginnings:
            frame = 0
        audio, mel, f0 = self._window(recording, frame, self.segment_frames)
        if self.gain_augment_db > 0:
            audio, mel = self._change_level(audio, mel, random.uniform(-1, 1) * self.gain_augment_db)
        speaker = None if self._speaker_ids is None else torch.tensor(self._speaker_ids[recording])
        return _Crop(audio, mel, f0, speaker, torch.tensor(frame == 0))

    def _window(self, recording: int, frame: int, num_frames: int) -> _Window:
        """``num_frames`` frames of a recording (its place among the entries), from ``frame`` on."""
        sample = int(self._audio_start[recording]) + frame * self.hop_length
        audio = self._audio[sample : sample + num_frames * self.hop_length].float() / 32768.0
        start = int(self._frame_start[recording]) + frame
        frames = slice(start, start + num_frames)
        mel = None if self._mel is None else torch.from_numpy(np.array(self._mel[frames].T, order="C"))
        f0 = None if self._f0 is None else torch.from_numpy(np.array(self._f0[frames, 0]))
        return _Window(audio, mel, f0)

    def _change_level(self, audio: Tensor, mel: Tensor | None, gain_db: float) -> tuple[Tensor, Tensor | None]:
        gain = min(10 ** (gain_db / 20), 0.999 / max(float(audio.abs().max()), 1e-6))
        # Back onto the 16-bit grid, which the likelihood's dequantisation presumes.
        audio = torch.round(audio * (gain * 32768.0)) / 32768.0
        if mel is not None:
            mel = (mel + self.mel_config.power * log(gain)).clamp_min(log(self.mel_config.floor))
        return audio, mel

    def _conditions(self) -> Tensor:
        """int16 samples that mel and f0 are taken from, laid end to end as the audio is."""
        paired = [index for index, entry in enumerate(self.entries) if entry.condition is not None]
        if not paired:
            return self._audio
        conditions = self._audio.clone()
        recordings, _ = _read_all([self.entries[index].condition for index in paired], self.sample_rate)
        for index, recording in zip(paired, recordings, strict=True):
            start, end = self._audio_start[index : index + 2]
            if len(recording) != end - start:
                entry = self.entries[index]
                raise WavedistillError(
                    f"{entry.condition}: {len(recording)} samples, but {entry.audio}, which it is the condition of, "
                    f"has {end - start}; make them equally long"
                )
            conditions[start:end] = torch.from_numpy(recording)
        return conditions

    def _split(self, samples: Tensor) -> Iterator[Tensor]:
        for start, end in zip(self._audio_start[:-1], self._audio_start[1:], strict=True):
            yield samples[start:end].float() / 32768.0

    def _mel_frames(self, samples: Tensor) -> Iterator[np.ndarray]:
        front_end = LogMelSpectrogram(self.mel_config)
        for audio in self._split(samples):
            yield front_end(audio).T.numpy()

    def _f0_frames(self, samples: Tensor) -> Iterator[np.ndarray]:
        for audio in self._split(samples):
            yield estimate_f0(audio, self.sample_rate, self.hop_length)[:, None].numpy()


def _read_all(paths: list[str], sample_rate: int | None) -> tuple[list[np.ndarray], int]:
    """int16 samples of every file, and their common rate (the first one's where none is demanded)."""
    import soundfile

    recordings = []
    for path in paths:
        try:
            with soundfile.SoundFile(path) as file:
                rate = file.samplerate
                channels = file.channels
                samples = file.read(dtype="int16")
        except (OSError, soundfile.LibsndfileError) as error:
            raise WavedistillError(f"{path}: cannot be read ({error}); prepare the data again") from error
        sample_rate = sample_rate or rate
        if rate != sample_rate or channels != 1:
            raise WavedistillError(
                f"{path}: {channels} channels at {rate} Hz, this needs mono at {sample_rate} Hz; "
                f"type: wavedistill prepare DIR --out DIR --sample-rate {sample_rate}"
            )
        recordings.append(samples)
    return recordings, sample_rate


def _speaker_ids(entries: list[Entry], speakers: list[str] | None, manifest: str) -> list[int] | None:
    if speakers is None:
        return None
    index = {name: i for i, name in enumerate(speakers)}
    for entry in entries:
        if entry.speaker not in index:
            raise WavedistillError(
                f"{manifest}: speaker {entry.speaker!r} is not among the model's speakers: {', '.join(speakers)}"
            )
    return [index[entry.speaker] for entry in entries]


def _folder(manifest: str) -> Path:
    path = Path(manifest)
    return path if path.is_dir() else path.parent
