from dataclasses import replace

import librosa
import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from helpers.paths import RECIPES

from wavedistill.audio.mel import MEL_PRESETS, LogMelSpectrogram, MelConfig
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


WINDOW = torch.hann_window(1024).double().numpy()
"""As torch rounds it, in the origins, too: the rounding of a window shows in quiet tiles beside loud ones."""


def _speech(samples: int) -> np.ndarray:
    """Real speech with a silent beginning: quiet tiles are where formulas differ."""
    audio, _ = soundfile.read(
        RECIPES / "quickstart" / "clips" / "audio" / "en_cannot-complete-as-dialed.flac", dtype="float32"
    )
    return np.concatenate([np.zeros(4096, np.float32), audio])[:samples]


def _exact(config: MelConfig, audio: np.ndarray) -> np.ndarray:
    """Ours in float64: in float32 quiet tiles beside loud ones are off by 1e-4, here and in the origins."""
    return LogMelSpectrogram(config).double()(torch.from_numpy(audio).double()).numpy()


def _slaney_filters(sample_rate: float, n_fft: int, n_mels: int, f_max: float) -> np.ndarray:
    return librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels, fmin=0.0, fmax=f_max)


def _spectra(audio: np.ndarray, before: int, after: int) -> np.ndarray:
    """Complex spectra (frames, 513) in float64, of frames of 1,024 a hop of 256 apart, written out."""
    padded = np.pad(audio.astype(np.float64), (before, after), mode="reflect")
    starts = range(0, len(padded) - 1024 + 1, 256)
    return np.stack([np.fft.rfft(padded[start : start + 1024] * WINDOW) for start in starts])


def test_hifigans_preset_is_hifigans_mel():
    """meldataset.mel_spectrogram: mirrored by 384 samples, sqrt(re^2 + im^2 + 1e-9), log of at least 1e-5."""
    audio = _speech(256 * 120)
    magnitude = np.sqrt(np.abs(_spectra(audio, 384, 384)) ** 2 + 1e-9)
    expected = np.log(np.maximum(magnitude @ _slaney_filters(22050, 1024, 80, 8000.0).T, 1e-5)).T
    config = MelConfig.preset("ljspeech-hifigan")
    np.testing.assert_allclose(_exact(config, audio), expected, atol=2e-5)
    assert np.abs(_exact(replace(config, epsilon=0.0), audio) - expected).max() > 1e-3  # what was left out before


def test_tacotrons_preset_is_tacotrons_mel():
    """TacotronSTFT: mirrored by half a frame, the Fourier transform as a convolution, log of at least 1e-5."""
    audio = _speech(256 * 120)
    padded = np.pad(audio.astype(np.float64), 512, mode="reflect")
    angle = 2.0 * np.pi * np.outer(np.arange(513), np.arange(1024)) / 1024
    frames = np.lib.stride_tricks.sliding_window_view(padded, 1024)[::256]
    real = frames @ (np.cos(angle) * WINDOW).T
    imaginary = frames @ (-np.sin(angle) * WINDOW).T
    magnitude = np.sqrt(real**2 + imaginary**2)
    expected = np.log(np.maximum(magnitude @ _slaney_filters(22050, 1024, 80, 8000.0).T, 1e-5)).T
    np.testing.assert_allclose(_exact(MelConfig.preset("tacotron2"), audio), expected, atol=2e-5)


def test_vocos_preset_is_vocos_mel():
    """MelSpectrogramFeatures: torchaudio's MelSpectrogram(24000, 1024, hop 256, 100 bands, center, power 1), log of at
    least 1e-7.
    """
    audio = _speech(256 * 120)
    hertz = 700.0 * (10.0 ** (np.linspace(0.0, 2595.0 * np.log10(1.0 + 12000.0 / 700.0), 102) / 2595.0) - 1.0)
    bins = np.arange(513) * 24000 / 1024
    rising = (bins - hertz[:-2, None]) / (hertz[1:-1] - hertz[:-2])[:, None]
    falling = (hertz[2:, None] - bins) / (hertz[2:] - hertz[1:-1])[:, None]
    filters = np.maximum(0.0, np.minimum(rising, falling))
    expected = np.log(np.maximum(np.abs(_spectra(audio, 512, 512)) @ filters.T, 1e-7)).T
    np.testing.assert_allclose(_exact(MelConfig.preset("vocos-24khz"), audio), expected, atol=1e-4)
    found = LogMelSpectrogram(MelConfig.preset("vocos-24khz"))(torch.from_numpy(audio))
    theirs = torchaudio.transforms.MelSpectrogram(24000, 1024, hop_length=256, n_mels=100, center=True, power=1)
    np.testing.assert_allclose(found, theirs(torch.from_numpy(audio)).clip(min=1e-7).log(), atol=1e-5)


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
    "settings",
    [
        dict(hop_length=0),
        dict(win_length=2048),
        dict(f_max=9000.0),
        dict(f_min=-1.0),
        dict(f_max=0.5),
        dict(f_min=15.7, f_max=31.2),
    ],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(WavedistillError, match="mel settings need"):
        MelConfig(**settings)
