"""metrics.jsonl, the numbers of a run: one line {"step", "kind", "elapsed", name: number, ...} for each log.

``kind`` is "train" (means over the steps between two logs) or "valid" (held-out recordings), ``elapsed`` counts the
seconds trained.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wavedistill.errors import WavedistillError
from wavedistill.files import write_text

METRICS_FILE = "metrics.jsonl"


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; a number that was not finite is NaN.

    Half a line at the end, which a killed run may leave, is left out.

    Raises:
        WavedistillError: the file is missing, or another of its lines is none of a run's metrics.
    """
    try:
        rows = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise WavedistillError(f"cannot read the curves of {path}: {error}") from error
    lines = []
    for number, row in enumerate(rows, 1):
        line = _parsed(row)
        if line is not None and "kind" in line:
            lines.append({"elapsed": 0.0} | {name: math.nan if v is None else v for name, v in line.items()})
        elif number < len(rows):
            raise WavedistillError(f"{path}, line {number} is no line of a run's metrics. Mend or delete the line.")
    return lines


def append_metrics(path: Path, step: int, kind: str, elapsed: float, values: Mapping[str, float]) -> None:
    """Write one more line; a number that is not finite becomes null, since JSON has none such."""
    line = {"step": step, "kind": kind, "elapsed": round(elapsed, 3)} | dict(values)
    line = {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in line.items()}
    try:
        with open(path, "a") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise WavedistillError(f"cannot write {path}: {error.strerror}. Free some space.") from None


def truncate_metrics(path: Path, step: int) -> None:
    """Drop the lines of later steps than ``step``, and a torn last line."""
    if not path.exists():
        return
    rows = path.read_text(encoding="utf-8").splitlines()
    lines = [_parsed(row) for row in rows]
    kept = [row + "\n" for row, line in zip(rows, lines, strict=True) if line is not None and line["step"] <= step]
    write_text(path, "".join(kept))


def _parsed(row: str) -> dict[str, Any] | None:
    """A line with its step; None where it is torn, or something else."""
    try:
        line = json.loads(row)
        return {**line, "step": int(line["step"])}
    except (ValueError, KeyError, TypeError):
        return None
