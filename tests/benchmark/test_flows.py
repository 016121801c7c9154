"""The flow benchmark: consistent figures, fair turns, and what is typed."""

from __future__ import annotations

import json

import pytest
import torch

from wavedistill import cli
from wavedistill.benchmark import flow_peers
from wavedistill.benchmark.flows import OURS, Contender, ours, run_flow_benchmark
from wavedistill.cli import benchmark as verb
from wavedistill.nn.wavenet_stack import StackConfig


def backwards(flow, dim):
    """A peer whose log-determinants are wrong, so that the table has something to show."""
    honest = ours(flow, dim)
    return Contender(honest.module, lambda m, x: (m.forward(x)[0], -m.forward(x)[1]), lambda m, z: m.inverse(z))


@pytest.fixture(scope="module")
def result():
    threads = torch.get_num_threads()
    found = run_flow_benchmark(
        {"peer": backwards},
        dims=(4, 6),
        batch=8,
        threads=1,
        repeats=2,
        stack=StackConfig(4, 2, 2, 8, 8),
        wavenet_samples=(64, 128),
    )
    assert torch.get_num_threads() == threads
    return found


def test_every_measurement_is_there(result):
    assert {(t.flow, t.dim, t.direction, t.library) for t in result.timings} == {
        (flow, dim, direction, library)
        for flow in ("MAF", "RealNVP")
        for dim in (4, 6)
        for direction in ("density", "sampling")
        for library in (OURS, "peer")
    }
    assert all(t.milliseconds > 0 for t in result.timings)
    assert [w.samples for w in result.wavenet] == [64, 128] and all(
        min(w.naive_seconds, w.cached_seconds) > 0 for w in result.wavenet
    )


def test_exactness_tells_right_from_wrong(result):
    for entry in result.exactness:
        assert entry.round_trip < 1e-5
        assert (entry.log_det < 1e-12) == (entry.library == OURS)


def test_table_and_files(result, tmp_path):
    ratio = result.relative("MAF", 4, "density")
    times = {t.library: t.milliseconds for t in result.timings if (t.flow, t.dim, t.direction) == ("MAF", 4, "density")}
    assert ratio == pytest.approx(times[OURS] / times["peer"])
    result.save(tmp_path)
    assert f"| {ratio:.3g} |" in (tmp_path / "flows.md").read_text()
    assert json.loads((tmp_path / "flows.json").read_text())["batch"] == 8


def test_command_runs_in_a_process_of_its_own(monkeypatch, tmp_path):
    ran = []
    monkeypatch.setattr(
        verb.subprocess, "run", lambda words, env: ran.append(words) or type("Done", (), {"returncode": 3})
    )
    assert cli.main(["benchmark", "flows", "--out", str(tmp_path)]) == 3
    assert ran[0][1:] == ["-m", "wavedistill.benchmark", "flows", "--out", str(tmp_path)]


@pytest.mark.parametrize("flow", ["MAF", "RealNVP"])
@pytest.mark.parametrize("library", ["zuko", "nflows", "normflows"])
def test_flows_of_other_libraries_are_bijections(library, flow):
    pytest.importorskip(library)
    torch.manual_seed(0)
    peer = flow_peers.installed_flow_libraries()[library](flow, 4)
    x = torch.randn(5, 4)
    with torch.no_grad():
        z, log_det = peer.forward(peer.module, x)
        back, log_det_back = peer.inverse(peer.module, z)
    torch.distributions.Distribution.set_default_validate_args(True)  # which importing zuko switches off
    torch.testing.assert_close(back, x, atol=1e-4, rtol=0)
    torch.testing.assert_close(log_det, -log_det_back, atol=1e-4, rtol=0)
