"""Notes: their template, the MIDI file, the rendering, playing them, and the score table."""

from __future__ import annotations

import math
import runpy
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from helpers.tiny_models import tiny_student

from wavedistill.assets import recipe_path
from wavedistill.audio.io import load_audio, save_audio
from wavedistill.data.dataset import SpeechDataset
from wavedistill.data.manifest import Entry, read_manifest, write_manifest
from wavedistill.errors import WavedistillError
from wavedistill.inference.vocoder import Vocoder
from wavedistill.models.pretrained import save_pretrained
from wavedistill.notes import corpus as module
from wavedistill.notes.corpus import INSTRUMENTS, Note, midi_file, notes, prepare_notes
from wavedistill.notes.evaluate import cents_from_note, evaluate_notes, table
from wavedistill.notes.play import play_note, plays_notes
from wavedistill.notes.template import (
    HIGHEST,
    LOWEST,
    RELEASE_SECONDS,
    note_frequency,
    note_name,
    note_number,
    note_template,
)

RENDERS = shutil.which("fluidsynth") and (module.SOUNDFONT_FOLDER / module.SOUNDFONT).is_file()


# ---- names and template


def test_names_and_numbers_of_notes():
    assert [note_name(n) for n in (48, 60, 61, 69, 71)] == ["C3", "C4", "C#4", "A4", "B4"]
    assert all(note_number(note_name(n)) == n for n in range(120))
    assert note_number("Bb3") == note_number("A#3") == 58 and note_number(" e4 ") == 64
    assert note_frequency(69) == 440.0 and note_frequency(57) == pytest.approx(220.0)
    with pytest.raises(WavedistillError, match="'H4' is no note"):
        note_number("H4")


@pytest.mark.parametrize("pitch", [LOWEST, 60, HIGHEST])
def test_template_has_the_pitch_and_the_length(pitch):
    wave = note_template(pitch, 1.2)
    assert wave.shape == (19200,) and wave.dtype == torch.float32 and wave.abs().max() < 1
    assert abs(cents_from_note(wave, 16000, pitch)) < 2
    assert torch.equal(wave, note_template(pitch, 1.2))


def test_template_tells_velocity_time_and_release():
    soft = note_template(60, 1.5, 50)
    loud = note_template(60, 1.5, 100)
    assert torch.allclose(loud, 4 * soft)
    spectrum = [torch.fft.rfft(loud[s : s + 1600] * torch.hann_window(1600)).abs() for s in (800, 14400)]
    f0_bin = round(note_frequency(60) / 10)
    high_bin = round(8 * note_frequency(60) / 10)
    low, high = (
        20 * math.log10(float(spectrum[0][b - 2 : b + 3].max() / spectrum[1][b - 2 : b + 3].max()))
        for b in (f0_bin, high_bin)
    )
    assert 3 < low < high - 2, "high harmonics fade faster"
    level = [
        float(loud[round(t * 16000) - 160 : round(t * 16000)].square().mean().sqrt())
        for t in (1.5 - RELEASE_SECONDS, 1.5)
    ]
    assert level[1] < 1e-3 * level[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((60, 0.3), "0.35 seconds"),
        ((60, 1, 0), "velocity"),
        ((60, 1, 128), "velocity"),
        ((127, 1), "pitch"),
        ((-1, 1), "pitch"),
    ],
)
def test_impossible_notes_are_refused(arguments, words):
    with pytest.raises(WavedistillError, match=words):
        note_template(*arguments)


# ---- rendering


def test_variable_length_quantities_are_those_of_the_standard():
    table = {
        0: "00",
        0x40: "40",
        0x7F: "7f",
        0x80: "8100",
        0x2000: "c000",
        0x3FFF: "ff7f",
        0x4000: "818000",
        0x0FFFFFFF: "ffffff7f",
    }
    assert {value: module._variable_length(value).hex() for value in table} == table


def test_midi_file_plays_the_notes_in_turn():
    data = midi_file(24, [Note(60, 100, 1.0, "train"), Note(61, 40, 2.0, "test")])
    assert data[:14].hex() == "4d546864" + "00000006" + "0000" + "0001" + "03e8"
    assert data[14:18] == b"MTrk" and int.from_bytes(data[18:22], "big") == len(data) - 22
    expected = ["00ff51030f4240", "00c018", "00903c64", "850a803c00", "9a16903d28", "8c72803d00", "00ff2f00"]
    assert data[22:].hex() == "".join(
        expected
    )  # note on, off after 650 ms, the next one at 4,000 ms, off after 1,650 ms


def test_every_note_is_in_one_split():
    every = notes()
    assert len({(n.pitch, n.velocity) for n in every}) == len(every) == 24 * 5
    shares = Counter(n.split for n in every)
    assert {split: round(100 * n / len(every)) for split, n in shares.items()} == {"train": 71, "valid": 10, "test": 19}
    heard = {n.pitch for n in every if n.split == "train"}
    assert {n.pitch for n in every} == heard, "every pitch is heard at some velocity"


def test_without_soundfont_or_program_the_packages_are_named(tmp_path, monkeypatch):
    with pytest.raises(WavedistillError, match="apt-get install fluidsynth fluid-soundfont-gm"):
        prepare_notes(tmp_path / "out", tmp_path)
    (tmp_path / module.SOUNDFONT).write_bytes(b"")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(module, "notes", lambda: [Note(60, 100, 1.0, "train")])
    with pytest.raises(WavedistillError, match="fluidsynth is missing: apt-get install"):
        prepare_notes(tmp_path / "out", tmp_path)


@pytest.mark.skipif(not RENDERS, reason="apt-get install fluidsynth fluid-soundfont-gm")
def test_rendered_notes_fit_their_templates(tmp_path, monkeypatch):
    wanted = [Note(57, 60, 1.0, "train"), Note(64, 120, 1.5, "valid")]
    monkeypatch.setattr(module, "notes", lambda: wanted)
    monkeypatch.setattr(module, "INSTRUMENTS", {"guitar": 24})
    entries = read_manifest(prepare_notes(tmp_path / "out"))
    assert [(e.id, e.speaker, e.split, e.duration) for e in entries] == [
        ("guitar-057-A3-060", "guitar", "train", 1.0),
        ("guitar-064-E4-120", "guitar", "valid", 1.5),
    ]
    for entry, note in zip(entries, wanted, strict=True):
        audio, rate = load_audio(entry.audio)
        condition, _ = load_audio(entry.condition)
        assert rate == 16000 and len(audio) == len(condition) == 16000 * note.seconds
        assert abs(cents_from_note(audio, rate, note.pitch)) < 10
        assert (audio[:320].abs() > 0.05 * audio.abs().max()).any(), "it begins at once"
    assert audio.abs().max() == pytest.approx(0.7, abs=1e-3)  # of the louder one
    again = prepare_notes(tmp_path / "again")
    assert [open(e.audio, "rb").read() for e in read_manifest(again)] == [open(e.audio, "rb").read() for e in entries]
    data = SpeechDataset(str(tmp_path / "out"), "train", None, 8, with_f0=True, speakers=["guitar"])
    assert 1200 * abs(math.log2(float(data.batch(0, 1, 0).f0.median()) / 220)) < 5


# ---- playing


@pytest.fixture(scope="module")
def player() -> Vocoder:
    return Vocoder(tiny_student(speakers=["piano", "guitar"]))


def test_a_note_follows_length_seed_and_instrument(player):
    assert plays_notes(["piano", "guitar"]) and not plays_notes(["piano", "ann"]) and not plays_notes([])
    piano = play_note(player, 60, 1.0)
    assert piano.shape == (8000,)
    assert torch.equal(piano, play_note(player, 60, 1.0, speaker="piano", seed=0))
    for other in ({"seed": 1}, {"speaker": "guitar"}, {"velocity": 40}, {"temperature": 0.5}):
        assert not torch.equal(piano, play_note(player, 60, 1.0, **other))
    assert not torch.equal(piano, play_note(player, 61, 1.0))


def test_what_plays_no_notes_is_refused():
    with pytest.raises(WavedistillError, match="was not trained on notes"):
        play_note(Vocoder(tiny_student()), 60)


@pytest.mark.parametrize("instrument", INSTRUMENTS)
def test_bundled_student_is_in_tune(instrument):
    vocoder = Vocoder.from_pretrained("notes-student")
    for pitch in (50, 60, 69):
        note = play_note(vocoder, pitch, 1.2, speaker=instrument)
        assert abs(cents_from_note(note, vocoder.sample_rate, pitch)) < 20
        body = note[1600:9600].square().mean().sqrt()
        tail = note[-800:].square().mean().sqrt()
        assert 0.01 < body < 0.5 and tail < 0.3 * body


def test_the_page_of_the_recipe_shows_its_curves(tmp_path):
    recipe = recipe_path("notes")
    copy = shutil.copytree(recipe, tmp_path / "notes")
    (copy / "results" / "curves.png").unlink()
    runpy.run_path(str(copy / "curves.py"), run_name="__main__")
    assert (copy / "README.md").read_text() == (recipe / "README.md").read_text()
    assert (copy / "results" / "curves.png").stat().st_size > 10_000


# ---- scores


@pytest.fixture
def rendered(tmp_path):
    """Stand-ins for rendered notes: templates of another level, in two splits, at 8 kHz."""
    entries = []
    for i, (pitch, split) in enumerate([(52, "train"), (55, "train"), (57, "test"), (60, "test"), (62, "test")]):
        name = f"{pitch:03d}-{note_name(pitch)}-100"
        condition = save_audio(tmp_path / "templates" / f"{name}.wav", note_template(pitch, 0.8, 100, 8000), 8000)
        noise = 1e-3 * torch.randn(6400, generator=torch.Generator().manual_seed(i))
        audio = save_audio(tmp_path / f"{name}.wav", 0.5 * note_template(pitch, 0.8, 100, 8000) + noise, 8000)
        entries.append(
            Entry(
                id=name,
                audio=str(audio),
                condition=str(condition),
                duration=0.8,
                speaker=("piano", "guitar")[i % 2],
                split=split,
            )
        )
    return write_manifest(tmp_path / "manifest.jsonl", entries)


def test_scores_of_anchors_and_a_student(rendered, tmp_path):
    save_pretrained(tiny_student(speakers=["piano", "guitar"]), tmp_path / "student")
    scores = evaluate_notes(rendered, [tmp_path / "student"])
    assert list(scores) == ["other real notes", "real notes", "8-bit mu-law", "template", "student"]
    real = scores["real notes"]
    template = scores["template"]
    student = scores["student"]
    assert real.frechet == pytest.approx(0, abs=1e-6) and real.spectral[0] == real.level[0] == 0 and real.in_tune == 100
    assert 0 < template.frechet < student.frechet
    assert template.level[0] == pytest.approx(20 * math.log10(2), abs=0.1) and template.cents[0] < 2
    assert student.speed > 0 and math.isnan(template.speed)
    lines = table(scores).splitlines()
    assert len(lines) == 7 and len({line.count("|") for line in lines}) == 1 and "nan" not in "".join(lines[:6])
    assert evaluate_notes(rendered, [tmp_path / "student"])["student"].frechet == student.frechet


def test_speech_is_not_scored_as_notes(rendered, tmp_path):
    entries = read_manifest(rendered)
    write_manifest(
        tmp_path / "plain.jsonl", [Entry(id="a", audio=entries[0].audio, duration=0.8, speaker="piano", split="test")]
    )
    with pytest.raises(WavedistillError, match="these are no notes"):
        evaluate_notes(tmp_path / "plain.jsonl", [])
    write_manifest(tmp_path / "train.jsonl", [e for e in entries if e.split == "train"])
    with pytest.raises(WavedistillError, match="splits test and train are needed"):
        evaluate_notes(tmp_path / "train.jsonl", [])


def test_pitch_errors_have_a_sign_and_silence_has_none():
    sharp = torch.sin(2 * math.pi * 220 * 2 ** (30 / 1200) * torch.arange(16000) / 16000)
    assert cents_from_note(sharp, 16000, 57) == pytest.approx(30, abs=2)
    assert np.isnan(cents_from_note(torch.zeros(8000), 16000, 57))
