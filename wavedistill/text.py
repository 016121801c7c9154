"""Text for people: Markdown tables, a mean with its error, and blocks of a page that a command fills in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from wavedistill.errors import WavedistillError
from wavedistill.files import write_text


def markdown_table(head: Sequence[object], rows: Iterable[Sequence[object]], *, left: int = 1) -> str:
    """A table in Markdown, without a line break at its end.

    Args:
        head: titles of the columns.
        rows: cells; each is shown as ``str`` gives it.
        left: this many columns, the first ones, are aligned to the left (text), the others to the right (numbers).

    Example:
        >>> print(markdown_table(["system", "PESQ"], [["student", 3.1]]))
        | system | PESQ |
        | --- | ---: |
        | student | 3.1 |
    """
    rule = ["---" if column < left else "---:" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in [head, rule, *rows])


def mean_and_error(mean: float, error: float, digits: int | None = None) -> str:
    """A mean with its standard error; "-" for a mean that is NaN, the mean alone where the error is NaN.

    Args:
        mean, error: in one unit.
        digits: after the point; None: 3 below 1, 2 below 10, 1 below 100, and 0 from there on.

    Example:
        >>> mean_and_error(3.14159, 0.05)
        '3.14 ± 0.05'
    """
    if math.isnan(mean):
        return "-"
    if digits is None:
        digits = next((d for limit, d in ((1, 3), (10, 2), (100, 1)) if abs(mean) < limit), 0)
    return f"{mean:.{digits}f}" + ("" if math.isnan(error) else f" ± {error:.{digits}f}")


def fill_block(page: str | Path, name: str, text: str) -> None:
    """Put ``text`` between ``<!-- name:begin -->`` and ``<!-- name:end -->`` of a Markdown page.

    Raises:
        WavedistillError: the page has no such block.
    """
    page = Path(page)
    before, begin, rest = page.read_text(encoding="utf-8").partition(f"<!-- {name}:begin -->\n")
    _, end, after = rest.partition(f"<!-- {name}:end -->")
    if not (begin and end):
        raise WavedistillError(f"{page} has no block '{name}': add <!-- {name}:begin --> and <!-- {name}:end -->.")
    write_text(page, f"{before}{begin}\n{text}\n\n{end}{after}")
