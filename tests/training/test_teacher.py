"""The teacher's task: weights of the bands steer the loss and leave the reported bits alone."""

from __future__ import annotations

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


def test_the_first_samples_of_a_recording_count():
    """Their past is known; that of a crop from the middle is not."""
    model = tiny_teacher(front=FRONTS["mel-prediction"])
    batch = Clips().batch(0, 2, 0)
    batch.begins = torch.tensor([True, False])
    torch.manual_seed(0)
    loss, values = TeacherTask(model, LikelihoodConfig())(batch, 0)
    torch.manual_seed(0)
    log_prob = model.log_prob_per_sample(batch.audio.unsqueeze(1), batch.mel, generator=torch.default_generator)
    total = log_prob[0].sum() + log_prob[1, SKIP:].sum()
    later = log_prob.shape[1] - SKIP
    torch.testing.assert_close(loss, -total / (2 * later))
    assert float(values["bits"]) == pytest.approx(bits_per_sample(float(total.detach()) / (2 * later + SKIP)))


@pytest.mark.parametrize("weights", [[], [1.0], [1.0] * 7, [1.0] * 7 + [0.0], [1.0] * 7 + [-1.0]])
def test_wrong_weights_are_refused(weights):
    model = tiny_teacher(front=FRONTS["sub-bands"])
    with pytest.raises(WavedistillError, match="loss.band_weights: 8 numbers above 0 are needed"):
        TeacherTask(model, LikelihoodConfig(weights))


def test_weights_are_no_part_of_the_model():
    task = TeacherTask(tiny_teacher(MEL, front=FRONTS["sub-bands"]), LikelihoodConfig([1.0] * 7 + [2.0]))
    assert not [name for name in task.state_dict() if not name.startswith("model.")]


def test_a_noisy_past_is_for_training_alone():
    model = tiny_teacher(front=FRONTS["sub-bands"])
    batch = Clips().batch(0, 2, 0)
    tasks = [TeacherTask(model, LikelihoodConfig(history_noise=noise)) for noise in (0.0, 0.5)]
    losses = []
    for task in tasks:
        torch.manual_seed(0)
        losses.append(task(batch, 0)[0])
    assert losses[1] > losses[0]
    with torch.no_grad():
        assert tasks[0].validate(Clips(), 1) == tasks[1].validate(Clips(), 1)


def test_a_noisy_past_leaves_what_is_scored_alone():
    """Without a path from the past nothing changes."""
    model = tiny_teacher(front=FRONTS["sub-bands"], shake=0.0)
    audio, mel = speech_batch(2, 12)
    plain, noisy = (model.log_prob_per_sample(audio, mel, history_noise=noise) for noise in (0.0, 0.5))
    assert torch.equal(plain, noisy)


def test_a_negative_noise_is_refused():
    with pytest.raises(WavedistillError, match="loss.history_noise is -[^;]*; it must be at least 0"):
        TeacherTask(tiny_teacher(), LikelihoodConfig(history_noise=-0.1))


def test_crops_must_be_longer_than_what_is_not_counted():
    batch = Batch(torch.zeros(2, 256))
    with pytest.raises(WavedistillError, match=r"data.segment_seconds gives crops of 256 .* longer than the 256"):
        TeacherTask(tiny_teacher(mel=None), LikelihoodConfig())(batch, 0)
