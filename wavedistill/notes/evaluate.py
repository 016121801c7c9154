"""How well models of notes play: population, pitch, spectrum and level of held-out notes, as a table."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wavedistill.audio.io import load_audio
from wavedistill.audio.pitch import estimate_f0
from wavedistill.data.manifest import Entry, read_manifest
from wavedistill.errors import WavedistillError
from wavedistill.evaluation.anchors import mulaw8
from wavedistill.evaluation.statistics import Statistic, weighted
from wavedistill.inference.vocoder import Vocoder
from wavedistill.metrics.frechet import frechet_distance, log_mel_statistics
from wavedistill.metrics.signal import level_difference, log_spectral_distance
from wavedistill.notes.template import note_frequency
from wavedistill.text import markdown_table, mean_and_error

HEAD = ("system", "Frechet", "pitch, cents", "in tune %", "LSD dB", "level dB", "s per CPU s")
IN_TUNE_CENTS = 15.0
NOTHING = Statistic(math.nan, math.nan, 0)


@dataclass(frozen=True)
class NoteScores:
    """One system on all notes; NaN where a number makes no sense for it.

    Attributes:
        frechet: distance from the population of the real notes, by `log_mel_statistics`.
        cents: error of the pitch, its median over a note's voiced frames, without sign.
        in_tune: percent of notes within `IN_TUNE_CENTS`; one without a voiced frame is not.
        spectral: `log_spectral_distance` from the real note, dB.
        level: RMS level over the real note's, dB.
        speed: seconds of audio per second of processor time, all notes together.
    """

    frechet: float
    cents: Statistic = NOTHING
    in_tune: float = math.nan
    spectral: Statistic = NOTHING
    level: Statistic = NOTHING
    speed: float = math.nan


def evaluate_notes(
    manifest: str | Path,
    checkpoints: Sequence[str | Path],
    *,
    seed: int = 0,
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict[str, NoteScores]:
    """Score checkpoints and anchors on the held-out notes (split "test") of a manifest made by recipes/notes.

    Every system plays the same notes. The reference population is their recordings, from which the recordings
    themselves are 0 away; how far apart two real sets are is told by the row "other real notes", those of split
    "train".

    Returns:
        Scores by system: the real notes, other real notes (their distance only), 8-bit mu-law, the template (the
        condition as it is), then the checkpoints.
    """
    entries = read_manifest(manifest)
    if any(entry.condition is None for entry in entries):
        raise WavedistillError(
            f"{manifest}: these are no notes (no condition); make them with recipes/notes/prepare.py"
        )
    played, others = ([entry for entry in entries if entry.split == split] for split in ("test", "train"))
    if not played or not others:
        raise WavedistillError(f"{manifest}: notes in the splits test and train are needed")
    vocoders = {Path(name).name: Vocoder.from_pretrained(name) for name in checkpoints}
    rate = load_audio(played[0].audio)[1]
    real = [load_audio(entry.audio, rate)[0] for entry in played]
    templates = [load_audio(entry.condition, rate)[0] for entry in played]
    population = _embed(real, rate)
    systems: dict[str, Callable[[], list[Tensor]]] = {
        "real notes": lambda: real,
        "8-bit mu-law": lambda: [mulaw8(audio) for audio in real],
        "template": lambda: templates,
    }
    for name, vocoder in vocoders.items():
        systems[name] = lambda vocoder=vocoder: _play(vocoder, played, templates, rate, seed)
    distance = frechet_distance(_embed([load_audio(entry.audio, rate)[0] for entry in others], rate), population)
    scores = {"other real notes": NoteScores(distance)}
    for name in progress(list(systems)):
        began = time.process_time()
        made = systems[name]()
        seconds = time.process_time() - began
        speed = sum(map(len, made)) / rate / seconds if name in vocoders else math.nan
        scores[name] = _score(made, real, played, population, rate, speed)
    return scores


def table(scores: dict[str, NoteScores]) -> str:
    """Scores in Markdown."""
    rows = []
    for name, s in scores.items():
        cells = [
            f"{s.frechet:.2f}",
            _mean(s.cents),
            _figure(s.in_tune, ".0f"),
            _mean(s.spectral),
            _mean(s.level),
            _figure(s.speed, ".3g"),
        ]
        rows.append([name, *cells])
    return markdown_table(HEAD, rows)


def cents_from_note(audio: Tensor, sample_rate: int, midi_pitch: int) -> float:
    """Median over voiced frames, distance of ``audio`` (samples,) from the note in cents; NaN if none is voiced."""
    f0 = estimate_f0(audio, sample_rate, sample_rate // 100, f_max=600.0)
    voiced = f0[f0 > 0]
    return float((1200 * torch.log2(voiced / note_frequency(midi_pitch))).median()) if len(voiced) else math.nan


def _play(vocoder: Vocoder, entries: list[Entry], templates: list[Tensor], rate: int, seed: int) -> list[Tensor]:
    """Notes of one instrument and length as one batch."""
    if vocoder.sample_rate != rate:
        raise WavedistillError(f"the notes are at {rate} Hz, the checkpoint works at {vocoder.sample_rate} Hz")
    made: list[Tensor | None] = [None] * len(entries)
    groups: dict[tuple[str, int], list[int]] = {}
    for index, (entry, template) in enumerate(zip(entries, templates, strict=True)):
        groups.setdefault((entry.speaker, len(template)), []).append(index)
    for (speaker, length), members in groups.items():
        mels = torch.stack([vocoder.mel(templates[index]) for index in members])
        audio = vocoder.render(mels, [seed + index for index in members], speaker=speaker)
        for index, wave in zip(members, audio, strict=True):
            made[index] = wave[:length].cpu()
    return made


def _embed(waves: list[Tensor], rate: int) -> Tensor:
    return torch.cat([log_mel_statistics(wave, rate) for wave in waves])


def _score(
    made: list[Tensor], real: list[Tensor], entries: list[Entry], population: Tensor, rate: int, speed: float
) -> NoteScores:
    pitches = [int(Path(entry.condition).stem.split("-")[0]) for entry in entries]
    cents = np.abs([cents_from_note(wave, rate, pitch) for wave, pitch in zip(made, pitches, strict=True)])
    spectral = [log_spectral_distance(a, b, rate) for a, b in zip(real, made, strict=True)]
    level = [level_difference(a, b, rate) for a, b in zip(real, made, strict=True)]
    return NoteScores(
        frechet_distance(_embed(made, rate), population),
        _statistic(cents),
        100 * float((cents < IN_TUNE_CENTS).mean()),
        _statistic(spectral),
        _statistic(level),
        speed,
    )


def _statistic(values: Sequence[float] | np.ndarray) -> Statistic:
    return weighted([float(value) for value in values], [1.0] * len(values))


def _mean(value: Statistic) -> str:
    return mean_and_error(value.mean, value.standard_error, digits=1)


def _figure(value: float, style: str) -> str:
    return "-" if math.isnan(value) else format(value, style)
