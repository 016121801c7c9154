from __future__ import annotations

import logging
import shutil
import signal
import sys
import types
from pathlib import Path

import pytest
import torch
import yaml
from helpers.training_toy import (
    ToyBatch,
    ToyDataset,
    ToyModelConfig,
    ToyTask,
    assert_same_training,
    read_metrics,
    recipe,
    run_files,
    save_toy,
)

from wavedistill.errors import WavedistillError
from wavedistill.training.checkpoint import list_states, load_newest_state, load_state, state_path
from wavedistill.training.loop import fit
from wavedistill.training.signals import TrainingInterrupted


@pytest.fixture(autouse=True)
def toy_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.SimpleNamespace(save_pretrained=save_toy)
    monkeypatch.setitem(sys.modules, "wavedistill.models.pretrained", module)


def train(folder: Path, *, signals: dict[int, int] | None = None, width: int = 8, noise: float = 0.1, **run) -> Path:
    options = recipe(folder, **run)
    options.model = ToyModelConfig(width)
    return fit(ToyTask(options.model, noise, signals), ToyDataset(), ToyDataset(), options)


# ---- properties: what resuming, batching and precision must not change


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"precision": "bf16"}], ids=["plain", "accumulate", "bf16"])
def test_five_and_five_steps_equal_ten_bitwise(tmp_path: Path, signal_number: int, options: dict) -> None:
    whole = train(tmp_path / "whole", **options)
    parts = tmp_path / "parts"
    with pytest.raises(TrainingInterrupted) as stopped:
        train(parts, signals={4: signal_number}, **options)
    assert stopped.value.exit_code == 128 + signal_number
    assert [step for step, _ in list_states(parts)] == [5]
    train(parts, **options)
    assert_same_training(whole, parts, kinds=("train",))  # a stopping run does not stay to validate
    assert run_files(whole) == run_files(parts)


def test_stopping_between_saves_loses_nothing(tmp_path: Path) -> None:
    with pytest.raises(TrainingInterrupted, match="stopped at step 7"):
        train(tmp_path / "parts", signals={6: signal.SIGTERM})
    train(tmp_path / "parts")
    assert load_newest_state(tmp_path / "parts")["step"] == 10
    assert_same_training(train(tmp_path / "whole"), tmp_path / "parts")


def test_logging_and_validation_do_not_change_training(tmp_path: Path) -> None:
    one = train(tmp_path / "one", log_every=1, validate_every=1, sample_every=2)
    other = train(tmp_path / "other", log_every=100, validate_every=100, sample_every=100)
    states = [load_newest_state(folder) for folder in (one, other)]
    assert all(torch.equal(states[0]["model"][name], states[1]["model"][name]) for name in states[0]["model"])


def test_accumulated_halves_equal_one_batch(tmp_path: Path) -> None:
    class Halves(ToyDataset):
        def batch(self, step: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> ToyBatch:
            return super().batch(step // 2, 4, seed, rank=step % 2, world_size=2)

    whole = load_newest_state(train(tmp_path / "whole", noise=0.0))
    options = recipe(tmp_path / "halves", accumulate=2)
    halves = load_newest_state(fit(ToyTask(ToyModelConfig(), noise=0.0), Halves(), ToyDataset(), options))
    for name, weight in whole["model"].items():
        torch.testing.assert_close(halves["model"][name], weight, rtol=1e-4, atol=1e-6)


def test_every_step_sees_its_own_batch_and_noise(tmp_path: Path) -> None:
    losses = [line["loss"] for line in read_metrics(train(tmp_path, steps=8)) if line["kind"] == "train"]
    assert len(set(losses)) == 8


# ---- behaviour


def test_training_lowers_the_loss_and_leaves_the_documented_files(tmp_path: Path) -> None:
    train(
        tmp_path,
        width=32,
        noise=0.02,
        steps=300,
        log_every=50,
        save_every=100,
        keep=2,
        validate_every=150,
        sample_every=200,
    )
    metrics = read_metrics(tmp_path)
    trained = [line for line in metrics if line["kind"] == "train"]
    assert trained[-1]["loss"] < 0.5 * trained[0]["loss"]
    assert [line["step"] for line in trained] == list(range(50, 301, 50))
    assert [line["step"] for line in metrics if line["kind"] == "valid"] == [150, 300]
    assert {"loss", "absolute_error", "grad_norm", "lr"} <= trained[0].keys()
    files = ["checkpoint/weights.pt", "config.yaml", "metrics.jsonl"]
    files += [f"samples/step-0000{step}/tone.{suffix}" for step in (200, 300) for suffix in ("wav", "png")]
    files += ["state/step-0000200.pt", "state/step-0000300.pt"]
    assert run_files(tmp_path) == sorted(files)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["run"]["steps"] == 300


def test_checkpoint_holds_the_averaged_weights(tmp_path: Path) -> None:
    train(tmp_path)
    state = load_newest_state(tmp_path)
    weights = torch.load(tmp_path / "checkpoint" / "weights.pt")
    for name, average in state["ema"].items():
        assert torch.equal(weights[name], average)
        assert not torch.equal(weights[name], state["model"][name])


def test_frozen_parts_stay_and_finished_runs_return_at_once(tmp_path: Path) -> None:
    task = ToyTask(ToyModelConfig())
    before = task.frozen.weight.clone()
    fit(task, ToyDataset(), ToyDataset(), recipe(tmp_path))
    assert torch.equal(task.frozen.weight, before)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != "config.yaml"}
    dataset = ToyDataset()
    assert fit(ToyTask(ToyModelConfig()), dataset, ToyDataset(), recipe(tmp_path)) == tmp_path
    assert dataset.served == []
    assert all(path.stat().st_mtime_ns == time for path, time in written.items() if path.is_file())


def test_time_budget_ends_the_run_and_counts_over_resumes(tmp_path: Path) -> None:
    options = {"steps": 10**7, "save_every": 10**6, "log_every": 100, "validate_every": 10**6, "sample_every": 10**6}
    train(tmp_path, minutes=0.4 / 60, **options)
    first = load_newest_state(tmp_path)
    assert 0.4 <= first["elapsed"] < 3.0
    assert read_metrics(tmp_path)[-1]["kind"] == "valid"
    assert [line for line in read_metrics(tmp_path) if line["kind"] == "train"][-1]["lr"] < 1e-3  # cosine over time
    train(tmp_path, minutes=0.4 / 60, **options)
    assert load_newest_state(tmp_path)["step"] == first["step"]
    budget = first["elapsed"] + 0.2
    train(tmp_path, minutes=budget / 60, **options)
    last = load_newest_state(tmp_path)
    assert last["step"] > first["step"] and budget <= last["elapsed"] < budget + 2.0


def test_saves_by_the_clock(tmp_path: Path) -> None:
    train(tmp_path, steps=3, save_every=1000, save_minutes=1e-9)
    assert [step for step, _ in list_states(tmp_path)] == [1, 2, 3]


def test_interruption_names_the_resume_command(tmp_path: Path) -> None:
    with pytest.raises(TrainingInterrupted, match=f"wavedistill train {tmp_path / 'config.yaml'}"):
        train(tmp_path, signals={2: signal.SIGINT})
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_non_finite_loss_stops_and_keeps_the_batch(tmp_path: Path) -> None:
    class Poisoned(ToyDataset):
        def batch(self, step: int, *arguments: int) -> ToyBatch:
            batch = super().batch(step, *arguments)
            return ToyBatch(batch.audio / 0) if step == 6 else batch

    with pytest.raises(WavedistillError, match="not finite at step 6.*nonfinite-batch.pt") as error:
        fit(ToyTask(ToyModelConfig()), Poisoned(), ToyDataset(), recipe(tmp_path))
    assert len(str(error.value).splitlines()) <= 2
    kept = torch.load(tmp_path / "nonfinite-batch.pt", weights_only=True)
    assert kept["step"] == 6 and not torch.isfinite(kept["batches"][0]["audio"]).any()
    assert load_newest_state(tmp_path)["step"] == 5
    train(tmp_path)  # with the data repaired, the run goes on
    assert load_newest_state(tmp_path)["step"] == 10


def test_non_finite_gradient_stops(tmp_path: Path) -> None:
    class Task(ToyTask):
        def forward(self, batch: ToyBatch, step: int):
            loss, values = super().forward(batch, step)
            return loss + (0 * self.model.layers[0].weight.sum()).sqrt(), values  # finite, with the gradient 0 / 0

    with pytest.raises(WavedistillError, match="not finite at step 0"):
        fit(Task(ToyModelConfig()), ToyDataset(), ToyDataset(), recipe(tmp_path))


def test_an_error_of_the_dataset_reaches_the_caller(tmp_path: Path) -> None:
    class Broken(ToyDataset):
        def batch(self, step: int, *arguments: int) -> ToyBatch:
            if step == 3:
                raise WavedistillError("clip 3 is broken")
            return super().batch(step, *arguments)

    with pytest.raises(WavedistillError, match="clip 3 is broken"):
        fit(ToyTask(ToyModelConfig()), Broken(), ToyDataset(), recipe(tmp_path))


def test_compile_is_asked_of_the_task(tmp_path: Path) -> None:
    task = ToyTask(ToyModelConfig())
    calls: list[bool] = []
    task.compile = lambda: calls.append(True)  # type: ignore[method-assign]
    fit(task, ToyDataset(), ToyDataset(), recipe(tmp_path, compile=True))
    assert calls == [True]


# ---- resuming and refusing


def test_a_torn_newest_state_falls_back_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = train(tmp_path / "whole")
    torn = train(tmp_path / "torn")
    newest = state_path(torn, 10)
    newest.write_bytes(newest.read_bytes()[:1000])
    with caplog.at_level(logging.WARNING):
        train(torn)
    assert "step-0000010.pt" in caplog.text
    assert_same_training(whole, torn)


def test_a_run_folder_of_an_earlier_version_resumes(tmp_path: Path) -> None:
    """older_run/ was written by the loop as it was before `Run`, and stopped at step 7."""
    older = Path(shutil.copytree(Path(__file__).parent / "older_run", tmp_path / "older"))
    before = read_metrics(older)
    wandb_id = load_newest_state(older)["wandb_id"]
    states = [load_newest_state(folder) for folder in (train(older), train(tmp_path / "whole"))]
    assert [state["step"] for state in states] == [10, 10] and states[0]["wandb_id"] == wandb_id
    for part in ("model", "ema"):
        torch.testing.assert_close(states[0][part], states[1][part], rtol=1e-4, atol=1e-6)
    metrics = read_metrics(older)
    assert metrics[: len(before)] == before
    assert [line["step"] for line in metrics if line["kind"] == "train"] == list(range(1, 11))


def test_only_torn_states_are_no_fresh_start(tmp_path: Path) -> None:
    train(tmp_path, steps=5)
    state_path(tmp_path, 5).write_bytes(b"")
    with pytest.raises(WavedistillError, match="can be read"):
        train(tmp_path)


def test_another_model_is_refused_by_name_and_changes_nothing(tmp_path: Path) -> None:
    train(tmp_path, steps=5)
    before = (tmp_path / "config.yaml").read_text()
    with pytest.raises(WavedistillError, match="model.width 8 -> 6"):
        train(tmp_path, width=6)
    assert (tmp_path / "config.yaml").read_text() == before


def test_resume_never_refuses_a_used_folder(tmp_path: Path) -> None:
    train(tmp_path, steps=5, resume="never")
    with pytest.raises(WavedistillError, match="already holds a run"):
        train(tmp_path, resume="never")


@pytest.mark.parametrize("source", ["", "state/step-0000005.pt"])
def test_resume_from_another_run(tmp_path: Path, source: str) -> None:
    train(tmp_path / "first", steps=5)
    train(tmp_path / "second", resume=str(tmp_path / "first" / source))
    assert load_newest_state(tmp_path / "second")["step"] == 10
    with pytest.raises(WavedistillError, match="no training state"):
        train(tmp_path / "third", resume=str(tmp_path))


def test_init_from_takes_the_weights_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ToyTask(ToyModelConfig()).model
    torch.nn.init.constant_(given.layers[0].weight, 0.25)
    module = types.SimpleNamespace(save_pretrained=save_toy, load_pretrained=lambda name: given)
    monkeypatch.setitem(sys.modules, "wavedistill.models.pretrained", module)
    options = recipe(tmp_path / "run", steps=1, init_from="somewhere")
    options.optim.lr = 1e-12
    fit(ToyTask(ToyModelConfig()), ToyDataset(), ToyDataset(), options)
    state = load_newest_state(tmp_path / "run")
    torch.testing.assert_close(state["model"]["layers.0.weight"], given.layers[0].weight.detach())
    assert state["step"] == 1
    with pytest.raises(WavedistillError, match=r"layers.0.bias has shape \(8,\), the model needs \(6,\)"):
        train(tmp_path / "other", width=6, init_from="somewhere")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"save_every": 0}, "run.save_every"),
        ({"minutes": 0.0}, "run.minutes"),
        ({"precision": "fp16"}, "bf16"),
        ({"device": "abacus"}, "run.device"),
        ({"device": "cuda:99"}, "GPU|cuda"),
    ],
)
def test_impossible_options_are_refused(tmp_path: Path, option: dict, message: str) -> None:
    with pytest.raises(WavedistillError, match=message):
        train(tmp_path, **option)


def test_a_run_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WavedistillError, match="cannot write"):
        train(tmp_path / "file")


def test_states_are_plain_data(tmp_path: Path) -> None:
    state = load_state(state_path(train(tmp_path), 10))
    expected = {"format", "step", "elapsed", "model", "optimizer", "ema", "scaler", "config", "wandb_id"}
    assert state.keys() == expected and state["config"]["model"]["width"] == 8
