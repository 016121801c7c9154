"""Muon: its steps against other sources, which parameters it trains, and runs with it."""

from __future__ import annotations

import math
import re
import signal
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.muon_toy import MuonToy, muon_recipe
from helpers.paths import HELPERS
from helpers.processes import run
from helpers.tiny_models import speech_batch, tiny_flow, tiny_student, tiny_teacher
from helpers.training_toy import ToyDataset, ToyModelConfig, ToyTask, assert_same_training, save_toy
from torch import Tensor, nn

from wavedistill.errors import WavedistillError
from wavedistill.training.checkpoint import load_newest_state
from wavedistill.training.config import OptimConfig
from wavedistill.training.loop import fit
from wavedistill.training.muon import Muon, hidden_matrices
from wavedistill.training.optimizer import ClippedOptimizer
from wavedistill.training.signals import TrainingInterrupted

SHAPES = [(5, 5), (12, 4), (4, 12), (4, 12)]


def matrices(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in SHAPES]


def gradients(step: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step + 1)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def give(parameters: list[nn.Parameter], values: list[Tensor]) -> None:
    for parameter, gradient in zip(parameters, values, strict=True):
        parameter.grad = gradient.to(parameter.dtype).reshape(parameter.shape)


def clipped(parameters: list[nn.Parameter], muon: Muon | None, lr: float, fp16: bool = False) -> ClippedOptimizer:
    scaler = torch.amp.GradScaler("cpu", enabled=fp16)
    return ClippedOptimizer(parameters, lr, (0.9, 0.98), weight_decay=0.0, clip_norm=1.0, scaler=scaler, muon=muon)


# ---- a step


def test_steps_equal_those_of_torch_on_matrices() -> None:
    ours = matrices()
    theirs = matrices()
    start = matrices()
    optimizers = [
        Muon(ours, lr=0.02, weight_decay=0.1, dtype=torch.bfloat16),
        torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="original"),
    ]
    for step in range(3):
        for parameters, optimizer in zip((ours, theirs), optimizers, strict=True):
            give(parameters, gradients(step))
            optimizer.step()
    for one, other, before in zip(ours, theirs, start, strict=True):
        moved = float((other - before).detach().norm())
        assert float((one - other).detach().norm()) < 0.02 * moved, "no more than bfloat16's rounding"


def test_a_step_has_the_directions_of_the_momentum_and_singular_values_near_one() -> None:
    parameters = matrices(torch.float64)
    optimizer = Muon(parameters, lr=0.5, dtype=torch.float64)
    momentum = [np.zeros(shape) for shape in SHAPES]
    for step in range(3):
        before = [p.detach().clone() for p in parameters]
        give(parameters, gradients(step))
        optimizer.step()
        for index, (parameter, start) in enumerate(zip(parameters, before, strict=True)):
            gradient = parameter.grad.numpy()
            momentum[index] = 0.95 * momentum[index] + 0.05 * gradient
            left, values, right = np.linalg.svd(0.05 * gradient + 0.95 * momentum[index], full_matrices=False)
            assert values.min() > 0.005 * np.linalg.norm(values)
            rows, columns = SHAPES[index]
            moved = (start - parameter.detach()).numpy() / (0.5 * math.sqrt(max(1.0, rows / columns)))
            gains = left.T @ moved @ right.T
            assert np.allclose(left @ np.diag(np.diag(gains)) @ right, moved, atol=1e-10)
            assert np.diag(gains).min() > 0.68 and np.diag(gains).max() < 1.21


def test_a_kernel_is_a_matrix_of_its_outputs() -> None:
    """Also one whose memory is channels-last, as is its gradient."""
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(6, 4, 1, 3, generator=generator)
    kernels = [
        nn.Parameter(value.clone()),
        nn.Parameter(value.to(memory_format=torch.channels_last)),
        nn.Parameter(value.reshape(6, 4, 3).clone()),
    ]
    matrix = nn.Parameter(value.flatten(1).clone())
    optimizers = [Muon([parameter], lr=0.02) for parameter in (*kernels, matrix)]
    for _ in range(2):
        gradient = torch.randn(6, 12, generator=generator)
        for parameter, optimizer in zip((*kernels, matrix), optimizers, strict=True):
            parameter.grad = torch.empty_like(parameter).copy_(gradient.reshape(parameter.shape))
            optimizer.step()
    for kernel in kernels:
        assert torch.equal(kernel.detach().flatten(1), matrix.detach())


def test_only_matrices_with_a_gradient_move_and_a_zero_one_moves_none() -> None:
    parameters = matrices()
    before = [p.detach().clone() for p in parameters]
    give(parameters, [torch.zeros_like(p) for p in parameters])
    parameters[2].grad = None
    optimizer = Muon(parameters, lr=0.02, weight_decay=0.5)
    optimizer.step()
    expected = [0.99 * value for value in before]
    expected[2] = before[2]
    torch.testing.assert_close([p.detach() for p in parameters], expected)


# ---- which parameters

MODELS = {"teacher": tiny_teacher, "student": tiny_student, "flow": tiny_flow}
HIDDEN = re.compile(
    r"(.*\.)?stack\.(convs\.\d+\.weight|residual\.\d+|skip\.\d+|hidden\.weight|cond\.weight)"
    r"|conditioning\.(frames\.\d+|blocks)\.weight"
)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("muon_lr", [0.0, 0.02], ids=["AdamW alone moves", "Muon alone moves"])
def test_muon_trains_the_hidden_matrices_and_adamw_all_else(kind: str, muon_lr: float) -> None:
    model = MODELS[kind](speakers=["a", "b"])
    named = dict(model.named_parameters())
    before = {name: p.detach().clone() for name, p in named.items()}
    optimizer = clipped(list(named.values()), Muon(hidden_matrices(model), muon_lr), lr=0.02 - muon_lr)
    optimizer.backward(sum((p * torch.linspace(-1, 1, p.numel()).reshape(p.shape).exp()).sum() for p in named.values()))
    optimizer.clip()
    optimizer.step()
    moved = {name for name, p in named.items() if not torch.equal(p, before[name])}
    hidden = {name for name in named if HIDDEN.fullmatch(name)}
    assert moved == (hidden if muon_lr else named.keys() - hidden)
    assert {".convs.", ".residual.", ".skip.", ".hidden.", ".cond.", ".frames.", ".blocks."} == {
        part for name in hidden for part in re.findall(r"\.(?:convs|residual|skip|hidden|cond|frames|blocks)\.", name)
    }


def test_frozen_matrices_stay_and_a_network_without_condition_has_fewer() -> None:
    teacher = tiny_teacher(mel=None)
    every = hidden_matrices(teacher)
    layers = teacher.config.stack.num_layers
    assert len(every) == layers + (layers - 1) + layers + 1
    every[0].requires_grad_(False)
    assert len(hidden_matrices(teacher)) == len(every) - 1


# ---- together with AdamW


@pytest.mark.parametrize(("lr", "fall"), [(2e-3, 0.05), (0.0, 0.02)], ids=["both", "Muon alone"])
def test_a_few_steps_lower_a_teachers_loss(lr: float, fall: float) -> None:
    teacher = tiny_teacher().train()
    parameters = list(teacher.parameters())
    optimizer = clipped(parameters, Muon(hidden_matrices(teacher), 0.02), lr=lr)
    audio, mel = speech_batch(2, 8)
    losses: list[float] = []
    for _ in range(12):
        loss = -teacher.log_prob_per_sample(audio, mel, generator=torch.Generator().manual_seed(0)).mean()
        optimizer.backward(loss)
        optimizer.clip()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True) and losses[0] - losses[-1] > fall


@pytest.mark.parametrize("overflowing", ["matrix", "bias"])
def test_float16_skips_a_step_of_both_optimizers_or_of_none(overflowing: str) -> None:
    parameters = {"matrix": nn.Parameter(torch.eye(3)), "bias": nn.Parameter(torch.ones(3))}
    muon = Muon([parameters["matrix"]], lr=0.1)
    optimizer = clipped(list(parameters.values()), muon, lr=0.1, fp16=True)
    loss = (parameters["matrix"] * torch.arange(9.0).reshape(3, 3)).sum() + parameters["bias"].sum()
    optimizer.backward(loss + (parameters[overflowing] * torch.inf).sum())
    optimizer.clip()
    optimizer.step()
    assert torch.equal(parameters["matrix"], torch.eye(3)) and torch.equal(parameters["bias"], torch.ones(3))
    assert not muon.state
    optimizer.backward((parameters["matrix"] * torch.arange(9.0).reshape(3, 3)).sum() + parameters["bias"].sum())
    norm, _ = optimizer.clip()
    assert float(norm) == pytest.approx(math.sqrt(204 + 3))
    optimizer.step()
    assert not torch.equal(parameters["matrix"], torch.eye(3)) and not torch.equal(parameters["bias"], torch.ones(3))


def test_the_schedule_scales_both_rates() -> None:
    parameters = [nn.Parameter(torch.eye(3)), nn.Parameter(torch.ones(3))]
    optimizer = clipped(parameters, Muon(parameters[:1], lr=0.02), lr=2e-3)
    optimizer.set_lr_scale(0.5)
    state = optimizer.state_dict()
    assert [group["lr"] for name in ("optimizer", "muon") for group in state[name]["param_groups"]] == [1e-3, 0.01]


# ---- runs


@pytest.fixture
def toy_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wavedistill.models.pretrained", types.SimpleNamespace(save_pretrained=save_toy))


def train(folder: Path, muon_lr: float = 0.02, signals: dict[int, int] | None = None, **options) -> Path:
    return fit(MuonToy(signals=signals), ToyDataset(), ToyDataset(), muon_recipe(folder, muon_lr, **options))


@pytest.mark.usefixtures("toy_checkpoints")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_five_and_five_steps_equal_ten_bitwise(tmp_path: Path, precision: str) -> None:
    whole = train(tmp_path / "whole", precision=precision)
    with pytest.raises(TrainingInterrupted):
        train(tmp_path / "parts", signals={4: signal.SIGTERM}, precision=precision)
    parts = train(tmp_path / "parts", precision=precision)
    assert_same_training(whole, parts, kinds=("train",))
    states = [load_newest_state(folder)["muon"]["state"] for folder in (whole, parts)]
    assert len(states[0]) == 2 + 1 + 2 + 1
    assert all(torch.equal(states[0][i]["momentum"], states[1][i]["momentum"]) for i in states[0])


@pytest.mark.usefixtures("toy_checkpoints")
def test_two_ranks_equal_one(tmp_path: Path) -> None:
    fit(MuonToy(noise=0.0), ToyDataset(), ToyDataset(), muon_recipe(tmp_path / "one"))
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    two = run(*torchrun, str(HELPERS / "muon_toy.py"), str(tmp_path / "two"), "0")
    assert two.returncode == 0, two.stderr
    states = [load_newest_state(tmp_path / name)["model"] for name in ("one", "two")]
    torch.testing.assert_close(*states, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("toy_checkpoints")
@pytest.mark.parametrize(("before", "after", "message"), [(0.0, 0.02, "was 0 in"), (0.02, 0.0, "was above 0 in")])
def test_a_run_neither_gains_nor_loses_muon(tmp_path: Path, before: float, after: float, message: str) -> None:
    train(tmp_path, before, steps=5)
    config = (tmp_path / "config.yaml").read_text()
    with pytest.raises(WavedistillError, match=f"optim.muon_lr {message} this run.*--run.init_from"):
        train(tmp_path, after)
    assert (tmp_path / "config.yaml").read_text() == config and load_newest_state(tmp_path)["step"] == 5


@pytest.mark.usefixtures("toy_checkpoints")
def test_another_rate_counts_from_the_resumed_step_on(tmp_path: Path) -> None:
    train(tmp_path, 0.02, steps=5)
    train(tmp_path, 0.01)
    (group,) = load_newest_state(tmp_path)["muon"]["param_groups"]
    (adamw, _) = load_newest_state(tmp_path)["optimizer"]["param_groups"]
    assert group["lr"] == pytest.approx(adamw["lr"]) and load_newest_state(tmp_path)["step"] == 10


@pytest.mark.usefixtures("toy_checkpoints")
def test_a_model_without_hidden_matrices_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WavedistillError, match=r"optim.muon_lr is above 0, but this model has no hidden matrices"):
        fit(ToyTask(ToyModelConfig()), ToyDataset(), ToyDataset(), muon_recipe(tmp_path))


@pytest.mark.parametrize("rate", [-0.02, math.nan, math.inf])
def test_an_impossible_rate_is_refused(rate: float) -> None:
    with pytest.raises(WavedistillError, match="optim.muon_lr is .* it must be at least 0"):
        OptimConfig(muon_lr=rate)
