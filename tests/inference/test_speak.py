"""Text in, speech out: whose part is what, and what cannot be spoken."""

from __future__ import annotations

import runpy
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.paths import ROOT
from helpers.tiny_models import tiny_student

from wavedistill.audio.io import load_audio
from wavedistill.audio.tts import SAMPLE_RATE, TextToSpeech
from wavedistill.errors import WavedistillError
from wavedistill.inference.speak import speak
from wavedistill.inference.vocoder import Vocoder
from wavedistill.models.pretrained import save_pretrained


@pytest.fixture
def program(monkeypatch) -> None:
    """A text-to-speech program that hums one second for each word."""

    class Hibari:
        def __call__(self, text: str, speed: float, seed: int) -> np.ndarray:
            time = np.arange(SAMPLE_RATE * len(text.split())) / SAMPLE_RATE
            return np.sin(2 * np.pi * 220.0 * time).astype(np.float32) / 4

    monkeypatch.setitem(sys.modules, "hibari", SimpleNamespace(Hibari=Hibari))


def test_the_waveform_is_the_voice_s_own(program):
    vocoder = Vocoder(tiny_student())
    spoken = speak("two words", vocoder, TextToSpeech(), seed=3)
    assert spoken.source.shape == (2 * SAMPLE_RATE,)
    assert spoken.sample_rate == vocoder.sample_rate
    assert len(spoken.audio) / spoken.sample_rate == pytest.approx(2.0, abs=0.05)
    again = speak("two words", vocoder, TextToSpeech(), seed=3)
    assert torch.equal(spoken.audio, again.audio)
    assert not torch.equal(spoken.audio, speak("two words", vocoder, TextToSpeech(), seed=4).audio)
    assert min(spoken.tts_seconds, spoken.mel_seconds, spoken.voice_seconds) >= 0.0


@pytest.mark.parametrize(("text", "message"), [("", "no text"), (" ...! ", "no text"), ("a " * 501, "at most 1000")])
def test_what_cannot_be_spoken(program, text, message):
    with pytest.raises(WavedistillError, match=message):
        TextToSpeech()(text)


def test_without_the_program(monkeypatch):
    monkeypatch.setitem(sys.modules, "hibari", None)
    with pytest.raises(WavedistillError, match="no module hibari; type: pip install hibari-tts"):
        TextToSpeech()


def test_the_real_program():
    pytest.importorskip("hibari")
    audio = TextToSpeech()("The night train stopped.")
    assert audio.dtype == torch.float32 and 0.5 < len(audio) / SAMPLE_RATE < 5.0
    assert 0.01 < audio.abs().max() <= 1.0


def test_the_example(tmp_path, program, capsys, monkeypatch):
    checkpoint = save_pretrained(tiny_student(), tmp_path / "voice")
    out = tmp_path / "speech.wav"
    script = ROOT / "examples/tts/speak.py"
    monkeypatch.setattr(sys, "argv", [str(script), "two words", str(out), "--checkpoint", str(checkpoint)])
    runpy.run_path(str(script), run_name="__main__")
    table = capsys.readouterr().out
    assert "| text to speech at 24 kHz | hibari-tts |" in table and "2.0" in table
    assert len(load_audio(out)[0]) > 0
