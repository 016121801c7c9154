"""Mels of other settings are refused or named, and those of real speech are not."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import soundfile
import torch
from helpers.paths import RECIPES
from helpers.tiny_models import MEL, tiny_student

from wavedistill import Vocoder
from wavedistill.audio.io import resample
from wavedistill.audio.mel import MEL_PRESETS, LogMelSpectrogram, MelConfig
from wavedistill.audio.mel_check import check_mel, mel_suspicion
from wavedistill.errors import WavedistillError

CLIPS = sorted((RECIPES / "quickstart" / "clips" / "audio").glob("*.flac"))[::8]


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda mel: mel.T, "transposed"),
        (lambda mel: mel[:70], "70 bands"),
        (lambda mel: mel / 0.1151, "decibels"),
        (lambda mel: mel.exp(), "linear"),
        (lambda mel: mel / 2.302585, "base-10"),
        (lambda mel: mel * float("nan"), "NaN"),
        (lambda mel: mel[:, :0], "no frames"),
        (lambda mel: mel[0], "shape"),
    ],
)
def test_usual_mistakes_are_named(spoil, message):
    audio = torch.cat([torch.zeros(4000), 0.3 * torch.randn(4000, generator=torch.Generator().manual_seed(0))])
    mel = LogMelSpectrogram()(audio)
    assert check_mel(mel, MelConfig()) is mel
    with pytest.raises(WavedistillError, match=message):
        check_mel(spoil(mel), MelConfig())


def _mel(clip, preset: str, gain: float = 1.0) -> torch.Tensor:
    audio, sample_rate = soundfile.read(clip, dtype="float32")
    config = MelConfig.preset(preset)
    return LogMelSpectrogram(config)(resample(torch.from_numpy(audio), sample_rate, config.sample_rate) * gain)


@pytest.mark.parametrize("gain", [1.0, 0.03])
@pytest.mark.parametrize("preset", MEL_PRESETS)
@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.stem)
def test_right_mels_of_speech_pass(clip, preset, gain):
    mel = _mel(clip, preset, gain)
    assert mel_suspicion(check_mel(mel, MelConfig.preset(preset)), MelConfig.preset(preset)) is None


WRONG = {
    "base-10": lambda mel: mel / math.log(10.0),
    "decibels": lambda mel: mel * 20.0 / math.log(10.0),
    "mean 0": lambda mel: (mel - mel.mean()) / mel.std(),
    "mean 0, by band": lambda mel: (mel - mel.mean(1, keepdim=True)) / mel.std(1, keepdim=True),
    "-4, 4": lambda mel: (8.0 * (mel * 8.686 - 20.0 + 100.0) / 100.0 - 4.0).clamp(-4.0, 4.0),
    "linear": lambda mel: ((mel * 8.686 - 20.0 + 100.0) / 100.0).clamp(0.0, 1.0),
    "int16": lambda mel: mel + math.log(32768.0),
}


@pytest.mark.parametrize("gain", [1.0, 0.1])
@pytest.mark.parametrize("preset", MEL_PRESETS)
@pytest.mark.parametrize("mistake", WRONG)
@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.stem)
def test_wrong_mels_of_speech_are_named(clip, mistake, preset, gain):
    config = MelConfig.preset(preset)
    mel = WRONG[mistake](_mel(clip, preset, gain))
    try:
        said = mel_suspicion(check_mel(mel, config), config)
    except WavedistillError as error:
        said = str(error)
    assert said is not None
    if "mean 0" not in mistake and mistake != "int16":  # of these a share is too loud for any waveform: that is said
        assert mistake in said


def test_advice_brings_the_right_mel_back():
    """What is advised for the two mistakes that are undone without more than the mel."""
    mel = _mel(CLIPS[0], "wavedistill-16khz")
    torch.testing.assert_close(mel / math.log(10.0) * 2.3026, mel, atol=1e-3, rtol=0)
    torch.testing.assert_close(mel * 20.0 / math.log(10.0) * 0.1151, mel, atol=5e-3, rtol=0)


def test_another_presets_floor_is_named():
    config = MelConfig.preset("vocos-24khz")
    mel = _mel(CLIPS[0], "vocos-24khz", 0.1).clamp_min(math.log(1e-5))
    assert "its floor is -11.51, that of the preset wavedistill-16khz" in mel_suspicion(mel, config)


def test_number_of_bands_names_the_presets_that_have_it():
    with pytest.raises(WavedistillError, match=r"mel has 100 bands .* \(100 have: vocos-24khz\)"):
        check_mel(torch.zeros(100, 30) - 3.0, MelConfig())


def test_no_waveform_is_louder_than_the_bound():
    """The loudest that a search over full-scale waves finds stays below, and a third louder is refused."""
    config = MelConfig()
    time = torch.arange(16000) / 16000
    waves = [torch.sin(2 * math.pi * hertz * time) for hertz in np.linspace(50, 7950, 80)]
    waves += [wave.sign() for wave in waves] + [
        torch.ones(16000),
        torch.ones(16000) * torch.tensor([1, -1]).repeat(8000),
    ]
    mels = torch.stack([LogMelSpectrogram(config)(wave) for wave in waves])
    assert check_mel(mels, config) is mels
    with pytest.raises(WavedistillError, match="louder than any waveform"):
        check_mel(mels + math.log(4.0), config)


def test_a_voice_says_what_its_mel_looks_like(caplog):
    voice = Vocoder(tiny_student())
    mel = torch.randn(MEL.n_mels, 200, generator=torch.Generator().manual_seed(0)) * 2.5 - 7.0
    with caplog.at_level(logging.WARNING):
        voice(mel.clamp(math.log(MEL.floor), -0.5))
        assert not caplog.records
        voice(mel.clamp(-11.0, -0.5) / math.log(10.0))
    assert "the mel looks like a base-10 logarithm: pass mel * 2.3026" in caplog.text
