"""Pitch: exact on tones, silent on noise, robust against octave errors, fast."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from wavedistill.audio.pitch import estimate_f0
from wavedistill.errors import WavedistillError


def voice(f0: np.ndarray, rate: int, tilt: float = 1.0) -> torch.Tensor:
    """A harmonic tone along the F0 track ``f0`` (samples,) with formants near 700 and 1,800 Hz."""
    phase = 2 * np.pi * np.cumsum(f0) / rate
    wave = np.zeros(len(f0))
    for k in range(1, 40):
        hertz = k * f0
        gain = k**-tilt * (0.2 + np.exp(-(((hertz - 700) / 200) ** 2)) + 0.5 * np.exp(-(((hertz - 1800) / 300) ** 2)))
        wave += np.where(hertz < 0.45 * rate, gain, 0) * np.sin(k * phase + k * k)
    return torch.from_numpy(0.3 * wave / np.abs(wave).max()).float()


def cents(a, b):
    return 1200 * np.log2(np.asarray(a) / np.asarray(b))


@pytest.mark.parametrize("rate,hop", [(16000, 256), (22050, 256), (24000, 240), (16000, 80)])
@pytest.mark.parametrize("hertz", [65.0, 110.0, 233.0, 480.0])
def test_steady_voices_within_five_cents(rate, hop, hertz):
    f0 = estimate_f0(voice(np.full(rate, hertz), rate), rate, hop)
    assert f0.shape == (-(-rate // hop),) and f0.dtype == torch.float32
    inner = f0[4:-4]
    assert (inner > 0).all()
    assert np.abs(cents(inner, hertz)).max() < 5


def test_glides_are_followed_at_the_centres_of_the_frames():
    truth = 100 * 2 ** (np.arange(32000) / 32000)  # one octave in two seconds
    f0 = estimate_f0(voice(truth, 16000), 16000, 256)
    centres = np.minimum(np.arange(125) * 256 + 128, 31999)
    assert np.abs(cents(f0, truth[centres]))[4:-4].max() < 15


def test_noise_and_silence_are_unvoiced():
    noise = 0.1 * torch.randn(32000, generator=torch.Generator().manual_seed(0))
    assert (estimate_f0(noise, 16000, 256) > 0).float().mean() < 0.02
    assert (estimate_f0(torch.zeros(16000), 16000, 256) == 0).all()


def test_voiced_and_unvoiced_stretches_are_told_apart():
    noise = 0.02 * torch.randn(16000, generator=torch.Generator().manual_seed(0))
    f0 = estimate_f0(torch.cat([noise, voice(np.full(16000, 140.0), 16000), noise]), 16000, 250)
    assert (f0[:61] == 0).all() and (f0[67:125] > 0).all() and (f0[131:] == 0).all()


@pytest.mark.parametrize("tilt", [0.0, 1.0, 2.0])
def test_no_octave_errors_whatever_harmonic_is_loudest(tilt):
    for hertz in (80, 120, 180, 270, 400):
        f0 = estimate_f0(voice(np.full(8000, float(hertz)), 16000, tilt), 16000, 256)[3:-3]
        assert np.abs(cents(f0[f0 > 0], hertz)).max() < 50


def test_a_missing_fundamental_is_heard():
    time_ = np.arange(16000) / 16000
    wave = sum(np.sin(2 * np.pi * 150 * k * time_ + k) for k in (3, 4, 5, 6))
    f0 = estimate_f0(0.1 * wave, 16000, 256)[4:-4]
    assert np.abs(cents(f0, 150)).max() < 10


def test_level_does_not_matter():
    audio = voice(np.linspace(100, 200, 16000), 16000)
    assert torch.allclose(estimate_f0(audio, 16000, 256), estimate_f0(audio * 0.01, 16000, 256), rtol=1e-3)


@pytest.mark.parametrize("samples", [1, 3, 255, 256, 257])
def test_short_recordings_have_their_frames(samples):
    f0 = estimate_f0(torch.full((samples,), 0.1), 16000, 256)
    assert f0.shape == (-(-samples // 256),) and torch.isfinite(f0).all()


def test_bad_arguments_are_named():
    with pytest.raises(WavedistillError, match=r"\(2, 100\)"):
        estimate_f0(torch.zeros(2, 100), 16000, 256)
    with pytest.raises(WavedistillError, match="f_max"):
        estimate_f0(torch.zeros(100), 16000, 256, f_min=400, f_max=100)


def test_far_faster_than_real_time():
    audio = voice(np.full(160_000, 130.0), 16000)
    estimate_f0(audio[:16000], 16000, 256)
    start = time.process_time()
    estimate_f0(audio, 16000, 256)
    assert 10 / (time.process_time() - start) > 50  # 300 to 480 on a quiet core
