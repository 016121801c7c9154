"""Runs in processes of their own: killed ones, and two ranks under torchrun."""

from __future__ import annotations

import signal
import sys
import types
from pathlib import Path

import pytest
import torch
from helpers import training_toy
from helpers.paths import HELPERS
from helpers.processes import run
from helpers.training_toy import assert_same_training, read_metrics, run_files

from wavedistill.training.checkpoint import load_newest_state

SCRIPT = HELPERS / "training_toy.py"


@pytest.fixture(autouse=True)
def toy_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.SimpleNamespace(save_pretrained=training_toy.save_toy)
    monkeypatch.setitem(sys.modules, "wavedistill.models.pretrained", module)


def test_a_killed_run_ends_with_the_same_files(tmp_path: Path) -> None:
    killed = run(str(SCRIPT), str(tmp_path / "killed"), "10", "0.1", "7")
    assert killed.returncode == -signal.SIGKILL
    assert load_newest_state(tmp_path / "killed")["step"] == 5
    assert read_metrics(tmp_path / "killed")[-1]["step"] == 7  # two steps beyond the save, to be done again
    for name in ("killed", "whole"):
        training_toy.main(str(tmp_path / name), "10", "0.1", "-1")
    assert run_files(tmp_path / "killed") == run_files(tmp_path / "whole")
    assert_same_training(tmp_path / "killed", tmp_path / "whole")


def test_two_ranks_equal_one(tmp_path: Path) -> None:
    training_toy.main(str(tmp_path / "one"), "10", "0", "-1")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    two = run(*torchrun, str(SCRIPT), str(tmp_path / "two"), "10", "0", "-1")
    assert two.returncode == 0, two.stderr
    assert run_files(tmp_path / "one") == run_files(tmp_path / "two")
    one = load_newest_state(tmp_path / "one")
    two = load_newest_state(tmp_path / "two")
    for part in ("model", "ema"):
        for name, weight in one[part].items():
            torch.testing.assert_close(two[part][name], weight, rtol=1e-4, atol=1e-6)
    for line, other in zip(read_metrics(tmp_path / "one"), read_metrics(tmp_path / "two"), strict=True):
        torch.testing.assert_close(torch.tensor(line["loss"]), torch.tensor(other["loss"]), rtol=1e-4, atol=1e-6)
