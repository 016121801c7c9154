"""A GPU's code paths on a machine without one: fake tensors raise wherever two devices meet.

Forward passes, sampling and streaming run on "cuda", in all three precisions; a step of teacher and student with
backward pass, clipping, optimizer and average on the device for which torch can run one (see `helpers.fake_gpu`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any
from unittest import mock

import pytest
import torch
from helpers.fake_gpu import CUDA, LAZY, FakeGpu
from helpers.tiny_models import FRONTS, speech_batch, tiny_flow, tiny_student, tiny_teacher

from wavedistill.data.dataset import Batch
from wavedistill.losses.adversarial import Crops
from wavedistill.losses.distillation import DistillationConfig
from wavedistill.losses.rollout import RolloutConfig
from wavedistill.training.compute import autocast
from wavedistill.training.distill import DistillTask
from wavedistill.training.ema import EMA
from wavedistill.training.flow import FlowTask
from wavedistill.training.optimizer import ClippedOptimizer
from wavedistill.training.teacher import LikelihoodConfig, TeacherTask

PREDICTION = FRONTS["mel-prediction"]
ADVERSARIAL = {"kl": 1.0, "stft": 1.0, "adversarial": 1.0, "feature_matching": 1.0}
TASKS = {
    "teacher": lambda: TeacherTask(tiny_teacher(front=PREDICTION), LikelihoodConfig(history_noise=0.1)),
    "teacher, rollouts": lambda: TeacherTask(
        tiny_teacher(front=FRONTS["sub-bands"]), LikelihoodConfig(rollout=RolloutConfig(1.0, 51))
    ),
    "teacher, mixture": lambda: TeacherTask(
        tiny_teacher(distribution="mol", num_mixtures=3, front=FRONTS["pre-emphasis"]), LikelihoodConfig()
    ),
    "student": lambda: distillation(FRONTS["sub-bands"], {"kl": 1.0}),
    "student and adversary": lambda: distillation(PREDICTION, ADVERSARIAL),
    "flow": lambda: FlowTask(tiny_flow(front=PREDICTION)),
}
SLOW = {"teacher, mixture", "student"}
"""What the others show, too."""
MODELS = {"teacher": tiny_teacher, "student": tiny_student, "flow": tiny_flow}


def distillation(front, weights):
    return DistillTask(tiny_student(front=front), tiny_teacher(front=front), DistillationConfig(weights=weights))


def on_gpu(name: str, gpu: FakeGpu) -> tuple[torch.nn.Module, Batch]:
    audio, mel = speech_batch(2, 30)
    batch = gpu.move((audio[:, 0], mel, torch.full((2, 30), 120.0)))
    return gpu.adopt(TASKS[name]().train()), Batch(*batch)


@contextlib.contextmanager
def running(gpu: FakeGpu) -> Iterator[None]:
    """Without what looks at values: the check of a mel, and the places of a crop and of a rollout."""
    first = mock.patch(
        "wavedistill.losses.distillation.random_crops", lambda made, real, n: Crops(made[:, :n], real[:, :n])
    )
    last = mock.patch("wavedistill.losses.rollout.random_place", lambda places: places - 1)
    with gpu.running(), first, last, mock.patch("wavedistill.models.base.check_mel"):
        yield


def but(slow: set[str], names: Iterable[str]) -> list[Any]:
    """The names as parameters, some of them left out by default."""
    return [pytest.param(name, marks=[pytest.mark.slow] if name in slow else []) for name in names]


@pytest.mark.parametrize("precision", but({"fp32", "fp16"}, ["fp32", "bf16", "fp16"]))
@pytest.mark.parametrize("name", but(SLOW, TASKS))
def test_losses_stay_on_the_device(name, precision):
    gpu = FakeGpu(CUDA)
    task, batch = on_gpu(name, gpu)
    with running(gpu), autocast(precision, CUDA):
        loss, values = task(batch, 5)
        assert gpu.holds((loss, values)) and loss.dtype == torch.float32
        if task.discriminators is not None:
            assert gpu.holds(task.discriminate(batch))


@pytest.mark.parametrize("name", but(SLOW, ["teacher", "teacher, mixture", "student"]))
def test_a_training_step_stays_on_the_device(name):
    gpu = FakeGpu(LAZY)
    task, batch = on_gpu(name, gpu)
    plain = torch.optim.AdamW
    with running(gpu), mock.patch("torch.optim.AdamW", lambda *args, fused, **options: plain(*args, **options)):
        parameters = list(task.model.parameters())
        optimizer = ClippedOptimizer(
            parameters, 1e-3, (0.9, 0.99), 0.01, 1.0, torch.amp.GradScaler("cpu", enabled=False)
        )
        average = EMA(task.model, 0.9)
        optimizer.backward(task(batch, 5)[0])
        assert gpu.holds([parameter.grad for parameter in parameters if parameter.grad is not None])
        assert gpu.holds(optimizer.clip())
        optimizer.step()
        average.update(1)
        assert gpu.holds((parameters, average.state_dict()))


@pytest.mark.slow
@pytest.mark.parametrize("front", but({"sub-bands"}, ["mel-prediction", "sub-bands"]))
@pytest.mark.parametrize("name", MODELS)
def test_samples_and_streams_stay_on_the_device(name, front):
    gpu = FakeGpu(CUDA)
    model = gpu.adopt(MODELS[name](front=FRONTS[front]))
    mel = gpu.move(speech_batch(1, 4)[1])
    with running(gpu):
        audio = model.sample(mel, seed=0)
        chunks = list(model.stream(mel, 3, seed=0))
        assert gpu.holds((audio, chunks))
        assert audio.shape == torch.cat(chunks, dim=-1).shape == (1, 1, 4 * model.hop_length)
