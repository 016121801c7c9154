"""Projections onto a given mel: nearer to it, nothing where it is met, differentiable, streamed = whole."""

import pytest
import torch
from helpers.tiny_models import MEL, speech_batch, speech_like, tiny_student

from wavedistill.audio.mel import LogMelSpectrogram, MelConfig
from wavedistill.dsp.mel_projection import MelProjection
from wavedistill.errors import WavedistillError

CONFIGS = {
    "hops divide the window": MEL,
    "power, short window": MelConfig(
        sample_rate=8000, n_fft=128, win_length=96, hop_length=32, n_mels=12, f_max=4000.0, power=2.0
    ),
    "hops do not divide the window": MelConfig(
        sample_rate=8000, n_fft=128, win_length=128, hop_length=48, n_mels=12, f_max=3500.0
    ),
}


def distance(wave, log_mel, config):
    return float((LogMelSpectrogram(config)(wave.detach()) - log_mel).abs().mean())


@pytest.mark.parametrize("name", CONFIGS)
def test_each_projection_brings_the_mel_nearer(name):
    config = CONFIGS[name]
    length = 40 * config.hop_length
    log_mel = LogMelSpectrogram(config)(speech_like(2.0)[None, :length])
    noise = 0.1 * torch.randn(1, length, generator=torch.Generator().manual_seed(0))
    distances = [distance(MelProjection(config, n)(noise, log_mel), log_mel, config) for n in (0, 1, 2, 4, 8)]
    assert distances == sorted(distances, reverse=True)
    assert distances[3] < 0.3 * distances[0]


def test_a_recording_is_its_own_projection():
    wave, mel = speech_batch(2, 20)
    torch.testing.assert_close(MelProjection(MEL, 4)(wave[:, 0], mel), wave[:, 0], atol=1e-5, rtol=0)


def test_silence_stays_silent():
    mel = LogMelSpectrogram(MEL)(torch.zeros(1, 20 * 64))
    assert torch.equal(MelProjection(MEL, 3)(torch.zeros(1, 20 * 64), mel), torch.zeros(1, 20 * 64))


def test_bins_beyond_the_mel_s_bands_are_left_alone():
    config = MelConfig(sample_rate=8000, n_fft=256, win_length=256, hop_length=64, n_mels=12, f_max=2000.0)
    tone = torch.sin(2 * torch.pi * 3500 / 8000 * torch.arange(30 * 64))[None]
    log_mel = LogMelSpectrogram(config)(0.1 * tone) - 5.0
    projected = MelProjection(config, 2)(tone, log_mel)
    torch.testing.assert_close(projected[:, 512:-512], tone[:, 512:-512], atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", CONFIGS)
def test_gradient(name):
    config = CONFIGS[name]
    generator = torch.Generator().manual_seed(0)
    wave = torch.randn(1, 5 * config.hop_length, dtype=torch.float64, generator=generator).requires_grad_()
    log_mel = torch.randn(1, config.n_mels, 5, dtype=torch.float64, generator=generator)
    projection = MelProjection(config, 2).double()
    directions = torch.randn(3, wave.shape[1], dtype=torch.float64, generator=generator)
    assert torch.autograd.gradcheck(lambda w: directions @ projection(w, log_mel)[0], (wave,))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("frames_per_chunk", [1, 7, 50, 60, 100])
def test_streamed_equals_whole(name, frames_per_chunk):
    config = CONFIGS[name]
    projection = MelProjection(CONFIGS[name], 2)
    hop = config.hop_length
    generator = torch.Generator().manual_seed(0)
    wave = 0.1 * torch.randn(1, 60 * hop, generator=generator)
    log_mel = LogMelSpectrogram(config)(0.1 * torch.randn(1, 60 * hop, generator=generator))
    chunks = list(
        projection.stream(iter(wave.unsqueeze(1).split(frames_per_chunk * hop, dim=2)), log_mel, frames_per_chunk)
    )
    assert {chunk.shape[2] for chunk in chunks[:-1]} <= {frames_per_chunk * hop}
    torch.testing.assert_close(torch.cat(chunks, 2)[:, 0], projection(wave, log_mel), atol=1e-6, rtol=0)


def test_a_student_says_the_projection_of_its_flows_audio_whose_density_it_keeps():
    plain = tiny_student()
    refining = tiny_student(mel_projections=2)
    _, mel = speech_batch(2, 12)
    noise = torch.randn(2, 1, 12 * 64, generator=torch.Generator().manual_seed(0))
    own = plain.rsample(noise, mel)
    refined = refining.rsample(noise, mel)
    assert own.refined is own.audio
    torch.testing.assert_close(refined.audio, own.audio)
    torch.testing.assert_close(refining.own_log_prob(refined), plain.own_log_prob(own))
    torch.testing.assert_close(refined.refined[:, 0], MelProjection(MEL, 2)(own.audio[:, 0], mel))
    torch.testing.assert_close(refining.sample(mel, noise=noise), refined.refined)
    assert distance(refined.refined[:, 0], mel, MEL) < 0.8 * distance(refined.audio[:, 0], mel, MEL)


@pytest.mark.parametrize("frames_per_chunk", [1, 5, 40])
def test_a_student_streams_its_projections(frames_per_chunk):
    model = tiny_student(mel_projections=2)
    mel = speech_batch(1, 30)[1]
    chunks = list(model.stream(mel, frames_per_chunk, seed=1))
    torch.testing.assert_close(torch.cat(chunks, 2), model.sample(mel, seed=1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", [{"mel_projections": -1}, {"mel": None, "mel_projections": 2}])
def test_impossible_numbers_of_projections_are_refused(options):
    with pytest.raises(WavedistillError, match="mel_projections must be at least 0, and 0 for a model without mel"):
        tiny_student(**options)
