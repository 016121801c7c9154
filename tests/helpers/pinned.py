"""docs/constraints.txt: the versions of all packages that `wavedistill` runs on, as they are installed here.

    python tests/helpers/pinned.py

fills the file again, after the tests have passed with other versions.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

PATH = Path(__file__).parents[2] / "docs" / "constraints.txt"
HEAD = """\
# The versions that the tests were last run with, of everything `wavedistill` needs to run (no extras), on Linux:
#     pip install -c docs/constraints.txt wavedistill
# Written by tests/helpers/pinned.py.
"""


def normal(name: str) -> str:
    """A package's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned() -> dict[str, str]:
    """Package -> installed version, of wavedistill's requirements and theirs."""
    from packaging.requirements import Requirement

    found: dict[str, str] = {}
    waiting: list[tuple[str, frozenset[str]]] = [("wavedistill", frozenset())]
    seen = set(waiting)
    while waiting:
        name, extras = waiting.pop()
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # for other systems
            continue
        found[normal(name)] = package.version
        for text in package.requires or []:
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras | {""}):
                following = (normal(needed.name), frozenset(needed.extras))
                if following not in seen:
                    seen.add(following)
                    waiting.append(following)
    del found["wavedistill"]
    return found


def text() -> str:
    """The file."""
    return HEAD + "".join(f"{name}=={version}\n" for name, version in sorted(pinned().items()))


if __name__ == "__main__":
    (Path(sys.argv[1]) if sys.argv[1:] else PATH).write_text(text(), encoding="utf-8")
