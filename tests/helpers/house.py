"""The tree of the house on docs/architecture.md, made from the folders and the first lines of their docstrings.

    python tests/helpers/house.py

fills the page again after a module has come, gone or moved.
"""

from __future__ import annotations

import ast
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "wavedistill"
PAGE = "docs/architecture.md"
INDENT = 22
WIDTH = 110
AROUND = {
    "docs/": "what can be read; start with index.md",
    "examples/": "two notebooks, speech without torch, speech from a text",
    "recipes/": "one folder a corpus: prepare.py, YAML files, a page, results/; scripts stay short",
    "checkpoints/": "the bundled voices, with their cards and samples; codec/ is that of `wavedistill compress`",
    "web/": "the demo page",
    "tests/": "one folder a room of the package; helpers/; repo/: what is said about the repository; reliability/: "
    "what breaks files, kills commands, crowds the page",
    ".ci/": "run: the whole check on a clean machine",
}
"""The other folders of the repository."""


def layers() -> list[set[str]]:
    """The rooms in their order, the lowest first, as tests/repo/test_layering.py holds it."""
    source = (ROOT / "tests" / "repo" / "test_layering.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LAYERS":
            return ast.literal_eval(node.value)
    raise AssertionError("test_layering.py has no list LAYERS")


def tree() -> str:
    """The text of the page's block; every room imports what stands below it only."""
    lines = ["wavedistill/"]
    for level in reversed(layers()):
        for room in sorted(level - {"__main__"}):
            path = PACKAGE / room
            if path.with_suffix(".py").is_file():
                lines += _entry(f"{room}.py", _summary(path.with_suffix(".py")))
            for folder in sorted(inner.parent for inner in path.glob("**/__init__.py")):
                name = folder.relative_to(PACKAGE).as_posix() + "/"
                lines += _entry(name, _summary(folder / "__init__.py"), _modules(folder))
    names = {
        "recipes/": sorted({path.parent.name for path in (ROOT / "recipes").glob("*/*.[ypm]*")}),
        "checkpoints/": sorted(path.parent.name for path in (ROOT / "checkpoints").glob("*/config.json")),
    }
    for name, about in AROUND.items():
        lines += _entry(name, about, names.get(name, []), inside=False)
    return "\n".join(lines)


def fill(root: Path) -> None:
    """Write the tree into the page below ``root``."""
    page = root / PAGE
    before, start, rest = page.read_text(encoding="utf-8").partition("```text\n")
    _, end, after = rest.partition("\n```\n")
    assert start and end, f"{page} has no block of text to fill"
    page.write_text(f"{before}{start}{tree()}{end}{after}", encoding="utf-8")


def _modules(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")


def _summary(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).replace("``", "`")


def _entry(name: str, about: str, names: list[str] | None = None, inside: bool = True) -> list[str]:
    """``name``, what it is, and in braces what is in it, wrapped into a column."""
    column = WIDTH - INDENT
    lines = textwrap.wrap(about, column) or [""]
    if names:
        lines += textwrap.wrap("{" + ", ".join(names) + "}", column, break_on_hyphens=False)
    first = f"{'  ' if inside else ''}{name}".ljust(INDENT - 1) + " "
    return [f"{first}{lines[0]}", *(" " * INDENT + line for line in lines[1:])]


if __name__ == "__main__":
    fill(Path(sys.argv[1]) if sys.argv[1:] else ROOT)
