"""Compiled loops over spectra give what their formulas give."""

import pytest
import torch

from wavedistill.audio.mel import MelConfig
from wavedistill.dsp.harmonic_source import _with_magnitude
from wavedistill.dsp.mel_contraction import MelSteps
from wavedistill.dsp.mel_stft import MelSTFT
from wavedistill.kernels.operators import computes_at_once

MELS = {
    "slaney": MelConfig(sample_rate=8000, n_fft=256, win_length=256, hop_length=64, n_mels=20, f_max=3500.0),
    "more filters than bins between them": MelConfig(
        sample_rate=8000, n_fft=64, win_length=64, hop_length=16, n_mels=24, f_max=4000.0
    ),
    "htk": MelConfig(
        sample_rate=8000, n_fft=128, win_length=96, hop_length=32, n_mels=16, norm=None, mel_scale="htk", f_max=4000.0
    ),
}


@pytest.mark.parametrize("name", MELS)
def test_weights_are_those_of_the_formula(name):
    """With gradient the filters are matrices."""
    config = MELS[name]
    steps = MelSteps(config, steps=2, damping=0.7)
    generator = torch.Generator().manual_seed(0)
    log_mel = torch.randn(2, config.n_mels, 9, generator=generator) - 4.0
    log_mel[0, :, 4] = -30.0  # silence: a ratio of nearly 0
    wave = 0.1 * torch.randn(2, 9 * config.hop_length, generator=generator)
    wave[1, : 4 * config.hop_length] = 0.0
    dense = steps(wave.requires_grad_(), log_mel)
    with torch.no_grad():
        assert computes_at_once(wave)
        torch.testing.assert_close(steps(wave, log_mel), dense, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(dense, wave, atol=1e-2)


@pytest.mark.parametrize("name", MELS)
def test_prompt_steps_are_those_of_the_formula(name):
    """With gradient the frames are summed by operators of torch."""
    config = MELS[name]
    steps = MelSteps(config, steps=3, damping=0.7)
    generator = torch.Generator().manual_seed(0)
    log_mel = torch.randn(2, config.n_mels, 13, generator=generator) - 4.0
    wave = 0.1 * torch.randn(2, 13 * config.hop_length, generator=generator)
    with torch.no_grad():
        at_once = steps.stream_step(wave, log_mel, steps.stream_state(low_latency=True), last=True)
    plain = steps.stream_step(wave, log_mel, steps.stream_state(low_latency=True), last=True)
    torch.testing.assert_close(at_once, plain, atol=1e-6, rtol=1e-5)


def test_magnitudes_and_overlaps_are_those_of_the_formula():
    """The harmonic source and the inverse transform, whose plain versions a graph for export takes."""
    generator = torch.Generator().manual_seed(1)
    spectrum = torch.randn(2, 7, 33, dtype=torch.complex64, generator=generator)
    spectrum[0, 2] = 0.0
    magnitude = torch.rand(2, 7, 33, generator=generator)
    stft = MelSTFT(MELS["more filters than bins between them"])
    tail = torch.randn(2, 40, generator=generator)
    with torch.no_grad():
        assert computes_at_once(spectrum)
        at_once = _with_magnitude(spectrum, magnitude)[0], stft.overlapped(spectrum), stft.overlapped(spectrum, tail)
        double = spectrum.to(torch.complex128)
        plain = (
            _with_magnitude(double, magnitude.double())[0],
            stft.overlapped(double),
            stft.overlapped(double, tail.double()),
        )
    for found, expected in zip(at_once, plain, strict=True):
        torch.testing.assert_close(found, expected.to(found.dtype), atol=1e-5, rtol=1e-5)
