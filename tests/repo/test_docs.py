"""The pages tell the truth: commands, Python, links, pictures and the tree of the house are checked against the code.

Commands are read out of the pages' ```bash blocks and out of `commands in the text`. All are parsed by the real
parsers; those of the walks (README, docs, recipes, toy, checkpoints) are also run in their order, with stand-ins for
the recordings and the bundled voice, and with small models for two steps. That figures agree is in test_figures.py.
"""

from __future__ import annotations

import importlib.util
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from helpers import house
from helpers.paths import ROOT
from helpers.tiny_models import tiny_flow, tiny_student, tiny_teacher
from helpers.tiny_runs import TINY, make_tones

import wavedistill
from wavedistill import assets, cli, flows, load_audio, save_audio
from wavedistill.audio.io import resample
from wavedistill.audio.mel import MelConfig
from wavedistill.data.manifest import read_manifest
from wavedistill.doctor.symptoms import symptom_table
from wavedistill.losses.distillation import TERMS
from wavedistill.metrics.registry import COLUMNS
from wavedistill.models.pretrained import load_pretrained, save_pretrained
from wavedistill.training import load_recipe

PAGES = sorted(
    path
    for pattern in (
        "*.md",
        "docs/**/*.md",
        "web/README.md",
        "examples/**/README.md",
        "recipes/**/README.md",
        "recipes/*/results/report.md",
        "checkpoints/**/README.md",
    )
    for path in ROOT.glob(pattern)
)
PAGE_IDS = [path.relative_to(ROOT).as_posix() for path in PAGES]
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


WALKS = ["README.md", "recipes/README.md", "recipes/toy/README.md", "checkpoints/README.md"]
DOCS = [name for name in PAGE_IDS if name.startswith("docs/") and commands(ROOT / name)]
LONG = {"docs/using.md", "docs/results.md", "docs/applications.md", "docs/troubleshooting.md"}
QUICK = {"checkpoints/README.md", *DOCS} - LONG
"""Walks that take less than 20 s."""
BEFORE = {"docs/troubleshooting.md": "recipes/README.md"}
"""Page -> the page whose commands are typed first, since they make the run that this one looks at."""


def spoken_of(page: Path) -> list[list[str]]:
    """Commands in the text of the page, between single backticks, but for those with something to fill in."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`((?:wavedistill|torchrun|python) [^`]+)`", text)
    return [shlex.split(span) for span in spans if not re.search(r"\b[A-Z]{2,}\b|\.\.\.", span)]


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
    elif program == "python" and rest[0] == "-m":
        assert importlib.util.find_spec(rest[1]) is not None
    elif program == "python":
        assert (ROOT / rest[0]).is_file() and rest[0].endswith(".py")
        source = (ROOT / rest[0]).read_text()
        for option in (word for word in rest[1:] if word.startswith("--")):
            assert option in source or option in (ROOT / "wavedistill" / "data" / "script.py").read_text()
    elif program == "pip":
        assert rest[:2] == ["install", "-e"] and len(rest) == 3
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert set(re.findall(r"\w+", rest[2])) <= extras.keys()
    elif program == "git":
        assert rest[:2] == ["config", "blame.ignoreRevsFile"] and (ROOT / rest[2]).is_file()
    elif program == "ruff":
        assert rest in (["check", "."], ["format", "."])
    elif program == "pytest":
        assert rest == ["-m", "slow"] or all((ROOT / word).exists() for word in rest)
    else:
        assert program == ".ci/run" and not rest, f"a page types {program}: teach this test to check it"


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_commands_can_be_typed(page):
    for command in commands(page):
        check(command)


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_commands_in_the_text_can_be_typed(page):
    verbs = cli.build_parser()._subparsers._group_actions[0].choices
    for command in spoken_of(page):
        if command[0] == "wavedistill" and command[2:] in ([], ["--help"]):
            assert command[1] in {*verbs, "--help"}
        else:
            check(command)


def test_commands_in_the_text_are_found():
    found = [" ".join(command[:2]) for page in PAGES for command in spoken_of(page)]
    assert len(found) > 20 and {"wavedistill doctor", "python recipes/speech/pages.py"} <= set(found)


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_extras_exist(page):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"wavedistill\[(\w+)\]", page.read_text(encoding="utf-8"))) <= extras.keys()


# ---- walks


@pytest.fixture
def newcomer(tmp_path, monkeypatch) -> Path:
    """An empty folder with recordings, the repository's recipes, and small models under the bundled names."""
    monkeypatch.chdir(tmp_path)
    bundled = tmp_path / "package" / "_assets" / "checkpoints"
    save_pretrained(tiny_teacher(), bundled / "speech-teacher")
    save_pretrained(tiny_student(), bundled / "speech-student")
    save_pretrained(tiny_student(patch_size=4), bundled / "festvox-ru-student")
    save_pretrained(tiny_teacher(), bundled / "festvox-ru-teacher")
    save_pretrained(tiny_student(speakers=["piano", "flute"]), bundled / "notes-student")
    save_pretrained(tiny_teacher(speakers=["piano", "flute"]), bundled / "notes-teacher")
    save_pretrained(tiny_flow(), bundled / "speech-flow")
    for name, preset in (("speech-24k", "vocos-24khz"), ("speech-22k", "ljspeech-hifigan")):
        save_pretrained(tiny_student(mel=MelConfig.preset(preset)), bundled / name)
        save_pretrained(tiny_teacher(mel=MelConfig.preset(preset)), bundled / f"{name}-teacher")
    shutil.copytree(ROOT / "checkpoints" / "codec", bundled / "codec")
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
    elif program == "python" and rest[0].startswith("examples/onnx/"):
        audio, rate = load_audio(rest[2])  # at the rate of the stand-in: the script does not resample
        run_script(rest[0], rest[1], str(save_audio("at-8000-hz.wav", resample(audio, rate, 8000), 8000)), *rest[3:])
    elif program == "torchrun":
        run = [sys.executable, "-m", "torch.distributed.run", *with_path(rest)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        subprocess.run(run, check=True, capture_output=True, env=environment)
    elif program == "wavedistill" and "--engine" in rest:
        assert run_cli(with_path(rest)) == 0
    elif program == "wavedistill" and rest[0] == "playground":
        assert run_cli([*rest, "--family", "planar", "--density", "rings", "--depth", "2", "--steps", "5"]) == 0
    elif program == "wavedistill" and "--help" in rest:
        assert run_cli(rest) == 0
    elif program == "wavedistill" and rest[0] in ("train", "distill"):
        # a resumed run goes two steps further
        options = ["--loss.allow_weak_teacher"] if rest[0] == "distill" else []
        if "--run.init_from" in rest:  # the bundled stand-in's size, not the recipe's
            check(command)
        else:
            assert run_cli([*rest, *TINY, *options]) == 0
    elif program == "wavedistill" and rest[0] == "prepare" and "--sample-rate" in rest:
        check(command)  # the stand-ins hold nothing beyond 8 kHz, and are refused for that
    elif program == "wavedistill" and rest[0] in (
        "prepare",
        "synthesize",
        "sample",
        "info",
        "doctor",
        "export",
        "score",
    ):
        assert run_cli(rest) == 0
    elif program == "wavedistill" and rest[0] == "evaluate" and "--limit" in rest:
        assert run_cli([*rest, "--limit", "1"]) == 0
    else:
        check(command)


def with_path(words: list[str]) -> list[str]:
    """The words with the stand-in's folder for its name, which other processes do not know."""
    name = words[words.index("--checkpoint") + 1]
    return [str(assets.find_checkpoint_root() / name) if word == name else word for word in words]


def run_cli(words: list[str]) -> int:
    try:
        return cli.main(words)
    except SystemExit as stop:
        return stop.code or 0


def run_script(path: str, *arguments: str) -> None:
    before = sys.argv
    sys.argv = [path, *arguments]
    sys.path.insert(0, str((ROOT / path).parent))
    try:
        runpy.run_path(str(ROOT / path), run_name="__main__")
    finally:
        sys.argv = before
        sys.path.pop(0)


def walks(names: list[str]) -> list:
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", walks(WALKS))
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


@pytest.mark.parametrize("name", walks(DOCS))
def test_a_reader_types_the_docs(name, newcomer, capsys):
    """But for what the README's walk has typed already."""
    walked = commands(ROOT / "README.md")
    for command in [*(commands(ROOT / BEFORE[name]) if name in BEFORE else []), *commands(ROOT / name)]:
        if command not in walked:
            walk(command)
    if name == "docs/using.md":
        assert len(list((newcomer / "spoken-all").glob("*.wav"))) == 8
        assert 0 < len(list((newcomer / "spoken-again").glob("*.wav"))) <= 8, "a shard gets whole batches"
        assert load_audio(newcomer / "again.wav")[1] == 8000
    if name == "docs/results.md":
        assert (newcomer / "report" / "report.md").is_file()
    if name == "docs/flows.md":
        assert (newcomer / "runs" / "playground" / "table.md").is_file()


def with_python() -> list:
    """Pages with Python; slow are that of the ONNX page, which exports a model, and that of the lossless coder."""
    slow = {ROOT / "examples" / "onnx" / "README.md", ROOT / "docs" / "compression.md"}
    return [
        pytest.param(page, marks=[pytest.mark.slow] if page in slow else [], id=page.relative_to(ROOT).as_posix())
        for page in PAGES
        if blocks(page, "python")
    ]


@pytest.mark.parametrize("page", with_python())
def test_python_of_the_pages_runs(page, newcomer):
    code = "\n".join(blocks(page, "python"))
    if "gradio_client" in code:  # needs the running page: tests/web/test_api.py runs it
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
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    named = dict(re.findall(r"\b(torch|torchaudio) (\d+\.\d+)\b", (ROOT / "README.md").read_text()))
    assert named.keys() == {"torch", "torchaudio"}
    for package, version in named.items():
        assert any(line.startswith(f"{package}>={version},") for line in requirements)


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


def test_the_readme_is_read_in_five_minutes():
    page = ROOT / "README.md"
    assert page.stat().st_size <= 11_000 and len(page.read_text().splitlines()) <= 200


def test_the_index_leads_to_every_page():
    index = (ROOT / "docs" / "index.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert f"]({page.name})" in index or page.name == "index.md"
    assert "](docs/" in (ROOT / "README.md").read_text()


def test_the_tree_is_the_house(tmp_path):
    (tree,) = blocks(ROOT / "docs" / "architecture.md", "text")
    assert tree.rstrip("\n") == house.tree(), "fill it again: python tests/helpers/house.py"
    inside = {}
    outside = {}
    for entry in re.split(r"\n(?=  \S|\S)", tree.rstrip("\n")):
        listed = re.search(r"\{(.*?)\}", entry, re.DOTALL)
        room = inside if entry.startswith("  ") else outside
        room[entry.split()[0]] = set(re.split(r",\s+", listed[1])) if listed else None
    package = ROOT / "wavedistill"
    modules = {path.name for path in package.glob("*.py") if not path.stem.startswith("__")}
    folders = {f"{path.parent.relative_to(package).as_posix()}/" for path in package.glob("*/**/__init__.py")}
    assert inside.keys() == modules | folders
    for name in folders:
        assert (inside[name] or set()) == {path.stem for path in (package / name).glob("*.py")} - {"__init__"}, name
    tracked = {path.name + "/" for path in ROOT.iterdir() if path.is_dir()}
    assert outside.keys() <= tracked and outside.keys() >= {
        "wavedistill/",
        "docs/",
        "examples/",
        "recipes/",
        "checkpoints/",
        "web/",
        "tests/",
        ".ci/",
    }
    assert outside["recipes/"] == {path.parent.name for path in (ROOT / "recipes").glob("*/*.[ypm]*")}
    assert outside["checkpoints/"] == {path.parent.name for path in (ROOT / "checkpoints").glob("*/config.json")}
    (tmp_path / "docs").mkdir()
    (tmp_path / house.PAGE).write_text("before\n```text\nold\n```\nafter\n")
    house.fill(tmp_path)
    assert (tmp_path / house.PAGE).read_text() == f"before\n```text\n{house.tree()}\n```\nafter\n"


def test_imports_go_down_the_tree():
    """The order of the page is that of the layering test, from the top."""
    (tree,) = blocks(ROOT / "docs" / "architecture.md", "text")
    rooms = [line.split()[0].removesuffix(".py").rstrip("/") for line in re.findall(r"^  (\S+)", tree, re.MULTILINE)]
    level = {name: number for number, names in enumerate(house.layers()) for name in names}
    order = [level[room.split("/")[0]] for room in rooms]
    assert order == sorted(order, reverse=True)


def test_the_loss_is_told_in_full():
    told = ROOT / "docs" / "how-it-works.md"
    for page in (told, ROOT / "recipes" / "speech" / "README.md"):
        text = page.read_text()
        assert all(
            f"`{name}`" in text
            for name in ("stft", "mel", "pitch", "entropy", "floor_share", "amplitude_std", "real_std")
        )
    assert all(f"`{name}`" in told.read_text() for name in TERMS)


def test_the_table_of_symptoms_is_the_doctor_s_list():
    _, _, rest = (ROOT / "docs" / "troubleshooting.md").read_text().partition("<!-- symptoms:begin -->\n")
    table = rest.partition("<!-- symptoms:end -->")[0].strip()
    assert table == symptom_table(), "fill it again: wavedistill.text.fill_block(page, 'symptoms', symptom_table())"
    assert all(row.count(" | ") == 3 for row in table.splitlines())


def test_the_toolbox_is_listed_in_full():
    (table,) = re.findall(
        r"(?:^\| `.*\n)+", (ROOT / "docs" / "flows.md").read_text().partition("| class | source |")[2], re.MULTILINE
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


def test_every_bundled_sample_can_be_heard():
    """On docs/listen.md, by name: an original lies in the folders of several voices."""
    linked = {Path(target).name for target in re.findall(r"\]\((\S+\.wav)\)", (ROOT / "docs/listen.md").read_text())}
    samples = [*ROOT.glob("checkpoints/*/samples/*.wav"), *ROOT.glob("recipes/*/results/samples/*.wav")]
    assert linked == {path.name for path in samples}
    heard = re.findall(r"\((\S+\.wav)\)", (ROOT / "README.md").read_text())
    assert all(any(kind in path for path in heard) for kind in ("-original", "-student.", "-teacher"))


def test_every_word_of_the_tables_is_explained():
    glossary = (ROOT / "docs" / "glossary.md").read_text()
    titles = [column.title.removesuffix(" P808").removesuffix(" OVRL") for column in COLUMNS.values()]
    assert not [title for title in [*titles, "nats", "bits per sample", "KL", "Griffin-Lim"] if title not in glossary]


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_prose_is_wrapped(page):
    """At 120 columns; tables, quotations, commands, generated blocks and links of their own length cannot be."""
    text = page.read_text(encoding="utf-8")
    for pattern in (r"^<!-- (\S+):begin -->.*?^<!-- \1:end -->$", r"^```.*?^```$"):
        text = re.sub(pattern, "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`\n]*`", lambda span: span[0] if len(span[0]) < 80 else "", text)
    if "results" not in page.parts:
        lines = text.splitlines()
        prose = [line for line in lines if not line.startswith(("|", ">", "    ")) and " " in line.strip()]
        assert not [line for line in prose if len(line) > 120]


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_marked_blocks_are_closed(page):
    marks = re.findall(r"<!-- (\w[\w-]*):(begin|end) -->", page.read_text(encoding="utf-8"))
    assert marks == [(name, edge) for name, _ in marks[::2] for edge in ("begin", "end")]


def test_the_issue_templates_and_the_citation_are_well_formed():
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text())
        assert form["name"] and form["description"] and form["body"]
        ids = [field["id"] for field in form["body"] if field["type"] != "markdown"]
        assert len(ids) == len(set(ids)) >= 1
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0" and citation["title"] and citation["authors"]
    assert citation["version"] == wavedistill.__version__ and citation["license"] == "Apache-2.0"
    hooks = [
        hook["id"]
        for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
        for hook in repo["hooks"]
    ]
    assert {"ruff-check", "ruff-format"} <= set(hooks)
