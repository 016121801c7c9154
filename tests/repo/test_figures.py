"""A figure that stands on two pages is the same on both."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

import pytest
from helpers.paths import RECIPES, ROOT

REPORT = RECIPES / "speech" / "results" / "report.md"
CARDS = sorted(set((ROOT / "checkpoints").glob("speech-*/README.md")) - set((ROOT / "checkpoints").glob("*-2?k*/*")))
NOTES = sorted((ROOT / "checkpoints").glob("notes-*/README.md"))

Row = tuple[str, ...]


def tables(page: Path) -> dict[Row, list[Row]]:
    """Rows by the head of their table; tables with the same head are one."""
    found: dict[Row, list[Row]] = {}
    head: Row | None = None
    for line in page.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            head = None
            continue
        row = tuple(cell.strip() for cell in line[1:-1].split(" | "))
        if head is None:
            head = row
            found.setdefault(head, [])
        elif not set("".join(row)) <= set("-:| "):
            found[head].append(row)
    return found


def benchmark(column: str) -> dict[str, str]:
    """System -> the cell of a column of the benchmark's first table."""
    for head, rows in tables(ROOT / "docs" / "benchmark.md").items():
        if head[0] == "x real time":
            return {row[0]: row[head.index(column)] for row in rows}
    raise AssertionError("docs/benchmark.md has no table of speeds")


@pytest.mark.parametrize(
    ("recipe", "cards", "pages"),
    [
        ("speech", ["speech-teacher", "speech-student", "speech-flow"], ["README.md", "docs/results.md"]),
        ("wide", [f"speech-2{n}k{role}" for n in "24" for role in ("", "-teacher")], ["docs/results.md"]),
    ],
)
def test_pages_are_copies_of_the_report(recipe, cards, pages, tmp_path):
    names = [*pages, *(f"checkpoints/{card}/README.md" for card in cards)]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    runpy.run_path(str(RECIPES / recipe / "pages.py"))["main"](tmp_path)
    for name in names:
        assert (tmp_path / name).read_text() == (ROOT / name).read_text(), f"python recipes/{recipe}/pages.py"


def test_the_readme_s_table_has_four_systems_and_five_measures():
    ((head, rows),) = [(head, rows) for head, rows in tables(ROOT / "README.md").items() if head[0] == "system"]
    assert (len(rows), len(head)) == (4, 6)


@pytest.mark.parametrize("card", CARDS, ids=lambda path: path.parent.name)
def test_cards_have_the_figures_of_the_report(card):
    report = tables(REPORT)
    shared = {head: rows for head, rows in tables(card).items() if head in report}
    assert shared
    for head, rows in shared.items():
        assert set(rows) <= set(report[head])


def test_the_readme_s_speeds_are_the_benchmark_s():
    speeds = benchmark("2 threads, 10 s")
    text = " ".join((ROOT / "README.md").read_text().split())
    for system, shown in (
        ("speech-student", "speech-student {} x"),
        ("speech-24k", "speech-24k {} x"),
        ("Vocos", "Vocos {} x"),
    ):
        assert shown.format(speeds[system]) in text


@pytest.mark.parametrize("card", NOTES, ids=lambda path: path.parent.name)
def test_notes_are_measured_once(card):
    recipe = tables(RECIPES / "notes" / "README.md")
    shared = {head: rows for head, rows in tables(card).items() if head in recipe}
    assert shared and all(rows == recipe[head] for head, rows in shared.items())


@pytest.mark.parametrize(("name", "curve"), [("speech-teacher", "teacher's bits"), ("speech-flow", "flow's bits")])
def test_the_cards_tell_where_the_curves_end(name, curve):
    last = tables(RECIPES / "speech" / "README.md")["step", curve][-1]
    card = (ROOT / "checkpoints" / name / "README.md").read_text()
    assert f"{last[1]} bits" in card and f"{int(last[0]):,} steps" in card
