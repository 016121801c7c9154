"""The pages tell the truth: commands, Python, links, pictures and the tree of the house are checked against the code.

Commands are read out of the pages' ```bash blocks. All are parsed by the real parsers; those of the walks (README,
recipes, toy, checkpoints) are also run in their order, with stand-ins for the recordings and the bundled voice, and
with small models for two steps.
"""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from helpers.paths import ROOT
from helpers.tiny_models import tiny_flow, tiny_student, tiny_teacher
from helpers.tiny_runs import TINY, make_tones

from wavedistill import assets, cli, flows, load_audio, save_audio
from wavedistill.data.manifest import read_manifest
from wavedistill.doctor.symptoms import symptom_table
from wavedistill.losses.distillation import TERMS
from wavedistill.models.pretrained import load_pretrained, save_pretrained
from wavedistill.training import load_recipe

PAGES = sorted(
    path
    for pattern in ("README.md", "web/README.md", "recipes/**/README.md", "checkpoints/**/README.md")
    for path in ROOT.glob(pattern)
)
PAGE_IDS = [path.relative_to(ROOT).as_posix() for path in PAGES]
WALKS = ["README.md", "recipes/README.md", "recipes/toy/README.md", "checkpoints/README.md"]
SET_UP = ["pip install -e . && wavedistill quickstart", 'pip install -e ".[dev]" && pytest']


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    """Each command of the page's bash blocks as a list of words."""
    found = []
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while "&&" in words:
                found.append(words[: words.index("&&")])
                words = words[words.index("&&") + 1 :]
            if words:
                found.append(words)
    return found


def check(command: list[str]) -> None:
    """The command can be typed: the program, its verb, every option and every file of the repository exist."""
    program, *rest = command
    if program == "torchrun":
        assert rest[:1] == ["--nproc_per_node"] and rest[2:4] == ["-m", "wavedistill"]
        check(rest[3:])
    elif program == "wavedistill" and rest[:1] in (["train"], ["distill"]):
        assert (ROOT / rest[1]).is_file()
        overrides = [word for word in rest[2:] if word != "--help"]
        known = {"train": ("TeacherRecipe", "FlowRecipe"), "distill": ("StudentRecipe",)}
        assert type(load_recipe(ROOT / rest[1], overrides)).__name__ in known[rest[0]]
    elif program == "wavedistill":
        if rest != ["--help"]:
            cli.build_parser().parse_args(rest)
    elif program == "python":
        assert (ROOT / rest[0]).is_file() and rest[0].endswith(".py")
        source = (ROOT / rest[0]).read_text()
        for option in (word for word in rest[1:] if word.startswith("--")):
            assert option in source or option in (ROOT / "wavedistill" / "data" / "script.py").read_text()
    elif program == "pip":
        assert rest[:2] == ["install", "-e"] and len(rest) == 3
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert set(re.findall(r"\w+", rest[2])) <= extras.keys()
    else:
        assert program in ("pytest",), f"a page types {program}: teach this test to check it"


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_commands_can_be_typed(page):
    for command in commands(page):
        check(command)


# ---- walks


@pytest.fixture
def newcomer(tmp_path, monkeypatch) -> Path:
    """An empty folder with recordings, the repository's recipes, and small models under the bundled names."""
    monkeypatch.chdir(tmp_path)
    bundled = tmp_path / "package" / "_assets" / "checkpoints"
    save_pretrained(tiny_teacher(), bundled / "speech-teacher")
    save_pretrained(tiny_student(), bundled / "speech-student")
    save_pretrained(tiny_student(patch_size=4), bundled / "speech-student-fast")
    save_pretrained(tiny_student(patch_size=4), bundled / "festvox-ru-student")
    save_pretrained(tiny_teacher(), bundled / "festvox-ru-teacher")
    save_pretrained(tiny_student(speakers=["piano", "flute"]), bundled / "notes-student")
    save_pretrained(tiny_teacher(speakers=["piano", "flute"]), bundled / "notes-teacher")
    save_pretrained(tiny_flow(), bundled / "speech-flow")
    monkeypatch.setattr(assets, "_PACKAGE", tmp_path / "package")
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    make_tones(tmp_path / "data" / "speech", seconds=1.1)
    wavs = sorted((tmp_path / "data" / "speech" / "wavs").iterdir())
    for path in wavs:
        save_audio(tmp_path / "recordings" / path.name, load_audio(path)[0], 16000)
    save_audio(tmp_path / "speech.wav", load_audio(wavs[0])[0], 16000)
    return tmp_path


def walk(command: list[str]) -> None:
    """Run one command of a page in miniature; what would take long, or opens a page, is only checked."""
    program, *rest = command
    if program == "python" and rest[0] == "recipes/toy/prepare.py":
        run_script(rest[0], *rest[1:], "--clips", "8")
    elif program == "wavedistill" and "--help" in rest:
        assert run_cli(rest) == 0
    elif program == "wavedistill" and rest[0] in ("train", "distill"):
        # a resumed run goes two steps further
        options = ["--loss.allow_weak_teacher"] if rest[0] == "distill" else []
        if "--run.init_from" in rest:  # the bundled stand-in's size, not the recipe's
            check(command)
        else:
            assert run_cli([*rest, *TINY, *options]) == 0
    elif (
        program == "wavedistill"
        and rest[0] in ("prepare", "synthesize", "sample", "info", "doctor")
        and "--engine" not in rest
    ):
        assert run_cli(rest) == 0
    elif program == "wavedistill" and rest[0] == "evaluate" and "--limit" in rest:
        assert run_cli([*rest, "--limit", "1"]) == 0
    else:
        check(command)


def run_cli(words: list[str]) -> int:
    try:
        return cli.main(words)
    except SystemExit as stop:
        return stop.code or 0


def run_script(path: str, *arguments: str) -> None:
    before = sys.argv
    sys.argv = [path, *arguments]
    try:
        runpy.run_path(str(ROOT / path), run_name="__main__")
    finally:
        sys.argv = before


@pytest.mark.parametrize("name", WALKS)
def test_a_newcomer_types_the_page(name, newcomer, capsys):
    for command in commands(ROOT / name):
        walk(command)
    if name == "README.md":
        assert len(list((newcomer / "spoken-mine").glob("*.wav"))) == 8
        assert (newcomer / "spoken" / "speech.wav").is_file() and (newcomer / "report" / "report.md").is_file()
        assert {e.split for e in read_manifest(newcomer / "data" / "mine")} >= {"train", "valid"}
        for run in ("teacher", "student"):
            load_pretrained(newcomer / "runs" / run)
    if name == "recipes/toy/README.md":
        made = [load_audio(newcomer / "runs" / f"hum{who}.wav") for who in ("", "-student")]
        assert all((len(audio), rate) == (16000, 16000) for audio, rate in made)
        assert len(list((newcomer / "runs" / "toy-spoken").glob("*.wav"))) == 8


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: str(page.relative_to(ROOT))
)
def test_python_of_the_pages_runs(page, newcomer):
    code = "\n".join(blocks(page, "python"))
    if "gradio_client" in code:  # needs the running page; tests/test_web.py drives it
        compile(code, str(page), "exec")
        return
    exec(compile(code.replace("path/to/checkpoint", "speech-student"), str(page), "exec"), {})
    if page == ROOT / "README.md":
        assert len(blocks(page, "python")[0].split()) > 10 and len(blocks(page, "python")[0].splitlines()) == 5
        (again, rate), (speech, speech_rate) = load_audio("again.wav"), load_audio("speech.wav")
        assert len(again) / rate == pytest.approx(len(speech) / speech_rate, abs=1e-3)


# ---- what the pages say about the repository


def test_the_two_set_up_commands_stand_in_the_readme():
    lines = [line for block in blocks(ROOT / "README.md", "bash") for line in block.splitlines()]
    assert [line for line in lines if line.startswith("pip ")] == SET_UP


def test_the_check_on_a_clean_machine_runs_the_readme_s_command():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
    pattern = re.search(r"grep -m1 -E '(.*)' README.md", script.read_text())[1]
    found = [line for line in (ROOT / "README.md").read_text().splitlines() if re.fullmatch(pattern.strip("^$"), line)]
    assert found == SET_UP[1:]


def test_every_command_stands_on_a_page():
    verbs = cli.build_parser()._subparsers._group_actions[0].choices
    typed = {command[1] for page in PAGES for command in commands(page) if command[0] == "wavedistill"}
    assert typed >= set(verbs)


def test_the_tree_is_the_house():
    (tree,) = blocks(ROOT / "README.md", "text")
    room = None
    inside = {}
    outside = {}
    for line in tree.splitlines():
        name = line.split()[0]
        room = inside if line.startswith("  ") else outside
        listed = re.search(r"\{(.*?)\}", line)
        room[name] = set(listed[1].split(", ")) if listed else None
    package = ROOT / "wavedistill"
    modules = {path.name for path in package.glob("*.py") if not path.stem.startswith("__")}
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert inside.keys() == modules | folders
    for name in folders:
        assert inside[name] == {path.stem for path in (package / name).glob("*.py")} - {"__init__"}, name
    tracked = {path.name + "/" for path in ROOT.iterdir() if path.is_dir()}
    assert outside.keys() <= tracked and outside.keys() >= {
        "wavedistill/",
        "recipes/",
        "checkpoints/",
        "web/",
        "tests/",
        ".ci/",
    }
    assert outside["recipes/"] == {path.parent.name for path in (ROOT / "recipes").glob("*/*.[ypm]*")}
    assert outside["checkpoints/"] == {path.parent.name for path in (ROOT / "checkpoints").glob("*/config.json")}


def test_the_loss_is_told_in_full():
    for page in (ROOT / "README.md", ROOT / "recipes" / "speech" / "README.md"):
        text = page.read_text()
        assert all(
            f"`{name}`" in text
            for name in ("stft", "mel", "pitch", "entropy", "floor_share", "amplitude_std", "real_std")
        )
    assert all(f"`{name}`" in (ROOT / "README.md").read_text() for name in TERMS)


def test_the_table_of_symptoms_is_the_doctor_s_list():
    _, _, rest = (ROOT / "recipes" / "README.md").read_text().partition("<!-- symptoms:begin -->\n")
    table = rest.partition("<!-- symptoms:end -->")[0].strip()
    assert table == symptom_table(), "fill it again: wavedistill.text.fill_block(page, 'symptoms', symptom_table())"
    assert all(row.count(" | ") == 3 for row in table.splitlines())


def test_the_toolbox_is_listed_in_full():
    (table,) = re.findall(
        r"(?:^\| `.*\n)+", (ROOT / "README.md").read_text().partition("| class | source |")[2], re.MULTILINE
    )[:1]
    listed = {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    layers = {
        name
        for name in flows.__all__
        if isinstance(getattr(flows, name), type) and issubclass(getattr(flows, name), flows.Transform)
    }
    assert listed == (layers | {"fit_rbig"}) - {"Transform", "Inverse", "Compose"}
    assert all(len(row.split("|")) == 9 for row in table.splitlines())


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_links_and_pictures_exist(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, target


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_marked_blocks_are_closed(page):
    marks = re.findall(r"<!-- (\w[\w-]*):(begin|end) -->", page.read_text(encoding="utf-8"))
    assert marks == [(name, edge) for name, _ in marks[::2] for edge in ("begin", "end")]
