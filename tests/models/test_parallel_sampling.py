"""The parallel sampler draws the samples of the sequential one."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers.tiny_models import FRONTS, speech_batch, speech_like, tiny_student, tiny_teacher

from wavedistill.audio.mel import LogMelSpectrogram
from wavedistill.errors import WavedistillError
from wavedistill.models.front import FrontConfig
from wavedistill.models.parallel_sampling import sample_parallel
from wavedistill.models.pretrained import load_pretrained

VOICES = ("ann", "bob")


def check(teacher, found, expected, atol=1e-4):
    torch.testing.assert_close(found.audio, expected, atol=atol, rtol=0.0)
    assert float(found.residual.max()) < 3e-5
    assert found.audio.shape == expected.shape and found.excitation.shape == expected.shape[::2]
    assert not found.audio.requires_grad and 1 < int(found.sweeps.max()) < expected.shape[-1] / 4


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_same_samples_as_one_at_a_time(front, temperature):
    teacher = tiny_teacher(front=FRONTS[front])
    (_, mel) = speech_batch(2, 12)
    options = dict(mel=mel, seed=[3, 8], temperature=temperature)
    check(teacher, sample_parallel(teacher, **options), teacher.sample(**options))


@pytest.mark.parametrize("with_mel", [True, False])
def test_speakers_and_models_without_mel(with_mel):
    teacher = tiny_teacher(speakers=VOICES, **{} if with_mel else {"mel": None})
    length = dict(mel=speech_batch(2, 9)[1]) if with_mel else dict(num_samples=501)
    options = dict(**length, speaker=torch.tensor([1, 0]), seed=5)
    check(teacher, sample_parallel(teacher, **options), teacher.sample(**options))


@pytest.mark.parametrize("options", [dict(linear_order=0), dict(front=FrontConfig(bands=4), linear_order=12)])
def test_without_any_condition(options):
    """Nor a linear path; or with one of bands that reaches beyond the quasi-Newton band."""
    teacher = tiny_teacher(None, **options)
    options = dict(num_samples=332, batch_size=3, seed=5)
    check(teacher, sample_parallel(teacher, **options), teacher.sample(**options))


@pytest.mark.parametrize("front", ["mel-prediction", "sub-bands"])
def test_given_noise_gives_the_recording_back(front):
    teacher = tiny_teacher(front=FRONTS[front])
    (audio, mel) = speech_batch(2, 12)
    with torch.no_grad():
        noise = teacher.encode(audio, mel)
    check(teacher, sample_parallel(teacher, mel, noise=noise), audio)


def test_an_item_does_not_depend_on_its_batch():
    teacher = tiny_teacher()
    (_, mel) = speech_batch(3, 9)
    together = sample_parallel(teacher, mel, seed=2)
    alone = sample_parallel(teacher, mel[1:2], seed=3)
    torch.testing.assert_close(alone.audio[0], together.audio[1], atol=1e-4, rtol=0.0)
    assert together.sweeps.shape == together.residual.shape == (3,)


@pytest.mark.parametrize("front", ["none", "sub-bands"])
def test_draft(front):
    """Any draft leads to the same samples; the better it is, the sooner."""
    teacher = tiny_teacher(front=FRONTS[front])
    (_, mel) = speech_batch(2, 12)
    cold = sample_parallel(teacher, mel, seed=2)
    drafted = sample_parallel(teacher, mel, seed=2, draft=tiny_student(front=FRONTS[front]))
    torch.testing.assert_close(drafted.audio, cold.audio, atol=1e-4, rtol=0.0)
    perfect = tiny_student(front=FRONTS[front])
    perfect.rsample = lambda *_, **__: copy.copy(cold)
    assert sample_parallel(teacher, mel, seed=2, draft=perfect).passes < 0.75 * cold.passes


def test_wider_windows_wait_less_and_tighter_tolerance_leaves_less():
    teacher = tiny_teacher(shake=0.15)
    (_, mel) = speech_batch(1, 24)
    narrow, wide = (sample_parallel(teacher, mel, seed=2, window=window) for window in (64, 1000))
    assert int(wide.sweeps) < int(narrow.sweeps)
    loose, tight = (sample_parallel(teacher, mel, seed=2, tolerance=tolerance) for tolerance in (1e-2, 1e-5))
    assert float(tight.residual) < 2e-5 < float(loose.residual) and int(loose.sweeps) < int(tight.sweeps)


def test_bundled_teacher():
    """1,024 samples of the real thing, whose samples depend on their past far more than a toy's."""
    teacher = load_pretrained("speech-teacher").eval()
    mel = LogMelSpectrogram(teacher.config.mel)(speech_like(0.1, 16000)[None])[..., :4]
    found = sample_parallel(teacher, mel, seed=1)
    check(teacher, found, teacher.sample(mel, seed=1), atol=1e-3)
    assert found.passes < 40


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(noise=torch.zeros(2, 1, 5)), r"noise must have the shape \(1, 1, 256\), got \(2, 1, 5\)"),
        (dict(tolerance=0.0), "tolerance must be above 0"),
        (dict(window=0), "window at least 1"),
        (dict(num_samples=0), "num_samples must be above 0"),
        (dict(draft=tiny_student()), "the draft's mel must be the teacher's"),
        (dict(draft=tiny_student(None, front=FRONTS["pre-emphasis"])), "the draft's front must be the teacher's"),
        (dict(draft=tiny_student(None, speakers=VOICES)), "the draft's speakers must be the teacher's"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(WavedistillError, match=message):
        sample_parallel(tiny_teacher(None), **{"num_samples": 256} | options)


@pytest.mark.parametrize("distribution", ["mol", "mulaw"])
def test_gaussian_teachers_only(distribution):
    teacher = tiny_teacher(None, distribution=distribution, linear_order=0)
    with pytest.raises(WavedistillError, match=f"distribution 'gaussian', this one has '{distribution}'"):
        sample_parallel(teacher, num_samples=64)
