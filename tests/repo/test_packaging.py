"""A built wheel works outside the checkout: command, bundled voice, recipes and web page included."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from helpers import pinned
from helpers.paths import ROOT
from packaging.requirements import Requirement

SHIPPED = ("checkpoints", "recipes", "web")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("site")
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-index",
        "--quiet",
        "--target",
        str(target),
    ]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    return target


def run(installed: Path, *command: str, cwd: Path) -> str:
    """Run Python where only the installed wheel can be found."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def shipped(folder: Path) -> set[str]:
    ignored = subprocess.run(
        ["git", "ls-files", "--others", "--ignored", "--exclude-standard", "--directory"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    names = {path.relative_to(ROOT).as_posix() for path in paths}
    return {name for name in names if not any(name == entry or name.startswith(entry) for entry in ignored)}


def test_wheel_holds_the_package_and_its_assets(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for kind in SHIPPED:
        missing = {f"wavedistill/_assets/{name}" for name in shipped(ROOT / kind)} - names
        assert not missing
    assert {"wavedistill/cli/main.py", "wavedistill/py.typed"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith("tests") or "__pycache__" in name]
    assert {name.split("/")[0].split("-")[0] for name in names} == {"wavedistill"}
    assert wheel.stat().st_size < 60e6


def test_command_and_requirements(wheel):
    archive = zipfile.ZipFile(wheel)
    entry_points = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
    assert "wavedistill = wavedistill.cli:main" in archive.read(entry_points).decode()
    metadata = archive.read(entry_points.replace("entry_points.txt", "METADATA")).decode()
    assert "Requires-Python: >=3.11" in metadata
    assert "Requires-Dist: torch<2.15,>=2.11" in metadata
    assert {"metrics", "eval", "ode", "ray", "onnx", "tts", "peers", "dev"} == {
        line.split(": ")[1] for line in metadata.splitlines() if line.startswith("Provides-Extra")
    }


def test_installed_package_finds_its_own_assets(installed, tmp_path):
    code = (
        "import wavedistill.assets as a; "
        "print(a.__file__, a.find_checkpoint_root(), a.recipe_path('toy'), a.web_path(), "
        "*a.bundled_checkpoints(), sep='\\n')"
    )
    (*places,) = run(installed, "-c", code, cwd=tmp_path).splitlines()
    assert all(place.startswith(str(installed)) for place in places[:4])
    assert places[4:] == sorted(p.parent.name for p in (ROOT / "checkpoints").glob("*/config.json"))


def test_bundled_voice_speaks(installed, tmp_path):
    if not list((ROOT / "checkpoints").glob("speech-student/config.json")):
        pytest.skip("no bundled voice in this checkout yet")
    code = (
        "import torch; from wavedistill import Vocoder, save_audio; "
        "t = torch.arange(8000) / 16000; v = Vocoder.from_pretrained('speech-student'); "
        "save_audio('in.wav', 0.3 * torch.sin(2 * torch.pi * 200 * t), 16000)"
    )
    run(installed, "-c", code, cwd=tmp_path)
    command = ["-m", "wavedistill", "synthesize", "in.wav", "--checkpoint", "speech-student", "--out", "out"]
    assert "1 written" in run(installed, *command, cwd=tmp_path)
    assert (tmp_path / "out" / "in.wav").stat().st_size == 44 + 2 * 8000


def test_web_page_is_built_from_the_wheel(installed, tmp_path):
    code = (
        "from wavedistill.assets import load_web_app; app = load_web_app(); "
        "demo = app.build_demo(); print(app.__file__); print(type(demo).__name__)"
    )
    file, kind = run(installed, "-c", code, cwd=tmp_path).splitlines()
    assert file.startswith(str(installed)) and kind == "Blocks"


def test_versions_of_torch_and_torchaudio_are_pinned_together():
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert "torch>=2.11,<2.15" in requirements and "torchaudio>=2.11,<2.12" in requirements


def test_a_version_of_every_requirement_is_pinned_in_the_docs():
    lines = (ROOT / "docs" / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for requirement in map(Requirement, requirements):
        assert requirement.specifier.contains(pins[pinned.normal(requirement.name)]), requirement
    assert {"starlette", "pillow", "llvmlite"} <= pins.keys(), "and of what they require"


def test_ray_and_onnx_are_extras():
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert not [line for line in requirements if line.startswith(("ray", "onnx", "pesq", "pyworld"))]


SOURCE_ONLY = {"pesq", "pyworld", "webrtcvad", "resemblyzer", "nflows", "normflows", "vocos", "encodec"}
"""What has no wheel, or needs what has none; CI installs the extra with --only-binary=:all: besides."""


def test_the_tests_and_the_quickstart_install_from_wheels_alone():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]

    def packages(requirements: list[str]) -> set[str]:
        found = set()
        for line in requirements:
            name, *within = re.match(r"([\w-]+)(?:\[(.*)\])?", line).groups()
            inner = (extras[extra] for extra in within[0].split(",")) if name == "wavedistill" else ()
            found |= {name}.union(*map(packages, inner))
        return found

    assert not SOURCE_ONLY & packages([*project["dependencies"], *extras["dev"]])
    assert {"distillmos"} <= packages(project["dependencies"])
    full = packages([*project["dependencies"], *extras["eval"], *extras["peers"]])
    assert {"pesq", "resemblyzer", "pyworld-prebuilt", "nflows", "vocos"} <= full


def test_ci_runs_again_what_was_skipped_without_those_packages():
    script = (ROOT / ".ci" / "run").read_text()
    rooms = set(re.search(r"extra_rooms=\((.*)\)", script)[1].split())
    asks = re.compile(r'importorskip\("(?:' + "|".join(SOURCE_ONLY) + ')["._]')
    asking = {path for path in (ROOT / "tests").rglob("test_*.py") if asks.search(path.read_text())}
    assert asking and {path.parent.relative_to(ROOT).as_posix() for path in asking} <= rooms
