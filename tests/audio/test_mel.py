import librosa
import numpy as np
import pytest
import torch

from wavedistill.audio.mel import MEL_PRESETS, LogMelSpectrogram, MelConfig, check_mel
from wavedistill.errors import WavedistillError


@pytest.mark.parametrize("name", MEL_PRESETS)
def test_equals_librosa(name):
    config = MelConfig.preset(name)
    audio = 0.1 * torch.randn(9000, generator=torch.Generator().manual_seed(0))
    mel = LogMelSpectrogram(config)(audio).numpy()
    signal = audio.numpy()
    if not config.centered:
        side = (config.n_fft - config.hop_length) // 2
        signal = np.pad(np.pad(signal, (0, -len(signal) % config.hop_length)), (side, side), mode="reflect")
    expected = librosa.feature.melspectrogram(
        y=signal,
        sr=config.sample_rate,
        n_fft=config.n_fft,
        hop_length=config.hop_length,
        win_length=config.win_length,
        n_mels=config.n_mels,
        fmin=config.f_min,
        fmax=config.f_max,
        power=config.power,
        norm=config.norm,
        htk=config.mel_scale == "htk",
        center=config.centered,
        pad_mode="reflect",
    )
    assert mel.shape == expected.shape
    np.testing.assert_allclose(mel, np.log(np.maximum(expected, config.floor)), atol=2e-5)


@pytest.mark.parametrize("samples, frames", [(256, 1), (257, 2), (1, 1), (3, 1), (2560, 10)])
def test_every_frame_stands_for_hop_length_samples(samples, frames):
    front_end = LogMelSpectrogram()
    assert front_end(torch.randn(2, samples)).shape == (2, 80, frames)
    assert front_end.num_frames(samples) == frames


def test_batch_equals_single():
    front_end = LogMelSpectrogram()
    audio = torch.randn(3, 2000)
    torch.testing.assert_close(front_end(audio)[1], front_end(audio[1]))


def test_empty_waveform_is_refused():
    with pytest.raises(WavedistillError, match="empty"):
        LogMelSpectrogram()(torch.zeros(0))


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


@pytest.mark.parametrize("settings", [dict(hop_length=0), dict(win_length=2048), dict(f_max=9000.0), dict(f_min=-1.0)])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(WavedistillError, match="mel settings need"):
        MelConfig(**settings)
