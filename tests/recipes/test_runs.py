"""Every recipe's YAML files, run for two steps with small models on generated data, and what the runs leave behind."""

from __future__ import annotations

import json
import math
import runpy
import shutil
from pathlib import Path

import pytest
from helpers.paths import RECIPES
from helpers.tiny_runs import TINY, make_tones

from wavedistill import MelConfig, Vocoder, cli
from wavedistill.errors import WavedistillError
from wavedistill.text import fill_block
from wavedistill.training import FlowRecipe, StudentRecipe, TeacherRecipe, load_recipe
from wavedistill.training.curves import curve_table, plot_curves, read_curve

YAMLS = [path for path in sorted(RECIPES.glob("*/*.yaml")) if path.parent.name != "ablations"]  # a table, no recipe
PAIRS = [
    ("teacher.yaml", "student.yaml"),
    ("unconditional.yaml", "unconditional_student.yaml"),
]
FLOWS = [path for path in YAMLS if path.name == "flow.yaml"]
CASES = [
    (folder.name, *pair)
    for folder in sorted(RECIPES.iterdir())
    for pair in PAIRS
    if all((folder / name).is_file() for name in pair)
]

RUN_FILES = {"config.yaml", "metrics.jsonl", "samples", "state", "checkpoint"}


def check_run(run: Path) -> None:
    """A run folder is complete, its metrics are finite, and its checkpoint loads."""
    assert {path.name for path in run.iterdir()} >= RUN_FILES
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [1, 2]
    assert [line["step"] for line in lines if line["kind"] == "valid"] == [2]
    assert all(math.isfinite(value) for line in lines for value in line.values() if isinstance(value, float))
    assert {path.suffix for path in (run / "samples" / "step-0000002").iterdir()} >= {".wav"}
    assert (run / "state" / "step-0000002.pt").is_file()
    Vocoder.from_pretrained(run)


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_yaml_loads_strictly(path):
    recipe = load_recipe(path)
    expected = StudentRecipe if "student" in path.name else FlowRecipe if "flow" in path.name else TeacherRecipe
    assert type(recipe) is expected
    assert recipe.data.manifest in (f"data/{path.parent.name}", "recipes/quickstart/clips")
    assert path.parent.name.replace("_", "-") in recipe.run.dir
    assert path.read_text().startswith("#"), "the first line says what it is"


@pytest.mark.parametrize(("recipe", "teacher", "student"), CASES)
def test_students_fit_their_teachers(recipe, teacher, student):
    first, second = (load_recipe(RECIPES / recipe / name) for name in (teacher, student))
    for name in ("front", "mel", "sample_rate", "speakers"):
        assert getattr(first.model, name) == getattr(second.model, name)
    assert second.teacher in (first.run.dir, "speech-teacher")
    assert first.run.dir != second.run.dir


@pytest.mark.parametrize(("recipe", "teacher", "student"), CASES)
def test_two_steps_of_each(recipe, teacher, student, tmp_path, capsys):
    config = load_recipe(RECIPES / recipe / teacher).model
    make_tones(tmp_path / "data", config.sample_rate, config.speakers)
    # a bundled start is of the recipe's size, not of this one
    common = ["--data.manifest", str(tmp_path / "data"), "--run.init_from", "None", *TINY, "--run.dir"]
    train = ["train", str(RECIPES / recipe / teacher), *common, str(tmp_path / "teacher")]
    assert cli.main(train) == 0, capsys.readouterr().err
    check_run(tmp_path / "teacher")
    options = ["--teacher", str(tmp_path / "teacher"), "--loss.allow_weak_teacher"]
    distill = ["distill", str(RECIPES / recipe / student), *options, *common, str(tmp_path / "student")]
    assert cli.main(distill) == 0, capsys.readouterr().err
    check_run(tmp_path / "student")
    logged = json.loads((tmp_path / "student" / "metrics.jsonl").read_text().splitlines()[0])
    assert load_recipe(RECIPES / recipe / student).loss.weights.keys() <= logged.keys()


@pytest.mark.parametrize("path", FLOWS, ids=lambda path: path.parent.name)
def test_two_steps_of_each_flow(path, tmp_path, capsys):
    recipe = load_recipe(path)
    make_tones(tmp_path / "data", recipe.model.sample_rate, recipe.model.speakers)
    options = ["--data.manifest", str(tmp_path / "data"), *TINY, "--run.dir", str(tmp_path / "flow")]
    assert cli.main(["train", str(path), *options]) == 0, capsys.readouterr().err
    assert f"wavedistill synthesize INPUT --checkpoint {tmp_path / 'flow'}" in capsys.readouterr().out
    check_run(tmp_path / "flow")


def test_ljspeech_takes_the_mels_of_text_to_mel_models():
    assert load_recipe(RECIPES / "ljspeech" / "teacher.yaml").model.mel == MelConfig.preset("ljspeech-hifigan")


def test_every_recipe_has_its_page_and_its_data():
    for folder in {path.parent for path in YAMLS} - {RECIPES / "quickstart"}:
        assert (folder / "prepare.py").is_file() and (folder / "README.md").is_file()
        page = (folder / "README.md").read_text()
        assert "## Expected curves" in page and "## Licence" in page
        assert f"python recipes/{folder.name}/prepare.py --out data/{folder.name}" in page


def test_scripts_stay_short():
    for script in RECIPES.glob("*/*.py"):
        assert len(script.read_text().splitlines()) <= 30, f"{script}: what is longer belongs in the library"


# ---- curves


@pytest.fixture
def metrics(tmp_path) -> Path:
    names = ("loss", "kl_nats", "stft", "mel", "pitch", "amplitude_std", "real_std", "bits")
    lines = [
        {"step": 5 * i, "kind": kind, **dict.fromkeys(names, 1 / i)}
        for i in range(1, 21)
        for kind in ("train", "valid")
    ]
    lines.append({"step": 105, "kind": "valid", "loss": float("nan"), "bits": None})
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_curve_script_of_the_bundled_voice(metrics):
    for name in ("curves.py", "README.md"):
        shutil.copy(RECIPES / "speech" / name, metrics.parent)
    results = metrics.parent / "results"
    results.mkdir()
    for who in ("teacher", "student", "flow"):
        shutil.copy(metrics, results / f"metrics-{who}.jsonl")
    runpy.run_path(str(metrics.parent / "curves.py"), run_name="__main__")
    page = (metrics.parent / "README.md").read_text()
    assert "\n| 5 | 1.000 |\n" in page and "\n| 100 | 0.050 |\n" in page
    assert page.startswith("# speech") and page.endswith((RECIPES / "speech" / "README.md").read_text()[-500:])
    assert (results / "curves.png").stat().st_size > 10_000


def test_the_page_of_the_bundled_voice_shows_its_curves(tmp_path):
    copy = shutil.copytree(RECIPES / "speech", tmp_path / "speech")
    (copy / "results" / "curves.png").unlink()
    runpy.run_path(str(copy / "curves.py"), run_name="__main__")
    assert (copy / "README.md").read_text() == (RECIPES / "speech" / "README.md").read_text()
    assert (copy / "results" / "curves.png").stat().st_size > 10_000


def test_a_page_without_the_block_is_left_alone(tmp_path):
    (tmp_path / "page.md").write_text("<!-- a:begin -->\nold\n<!-- a:end -->\nrest")
    with pytest.raises(WavedistillError, match="has no block 'b'"):
        fill_block(tmp_path / "page.md", "b", "new")
    fill_block(tmp_path / "page.md", "a", "new")
    assert (tmp_path / "page.md").read_text() == "<!-- a:begin -->\n\nnew\n\n<!-- a:end -->\nrest"


def test_curves_leave_out_what_is_not_finite(metrics):
    curve = read_curve(metrics, "bits", "valid")
    assert curve[0] == (5, 1.0) and curve[-1] == (100, 0.05) and len(curve) == 20
    assert curve_table({"bits": curve}, rows=3).splitlines()[2:] == [
        "| 5 | 1.000 |",
        "| 55 | 0.091 |",
        "| 100 | 0.050 |",
    ]
    plot_curves({"one": {"": curve}, "two": {"a": curve, "b": curve[:3]}}, metrics.parent / "two.png")
    assert (metrics.parent / "two.png").stat().st_size > 5_000


def test_missing_curves_say_what_is_missing(metrics):
    with pytest.raises(WavedistillError, match="no valid values of 'bitz'"):
        read_curve(metrics, "bitz", "valid")
    with pytest.raises(WavedistillError, match="cannot read the curves of .*none"):
        read_curve(metrics.parent / "none", "bits")
