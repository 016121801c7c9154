"""The notebooks of examples/ run from the first cell to the last, without a notebook server."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from helpers.paths import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def cells(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, Any]]:
    """What the cells display: (kind, data). IPython.display is stood in for, so that it need not be installed."""
    found: list[tuple[str, Any]] = []
    module = types.ModuleType("IPython.display")
    module.Audio = lambda data, rate, normalize: ("audio", (data, rate))
    module.Image = lambda data: ("image", data)
    module.display = found.append
    package = types.ModuleType("IPython")
    package.get_ipython = lambda: None  # matplotlib asks for a shell and for the version
    package.version_info = (9, 0)
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    return found


def run(name: str) -> dict[str, Any]:
    """Execute the code cells in their order; returns the variables they leave."""
    variables: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells(ROOT / "examples" / name):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{name}, {cell['id']}", "exec"), variables)
    return variables


def test_there_are_two():
    assert [path.name for path in NOTEBOOKS] == ["flow.ipynb", "listen.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_small_and_without_outputs(path):
    assert path.stat().st_size < 30_000
    assert cells(path)[0]["cell_type"] == "markdown" and "".join(cells(path)[0]["source"]).startswith("# ")
    for cell in cells(path):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            compile("".join(cell["source"]), cell["id"], "exec")


@pytest.mark.slow
def test_listen(shown):
    variables = run("listen.ipynb")
    spoken = variables["spoken"]
    assert list(spoken) == ["speech-student", "Griffin-Lim", "speech-teacher, an excerpt"]
    hop = variables["student"].hop_length
    frames = variables["mel"].shape[1]
    assert [len(audio) for audio in spoken.values()] == [frames * hop, len(spoken["Griffin-Lim"]), 50 * hop]
    assert abs(len(spoken["Griffin-Lim"]) - frames * hop) <= hop
    played = [data for kind, data in shown if kind == "audio"]
    assert len(played) == 7 and all(rate == 16000 and 0.05 < abs(data).max() <= 1.5 for data, rate in played)
    (picture,) = [data for kind, data in shown if kind == "image"]
    assert picture.startswith(b"\x89PNG") and len(picture) > 20_000


@pytest.mark.slow
def test_flow(shown, capsys):
    variables = run("flow.ipynb")
    entropy = variables["moons"].entropy
    assert entropy - 0.1 < sum(variables["losses"][-20:]) / 20 < entropy + 0.5
    assert entropy - 0.05 < variables["fit"].nats < entropy + 0.3
    assert variables["round_trip"] < 1e-3
    assert variables["asked"][0] > variables["asked"][1], "a point far outside is less probable"
    assert [kind for kind, _ in shown] == ["image", "image"] and "entropy" in capsys.readouterr().out
