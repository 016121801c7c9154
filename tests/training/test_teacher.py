"""The teacher's task: weights of the bands steer the loss and leave the reported bits alone."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.tiny_models import FRONTS, MEL, speech_batch, tiny_teacher

from wavedistill.audio.mel import MelConfig
from wavedistill.data.baseline import bits_per_sample
from wavedistill.data.dataset import Batch
from wavedistill.errors import WavedistillError
from wavedistill.models.front import FrontConfig
from wavedistill.training.teacher import SKIP, LikelihoodConfig, TeacherTask


class Clips:
    """A dataset of crops, as far as validation needs one."""

    def batch(self, step, batch_size, seed):
        audio, mel = speech_batch(2, 12, seed=step)
        return Batch(audio[:, 0], mel, None)


def loss_of(model, weights, batch):
    torch.manual_seed(0)
    return TeacherTask(model, LikelihoodConfig(weights))(batch, 0)


@pytest.mark.parametrize("front", ["mel-prediction", "sub-bands"])
def test_without_weights_the_loss_is_the_mean_negative_log_likelihood(front):
    model = tiny_teacher(front=FRONTS[front])
    batch = Clips().batch(0, 2, 0)
    loss, values = loss_of(model, None, batch)
    torch.manual_seed(0)
    log_prob = model.log_prob_per_sample(batch.audio.unsqueeze(1), batch.mel, generator=torch.default_generator)
    torch.testing.assert_close(loss, -log_prob[:, SKIP:].mean())
    assert float(values["bits"]) == pytest.approx(bits_per_sample(-float(loss.detach())))


def test_weights_change_the_loss_and_the_gradient_but_not_the_bits():
    model = tiny_teacher(front=FRONTS["sub-bands"])
    batch = Clips().batch(0, 2, 0)
    weights = [float(1 + band) for band in range(8)]
    plain, weighted, doubled = (
        loss_of(model, given, batch) for given in (None, weights, [2.0 * weight for weight in weights])
    )
    assert torch.equal(plain[1]["bits"], weighted[1]["bits"]) and not torch.isclose(plain[0], weighted[0])
    torch.testing.assert_close(weighted[0], doubled[0])  # their ratios count alone
    torch.manual_seed(0)
    log_prob = model.log_prob_per_sample(batch.audio.unsqueeze(1), batch.mel, generator=torch.default_generator)
    by_band = -log_prob[:, SKIP:].unflatten(1, (-1, 8)).mean((0, 1))
    torch.testing.assert_close(weighted[0], (by_band * torch.tensor(weights)).sum() / sum(weights))
    steep = [torch.autograd.grad(one[0], model.predictor.stack.output.bias)[0] for one in (plain, weighted)]
    ratio = (steep[1] / steep[0]).reshape(8, 2)
    expected = torch.tensor(weights) * 8 / sum(weights)
    torch.testing.assert_close(ratio, expected[:, None].expand(8, 2), atol=1e-3, rtol=1e-3)
    with torch.no_grad():
        bits = [TeacherTask(model, LikelihoodConfig(given)).validate(Clips(), 2) for given in (None, weights)]
    assert bits[0] == bits[1]


def test_steps_that_do_not_divide_what_is_skipped():
    """256 samples are no whole number of steps of 12: up to 264 are left out, and the bands stay in place."""
    mel = MelConfig(sample_rate=8000, n_fft=240, win_length=240, hop_length=60, n_mels=20, f_max=4000.0)
    model = tiny_teacher(mel, cond_upsample=1, front=FrontConfig(bands=12))
    audio = torch.randn(2, 480, generator=torch.Generator().manual_seed(0)) * 0.1
    batch = Batch(audio, torch.zeros(2, 20, 8), None)
    first = [1.0] + [1e-6] * 11
    loss, _ = loss_of(model, first, batch)
    torch.manual_seed(0)
    log_prob = model.log_prob_per_sample(audio.unsqueeze(1), batch.mel, generator=torch.default_generator)
    torch.testing.assert_close(loss, -log_prob[:, 264::12].mean(), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("weights", [[], [1.0], [1.0] * 7, [1.0] * 7 + [0.0], [1.0] * 7 + [-1.0]])
def test_wrong_weights_are_refused(weights):
    model = tiny_teacher(front=FRONTS["sub-bands"])
    with pytest.raises(WavedistillError, match="loss.band_weights: 8 numbers above 0 are needed"):
        TeacherTask(model, LikelihoodConfig(weights))


def test_weights_are_no_part_of_the_model():
    task = TeacherTask(tiny_teacher(MEL, front=FRONTS["sub-bands"]), LikelihoodConfig([1.0] * 7 + [2.0]))
    assert not [name for name in task.state_dict() if not name.startswith("model.")]


def test_crops_that_begin_at_a_wrong_level():
    """The error is of training alone, within the limit at the crop's start, and dies away."""
    model = tiny_teacher(front=FRONTS["sub-bands"])
    task = TeacherTask(model, LikelihoodConfig(level_error_db=20.0))
    torch.manual_seed(0)
    gain_db = 20.0 * torch.log10(task._with_level_errors(torch.ones(64, 8000)))
    assert 15.0 < gain_db[:, 0].max() <= 20.0 and -20.0 <= gain_db[:, 0].min() < -15.0
    torch.testing.assert_close(gain_db[:, 2400] / gain_db[:, 0], torch.full((64,), math.exp(-3.0)), rtol=1e-2, atol=0)
    plain = TeacherTask(model, LikelihoodConfig())
    batch = Clips().batch(0, 2, 0)
    losses = []
    for one in (plain, task):
        torch.manual_seed(0)
        losses.append(one(batch, 0)[0])
    assert losses[0] != losses[1]
    with torch.no_grad():
        assert plain.validate(Clips(), 1) == task.validate(Clips(), 1)


def test_a_negative_level_error_is_refused():
    with pytest.raises(WavedistillError, match="loss.level_error_db must be at least 0"):
        TeacherTask(tiny_teacher(), LikelihoodConfig(level_error_db=-0.1))


def test_crops_must_be_longer_than_what_is_not_counted():
    batch = Batch(torch.zeros(2, 256))
    with pytest.raises(WavedistillError, match=r"data.segment_seconds gives crops of 256 .* longer than the 256"):
        TeacherTask(tiny_teacher(mel=None), LikelihoodConfig())(batch, 0)
