"""Trimming: nothing of the speech is lost, and the cut is librosa's to the sample."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch

from wavedistill.audio.silence import trim_silence
from wavedistill.data.toy import toy_tone

RATE = 16000


def test_silence_is_trimmed_to_the_margin_and_no_speech_is_lost():
    speech = np.full(8000, 0.3, np.float32) * np.sign(np.sin(np.arange(8000) / 9)).astype(np.float32)
    audio = torch.from_numpy(np.pad(speech, round(0.7 * RATE)))
    trimmed = trim_silence(audio, RATE, top_db=45, margin_seconds=0.1)
    loud = np.flatnonzero(trimmed.numpy())
    assert len(loud) > 7900  # a few zeros of the sign at most
    assert loud[0] <= 0.1 * RATE and len(trimmed) - loud[-1] <= 0.1 * RATE + 200
    again = trim_silence(trimmed, RATE, top_db=45, margin_seconds=0.1)
    assert len(trimmed) - len(again) < 0.02 * RATE  # the frames fall elsewhere, no more


@pytest.mark.parametrize("rate", [2000, 8000, 16000, 22050, 44100])
@pytest.mark.parametrize("top_db", [10, 30, 45, 60])
def test_the_cut_is_librosas(rate, top_db):
    random = np.random.default_rng(rate + top_db)
    frame = max(64, rate // 32)
    margin = frame / 2 / rate  # of which nothing is left beside the frames
    for index in range(10):
        speech = toy_tone(0, index, seconds=0.8, sample_rate=rate).numpy()
        fade = np.exp(np.interp(np.arange(len(speech)), np.linspace(0, len(speech), 6), random.uniform(-9, 0, 6)))
        audio = (speech * fade).astype(np.float32)
        expected, _ = librosa.effects.trim(audio, top_db=top_db, frame_length=frame, hop_length=frame // 4)
        trimmed = trim_silence(torch.from_numpy(audio), rate, top_db=top_db, margin_seconds=margin)
        assert np.array_equal(trimmed.numpy(), expected)
