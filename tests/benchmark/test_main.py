"""``python -m wavedistill.benchmark``: what is typed, what comes back, and the exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.processes import run

from wavedistill.benchmark import flows, peers, vocoders
from wavedistill.benchmark.__main__ import main
from wavedistill.benchmark.peers import Peers
from wavedistill.errors import WavedistillError


class Result:
    """Stands for what a benchmark found."""

    def __init__(self, name):
        self.name = name
        self.markdown = f"| {name} |"

    def save(self, folder):
        (Path(folder) / f"{self.name}.md").write_text(self.markdown)


def test_what_was_typed_is_measured_and_errors_are_reported(monkeypatch, capsys):
    given = {}

    def run_benchmark(*args, **kwargs):
        given.update(kwargs, args=args)
        raise WavedistillError("no such checkpoint")

    monkeypatch.setattr(vocoders, "run_benchmark", run_benchmark)
    monkeypatch.setattr(peers, "installed_vocoders", lambda: Peers([], ["line"]))
    assert main(["--student", "a", "--student", "b", "--device", "cuda", "--out", "o"]) == 2
    teacher, students, config = given["args"]
    assert (teacher, students, config.devices) == ("speech-teacher", ["a", "b"], ["cuda"])
    assert given["missing"] == ["line"] and capsys.readouterr().err == "error: no such checkpoint\n"


@pytest.mark.parametrize(("words", "name"), [([], "benchmark"), (["voices"], "benchmark"), (["flows"], "flows")])
def test_result_is_printed_and_kept(words, name, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(vocoders, "run_benchmark", lambda *args, **kwargs: Result("benchmark"))
    monkeypatch.setattr(flows, "run_flow_benchmark", lambda *args, **kwargs: Result("flows"))
    monkeypatch.setattr(peers, "installed_vocoders", lambda: Peers([], []))
    assert main([*words, "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"| {name} |\n"
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.md"]


def test_ctrl_c_is_an_exit_code(monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(flows, "run_flow_benchmark", stop)
    assert main(["flows"]) == 130


def test_options_of_the_voices_mean_nothing_to_flows(capsys):
    assert main(["flows", "--device", "cpu"]) == 2
    assert "so --device means nothing to it" in capsys.readouterr().err


def test_module_can_be_started():
    done = run("-m", "wavedistill.benchmark", "--help")
    assert done.returncode == 0 and "--student DIR|NAME" in done.stdout
    assert "python -m wavedistill.benchmark" in done.stdout
