"""The contract that teacher, student and one-stage flow share."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny_models import MEL, speech_batch, tiny_flow, tiny_student, tiny_teacher

from wavedistill.errors import WavedistillError
from wavedistill.models.base import WaveformModel

MODELS = {"teacher": tiny_teacher, "student": tiny_student, "flow": tiny_flow}


@pytest.mark.parametrize("role", MODELS)
def test_a_model_says_what_it_is_and_does(role):
    model = MODELS[role]()
    assert isinstance(model, WaveformModel) and model.role == role
    assert model.one_pass == (role != "teacher")
    assert model.device == torch.device("cpu")


@pytest.mark.parametrize("role", ["teacher", "flow"])
def test_log_prob_is_that_of_whole_waveforms(role):
    model = MODELS[role]()
    audio, mel = speech_batch(2, frames=6)
    with torch.no_grad():
        found = model.log_prob(audio, mel)
        assert found.shape == (2,) and found.dtype in (torch.float32, torch.float64)
        assert torch.equal(model.log_prob(audio, mel), found)  # always the same noise of dequantisation
        other = model.log_prob(audio, mel, generator=torch.Generator().manual_seed(1))
        assert not torch.equal(other, found)
        alone = torch.cat(
            [model.log_prob(audio[:1], mel[:1], dequantize=False), model.log_prob(audio[1:], mel[1:], dequantize=False)]
        )
        torch.testing.assert_close(model.log_prob(audio, mel, dequantize=False), alone, rtol=1e-5, atol=1e-3)


def test_a_teachers_log_prob_is_the_sum_over_samples():
    model = tiny_teacher()
    audio, mel = speech_batch(2, frames=6)
    with torch.no_grad():
        terms = model.log_prob_per_sample(audio, mel)
        assert terms.shape == (2, 6 * MEL.hop_length)
        assert torch.equal(model.log_prob(audio, mel), terms.double().sum(1))


def test_a_student_refuses_a_recording_and_says_what_to_use():
    audio, mel = speech_batch(1, frames=4)
    with pytest.raises(WavedistillError, match="student_likelihood.*own_log_prob"):
        tiny_student().log_prob(audio, mel)


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_noise_drawn_for_a_seed_is_what_sample_draws(role):
    model = MODELS[role]()
    _, mel = speech_batch(2, frames=5)
    noise = model.draw_noise(2, 5 * MEL.hop_length, seed=4)
    assert noise.shape == (2, 1, 5 * MEL.hop_length)
    assert torch.equal(model.sample(mel, noise=noise), model.sample(mel, seed=4))
    assert torch.equal(model.draw_noise(1, 5 * MEL.hop_length, seed=5), noise[1:])
    assert torch.equal(model.draw_noise(2, 5 * MEL.hop_length, seed=[5, 4]), noise.flip(0))


@pytest.mark.parametrize("distribution", ["mol", "mulaw"])
def test_other_distributions_draw_two_uniform_numbers_a_sample(distribution):
    options = {"mol": {"num_mixtures": 3}, "mulaw": {"num_classes": 32, "linear_order": 0}}[distribution]
    noise = tiny_teacher(distribution=distribution, **options).draw_noise(3, 100, seed=0)
    assert noise.shape == (3, 2, 100) and 0.0 <= noise.min() and noise.max() <= 1.0


def test_noise_of_a_part_of_a_frame():
    assert torch.equal(tiny_flow().draw_noise(1, 100, 0), tiny_flow().draw_noise(1, 128, 0)[..., :100])
