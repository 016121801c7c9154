"""Training curves from a run's metrics.jsonl: as numbers, a table and a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from wavedistill.audio.plot import save_figure
from wavedistill.errors import WavedistillError
from wavedistill.text import markdown_table
from wavedistill.training.metrics_file import read_metrics

Curve = Sequence[tuple[int, float]]
"""(step, value) pairs."""


def read_curve(path: str | Path, name: str, kind: str = "train") -> list[tuple[int, float]]:
    """The finite values of a metric by step.

    Args:
        path: a run's metrics.jsonl.
        name: of the metric, for example "loss" or "bits".
        kind: "train" (means over the steps between two logs) or "valid" (held-out recordings).

    Raises:
        WavedistillError: the file is missing, or has no such value.
    """
    values = [(line["step"], line.get(name, math.nan)) for line in read_metrics(path) if line["kind"] == kind]
    curve = [(step, value) for step, value in values if math.isfinite(value)]
    if not curve:
        raise WavedistillError(f"{path} has no {kind} values of '{name}'.")
    return curve


def plot_curves(panels: Mapping[str, Mapping[str, Curve]], path: str | Path) -> None:
    """Draw panels side by side: title -> (label -> curve). A label "" is left out of the legend."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(panels), 3.2), layout="constrained")
    for axis, (title, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for label, curve in curves.items():
            axis.plot(*zip(*curve, strict=True), marker=".", label=label)
        if any(curves):
            axis.legend(fontsize=8)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    save_figure(figure, path)


def curve_table(curves: Mapping[str, Curve], rows: int = 8) -> str:
    """Markdown table of curves with the same steps: about ``rows`` of them, evenly spread, first and last included."""
    steps = [step for step, _ in next(iter(curves.values()))]
    picked = sorted({round(i * (len(steps) - 1) / max(1, rows - 1)) for i in range(rows)})
    lines = [[steps[index], *(f"{curve[index][1]:.3f}" for curve in curves.values())] for index in picked]
    return markdown_table(["step", *curves], lines, left=0)
