"""Rollouts: the model's own continuation, judged as a whole, with a gradient for every weight."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from helpers.tiny_models import FRONTS, TEACHER_KINDS, speech_batch, teacher_inputs, tiny_teacher

from wavedistill.data.dataset import Batch
from wavedistill.errors import WavedistillError
from wavedistill.losses import rollout as rollout_module
from wavedistill.losses.rollout import Rollout, RolloutConfig, _own_past
from wavedistill.models.sequential_sampling import cached_sampler
from wavedistill.nn.wavenet_stack import StackConfig
from wavedistill.training.teacher import LikelihoodConfig, TeacherTask

KINDS = [kind for kind, options in TEACHER_KINDS.items() if "distribution" not in options]
SHORT = StackConfig(num_layers=2, num_cycles=1, kernel_size=2, channels=8, skip_channels=8)


def crops(model, frames=16) -> Batch:
    audio, mel, speaker = teacher_inputs(model, frames=frames)
    return Batch(audio[:, 0], mel, None, speaker)


def distance(rollout, model, batch):
    return rollout(model, batch.audio, batch.mel, batch.speaker, batch.begins)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rollout_is_what_the_sampler_draws(kind, monkeypatch):
    monkeypatch.setattr(rollout_module, "RAN_AWAY", 1e9)
    model = tiny_teacher(**{"stack": SHORT, **TEACHER_KINDS[kind]})
    batch = crops(model)
    rollout = Rollout(model, steps=3)
    with torch.no_grad():
        u = model.front.forward(batch.audio.unsqueeze(1), model.front.condition(batch.mel)).value[:, 0]
        features = model.features(batch.mel, batch.speaker)
        block = model.step_size if batch.mel is None else model.hop_length // model.config.cond_upsample
        start = 4 * block
        noise = torch.randn(*u.shape, 1)
        past = _own_past(model, u[:, :start], noise, features, block, torch.tensor([True, False]))
        own = rollout._continued(model, past, noise[:, start:], features, block)
        seen = min(-(-model.receptive_field // block) * block, start)
        drawn = torch.stack([torch.zeros_like(u[0]), u[1]])
        for item, known in ((slice(0, 1), 0), (slice(1, 2), seen)):
            given = features[item] if features is not None else None
            sampler = cached_sampler(model.predictor, model.distribution, 1, 1.0)
            for _ in sampler.fill(drawn[item], known, noise[item], given):
                pass
    assert own.shape[1] == 3 * model.step_size
    made = torch.cat([past, own], dim=1)
    torch.testing.assert_close(made, drawn[:, : made.shape[1]], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("front", "steps"), [("mel-prediction", 420), ("sub-bands", 64)])
def test_every_weight_gets_a_gradient(front, steps):
    model = tiny_teacher(front=FRONTS[front], stack=SHORT, speakers=["a", "b"]).train()
    torch.manual_seed(0)
    distance(Rollout(model, steps), model, crops(model)).backward()
    without = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not without


def test_the_past_of_a_sample_that_ran_away_is_turned_down():
    model = tiny_teacher(mel=None, stack=SHORT, linear_order=1)
    u = torch.randn(2, 500)
    noise = torch.randn(2, 500, 1)
    with torch.no_grad():
        model.predictor.constant_taps.fill_(1.05)
    begins = torch.tensor([True, False])
    past = _own_past(model, u, noise, None, 1, begins)
    last = slice(-model.receptive_field, None)
    level, real = (x[:, last].square().mean(1).sqrt() for x in (past, u))
    torch.testing.assert_close(level, 4.0 * real)
    with torch.no_grad():
        model.predictor.constant_taps.fill_(2.0)  # beyond what a number can hold
    assert torch.equal(_own_past(model, u, noise, None, 1, begins), u)
    with torch.no_grad():
        model.predictor.constant_taps.fill_(0.5)
    past = _own_past(model, u, noise, None, 1, begins)
    assert not (past[0] == u[0]).any() and int((past[1] == u[1]).sum()) == model.receptive_field


def test_beginnings_are_rolled_out_from_nothing(monkeypatch):
    """Half of the times, and the others of the batch are left out."""
    monkeypatch.setattr(rollout_module, "random_place", lambda places: 0)
    model = tiny_teacher(front=FRONTS["sub-bands"], stack=SHORT)
    rollout = Rollout(model, 64)
    starts = []
    monkeypatch.setattr(rollout, "_continued", lambda model, past, *rest: starts.append(past) or past.new_zeros(1, 512))
    batch = crops(model)
    batch.begins = torch.tensor([False, True])
    distance(rollout, model, batch)
    assert starts[0].shape == (1, 0)


def test_training_stops_what_runs_away():
    """From a pole of 1.01 towards that of the recordings, 0.9; the likelihood has no part in it."""
    torch.manual_seed(0)
    model = tiny_teacher(mel=None, stack=SHORT, linear_order=1, shake=0.0).train()
    taps = model.predictor.constant_taps
    with torch.no_grad():
        model.predictor.stack.output.bias[1] = -3.0
        taps.fill_(0.9)
    batch = Batch(model.sample(num_samples=1280, batch_size=4, seed=0)[:, 0].clone())
    with torch.no_grad():
        taps.fill_(1.01)
    rollout = Rollout(model, steps=420)
    optimizer = torch.optim.SGD([taps], lr=0.02)
    for _ in range(8):
        optimizer.zero_grad()
        distance(rollout, model, batch).backward()
        torch.nn.utils.clip_grad_norm_([taps], 1.0)
        optimizer.step()
    assert 0.85 < taps.item() < 0.97


def test_the_task_adds_the_distance_and_logs_it():
    model = tiny_teacher(front=FRONTS["sub-bands"], stack=SHORT)
    batch = crops(model)
    config = RolloutConfig(weight=0.5, steps=64)
    plain, with_rollout = TeacherTask(model, LikelihoodConfig()), TeacherTask(model, LikelihoodConfig(rollout=config))
    torch.manual_seed(0)
    alone, _ = plain(batch, 0)
    torch.manual_seed(0)
    loss, logged = with_rollout(batch, 0)
    torch.testing.assert_close(loss, alone + 0.5 * logged["rollout"])
    assert not [name for name in with_rollout.state_dict() if not name.startswith("model.")]


class Clips:
    def batch(self, step, batch_size, seed):
        audio, mel = speech_batch(2, 16, seed=step)
        return Batch(audio[:, 0], mel, None)


def test_validation_tells_the_distance():
    model = tiny_teacher(front=FRONTS["sub-bands"], stack=SHORT)
    task = TeacherTask(model, LikelihoodConfig(rollout=RolloutConfig(weight=0.5, steps=64)))
    with torch.no_grad():
        torch.manual_seed(0)
        found = task.validate(Clips(), 2)
        torch.manual_seed(0)
        assert found == task.validate(Clips(), 2)
    assert set(found) == {"bits", "rollout"} and found["rollout"] > 0.0


def test_what_cannot_be_rolled_out_is_refused():
    with pytest.raises(WavedistillError, match="loss.rollout needs a teacher with distribution 'gaussian'"):
        Rollout(tiny_teacher(distribution="mulaw", num_classes=8, linear_order=0), 4)
    model = tiny_teacher(front=FRONTS["sub-bands"])
    for steps in (50, 129):
        told = (
            f"gives rollouts of {8 * steps} samples; they must be longer than 400 .50 ms., and fit into the crops of 1"
        )
        with pytest.raises(WavedistillError, match=told):
            distance(Rollout(model, steps), model, crops(model))
    for wrong, told in (({"weight": -1.0}, "weight is -1; it must be at least 0"), ({"steps": 0}, "steps is 0; it m")):
        with pytest.raises(WavedistillError, match=f"loss.rollout.{told}"):
            dataclasses.replace(RolloutConfig(), **wrong)
