"""recipes/wide/prepare.py on small folders in the packages' layouts, with a stand-in for the speaking program."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from helpers.paths import RECIPES

from wavedistill.audio.io import resample
from wavedistill.data.corpora import asterisk, festvox_ru, synthetic, wide
from wavedistill.data.corpora.synthetic import VOICES, sentences
from wavedistill.data.corpora.tuxpaint import prepare_tuxpaint
from wavedistill.data.manifest import read_manifest
from wavedistill.data.prepare import PrepareConfig, Recording, prepare_recordings
from wavedistill.data.toy import toy_tone
from wavedistill.errors import WavedistillError


def hiss(seed: int, seconds: float, sample_rate: int) -> np.ndarray:
    """Sound up to half the rate."""
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * sample_rate))).astype(np.float32)


@pytest.fixture
def source(tmp_path) -> Path:
    """Two stamps in five languages, of which the last is not taken; Greek reaches 4 kHz."""
    stamps = tmp_path / "in" / "usr/share/tuxpaint/stamps"
    for number, stamp in enumerate(("town/docks", "animals/birds/owl")):
        (stamps / stamp).parent.mkdir(parents=True)
        (stamps / f"{stamp}.txt").write_text(f"Stamp {number}.\nbe.utf8=Сава\nro.utf8= O  bufniță\n", encoding="utf-8")
        for language in ("ro", "be", "bg", "el", "fr"):
            narrow = resample(torch.from_numpy(hiss(number, 0.8, 8000)), 8000, 44100).numpy()
            audio = narrow if language == "el" else hiss(number, 0.8, 44100)
            soundfile.write(stamps / f"{stamp}_desc_{language}.ogg", audio, 44100)
    return tmp_path / "in"


@pytest.fixture
def said(monkeypatch) -> list[tuple[str, float]]:
    texts = []

    class Hibari:
        def __call__(self, text: str, speed: float, seed: int) -> np.ndarray:
            texts.append((text, speed))
            return hiss(len(texts), 0.6, 24000)

    monkeypatch.setitem(sys.modules, "hibari", SimpleNamespace(Hibari=Hibari))
    return texts


def test_human_voices_are_split_and_the_unheard_are_for_testing(tmp_path, source):
    report = prepare_tuxpaint(tmp_path / "out", source, config=PrepareConfig(24000), workers=1)
    entries = {entry.id: entry for entry in read_manifest(tmp_path / "out")}
    assert set(entries) == {
        f"tuxpaint_{lang}_{name}" for lang in ("ro", "be", "bg") for name in ("town_docks", "animals_birds_owl")
    }
    assert entries["tuxpaint_be_town_docks"].text == "Сава" and entries["tuxpaint_ro_town_docks"].text == "O bufniță"
    assert entries["tuxpaint_bg_town_docks"].text is None
    assert all(entry.split == "test" for entry in entries.values() if entry.speaker == "tuxpaint_bg")
    assert len(report.refused) == 2 and all("narrow: it holds nothing above" in why for why in report.refused.values())


def test_three_voices_say_different_sentences_and_are_not_made_twice(tmp_path, said):
    recordings = synthetic.render(tmp_path / "in", 6)
    assert [r.speaker for r in recordings] == [*VOICES, *VOICES] and [r.text for r in recordings] == sentences(6)
    assert said == [(r.text, 1.0 / VOICES[r.speaker]) for r in recordings]
    lengths = [soundfile.info(r.source).duration for r in recordings[:3]]
    assert lengths == pytest.approx([0.6 / faster for faster in VOICES.values()], abs=0.01)
    assert all(soundfile.info(r.source).samplerate == 24000 for r in recordings)
    recordings[4].source.unlink()
    assert synthetic.render(tmp_path / "in", 6) == recordings and len(said) == 7


def test_one_manifest_over_what_may_be_trained_on(tmp_path, source, said, monkeypatch, capsys):
    narrow = tmp_path / "narrow.wav"
    soundfile.write(narrow, toy_tone(0, 1, seconds=0.6).numpy(), 16000)
    monkeypatch.setattr(wide, "SYNTHETIC_SENTENCES", 4)
    monkeypatch.setattr(festvox_ru, "festvox_ru_recordings", lambda _: [Recording("festvox_1", narrow, "festvox_ru")])
    monkeypatch.setattr(asterisk, "asterisk_recordings", lambda _: [Recording("en_1", narrow, "en")])
    monkeypatch.setattr(asterisk, "decode_g722", None)
    arguments = ["--out", tmp_path / "wide", "--source", source, "--workers", "1"]
    monkeypatch.setattr(sys, "argv", ["prepare.py", *map(str, arguments)])
    runpy.run_path(str(RECIPES / "wide" / "prepare.py"), run_name="__main__")
    assert "all" in capsys.readouterr().out
    entries = read_manifest(tmp_path / "wide")
    assert {entry.speaker for entry in entries} == {*VOICES, "festvox_ru", "en"}
    assert all(soundfile.info(entry.audio).samplerate == 24000 for entry in entries)
    assert len(read_manifest(tmp_path / "wide-human")) == 6


def test_without_the_program_it_says_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "hibari", None)
    with pytest.raises(WavedistillError, match="no module hibari; type: pip install hibari-tts"):
        synthetic.render(tmp_path / "in", 1)


def test_sentences_are_different_and_the_first_stay():
    many = sentences(900)
    assert len(set(many)) == 900 and many[:50] == sentences(50)
    assert all(4 <= len(text.split()) <= 26 and text[-1] in ".!?" and text[0].isupper() for text in many)


def test_what_came_from_a_lower_rate_is_refused_at_a_higher_one(tmp_path):
    low = resample(torch.from_numpy(hiss(0, 1.0, 16000)), 16000, 24000)
    soundfile.write(tmp_path / "low.wav", low.numpy(), 24000)
    soundfile.write(tmp_path / "high.wav", hiss(1, 1.0, 24000), 24000)
    recordings = [Recording(name, tmp_path / f"{name}.wav", "one") for name in ("low", "high")]
    for rate, limit, taken in ((24000, None, 1), (24000, 0.0, 2), (16000, None, 2)):
        out = tmp_path / f"{rate}-{limit}"
        report = prepare_recordings(recordings, out, PrepareConfig(rate, min_bandwidth=limit), workers=1)
        assert report.accepted == taken
        assert all("narrow: it holds nothing above 8000 Hz" in why for why in report.refused.values())
