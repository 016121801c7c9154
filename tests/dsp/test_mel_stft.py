"""The spectrum of a mel spectrogram: its frames, and the way back."""

import pytest
import torch
from helpers.tiny_models import MELS

from wavedistill.audio.mel import LogMelSpectrogram
from wavedistill.dsp.mel_stft import MelSTFT


@pytest.mark.parametrize("reflect", [False, True])
@pytest.mark.parametrize("name", MELS)
def test_the_inverse_of_a_wave_s_own_spectrum_is_the_wave(name, reflect):
    config = MELS[name]
    wave = torch.randn(2, 9 * config.hop_length, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    stft = MelSTFT(config, reflect).double()
    torch.testing.assert_close(stft.inverse(stft(wave)), wave, atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", MELS)
@pytest.mark.parametrize("frames", [1, 2, 30])
def test_its_frames_are_those_of_the_mel_spectrogram(name, frames):
    config = MELS[name]
    wave = torch.randn(1, frames * config.hop_length, generator=torch.Generator().manual_seed(0))
    front_end = LogMelSpectrogram(config)
    mel = MelSTFT(config, reflect=True)(wave).abs().pow(config.power) @ front_end.filters
    inner = (
        slice(None) if wave.shape[1] > config.n_fft else slice(0, 0)
    )  # shorter ones have no mirror image long enough
    torch.testing.assert_close(
        mel.clamp_min(config.floor).log().transpose(1, 2)[..., inner], front_end(wave)[..., inner], atol=1e-4, rtol=0
    )
    assert mel.shape[1] == frames
