"""Anomalous sounds in the protocol of DCASE task 2: notes of an instrument that went wrong, detectors that heard none.

A machine is an instrument; what its sensor tells is the note that was struck (pitch, velocity), whose template's mel is
the teacher's condition. A detector is fitted to normal notes of the split "train" alone. The notes of the split "test"
are the normal ones to be told from the same notes with a fault.

Reference: Description and Discussion on DCASE2020 Challenge Task 2: Unsupervised Anomalous Sound Detection for Machine
Condition Monitoring (Koizumi et al., 2020), https://arxiv.org/abs/2006.05822
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wavedistill.applications.roc import Separation, harmonic_mean, separation
from wavedistill.applications.scoring import ScoreReport, score
from wavedistill.applications.strangeness import SCORES, Values, detector_scores, likelihood_scores
from wavedistill.audio.io import load_audio, resample, save_audio
from wavedistill.audio.mel import LogMelSpectrogram
from wavedistill.data.manifest import Entry, read_manifest, write_manifest
from wavedistill.errors import WavedistillError
from wavedistill.evaluation.systems import LoadedModel
from wavedistill.notes.template import note_frequency
from wavedistill.text import markdown_table

DETUNED_CENTS = 20.0
MISSING_PARTIAL = 2
CLIPPED_AT = 0.7
"""Of the note's peak."""
HUM = 0.003
"""Amplitude of 50 Hz; half and a quarter of it at 100 and 150 Hz."""
_EXACT_RATE = 3000  # largest number in the ratio of a resampling


def detuned(audio: Tensor, rate: int, f0: float) -> Tensor:
    """Higher by `DETUNED_CENTS`, and of the same length."""
    from_rate = round(_EXACT_RATE * 2 ** (DETUNED_CENTS / 1200))
    higher = resample(audio, from_rate, _EXACT_RATE)
    return torch.nn.functional.pad(higher, (0, len(audio) - len(higher)))


def missing_partial(audio: Tensor, rate: int, f0: float) -> Tensor:
    """Without the partial `MISSING_PARTIAL` (1 is the fundamental): a third of f0 to either side is taken out."""
    spectrum = torch.fft.rfft(audio.double())
    frequency = torch.fft.rfftfreq(len(audio), 1 / rate)
    away = (frequency - MISSING_PARTIAL * f0).abs() / (f0 / 3)
    keep = torch.where(away < 1, torch.sin(0.5 * math.pi * away) ** 2, 1.0)
    return torch.fft.irfft(spectrum * keep, n=len(audio)).float()


def clipped(audio: Tensor, rate: int, f0: float) -> Tensor:
    """Cut off at `CLIPPED_AT` of its peak."""
    limit = CLIPPED_AT * float(audio.abs().max())
    return audio.clamp(-limit, limit)


def with_hum(audio: Tensor, rate: int, f0: float) -> Tensor:
    """With mains hum: 50, 100 and 150 Hz."""
    time = torch.arange(len(audio), dtype=torch.float64) / rate
    hum = sum(HUM / 2**k * torch.sin(2 * math.pi * 50.0 * (k + 1) * time) for k in range(3))
    return (audio + hum).float()


FAULTS: dict[str, Callable[[Tensor, int, float], Tensor]] = {
    "detuned": detuned,
    "missing partial": missing_partial,
    "clipped": clipped,
    "hum": with_hum,
}
WRONG_INSTRUMENT = "wrong instrument"


def make_faults(entries: list[Entry], out: Path) -> dict[str, list[Entry]]:
    """Every test note with every fault, as recordings below ``out``; and as played by the next instrument."""
    notes = [entry for entry in entries if entry.split == "test"]
    by_name = {entry.id: entry for entry in entries}
    instruments = list(dict.fromkeys(entry.speaker for entry in notes))
    made: dict[str, list[Entry]] = {fault: [] for fault in (*FAULTS, WRONG_INSTRUMENT)}
    for entry in notes:
        audio, rate = load_audio(entry.audio)
        f0 = note_frequency(int(Path(entry.condition).stem.split("-")[0]))
        for fault, change in FAULTS.items():
            name = f"{fault.replace(' ', '-')}-{entry.id}"
            path = save_audio(out / "faults" / f"{name}.wav", change(audio, rate, f0), rate)
            made[fault].append(replace(entry, id=name, audio=str(path.absolute())))
        other = instruments[(instruments.index(entry.speaker) + 1) % len(instruments)]
        struck = by_name[entry.id.replace(entry.speaker, other, 1)]
        made[WRONG_INSTRUMENT].append(replace(entry, id=f"wrong-{entry.id}", audio=struck.audio))
    return made


def measure_notes(
    manifest: str | Path,
    checkpoint: str | Path,
    out: str | Path,
    progress: Callable[[Iterable], Iterable] = iter,
) -> str:
    """AUC and partial AUC of each fault, means over instruments, as a Markdown table.

    Args:
        manifest: of recipes/notes.
        checkpoint: a teacher of notes.
        out: folder for the faults and the statistics of every note; what is there is not computed again.
        progress: wraps the iterable of sounds.
    """
    out = Path(out)
    entries = read_manifest(manifest)
    if any(entry.condition is None for entry in entries):
        raise WavedistillError(
            f"{manifest}: these are no notes (no condition); make them with recipes/notes/prepare.py"
        )
    loaded = LoadedModel.load(checkpoint, str(checkpoint), "cpu")
    faults = make_faults(entries, out)
    heard = {"train": [e for e in entries if e.split == "train"], "normal": [e for e in entries if e.split == "test"]}
    heard |= faults
    listed = write_manifest(out / "manifest.jsonl", [entry for group in heard.values() for entry in group])
    report = score(listed, loaded, out, pictures=False, progress=progress)
    if report.failures:
        raise WavedistillError(next(iter(report.failures.values())))
    values = _scores(heard, report, loaded)
    found = {fault: {name: separation(_groups(values[name], heard, fault)) for name in SCORES} for fault in faults}
    return fault_table(found)


def fault_table(found: dict[str, dict[str, Separation]]) -> str:
    """One row a fault, one column a score: AUC with its interval, then the partial AUC."""
    rows = [
        [fault, *(f"{value}, {value.partial:.2f}" for value in (scores[name] for name in SCORES))]
        for fault, scores in found.items()
    ]
    means = [f"**{harmonic_mean([scores[name] for scores in found.values()]):.2f}**" for name in SCORES]
    return markdown_table(["fault", *SCORES], [*rows, ["harmonic mean", *means]])


def _scores(heard: dict[str, list[Entry]], report: ScoreReport, loaded: LoadedModel) -> dict[str, Values]:
    """Of each of `SCORES`; detectors are fitted to each instrument's training notes.

    The detector without a model knows the note that was struck, too: it looks at the mel less the template's.
    """
    values = likelihood_scores(report) | {name: {} for name in ("mel, no model", "detector")}
    for instrument in dict.fromkeys(entry.speaker for entry in heard["train"]):
        own = [entry for group in heard.values() for entry in group if entry.speaker == instrument]
        mels = {entry.id: _away_from_template(entry, loaded.front_end) for entry in own}
        normal = [entry.id for entry in heard["train"] if entry.speaker == instrument]
        for name, found in detector_scores(report, mels, normal).items():
            values[name] |= found
    return values


def _away_from_template(entry: Entry, front_end: LogMelSpectrogram) -> Tensor:
    audio, condition = (load_audio(path, front_end.config.sample_rate)[0] for path in (entry.audio, entry.condition))
    return front_end(audio) - front_end(condition)


def _groups(values: dict[str, float], heard: dict[str, list[Entry]], fault: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """(normal, anomalous) scores of each instrument."""
    return [
        tuple(np.array([values[e.id] for e in heard[kind] if e.speaker == instrument]) for kind in ("normal", fault))
        for instrument in dict.fromkeys(entry.speaker for entry in heard["normal"])
    ]
