"""Tables of a report copied into pages."""

from __future__ import annotations

import pytest

from wavedistill.errors import WavedistillError
from wavedistill.evaluation.comparison import compare
from wavedistill.evaluation.pages import ReportTables
from wavedistill.evaluation.report import EvaluationReport
from wavedistill.evaluation.statistics import means


@pytest.fixture
def tables(tmp_path) -> ReportTables:
    given = {
        "original": ([4.6] * 6, [0.0] * 6),
        "student": ([3.0, 3.2, 3.1, 3.3, 3.2, 3.0], [2.0, 2.1, 2.2, 2.0, 2.1, 2.2]),
        "teacher": ([3.4, 3.5, 3.4, 3.6, 3.5, 3.4], [3.0] * 6),
    }
    values = {
        name: [{"pesq_wb": pesq, "mcd": mcd} for pesq, mcd in zip(*both, strict=True)] for name, both in given.items()
    }
    report = EvaluationReport("speech: 6 clips", means(values))
    report.comparisons = compare(values, [("student", "teacher"), ("student", "original")], "all clips")
    report.by_speaker = {"ann": means(values, [0, 1, 2]), "bob": means(values, [3, 4, 5])}
    report.notes = ["Means over clips."]
    (tmp_path / "report.md").write_text(report.markdown, encoding="utf-8")
    return ReportTables(tmp_path / "report.md")


def test_rows_and_columns_are_those_of_the_report(tables):
    assert tables.title == "speech: 6 clips" and tables.notes == "* Means over clips."
    assert tables.rows("Quality", ["student", "teacher"], ["system", "PESQ-wb", "n"]).splitlines() == [
        "| system | PESQ-wb | n |",
        "| --- | ---: | ---: |",
        "| student | 3.13 ± 0.05 | 6 |",
        "| teacher | 3.47 ± 0.03 | 6 |",
    ]
    assert tables.rows("Quality", ["original", "student", "teacher"]) == tables.section("Quality")


def test_one_systems_rows_of_every_speaker(tables):
    lines = tables.rows("Quality by speaker", ["student"]).splitlines()
    assert lines[:2] == ["| speaker | system | PESQ-wb | MCD dB | n |", "| --- | --- | ---: | ---: | ---: |"]
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| ann", "| bob"] and all("student" in x for x in lines[2:])


def test_differences_of_one_pair(tables):
    head, rule, pesq, mcd = tables.differences("student − teacher").splitlines()
    assert head == "| metric | student − teacher | verdict | n |" and rule.startswith("| --- ")
    assert pesq.startswith("| PESQ-wb | -0.333 (") and pesq.endswith(" | worse | 6 |")
    assert mcd.startswith("| MCD dB | -0.900 (") and mcd.endswith(" | better | 6 |")


def test_a_missing_section_names_those_there(tables):
    with pytest.raises(WavedistillError, match="no section 'Nats'. It has: Quality, Paired differences, Quality by sp"):
        tables.section("Nats")
