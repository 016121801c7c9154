"""The evaluation report's picture: every system's main metrics with confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from wavedistill.audio.plot import save_figure


def plot_systems(
    panels: Mapping[str, Mapping[str, tuple[float, float, float]]], systems: Sequence[str], path: str | Path
) -> None:
    """One small panel a metric, systems below each other: title -> (system -> (mean, low, high) of its interval)."""
    from matplotlib.figure import Figure

    columns = min(4, max(1, len(panels)))
    rows = max(1, math.ceil(len(panels) / columns))
    figure = Figure(figsize=(10, rows * (0.7 + 0.22 * len(systems))), layout="constrained")
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axis, (title, points) in zip(axes, panels.items(), strict=False):
        for place, system in enumerate(systems):
            if system in points:
                mean, low, high = points[system]
                axis.plot([low, high], [place, place], color="tab:blue", linewidth=2, alpha=0.6)
                axis.plot([mean], [place], "o", color="tab:blue", markersize=4)
        axis.set_title(title, fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    axes[0].set_yticks(range(len(systems)), systems)
    axes[0].set_ylim(len(systems) - 0.5, -0.5)
    save_figure(figure, path)
