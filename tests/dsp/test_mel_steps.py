"""Steps towards a given mel: nearer to it, nothing where it is met, weaker where it is quiet, streamed = whole."""

import math

import pytest
import torch
from helpers.tiny_models import MEL, MELS, speech_batch, speech_like

from wavedistill.audio.mel import LogMelSpectrogram, MelConfig
from wavedistill.dsp.mel_contraction import ROUNDING, MelSteps
from wavedistill.errors import WavedistillError


def distance(wave, log_mel, config):
    return float((LogMelSpectrogram(config)(wave) - log_mel).abs().mean())


@pytest.mark.parametrize("name", MELS)
def test_each_step_brings_the_mel_nearer(name):
    config = MELS[name]
    length = 40 * config.hop_length
    log_mel = LogMelSpectrogram(config)(speech_like(2.0)[None, :length])
    noise = 0.1 * torch.randn(1, length, generator=torch.Generator().manual_seed(0))
    distances = [distance(noise, log_mel, config)]
    distances += [distance(MelSteps(config, steps, 0.75)(noise, log_mel), log_mel, config) for steps in (1, 2, 4, 8)]
    assert distances == sorted(distances, reverse=True)
    assert distances[4] < 0.3 * distances[0]


def test_a_recording_stays_as_it_is():
    wave, mel = speech_batch(2, 20)
    torch.testing.assert_close(MelSteps(MEL, 4, 0.75)(wave[:, 0], mel), wave[:, 0], atol=1e-5, rtol=0)


def test_silence_stays_silent():
    mel = LogMelSpectrogram(MEL)(torch.zeros(1, 20 * 64))
    assert torch.equal(MelSteps(MEL, 3, 0.75)(torch.zeros(1, 20 * 64), mel), torch.zeros(1, 20 * 64))


def test_bins_beyond_the_mel_s_bands_are_left_alone():
    config = MelConfig(sample_rate=8000, n_fft=256, win_length=256, hop_length=64, n_mels=12, f_max=2000.0)
    tone = torch.sin(2 * torch.pi * 3500 / 8000 * torch.arange(30 * 64))[None]
    log_mel = LogMelSpectrogram(config)(0.1 * tone) - 5.0
    changed = MelSteps(config, 2, 0.75)(tone, log_mel)
    torch.testing.assert_close(changed[:, 512:-512], tone[:, 512:-512], atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", MELS)
def test_a_tile_s_level_goes_its_share_of_the_way(name):
    """All of them higher by the same small factor: one step shrinks it by 1 - damping * strength."""
    config = MELS[name]
    wave = 0.1 * torch.randn(1, 30 * config.hop_length, generator=torch.Generator().manual_seed(0)).double()
    log_mel = LogMelSpectrogram(config).double()(wave)
    steps = MelSteps(config, 1, 0.5).double()
    strength = steps.strength(log_mel)
    assert float(strength.min()) == 1.0
    deviation = LogMelSpectrogram(config).double()(steps(1.01 * wave, log_mel)) - log_mel
    deviation = deviation[:, 2:-2]  # the outer ones overlap with bins of no band
    torch.testing.assert_close(
        deviation, torch.full_like(deviation, 0.5 * config.power * math.log(1.01)), rtol=0.03, atol=0
    )


@pytest.mark.parametrize("name", MELS)
def test_strength(name):
    """From none for the quietest tiles to all of it, so that rounding is amplified to 0.3 nats at most."""
    config = MELS[name]
    noise = ROUNDING * torch.randn(1, 4000 * config.hop_length, generator=torch.Generator().manual_seed(0))
    steps = MelSteps(config, 6, 0.6)
    spectrum = steps.stft(noise)
    level = (spectrum.abs().pow(config.power) @ steps.filters).mean((0, 1))
    some = level > 0
    torch.testing.assert_close(level[some], steps.rounding[some], rtol=0.03, atol=0)
    loudness = torch.tensor([1e-6, 1.0, 10.0, 100.0, 1e6])
    strength = steps.strength((loudness * steps.rounding[:, None]).log()[None])
    gain = (1.0 - 0.6 * strength).pow(-6)
    expected = (1.0 + 0.3 * loudness).clamp_max((1.0 - 0.6) ** -6).expand_as(gain)
    torch.testing.assert_close(gain, expected, rtol=1e-4, atol=0)
    assert (strength[..., 0] < 1e-6).all() and (strength[..., -1] == 1.0).all()


@pytest.mark.parametrize("name", MELS)
def test_gradient(name):
    config = MELS[name]
    generator = torch.Generator().manual_seed(0)
    wave = torch.randn(1, 5 * config.hop_length, dtype=torch.float64, generator=generator).requires_grad_()
    log_mel = torch.randn(1, config.n_mels, 5, dtype=torch.float64, generator=generator).requires_grad_()
    steps = MelSteps(config, 2, 0.75).double()
    directions = torch.randn(3, wave.shape[1], dtype=torch.float64, generator=generator)
    assert torch.autograd.gradcheck(lambda w, m: directions @ steps(w, m)[0], (wave, log_mel), fast_mode=True)


@pytest.mark.parametrize("name", MELS)
@pytest.mark.parametrize("frames_per_chunk", [1, 7, 50, 60, 100])
def test_streamed_equals_whole(name, frames_per_chunk):
    config = MELS[name]
    steps = MelSteps(config, 2, 0.75)
    hop = config.hop_length
    generator = torch.Generator().manual_seed(0)
    wave = 0.1 * torch.randn(1, 60 * hop, generator=generator)
    log_mel = LogMelSpectrogram(config)(0.1 * torch.randn(1, 60 * hop, generator=generator))
    pieces = list(zip(wave.split(frames_per_chunk * hop, 1), log_mel.split(frames_per_chunk, 2), strict=True))
    state = steps.stream_state()
    chunks = [steps.stream_step(*piece, state, index == len(pieces) - 1) for index, piece in enumerate(pieces)]
    given = (len(pieces) - 1) * frames_per_chunk * hop
    assert sum(chunk.shape[1] for chunk in chunks[:-1]) >= given - steps.look_ahead()
    torch.testing.assert_close(torch.cat(chunks, 1), steps(wave, log_mel), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("steps", "damping"), [(0, 0.5), (3, 0.0), (3, 1.0), (3, -0.1)])
def test_impossible_steps_are_refused(steps, damping):
    with pytest.raises(WavedistillError, match="must be 1 or more and their damping between 0 and 1"):
        MelSteps(MEL, steps, damping)
