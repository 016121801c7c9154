"""What was drawn for the lost or clipped samples of a sound, among the candidates' band."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from wavedistill.applications.declipping import Declipped
from wavedistill.applications.gap_filling import Restored
from wavedistill.audio.plot import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 6
"""Gaps that are drawn, the first ones."""
_MARGIN_SECONDS = 0.01
_PART_SECONDS = 0.03  # of a sound with clipped samples


def plot_restored(title: str, restored: Restored, sample_rate: int, path: str | Path | None = None) -> Figure:
    """Draw the first gaps with the sound around them, the drawn candidate and the 5-95 % band of all.

    Args:
        title: of the picture.
        sample_rate: Hz.
        path: where to save it; not saved if None.
    """
    shown = restored.fillings[:SHOWN]
    figure, axes = _rows(len(shown))
    margin = round(_MARGIN_SECONDS * sample_rate)
    for axis, filling in zip(axes, shown, strict=True):
        first, last = max(0, filling.start - margin), min(len(restored.audio), filling.stop + margin)
        axis.plot(np.arange(first, last) / sample_rate, restored.audio[first:last].numpy(), color="0.3", linewidth=0.8)
        time = np.arange(filling.start, filling.stop) / sample_rate
        low, high = filling.band()
        axis.fill_between(time, low.numpy(), high.numpy(), color="tab:blue", alpha=0.25, label="5-95 % of candidates")
        drawn = restored.audio[filling.start : filling.stop].numpy()
        axis.plot(time, drawn, color="tab:blue", linewidth=0.8, label="drawn")
        axis.set_title(f"effective sample size {filling.effective_size:.1f}", loc="right", fontsize=8)
    return _finished(figure, title, path)


def plot_declipped(
    title: str, audio: Tensor, made: Declipped, sample_rate: int, path: str | Path | None = None
) -> Figure:
    """Draw the parts of 30 ms with most clipped samples: the sound (samples,) as given, as drawn, and the 5-95 % band.

    Args:
        title: of the picture.
        sample_rate: Hz.
        path: where to save it; not saved if None.
    """
    length = round(_PART_SECONDS * sample_rate)
    clipped = made.clipped.signs.numpy() != 0
    counts = np.add.reduceat(clipped, np.arange(0, len(clipped), length))
    shown = sorted(part for part in np.argsort(-counts)[:SHOWN] if counts[part])
    figure, axes = _rows(len(shown))
    low, high = (np.where(clipped, value.numpy(), np.nan) for value in (made.low, made.high))
    for axis, part in zip(axes, shown, strict=True):
        here = slice(part * length, (part + 1) * length)
        time = np.arange(len(clipped))[here] / sample_rate
        axis.fill_between(time, low[here], high[here], color="tab:blue", alpha=0.25, label="5-95 % of candidates")
        axis.plot(time, made.audio[here].numpy(), color="tab:blue", linewidth=0.8, label="drawn")
        axis.plot(time, audio[here].numpy(), color="0.3", linewidth=0.8, label="given")
    return _finished(figure, title, path)


def _rows(count: int) -> tuple[Figure, Sequence[Axes]]:
    """An empty picture of parts of a sound below each other, and the axes of each."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.8 + 2.0 * count), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(count, 1, squeeze=False)[:, 0]


def _finished(figure: Figure, title: str, path: str | Path | None) -> Figure:
    """The picture with its words, saved where a path is given."""
    for axis in figure.axes:
        axis.grid(alpha=0.3)
    figure.axes[0].set_title(title, loc="left", fontsize=10)
    figure.axes[0].legend(fontsize=8, loc="upper right")
    figure.axes[-1].set_xlabel("seconds")
    if path is not None:
        save_figure(figure, path)
    return figure
