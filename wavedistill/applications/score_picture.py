"""A sound and what a model makes of it: mel spectrogram and nats over time, one below the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from wavedistill.applications.sound_statistics import SoundStatistics
from wavedistill.audio.plot import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_score(
    title: str,
    mel: Tensor,
    statistics: SoundStatistics,
    spans: Sequence[tuple[float, float]],
    hop_seconds: float,
    path: str | Path | None = None,
) -> Figure:
    """Draw the mel (n_mels, frames) that the model was given, nats a frame, and the energy of its noise.

    Args:
        title: of the picture.
        spans: seconds (start, end) to mark.
        hop_seconds: from frame to frame.
        path: where to save it; not saved if None.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    spectrum, nats, energy = figure.subplots(3, 1, sharex=True)
    seconds = mel.shape[1] * hop_seconds
    spectrum.imshow(
        mel.cpu().numpy(), origin="lower", aspect="auto", cmap="magma", extent=(0.0, seconds, 0, mel.shape[0])
    )
    spectrum.set_title(title, loc="left", fontsize=10)
    spectrum.set_ylabel("mel band")
    time = (np.arange(len(statistics.own)) + 0.5) * hop_seconds
    nats.plot(time, statistics.linear_prediction, color="0.6", linewidth=1, label="linear prediction")
    nats.plot(time, statistics.entropy, color="tab:orange", linewidth=1, label="entropy the model expects")
    nats.plot(time, statistics.own, color="tab:blue", linewidth=1, label="-log p of the model")
    nats.set_ylabel("nats per sample")
    nats.legend(fontsize=8, loc="upper right")
    energy.semilogy(time, np.maximum(statistics.energy, 1e-3), color="tab:blue", linewidth=1)
    energy.axhline(1.0, color="0.6", linewidth=1)
    energy.set_ylabel("mean z²")
    energy.set_xlabel("seconds")
    for axis in (nats, energy):
        axis.grid(alpha=0.3)
        for start, end in spans:
            axis.axvspan(start, end, color="tab:red", alpha=0.25)
    if path is not None:
        save_figure(figure, path)
    return figure
