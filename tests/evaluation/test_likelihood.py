"""Nats per sample: of students' and teachers' own samples, and of recordings under a student, through its inverse."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from helpers.tiny_models import FRONTS, MEL, speech_batch, speech_like, tiny_student, tiny_teacher, unstable_student

from wavedistill.evaluation.likelihood import amplitude, divergence_applies, student_divergence, teacher_nats
from wavedistill.evaluation.nats import Recordings
from wavedistill.evaluation.student_likelihood import LATENT_LIMIT, student_likelihood
from wavedistill.evaluation.systems import Clip, LoadedModel, on_grid
from wavedistill.models.base import dequantized

STUDENTS = {
    **{f"front {name}": dict(front=front) for name, front in FRONTS.items()},
    "no source": dict(source_order=0),
    "no mel": dict(mel=None, source_order=0),
    "speaker without mel": dict(mel=None, source_order=0, speakers=["a", "b"]),
    "mel and speaker": dict(speakers=["a", "b"]),
    "patches": dict(patch_size=8, linear_order=3, front=FRONTS["mel-prediction"]),
    "patches of sub-bands": dict(patch_size=2, linear_order=3, front=FRONTS["sub-bands"]),
}


def conditions(model, frames=3, batch=2):
    """mel and speaker of a batch, as the model takes them."""
    mel = speech_batch(batch, frames)[1] if model.config.mel else None
    return mel, torch.arange(batch) % 2 if model.config.speakers else None


@pytest.mark.parametrize("kind", STUDENTS)
def test_inverse_finds_the_noise_and_the_density_of_the_students_own_samples(kind):
    student = tiny_student(**STUDENTS[kind])
    mel, speaker = conditions(student)
    exact = tiny_student(**STUDENTS[kind]).double()
    noise = torch.randn(2, 1, 3 * MEL.hop_length, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        output = exact.rsample(noise, None if mel is None else mel.double(), speaker)
    found = student_likelihood(student, output.audio, mel, speaker, dequantize=False)
    torch.testing.assert_close(found.latent, noise[:, 0], rtol=0, atol=1e-8)
    torch.testing.assert_close(found.log_prob, exact.own_log_prob(output), rtol=0, atol=1e-7)
    assert found.trusted.all() and (found.steady_samples == 3 * MEL.hop_length).all()
    assert (found.backward_error < 1e-12).all() and (found.sensitivity > 1e-8).all()


@pytest.mark.parametrize(
    "kind", ["front mel-prediction", "no mel", "patches", "front sub-bands", "patches of sub-bands"]
)
def test_likelihood_of_outside_audio_is_that_of_the_autograd_jacobian(kind):
    student = tiny_student(**STUDENTS[kind])
    audio, mel = speech_batch(1, 1)
    mel = mel if student.config.mel else None
    found = student_likelihood(student, audio, mel, dequantize=False)
    exact = student.double()
    given = None if mel is None else mel.double()
    jacobian = torch.autograd.functional.jacobian(
        lambda z: exact.rsample(z.reshape(1, 1, -1), given).audio.flatten(), found.latent.clone().flatten()
    )
    expected = -0.5 * float(found.latent.square().sum() + MEL.hop_length * math.log(2 * math.pi)) - float(
        torch.linalg.slogdet(jacobian).logabsdet
    )
    assert float(found.log_prob.sum()) == pytest.approx(expected, abs=1e-7)
    assert found.trusted.all()


def test_items_do_not_depend_on_their_batch_and_dequantisation_is_the_teachers():
    student = tiny_student(front=FRONTS["mel-prediction"])
    (audio, mel) = speech_batch(2, 3)
    both = student_likelihood(student, audio, mel)
    second = student_likelihood(student, audio[1:], mel[1:])
    torch.testing.assert_close(both.log_prob[1:], second.log_prob, rtol=0, atol=1e-8)
    torch.testing.assert_close(both.sensitivity[1:], second.sensitivity, rtol=1e-6, atol=0)
    plain = student_likelihood(
        student, dequantized(audio[:1]), mel[:1], dequantize=False
    )  # the noise that WaveNet.log_prob adds
    torch.testing.assert_close(both.log_prob[:1], plain.log_prob, rtol=0, atol=1e-8)


def test_an_unstable_inverse_is_not_trusted():
    audio, mel = speech_batch(1, 3)
    found = student_likelihood(unstable_student(), audio, mel)
    assert not found.trusted.any() and float(found.sensitivity) > 10
    steady = int(found.steady_samples)
    assert 0 < steady < 3 * MEL.hop_length and float(found.latent[0, :steady].abs().max()) <= LATENT_LIMIT


def test_an_outlier_alone_is_not_trusted():
    """A click far outside the student's range: the inverse is exact and steady, and z is no noise."""
    student = tiny_student()
    (audio, mel) = speech_batch(1, 3)
    audio[0, 0, 100] = 2e4
    found = student_likelihood(student, audio, mel, dequantize=False)
    assert not found.trusted.any() and int(found.steady_samples) == 100
    assert float(found.latent.abs().max()) > LATENT_LIMIT and float(found.sensitivity) < 1e-2


@pytest.mark.parametrize("teacher_options", [{}, dict(distribution="mol", num_mixtures=2)])
@pytest.mark.parametrize(
    "options", [dict(front=FRONTS["mel-prediction"]), dict(front=FRONTS["sub-bands"]), dict(mel=None)]
)
def test_nats_of_own_samples_agree_with_their_closed_forms(options, teacher_options):
    """-log q has the entropy as its mean, and with the cross-entropy it makes the divergence, up to chance."""
    teacher = tiny_teacher(**options, **teacher_options)
    student = tiny_student(**options, **({} if "front" in options else dict(source_order=0)))
    mel = speech_batch(1, 40)[1] if student.config.mel else None
    made = [
        student_divergence(student, teacher, mel, None, None, seed, num_samples=40 * MEL.hop_length)
        for seed in range(20)
    ]
    assert {one["samples"] for one in made} == {
        40 * MEL.hop_length - max(student.receptive_field, teacher.receptive_field) + 1
    }
    for difference in (
        [one["own"] - one["entropy"] for one in made],
        [one["kl"] - one["cross_entropy"] + one["own"] for one in made],
    ):
        difference = torch.tensor(difference, dtype=torch.float64)
        assert 0 < abs(float(difference.mean())) < 5 * float(difference.std()) / 20**0.5
    assert made[0]["kl"] > 0 and made[0] != made[1]


def test_samples_that_do_not_count_change_nothing():
    student = tiny_student()
    teacher = tiny_teacher()
    mel = speech_batch(1, 6)[1]
    whole, tail = (student_divergence(student, teacher, mel, None, None, 3, skip=skip) for skip in (0, 200))
    noise = torch.randn(1, 1, 384, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        output = student.rsample(noise, mel)
    assert (whole["samples"], tail["samples"]) == (384, 184)
    for values, skip in ((whole, 0), (tail, 200)):
        assert values["own"] == pytest.approx(-float(student.own_log_prob(output)[:, skip:].detach().mean()), abs=1e-5)
        assert values["mean_abs"] == pytest.approx(float(output.audio[0, 0, skip:].abs().mean()), rel=1e-5)


@pytest.mark.parametrize("front", ["mel-prediction", "sub-bands"])
def test_teachers_own_samples_cost_its_entropy_and_a_recording_what_log_prob_says(front):
    teacher = tiny_teacher(front=FRONTS[front])
    (audio, mel) = speech_batch(1, 40)
    own = [
        teacher_nats(teacher, teacher.sample(mel, seed=seed), mel, None, dequantize=False, skip=100)
        for seed in range(10)
    ]
    difference = torch.tensor([one["own"] - one["entropy"] for one in own])
    assert abs(float(difference.mean())) < 5 * float(difference.std()) / 10**0.5
    recording = teacher_nats(teacher, audio, mel, None, dequantize=True, skip=100)
    with torch.no_grad():
        assert recording["own"] == pytest.approx(
            -float(teacher.log_prob_per_sample(audio, mel)[:, 100:].mean()), abs=1e-4
        )
    assert recording["samples"] == 40 * MEL.hop_length - 100
    assert math.isnan(
        teacher_nats(tiny_teacher(distribution="mol"), audio, mel, None, dequantize=True, skip=0)["entropy"]
    )


def test_amplitude():
    assert amplitude(torch.tensor([0.5, -0.5, 0.25, -0.25])) == pytest.approx({"std": 0.15625**0.5, "mean_abs": 0.375})


def test_divergence_needs_one_front_and_a_density_on_the_real_line():
    student = tiny_student(front=FRONTS["pre-emphasis"])
    assert divergence_applies(student, tiny_teacher(front=FRONTS["pre-emphasis"], distribution="mol"))
    assert not divergence_applies(student, tiny_teacher())
    assert not divergence_applies(tiny_student(), tiny_teacher(distribution="mulaw", linear_order=0))


@pytest.mark.parametrize("samples", [3200, 3210])
def test_centred_frames_are_as_many_as_the_sound_is_long(samples):
    """A centred mel has a frame at the very end, for which there are no samples."""
    loaded = LoadedModel("", "", tiny_teacher(mel=dataclasses.replace(MEL, centered=True)))
    clip = Clip("", "", on_grid(speech_like(samples / 8000)[:samples]))
    mel, hop = loaded.mel(clip), loaded.model.hop_length
    assert mel.shape[-1] == -(-samples // hop)
    assert [len(made) for made in loaded.system(0).generate([clip])] == [samples]
    if samples % hop == 0:
        assert math.isfinite(Recordings(loaded).nats(clip, samples)["recording"])
