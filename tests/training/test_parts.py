"""Schedule, moving average, meter, prefetching and tracking, each alone."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from pathlib import Path

import pytest
import torch
from helpers.training_toy import ToyBatch, ToyModel, ToyModelConfig, ToyTask, recipe, run_files
from torch import nn

from wavedistill.distributed import Ranks
from wavedistill.errors import WavedistillError
from wavedistill.training.config import OptimConfig
from wavedistill.training.ema import EMA
from wavedistill.training.meter import Meter, Speed
from wavedistill.training.metrics_file import read_metrics, truncate_metrics
from wavedistill.training.optimizer import ClippedOptimizer
from wavedistill.training.prefetch import Prefetcher
from wavedistill.training.schedule import lr_scale, progress
from wavedistill.training.state import Due, Run
from wavedistill.training.task import Sample
from wavedistill.training.tracker import Tracker, wandb_mode


@pytest.mark.parametrize("decay", ["cosine", "linear", "exponential"])
def test_the_learning_rate_falls_from_its_peak_to_its_final_ratio(decay: str) -> None:
    optim = OptimConfig(warmup_steps=1, decay=decay, final_lr_ratio=0.05)
    rates = [lr_scale(optim, step, progress(step, 100, 0.0, None)) for step in range(101)]
    assert rates[0] == pytest.approx(1.0) and rates[-1] == pytest.approx(0.05)
    assert all(later < earlier for earlier, later in zip(rates, rates[1:], strict=False))
    middle = math.sqrt(0.05) if decay == "exponential" else (1 + 0.05) / 2
    assert rates[50] == pytest.approx(middle)


def test_warm_up_is_linear_and_constant_stays() -> None:
    optim = OptimConfig(warmup_steps=4, decay="constant")
    assert [lr_scale(optim, step, 0.5) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_progress_follows_whichever_is_further_on() -> None:
    assert progress(10, 100, 30.0, None) == 0.1
    assert progress(10, 100, 30.0, 1.0) == 0.5
    assert progress(90, 100, 30.0, 1.0) == 0.9
    assert progress(10, 100, 300.0, 1.0) == 1.0


def test_ema_is_the_recursion_with_its_warm_up() -> None:
    model = nn.Linear(3, 2)
    frozen = nn.Linear(2, 2).requires_grad_(False)
    both = nn.Sequential(model, frozen)
    ema = EMA(both, 0.5)
    expected = model.weight.detach().clone()
    for step in range(1, 8):
        with torch.no_grad():
            model.weight.normal_()
        ema.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.weight.detach()
    torch.testing.assert_close(ema.state_dict()["0.weight"], expected)
    assert set(ema.state_dict()) == {"0.weight", "0.bias"}
    raw = model.weight.detach().clone()
    with pytest.raises(ZeroDivisionError), ema.applied():
        torch.testing.assert_close(model.weight.detach(), expected)
        raise ZeroDivisionError
    assert torch.equal(model.weight, raw)


@pytest.mark.parametrize("scaled", [False, True])
def test_a_gradient_that_is_not_finite_is_told_or_skipped_by_the_scaler(scaled: bool) -> None:
    weight = nn.Parameter(torch.ones(3))
    scaler = torch.amp.GradScaler("cpu", enabled=scaled)
    optimizer = ClippedOptimizer([weight], lr=0.1, betas=(0.9, 0.999), weight_decay=0.0, clip_norm=0.5, scaler=scaler)
    optimizer.backward((weight * torch.tensor([3.0, 0.0, 4.0])).sum())
    norm, is_finite = optimizer.clip()
    assert float(norm) == pytest.approx(5.0) and is_finite and float(weight.grad.norm()) == pytest.approx(0.5, rel=1e-4)
    optimizer.step()
    assert weight.grad is None and float(weight.detach()[0]) == pytest.approx(0.9, abs=1e-3)
    before = weight.detach().clone()
    optimizer.backward((weight * torch.inf).sum())
    _, is_finite = optimizer.clip()
    assert bool(is_finite) == scaled, "a step that the scaler skips is no reason to stop"
    if scaled:
        optimizer.step()
        assert torch.equal(weight, before)


def test_meter_gives_means_and_forgets() -> None:
    meter = Meter()
    for value in (1.0, 2.0, 6.0):
        meter.add({"a": torch.tensor(value, requires_grad=True)})
    meter.add({"b": torch.tensor(5.0)})
    assert meter.flush(Ranks()) == {"a": 3.0, "b": 5.0}
    assert meter.flush(Ranks()) == {}


def test_speed_counts_since_the_last_log(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 2.0, 6.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    speed = Speed()
    for _ in range(4):
        speed.add(8000)
    assert speed.flush(16000) == {"steps_per_second": 2.0, "audio_seconds_per_second": 1.0}
    speed.add(16000)
    assert speed.flush(16000) == {"steps_per_second": 0.25, "audio_seconds_per_second": 0.25}


def test_what_is_due_after_a_step(tmp_path: Path) -> None:
    options = recipe(tmp_path, steps=12, log_every=2, validate_every=3, sample_every=6, save_every=5, save_minutes=1.0)
    run = Run.begin(ToyTask(ToyModelConfig()), options, Ranks(), torch.device("cpu"))
    due = {}
    for run.step in range(1, 13):
        due[run.step] = "".join(name[0] for name, is_due in run.due(False)._asdict().items() if is_due)
    assert [due[step] for step in range(1, 13)] == ["", "l", "v", "l", "ls", "lvs", "", "l", "v", "ls", "", "lvss"]
    run.step = 3
    assert run.due(True) == Due(log=True, validate=False, sample=False, save=True), "a run that stops only saves"
    run.elapsed = 61.0
    assert run.due(False).save and not run.is_over


def test_prefetcher_keeps_order_works_ahead_and_ends() -> None:
    ahead = threading.Semaphore(0)

    def fetch(index: int) -> ToyBatch:
        ahead.release()
        return ToyBatch(torch.full((1, 2), float(index)))

    batches = Prefetcher(fetch, first=5, device=torch.device("cpu"), depth=2)
    assert all(ahead.acquire(timeout=5) for _ in range(2))  # fetched before anyone asked
    assert [float(batches.next().audio[0, 0]) for _ in range(4)] == [5.0, 6.0, 7.0, 8.0]
    batches.close()
    assert not any(thread.name == "prefetch" for thread in threading.enumerate())


def test_metrics_are_cut_at_the_resumed_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step, "loss": 1.0}) + "\n" for step in (1, 2, 3)) + '{"step": 2, "lo')
    truncate_metrics(path, 2)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


def test_metrics_are_read_without_a_torn_end_and_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    line = '{"step": 1, "kind": "train", "elapsed": 2.5, "loss": null}\n'
    path.write_text(line + '{"step": 2, "lo')
    (read,) = read_metrics(path)
    assert (read["step"], read["kind"], read["elapsed"]) == (1, "train", 2.5) and math.isnan(read["loss"])
    path.write_text('{"step": 1, "lo\n' + line)
    with pytest.raises(WavedistillError, match="metrics.jsonl, line 1 is no line of a run's metrics"):
        read_metrics(path)


def test_metrics_are_strict_json(tmp_path: Path) -> None:
    tracker = Tracker(recipe(tmp_path), ToyModel(ToyModelConfig()), 0, 0.0, "id")
    tracker.log(3, "train", 1.23456, {"loss": math.nan, "kl": 0.5})
    tracker.close()
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line == {"step": 3, "kind": "train", "elapsed": 1.235, "loss": None, "kl": 0.5}


def test_samples_have_audio_and_picture_and_bad_ones_are_no_disaster(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Tracker(recipe(tmp_path), ToyModel(ToyModelConfig()), 0, 0.0, "id")
    bad = Sample("bad", torch.full((4096,), math.nan))
    good = Sample("good", torch.zeros(4096), torch.zeros(80, 16))
    with caplog.at_level(logging.WARNING):
        tracker.samples(12, [bad, good])
    tracker.close()
    assert run_files(tmp_path) == ["samples/step-0000012/good.png", "samples/step-0000012/good.wav"]
    assert "bad" in caplog.text


@pytest.fixture
def no_wandb_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return tmp_path / "netrc"


def test_wandb_is_offline_unless_there_is_a_login(no_wandb_login: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = recipe("run", wandb="auto").run
    assert wandb_mode(recipe("run", wandb="off").run) == "disabled"
    assert wandb_mode(run) == "offline"
    no_wandb_login.write_text("machine api.wandb.ai login user password secret\n")
    no_wandb_login.chmod(0o600)
    assert wandb_mode(run) == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode(run) == "disabled"


def test_wandb_offline_keeps_one_run_id_over_a_resume(tmp_path: Path, no_wandb_login: Path) -> None:
    for step in (5, 10):
        tracker = Tracker(recipe(tmp_path, wandb="auto"), ToyModel(ToyModelConfig()), step - 5, 0.0, "abcd1234")
        tracker.log(step, "train", 1.0, {"loss": 1.0 / step})
        tracker.samples(step, [Sample("tone", torch.zeros(4096))])
        tracker.close()
    files = [name for name in run_files(tmp_path) if name.startswith("wandb/")]
    logs = [name for name in files if name.endswith("run-abcd1234.wandb")]
    media = [name for name in files if "/media/" in name]
    assert logs and all("offline-run-" in name for name in logs)
    assert {Path(name).suffix for name in media} == {".wav", ".png"}
