"""In which precision a run computes."""

from __future__ import annotations

import logging

import pytest
import torch

from wavedistill.training import compute


@pytest.mark.parametrize(
    ("asked", "fast", "computed"),
    [("auto", True, "bf16"), ("auto", False, "fp32"), ("fp32", True, "fp32"), ("bf16", True, "bf16")],
)
def test_auto_takes_bfloat16_where_it_is_fast(asked, fast, computed, monkeypatch, caplog):
    monkeypatch.setattr(compute, "has_bfloat16", lambda device: fast)
    with caplog.at_level(logging.WARNING):
        assert compute.chosen_precision(asked, torch.device("cpu")) == computed
    assert not caplog.records


def test_bfloat16_without_instructions_is_told(monkeypatch, caplog):
    monkeypatch.setattr(compute, "has_bfloat16", lambda device: False)
    assert compute.chosen_precision("bf16", torch.device("cpu")) == "bf16"
    assert "--run.precision auto or fp32 is faster" in caplog.text
