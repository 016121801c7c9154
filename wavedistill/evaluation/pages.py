"""Tables of a report copied into pages: each figure stands in one file and is shown wherever it is wanted.

A page says where by blocks, ``<!-- name:begin -->`` to ``<!-- name:end -->``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wavedistill.errors import WavedistillError
from wavedistill.text import markdown_table

ANCHORS = ("original", "WORLD", "Griffin-Lim", "8-bit mu-law")


class ReportTables:
    """The tables of a ``report.md`` that `wavedistill.evaluation.evaluate` wrote.

    Attributes:
        title: what was measured: clips, seconds, speakers.
        notes: how to read the tables, as a list in Markdown.
    """

    def __init__(self, path: str | Path) -> None:
        text = Path(path).read_text(encoding="utf-8")
        first, *sections = text.split("\n## ")
        self.title = first.removeprefix("# ").strip()
        self._sections = dict(part.split("\n\n", 1) for part in sections)
        self.notes = "\n".join(line for line in text.splitlines() if line.startswith("* "))

    def section(self, title: str) -> str:
        """A table as it stands in the report.

        Raises:
            WavedistillError: the report has none of this title.
        """
        if title not in self._sections:
            raise WavedistillError(f"the report has no section '{title}'. It has: {', '.join(self._sections)}.")
        lines = self._sections[title].strip().splitlines()
        return "\n".join(line for line in lines if line.startswith("|"))

    def rows(self, section: str, systems: Sequence[str], columns: Sequence[str] | None = None) -> str:
        """Of a table with a column "system" the rows of some, and of its columns some (None: all), by their titles."""
        head, *rows = _cells(self.section(section))
        columns = columns or head
        places = [head.index(name) for name in columns]
        shown = [[row[place] for place in places] for row in rows if row[head.index("system")] in systems]
        return markdown_table(columns, shown, left=columns.index("system") + 1)

    def differences(self, pair: str) -> str:
        """The paired differences of two systems, ``A − B``: metric, difference with its interval, verdict, clips."""
        _, *rows = _cells(self.section("Paired differences"))
        found = []
        inside = False
        for name, metric, difference, interval, verdict, count in rows:
            inside = name.startswith(pair) if name else inside
            if inside:
                found.append([metric, f"{difference} ({interval})", verdict, count])
        return markdown_table(["metric", pair, "verdict", "n"], found)


def _cells(table: str) -> list[list[str]]:
    """Head and rows of a table in Markdown, without its rule."""
    lines = [[cell.strip() for cell in line[1:-1].split("|")] for line in table.splitlines()]
    return [lines[0], *lines[2:]]
