"""The two measured uses on small sets: faults are what they are called, and the tables separate what differs."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from helpers.tiny_models import speech_like, tiny_student, tiny_teacher

from wavedistill import save_audio
from wavedistill.applications import anomalous_notes, synthetic_speech
from wavedistill.applications.anomalous_notes import FAULTS, WRONG_INSTRUMENT, measure_notes
from wavedistill.applications.strangeness import SCORES
from wavedistill.applications.synthetic_speech import Corpora, measure_speech
from wavedistill.data.manifest import Entry, write_manifest
from wavedistill.errors import WavedistillError
from wavedistill.evaluation.systems import System
from wavedistill.models.pretrained import save_pretrained
from wavedistill.notes.template import note_template

RATE = 8000


def partial(audio: torch.Tensor, frequency: float) -> float:
    """Amplitude at a frequency in Hz, through a Hann window."""
    window = torch.hann_window(len(audio), dtype=torch.float64)
    time = torch.arange(len(audio), dtype=torch.float64) / RATE
    return float(2 * (audio.double() * window * torch.exp(-2j * math.pi * frequency * time)).sum().abs() / window.sum())


def test_faults_are_what_they_are_called():
    f0 = 200.0
    time = torch.arange(RATE) / RATE
    note = sum(0.2 / k * torch.sin(2 * math.pi * k * f0 * time) for k in (1, 2, 3))
    made = {name: fault(note, RATE, f0) for name, fault in FAULTS.items()}
    assert all(len(audio) == len(note) and not torch.equal(audio, note) for audio in made.values())
    higher = f0 * 2 ** (anomalous_notes.DETUNED_CENTS / 1200)
    assert partial(made["detuned"], higher) > 5 * partial(made["detuned"], f0 - 4)
    assert partial(made["detuned"], higher) == pytest.approx(0.2, rel=0.05)
    assert partial(made["missing partial"], 2 * f0) < 0.01 * partial(note, 2 * f0)
    assert partial(made["missing partial"], 3 * f0) == pytest.approx(partial(note, 3 * f0), rel=0.05)
    assert float(made["clipped"].abs().max()) == pytest.approx(0.7 * float(note.abs().max()))
    assert partial(made["hum"], 50.0) == pytest.approx(anomalous_notes.HUM, rel=0.05)


def notes_of(folder: Path) -> Path:
    """A manifest of two instruments, 14 notes to train on and 4 to test each: templates, the one with an overtone."""
    entries = []
    for number in range(18):
        pitch = 48 + number
        template = note_template(pitch, 0.5, 100, RATE)
        condition = save_audio(folder / "templates" / f"{pitch:03d}-X-100.wav", template, RATE)
        for speaker in ("piano", "flute"):
            audio = template if speaker == "piano" else 0.5 * template.roll(5) - 0.4 * template
            audio = audio + 0.001 * torch.randn(len(audio), generator=torch.Generator().manual_seed(number))
            name = f"{speaker}-{pitch:03d}"
            path = save_audio(folder / "wavs" / f"{name}.wav", audio, RATE)
            split = "test" if number % 5 == 1 else "train"
            entries.append(
                Entry(
                    id=name,
                    audio=str(path),
                    duration=0.5,
                    speaker=speaker,
                    split=split,
                    condition=str(condition),
                )
            )
    return write_manifest(folder / "manifest.jsonl", entries)


def test_faulty_notes_are_told_from_normal_ones(tmp_path):
    teacher = save_pretrained(tiny_teacher(speakers=["piano", "flute"]), tmp_path / "teacher")
    table = measure_notes(notes_of(tmp_path / "notes"), teacher, tmp_path / "out")
    rows = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ") for line in table.splitlines()}
    assert {*FAULTS, WRONG_INSTRUMENT, "harmonic mean"} <= rows.keys()
    assert rows["fault"][1:] == list(SCORES)
    assert all(re.fullmatch(r"\d\.\d\d \(\d\.\d\d-\d\.\d\d\), \d\.\d\d", cell) for cell in rows["clipped"][1:])
    assert float(rows[WRONG_INSTRUMENT][-1][:4]) > 0.9
    with pytest.raises(WavedistillError, match="no notes"):
        plain = Entry(id="a", audio="a.wav", duration=1.0, speaker="piano", split="test")
        measure_notes(write_manifest(tmp_path / "plain.jsonl", [plain]), teacher, tmp_path / "out")


def speakers_of(folder: Path, names: dict[str, int], split: str) -> str:
    entries = []
    for place, (speaker, count) in enumerate(names.items()):
        for number in range(count):
            audio = speech_like(1.2, RATE, seed=number + 40 * place)
            path = save_audio(folder / f"{speaker}-{number}.wav", audio, RATE)
            entries.append(Entry(id=path.stem, audio=str(path), duration=1.2, speaker=speaker, split=split))
    return str(write_manifest(folder / "manifest.jsonl", entries))


def test_synthetic_speech_is_told_from_people(tmp_path, monkeypatch):
    def noisy(clips):
        return [clip.audio + 0.05 * torch.randn(len(clip.audio)) for clip in clips]

    def the_same(clips):
        return [clip.audio for clip in clips]

    systems = [System("noisy", "noisy", noisy), System("the same", "same", the_same)]
    monkeypatch.setattr(synthetic_speech, "_vocoders", lambda student, loaded: systems)
    teacher = save_pretrained(tiny_teacher(), tmp_path / "teacher")
    student = save_pretrained(tiny_student(), tmp_path / "student")
    corpora = Corpora(
        speakers_of(tmp_path / "normal", {"a": 12}, "valid"),
        {speakers_of(tmp_path / "people", {"b": 3, "c": 3}, "test"): ("b", "c")},
        {speakers_of(tmp_path / "tts", {"d": 3}, "test"): ("d",)},
        clips=3,
    )
    text = measure_speech(corpora, teacher, student, tmp_path / "out")
    rows = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ") for line in text.splitlines()}
    assert rows["synthetic speech"][1:] == list(SCORES)
    assert rows["noisy"][-1].startswith("1.00") and rows["the same"][-1].startswith("0.50")
    assert {"text-to-speech, d", "people, median", *synthetic_speech.PROBES} <= rows.keys()
