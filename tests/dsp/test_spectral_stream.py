"""Steps and projections over pieces of a wave: the whole's result, or in low latency the same for any pieces."""

from __future__ import annotations

import pytest
import torch
from helpers.chunks import random_lengths
from helpers.tiny_models import MELS

from wavedistill.audio.mel import LogMelSpectrogram, MelConfig
from wavedistill.dsp.harmonic_source import HarmonicSource, Pitch
from wavedistill.dsp.mel_contraction import MelSteps

FRAMES = 37


def wave_and_mel(config: MelConfig) -> tuple[torch.Tensor, torch.Tensor]:
    waves = 0.1 * torch.randn(2, 2, FRAMES * config.hop_length, generator=torch.Generator().manual_seed(0))
    return waves[0], LogMelSpectrogram(config)(waves[1])


def contracted(steps: MelSteps, wave: torch.Tensor, mel: torch.Tensor, lengths: list[int], low_latency: bool):
    """What came out of each piece."""
    state = steps.stream_state(low_latency)
    pieces = zip(wave.split([n * steps.mel.hop_length for n in lengths], 1), mel.split(lengths, 2), strict=True)
    out = [steps.stream_step(*piece, state, last=False) for piece in pieces]
    return [*out, steps.stream_step(wave[:, :0], mel[..., :0], state, last=True)]


@pytest.mark.parametrize("low_latency", [False, True])
@pytest.mark.parametrize("name", MELS)
def test_steps_are_the_same_for_any_pieces_and_wait_no_longer_than_stated(name, low_latency):
    steps = MelSteps(MELS[name], 3, 0.5)
    wave, mel = wave_and_mel(MELS[name])
    hop = MELS[name].hop_length
    whole = torch.cat(contracted(steps, wave, mel, [FRAMES], low_latency), 1)
    assert torch.allclose(whole, steps(wave, mel), atol=1e-6) != low_latency
    for seed in range(4):
        lengths = random_lengths(FRAMES, 7, seed)
        pieces = contracted(steps, wave, mel, lengths, low_latency)
        torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=2e-6, rtol=0)
        for count in range(1, len(pieces)):
            given = sum(lengths[:count]) * hop
            assert sum(piece.shape[1] for piece in pieces[:count]) >= given - steps.look_ahead(low_latency)
    assert steps.look_ahead(True) <= MELS[name].n_fft < steps.look_ahead(False)


@pytest.mark.parametrize("name", MELS)
def test_prompt_steps_come_nearly_as_near_to_the_mel(name):
    """Of white noise with its own level, a wave with another mel."""
    steps = MelSteps(MELS[name], 6, 0.75)
    wave, mel = wave_and_mel(MELS[name])
    front_end = LogMelSpectrogram(MELS[name])

    def distance(x: torch.Tensor) -> float:
        return float((front_end(x) - mel).abs().mean())

    prompt = torch.cat(contracted(steps, wave, mel, [FRAMES], low_latency=True), 1)
    assert distance(steps(wave, mel)) < distance(prompt) < 0.75 * distance(wave)


@pytest.mark.parametrize("low_latency", [False, True])
@pytest.mark.parametrize("name", MELS)
def test_the_source_is_the_same_for_any_pieces(name, low_latency):
    source = HarmonicSource(MELS[name], 2)
    _, mel = wave_and_mel(MELS[name])
    generator = torch.Generator().manual_seed(1)
    pitch = Pitch(
        *(scale * torch.rand(2, FRAMES + 2, generator=generator) + low for scale, low in ((100, 100), (1, 0)))
    )
    whole = source.step(pitch, mel, source.stream_state(low_latency), last=True)
    assert torch.equal(whole, source(pitch, mel)) != low_latency
    for seed in range(3):
        lengths = random_lengths(FRAMES, 7, seed)
        state = source.stream_state(low_latency)
        pitches = zip(*(part.split([lengths[0] + 2, *lengths[1:]], 1) for part in pitch), strict=True)
        pieces = [
            source.step(Pitch(*part), frames, state, last=index == len(lengths) - 1)
            for index, (part, frames) in enumerate(zip(pitches, mel.split(lengths, 2), strict=True))
        ]
        torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-5, rtol=0)
