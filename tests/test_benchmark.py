"""The benchmark: consistent figures, and no trace left behind."""

from __future__ import annotations

import json

import pytest
import torch
from tiny_models import tiny_student, tiny_teacher

from wavedistill.errors import WavedistillError
from wavedistill.evaluation.benchmark import run_benchmark


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    out = tmp_path_factory.mktemp("benchmark")
    threads = torch.get_num_threads()
    found = run_benchmark(
        tiny_teacher(), tiny_student(), seconds=(0.1, 0.4), batch_sizes=(1, 2), threads=(1,), repeats=2, teacher_seconds=0.02, out=out
    )
    assert torch.get_num_threads() == threads
    return found, out


def test_every_measurement_is_there_and_positive(result):
    speeds = result[0].speeds
    assert [(s.batch, round(s.audio_seconds, 1)) for s in speeds if s.what.startswith("student")] == [(1, 0.1), (2, 0.1), (1, 0.4), (2, 0.4)]
    assert sum(s.what.startswith("teacher") for s in speeds) == 2
    assert all(s.real_time > 0 for s in speeds)
    assert result[0].peak_memory_mb > 50
    assert all(value > 0 for value in result[0].training_samples_per_second.values())
    assert len(result[0].training_samples_per_second) == 2


def test_ratio_is_that_of_the_table(result):
    student = next(s for s in result[0].speeds if s.what.startswith("student") and s.batch == 1 and s.audio_seconds > 0.3)
    teacher = next(s for s in result[0].speeds if "cached" in s.what)
    assert result[0].ratio == pytest.approx(student.real_time / teacher.real_time)
    assert result[0].ratio > 1


def test_files_hold_the_result_and_extrapolation_is_labelled(result):
    found, out = result
    assert (out / "benchmark.md").read_text() == found.markdown
    assert json.loads((out / "benchmark.json").read_text())["ratio"] == found.ratio
    assert "extrapolated" in found.markdown and "times as fast" in found.markdown


def test_threads_come_back_after_a_failure():
    before = torch.get_num_threads()
    teacher = tiny_teacher()
    teacher.sample = lambda *args, **kwargs: 1 / 0
    with pytest.raises(ZeroDivisionError):
        run_benchmark(teacher, tiny_student(), seconds=(0.1,), batch_sizes=(1,), threads=(before + 1,), repeats=1)
    assert torch.get_num_threads() == before


def test_swapped_models_are_refused():
    with pytest.raises(WavedistillError, match="in this order"):
        run_benchmark(tiny_student(), tiny_teacher())
