"""The mel of one setting from that of another."""

from __future__ import annotations

import pytest
import torch

from wavedistill.audio.mel import LogMelSpectrogram, MelConfig
from wavedistill.audio.mel_between import mel_between


def mean_mel(config: MelConfig, sound: torch.Tensor) -> torch.Tensor:
    return LogMelSpectrogram(config)(sound).mean(-1)


@pytest.mark.parametrize("wanted", ["wavedistill-16khz", "ljspeech-hifigan", "tacotron2"])
def test_steady_noise_has_the_mel_that_the_other_settings_say(wanted):
    given, wanted = MelConfig.preset("vocos-24khz"), MelConfig.preset(wanted)
    noise = torch.randn(24000 * 40, generator=torch.Generator().manual_seed(0))
    # noise of one level per Hz is the louder the more Hz a rate holds
    heard = noise * (wanted.sample_rate / given.sample_rate) ** 0.5
    matrix, offset = mel_between(given, wanted)
    estimate = matrix @ mean_mel(given, noise) + offset
    assert (estimate - mean_mel(wanted, heard)).abs().max() < 0.1
    torch.testing.assert_close(matrix.sum(1), torch.ones(wanted.n_mels))


def test_the_same_settings_say_the_same():
    config = MelConfig.preset("vocos-24khz")
    matrix, offset = mel_between(config, config)
    torch.testing.assert_close(matrix, torch.eye(config.n_mels))
    torch.testing.assert_close(offset, torch.zeros(config.n_mels), atol=1e-5, rtol=0.0)


def test_magnitudes_and_powers_are_not_compared():
    with pytest.raises(ValueError, match="only mels of the same power"):
        mel_between(MelConfig(), MelConfig(power=2.0))
