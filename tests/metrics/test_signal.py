"""Metrics and anchors: what each must say of equal, louder, noisier and later waveforms."""

from __future__ import annotations

import importlib
import math

import numpy as np
import pytest
import torch
from helpers.synthetic_voice import RATE, voice

from wavedistill.audio.io import resample
from wavedistill.audio.mel import LogMelSpectrogram, MelConfig
from wavedistill.errors import WavedistillError
from wavedistill.evaluation import anchors
from wavedistill.metrics import packages, signal
from wavedistill.metrics.registry import measure, missing_packages


def with_noise(audio: torch.Tensor, decibels: float) -> torch.Tensor:
    noise = torch.randn(audio.shape, generator=torch.Generator().manual_seed(1))
    return audio + noise * audio.std() * 10 ** (-decibels / 20)


@pytest.mark.parametrize("package, name", [("pesq", "pesq_wb"), ("pystoi", "stoi"), ("pyworld", "mcd")])
def test_quality_falls_with_noise(package, name):
    pytest.importorskip(package)
    audio = voice()
    same, mild, strong = (
        getattr(signal, name)(audio, x, RATE) for x in (audio, with_noise(audio, 30), with_noise(audio, 5))
    )
    if name == "mcd":
        assert same == pytest.approx(0, abs=1e-9) and same < mild < strong
    else:
        assert same > mild > strong and same == pytest.approx({"pesq_wb": 4.64, "stoi": 1.0}[name], abs=0.01)


def test_mcd_does_not_count_level_but_counts_timbre():
    pytest.importorskip("pyworld")
    audio = voice()
    darker = torch.nn.functional.conv1d(audio[None, None], torch.tensor([[[0.3, 0.4, 0.3]]]), padding=1)[0, 0]
    assert signal.mcd(audio, 0.5 * audio, RATE) < 0.3
    assert signal.mcd(audio, darker, RATE) > 1.0


def test_mel_cepstrum_without_warping_is_the_cepstrum_and_with_it_keeps_c0_of_a_flat_spectrum():
    plain = signal._warping_matrix(40, 24, 0.0)
    np.testing.assert_allclose(plain, np.eye(40)[:, :25])
    flat = np.zeros(40)
    flat[0] = 1.7
    np.testing.assert_allclose(flat @ signal._warping_matrix(40, 24, 0.42), [1.7] + [0] * 24, atol=1e-12)


def test_warped_cepstrum_is_the_spectrum_on_the_warped_axis():
    alpha = 0.42
    frequency = np.linspace(0.1, 3.0, 7)
    cepstrum = 0.5 ** np.arange(30)
    warped_axis = frequency + 2 * np.arctan(alpha * np.sin(frequency) / (1 - alpha * np.cos(frequency)))
    warped = cepstrum @ signal._warping_matrix(30, 120, alpha)
    expected = np.cos(frequency[:, None] * np.arange(30)) @ cepstrum
    np.testing.assert_allclose(np.cos(warped_axis[:, None] * np.arange(121)) @ warped, expected, atol=1e-6)


def test_f0_error_measures_a_detuned_voice_in_cents():
    pytest.importorskip("swift_f0")
    audio = voice(pitch=120.0)
    assert signal.f0_error(audio, audio, RATE) == (0.0, 0.0, 0.0)
    error = signal.f0_error(audio, voice(pitch=120.0 * 2 ** (50 / 1200)), RATE)
    assert error.cents == pytest.approx(50, abs=10) and error.gross_percent == 0
    octave = signal.f0_error(audio, voice(pitch=240.0), RATE)
    assert octave.gross_percent > 90


def test_f0_error_counts_lost_voicing():
    pytest.importorskip("swift_f0")
    audio = voice()
    unvoiced = 0.05 * torch.randn(len(audio), generator=torch.Generator().manual_seed(2))
    error = signal.f0_error(audio, unvoiced, RATE)
    assert error.voicing_percent > 50 and math.isnan(error.cents) == math.isnan(error.gross_percent)


def test_pitch_error_measures_a_detuned_voice_in_cents_without_any_package():
    audio = voice(pitch=120.0)
    assert signal.pitch_error(audio, audio, RATE) == (0.0, 0.0, 0.0)
    error = signal.pitch_error(audio, voice(pitch=120.0 * 2 ** (50 / 1200)), RATE)
    assert error.cents == pytest.approx(50, abs=10) and error.gross_percent == 0
    assert signal.pitch_error(audio, voice(pitch=240.0), RATE).gross_percent > 90
    at_8khz = [resample(x, RATE, 8000) for x in (audio, voice(pitch=120.0 * 2 ** (50 / 1200)))]
    assert signal.pitch_error(*at_8khz, 8000).cents == pytest.approx(50, abs=10)


def test_pitch_error_counts_lost_voicing():
    audio = voice()
    unvoiced = 0.05 * torch.randn(len(audio), generator=torch.Generator().manual_seed(2))
    error = signal.pitch_error(audio, unvoiced, RATE)
    assert error.voicing_percent > 50 and math.isnan(error.cents) == math.isnan(error.gross_percent)


def test_both_estimators_agree_where_both_are_installed():
    pytest.importorskip("swift_f0")
    audio = voice(pitch=140.0)
    other = voice(pitch=140.0 * 2 ** (30 / 1200))
    ours, theirs = (measure(audio, other, RATE, [name]) for name in ("pitch", "f0"))
    assert ours["pitch_cents"] == pytest.approx(theirs["f0_cents"], abs=10)


def test_metrics_are_measured_by_name():
    audio = voice(0.5)
    assert measure(audio, 0.5 * audio, RATE, ["pitch", "level"]).keys() == {
        "pitch_cents",
        "pitch_voicing_percent",
        "pitch_gross_percent",
        "level_db",
        "log_spectral_distance",
        "clipped_percent",
    }
    with pytest.raises(WavedistillError, match="no metric 'mos'. Metrics: pesq_wb, .*pitch, level"):
        measure(audio, audio, RATE, ["mos"])


def test_level_clipping_and_log_spectral_distance():
    audio = voice()
    assert signal.level_difference(audio, audio * 10 ** (-3 / 20), RATE) == pytest.approx(-3, abs=1e-3)
    assert signal.log_spectral_distance(audio, audio, RATE) == 0
    assert signal.log_spectral_distance(audio, 2 * audio, RATE) == pytest.approx(20 * math.log10(2), abs=2.5)
    tones = [
        torch.sin(2 * math.pi * f * torch.arange(24000) / 24000) * torch.hann_window(24000) for f in (1000.0, 9000.0)
    ]
    sound, other = tones[0] + tones[1], tones[0] + 0.5 * tones[1]
    lower, all_of_it = (signal.log_spectral_distance(sound, other, 24000, band) for band in ((0.0, 4000.0), None))
    assert 2 * lower < all_of_it < measure(sound, other, 24000, ["upper"])["upper_lsd"]
    assert measure(sound, other, 22050, ["upper"])["upper_lsd"] > 0.0
    assert not measure(sound, other, 16000, ["upper"])
    assert signal.clipped_percent(torch.tensor([0.0, 0.5, 1.0, -1.0])) == 50


def test_lengths_are_cut_to_the_shorter_but_another_utterance_is_refused():
    audio = voice()
    assert signal.level_difference(audio, audio[:-200], RATE) == pytest.approx(0, abs=0.1)
    with pytest.raises(WavedistillError, match="same utterance"):
        signal.level_difference(audio, audio[: len(audio) // 2], RATE)
    with pytest.raises(WavedistillError, match="finite"):
        signal.level_difference(audio, audio * float("nan"), RATE)


def test_a_missing_package_is_named_with_the_extra(monkeypatch):
    real = importlib.import_module

    def without_pesq(name, *arguments):
        if name == "pesq":
            raise ImportError("No module named 'pesq'")
        return real(name, *arguments)

    monkeypatch.setattr(packages.importlib, "import_module", without_pesq)
    with pytest.raises(WavedistillError, match=r"pesq.*wavedistill\[eval\]"):
        signal.pesq_wb(voice(), voice(), RATE)
    assert missing_packages()["pesq_wb"] == "pesq"
    assert "pesq_wb" not in measure(voice(0.5), voice(0.5), RATE, ["pesq_wb", "level"])


def test_pesq_of_silence_is_nan():
    pytest.importorskip("pesq")
    assert math.isnan(signal.pesq_wb(torch.zeros(RATE), torch.zeros(RATE), RATE))


@pytest.mark.parametrize("centered", [False, True])
def test_griffin_lim_is_aligned_with_the_recording(centered):
    config = MelConfig(n_fft=512, win_length=512, hop_length=128, n_mels=40, centered=centered)
    audio = torch.zeros(64 * 128)
    audio[3000:3400] = with_noise(voice(0.025), 0)  # one burst: where it lies shows any shift
    made = anchors.griffin_lim(LogMelSpectrogram(config)(audio), config, iterations=20)
    assert len(made) == (64 * 128)
    energy = torch.stack([x.square() for x in (audio, made)])
    centres = (energy * torch.arange(len(audio))).sum(1) / energy.sum(1)
    assert abs(float(centres[0] - centres[1])) < 30
    assert signal.level_difference(audio, made, RATE) == pytest.approx(0, abs=3)


def test_mulaw_noise_is_that_of_eight_bits():
    audio = voice()
    error = anchors.mulaw8(audio) - audio
    signal_to_noise = 10 * math.log10(float(audio.square().mean() / error.square().mean()))
    assert 32 < signal_to_noise < 42  # telephony's 38 dB
    assert len(anchors.mulaw8(audio).unique()) <= 256


def test_world_keeps_length_and_pitch():
    pytest.importorskip("pyworld")
    audio = voice()
    made = anchors.world(audio, RATE)
    assert made.shape == audio.shape
    if "f0" not in missing_packages():
        assert signal.f0_error(audio, made, RATE).cents < 30
