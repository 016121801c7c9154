"""The benchmark: every measurement, what the figures mean, and no trace left behind."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from helpers.tiny_models import tiny_student, tiny_teacher

from wavedistill import cli
from wavedistill.benchmark import timing, vocoders
from wavedistill.benchmark.report import BenchmarkResult, Cost, GemmPeak
from wavedistill.benchmark.systems import Speed, StreamSpeed, TimedSystem, time_systems
from wavedistill.benchmark.teacher import CACHED, NAIVE, PLAIN, SamplerSpeed, TrainingSpeed
from wavedistill.benchmark.timing import Setting, interleaved, peak_memory
from wavedistill.benchmark.vocoders import BenchmarkConfig, run_benchmark
from wavedistill.cli import benchmark as verb
from wavedistill.errors import WavedistillError


def tiny_peer(name: str = "peer") -> TimedSystem:
    """A vocoder of one layer at 4 kHz."""
    layer = torch.nn.Conv1d(3, 32, 1)

    def prepare(batch, frames, device):
        return lambda: layer(torch.zeros(batch, 3, frames, device=device))

    return TimedSystem(name, layer, 4000, 32, prepare, note="one layer")


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    out = tmp_path_factory.mktemp("benchmark")
    threads = torch.get_num_threads()
    config = BenchmarkConfig(
        devices=["cpu"],
        threads=(1,),
        seconds=(0.1, 0.4),
        batch_sizes=(1, 2),
        repeats=1,
        teacher_seconds=0.05,
        parallel_seconds=0.05,
    )
    taken = {"fp32": [], "bf16": []}

    def gemm_peak(device: str, precision: str) -> float:
        taken[precision].append(timing.gemm_peak(device, precision))
        return taken[precision][-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "GEMM_SECONDS", 0.01)
        patch.setattr(vocoders, "gemm_peak", gemm_peak)
        found = run_benchmark(
            tiny_teacher(),
            [tiny_student()],
            config,
            peers=[tiny_peer()],
            missing=["x is not installed: pip install x."],
        )
    found.save(out)
    assert torch.get_num_threads() == threads
    return found, out, taken


@pytest.mark.slow
def test_every_measurement_is_there_and_positive(result):
    found = result[0]
    cells = {(s.system, s.group, s.batch, s.audio_seconds) for s in found.speeds}
    assert cells == {
        (n, g, b, s)
        for n, g in (
            ("student", "student"),
            ("student, bf16", "student"),
            ("student, ONNX", "student"),
            ("peer", "peer"),
        )
        for b in (1, 2)
        for s in (0.1, 0.4)
    }
    assert all(s.real_time > 0 and (s.device, s.threads) == ("cpu", 1) for s in found.speeds)
    kinds = ["student", "student, bf16", "student, low latency", "student, bf16, low latency"]
    assert [s.system for s in found.streams] == kinds and all(s.first_chunk_ms > 0 for s in found.streams)
    assert found.streams[0].look_ahead_ms > found.streams[2].look_ahead_ms > 0
    assert {s.sampler for s in found.samplers} > {NAIVE, PLAIN, CACHED}
    parallel = [s for s in found.samplers if s.passes is not None]
    assert len(parallel) == 2 and all(s.sweeps >= 1 and s.passes > 0 for s in parallel)
    trained = {(t.task, t.network, t.precision) for t in found.training}
    assert trained == {
        (task, network, precision)
        for precision in ("fp32", "bf16")
        for task, network in (
            ("teacher (likelihood)", "ours"),
            ("teacher (likelihood)", "plain conv1d"),
            ("student (KL + STFT)", "ours"),
        )
    }
    assert {p.precision for p in found.peaks} == {"fp32", "bf16"} and all(p.macs_per_second > 1e8 for p in found.peaks)


@pytest.mark.slow
def test_costs(result):
    costs = {cost.system: cost for cost in result[0].costs}
    assert list(costs) == ["student", "student, bf16", "peer", "teacher"]
    assert costs["peer"].gmacs_per_second == pytest.approx(3 * 32 * 4000 / 32 / 1e9), (
        "a product of 3 x 32 for each of 125 frames a second"
    )
    assert costs["student"].uncounted == costs["teacher"].uncounted == [], (
        "give a new operator its formula in benchmark/macs.py"
    )
    assert costs["student"].gmacs_per_second > 0 and costs["student"].parameters > 0
    if sys.platform == "linux":
        assert costs["student"].memory_mb["cpu"] >= 0


@pytest.mark.slow
def test_files_hold_the_result(result):
    found, out, _ = result
    assert (out / "benchmark.md").read_text() == found.markdown
    data = json.loads((out / "benchmark.json").read_text())
    assert data["ratio"] == found.ratio and len(data["speeds"]) == 16
    assert "x is not installed: pip install x." in found.markdown and "peer: one layer." in found.markdown


def known() -> BenchmarkResult:
    """A result of made-up figures."""
    speeds = [
        Speed(name, group, "cpu", threads, batch, seconds, rate, 5, 24000 if group == "peer" else 16000)
        for name, group, threads, batch, seconds, rate in [
            ("fast", "student", 1, 1, 1.0, 30.0),
            ("fast", "student", 1, 1, 10.0, 20.0),
            ("fast", "student", 2, 1, 10.0, 40.0),
            ("fast", "student", 2, 8, 10.0, 90.0),
            ("slow", "student", 1, 1, 1.0, 2.0),
            ("vocoder", "peer", 2, 1, 10.0, 50.0),
        ]
    ]
    samplers = [
        SamplerSpeed(name, "cpu", threads, 1, 0.5, rate, 3, passes, passes and 900)
        for name, threads, rate, passes in [
            (NAIVE, 1, 0.01, None),
            (PLAIN, 1, 0.02, None),
            (CACHED, 1, 0.5, None),
            (NAIVE, 2, 0.0005, None),
            (PLAIN, 2, 0.02, None),
            (CACHED, 2, 0.4, None),
            ("draft-verified, fast", 2, 0.8, 32.4),
        ]
    ]
    training = [
        TrainingSpeed("teacher", n, "bf16", "cpu", 2, rate) for n, rate in (("ours", 900.0), ("plain conv1d", 300.0))
    ]
    costs = [
        Cost(name, group, rate, 1.0, 2.5, [], {"cpu": 70.0} if name == "fast" else {}, 10.0)
        for name, group, rate in (
            ("fast", "student", 16000),
            ("slow", "student", 16000),
            ("vocoder", "peer", 24000),
            ("old", "teacher", 16000),
        )
    ]
    peaks = [GemmPeak("cpu", threads, "fp32", 100e9 * threads) for threads in (1, 2)]
    streams = [StreamSpeed("fast", "cpu", 2, 0.096, 688.0, 12.3, 15.0)]
    return BenchmarkResult(speeds, streams, samplers, training, costs, peaks, [], {"cpu": "C"})


def test_ratio_is_the_best_student_over_the_best_cached_sampler_for_one_clip():
    assert known().ratios("cpu") == {"fast": 80.0, "slow": 4.0}
    assert known().ratio == 80.0


def test_tables_say_what_was_measured():
    lines = known().markdown.splitlines()
    head = "| x real time | kHz | 1 thread, 1 s | 1 thread, 10 s | 2 threads, 10 s | 2 threads, 8 x 10 s |"
    start = lines.index(head)
    assert lines[start + 2 : start + 5] == [
        "| fast | 16 | 30 | 20 | 40 | 90 |",
        "| slow | 16 | 2 | - | - | - |",
        "| vocoder | 24 | - | - | 50 | - |",
    ]
    assert "| fast | 2 threads | 96 | 688 | 12.3 | 15 |" in lines
    assert "| draft-verified, fast | 2 threads | 900 | 32 | 0.8 | 1600 | 40 | 2 |" in lines
    assert "| teacher | 2 threads | bf16 | 900 | 300 | 3 |" in lines
    # 2.5 GMAC for a second, 40 of them a second, of a peak of 200: half; the teacher by its cached sampler
    assert "| fast | 1.00 | 2.5 | 70 | 100 | 50 % |" in lines
    assert "| slow | 1.00 | 2.5 | - | - | - |" in lines, "not measured with two threads"
    assert "| old | 1.00 | 2.5 | - | 1 | 0.5 % |" in lines
    assert any("fast is 80 times as fast" in line for line in lines)


def test_systems_take_turns():
    calls = []
    runs = {name: lambda name=name: calls.append(name) or len(calls) for name in "ab"}
    found = interleaved(runs, repeats=2, budget=60.0)
    assert calls == ["a", "b"] * 3
    assert [found[name].repeats for name in "ab"] == [2, 2] and found["b"].result == 6
    assert all(0 < timing.seconds < 1 for timing in found.values())
    assert interleaved(runs, repeats=3, budget=0.0)["a"].repeats == 1, "once, whatever the budget"
    calls.clear()
    interleaved(runs, repeats=1, budget=1.0, warm_ups=[lambda: calls.append("warm")])
    assert calls == ["warm", "a", "b"]


def test_slow_systems_are_left_out_of_long_cells():
    speeds = time_systems([tiny_peer("a")], Setting("cpu", 1), [(1, 1.0), (1, 2.0)], 1, 1.0, slow_seconds=0.0)
    assert [s.audio_seconds for s in speeds] == [1.0], "always in the first"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's high-water mark")
def test_peak_memory_is_what_a_run_takes():
    small = peak_memory(lambda: torch.ones(1000).sum())
    large = peak_memory(lambda: torch.ones(64, 2**18).sum())  # 64 MB, freed at once
    assert small < 16 and 56 < large < 96


def test_threads_come_back_after_a_failure():
    before = torch.get_num_threads()
    student = tiny_student()
    student.sample = lambda *args, **kwargs: 1 / 0
    with pytest.raises(ZeroDivisionError):
        config = BenchmarkConfig(seconds=(0.1,), batch_sizes=(1,), threads=(before + 1,), repeats=1, onnx=False)
        run_benchmark(tiny_teacher(), [student], config)
    assert torch.get_num_threads() == before


@pytest.mark.slow
def test_one_slow_moment_does_not_spoil_the_peak_of_matrix_products(result):
    """It is taken several times, spread over the run, and the best counts."""
    found, _, taken = result
    for peak in found.peaks:
        assert len(taken[peak.precision]) >= 3 and peak.macs_per_second == max(taken[peak.precision])


def test_swapped_models_are_refused():
    with pytest.raises(WavedistillError, match="must be a WaveNet"):
        run_benchmark(tiny_student(), [tiny_student()])
    with pytest.raises(WavedistillError, match="in one pass"):
        run_benchmark(tiny_teacher(), [tiny_teacher()])


def test_command_line(monkeypatch, tmp_path, capsys):
    ran = []
    monkeypatch.setattr(
        verb.subprocess, "run", lambda words, env: ran.append(words) or type("Done", (), {"returncode": 3})
    )
    assert cli.main(["benchmark", "--student", "a", "--student", "b", "--device", "cpu", "--out", str(tmp_path)]) == 3
    assert ran[0][1:4] == ["-m", "wavedistill.benchmark", "voices"]
    assert ran[0][4:] == ["--student", "a", "--student", "b", "--device", "cpu", "--out", str(tmp_path)]
    assert cli.main(["benchmark", "flows", "--teacher", "a"]) == 2
    assert "--teacher means nothing" in capsys.readouterr().err
    assert cli.main(["benchmark", "--device", "tpu9"]) == 2 and len(ran) == 1
