"""How each layer of a two-dimensional flow warps the prior into the data's density, as a strip of pictures.

Above the exact densities, below the image of a latent grid and of latent samples, whose colours (hue by angle) stay
with them.

Example:
    >>> from wavedistill.flows import Compose, Flow, Rescale, Scale
    >>> from wavedistill.playground import plot_layers
    >>> figure = plot_layers(Flow(Compose(Scale(2.0), Rescale(2))))
    >>> len(figure.axes)  # prior and two layers, each as a density and as a grid
    6
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from wavedistill.audio.plot import save_figure
from wavedistill.flows import Flow
from wavedistill.playground.densities import Density
from wavedistill.playground.stages import VIEW, Stage, view_pixels, warp_stages

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import LineCollection, PathCollection
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

GROUND = "#0b0a16"
GRID_COLOR = "#8a8fb0"
COLOR_MAP = "magma"


def plot_layers(
    flow: Flow,
    path: str | Path | None = None,
    density: Density | None = None,
    stages: list[Stage] | None = None,
    title: str = "",
) -> Figure:
    """One column for the prior and for each layer towards the data: density above, warped grid and samples below.

    Args:
        flow: over vectors of two numbers; a `Compose` is drawn layer by layer.
        path: where to save the picture (type by suffix, for example ``.png``).
        density: what the flow was fitted to; drawn in a last column.
        stages: from `warp_stages`, where they are at hand already.
        title: above the picture.

    Returns:
        The figure. It belongs to no pyplot state, so threads may draw at the same time.
    """
    stages = warp_stages(flow) if stages is None else stages
    columns = len(stages) + (density is not None)
    axes, figure = _panels(columns, max(stage.label.count("\n") + 1 for stage in stages), title)
    colors = latent_colors(stages[0].samples)
    target = None if density is None else _target_image(density, len(stages[0].density))
    for index, (stage, (above, below)) in enumerate(zip(stages, axes, strict=False)):
        draw_panel(above, stage.label)
        draw_panel(below)
        peak = float(target.max()) if density is not None and index == len(stages) - 1 else None
        draw_density(above, stage.density, peak)
        draw_grid(below, stage.grid)
        draw_samples(below, stage.samples, colors)
    if density is not None:
        above, below = axes[-1]
        draw_panel(above, f"target:\n{density.title}")
        draw_panel(below)
        draw_density(above, target)
        draw_samples(below, density.sample(len(stages[0].samples), torch.Generator().manual_seed(0)).numpy(), "#f3f0ea")
    if path is not None:
        save_figure(figure, path)
    return figure


def latent_colors(latent: np.ndarray) -> np.ndarray:
    """Colours (count, 3) of equal lightness, hue by the angle of each latent point."""
    angle = np.arctan2(latent[:, 1], latent[:, 0])
    lightness = 0.78  # of OKLab: no hue stands out
    chroma = 0.13
    lab = np.stack([np.full_like(angle, lightness), chroma * np.cos(angle), chroma * np.sin(angle)], axis=1)
    to_lms = np.array(
        [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = ((lab @ to_lms.T) ** 3 @ to_rgb.T).clip(0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def new_figure(width: float, height: float) -> Figure:
    # matplotlib takes 0.3 s to import, so not at the top
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def draw_panel(axis: Axes, title: str = "") -> None:
    axis.set(xlim=(-VIEW, VIEW), ylim=(-VIEW, VIEW), xticks=[], yticks=[], aspect="equal", facecolor=GROUND)
    axis.spines[:].set_visible(False)
    if title:
        axis.set_title(title, fontsize=8, linespacing=1.3)


def draw_density(axis: Axes, values: np.ndarray, peak: float | None = None) -> AxesImage:
    top = float(values.max()) if peak is None else float(peak)
    return axis.imshow(
        values,
        origin="lower",
        extent=(-VIEW, VIEW, -VIEW, VIEW),
        cmap=COLOR_MAP,
        vmin=0.0,
        vmax=max(top, 1e-30),
        interpolation="bilinear",
    )


def draw_grid(axis: Axes, grid: np.ndarray) -> LineCollection:
    from matplotlib.collections import LineCollection

    return axis.add_collection(LineCollection(list(grid), colors=GRID_COLOR, linewidths=0.45, alpha=0.6), autolim=False)


def draw_samples(axis: Axes, samples: np.ndarray, colors: np.ndarray | str) -> PathCollection:
    return axis.scatter(*samples.T, s=2.0, c=colors, linewidths=0)


def _panels(columns: int, label_lines: int, title: str) -> tuple[list[tuple[Axes, Axes]], Figure]:
    """Square panels, two in each column, with room for the labels above and the title (inches)."""
    side = 1.7
    gap = 0.06
    head = 0.1 + 0.16 * max(label_lines, 2) + (0.28 if title else 0.0)
    width = columns * (side + gap) + gap
    height = 2 * (side + gap) + gap + head
    figure = new_figure(width, height)
    axes = [
        tuple(
            figure.add_axes(((gap + column * (side + gap)) / width, bottom / height, side / width, side / height))
            for bottom in (2 * gap + side, gap)
        )
        for column in range(columns)
    ]
    if title:
        figure.text(0.5, 1.0 - 0.07 / height, title, ha="center", va="top", fontsize=10)
    return axes, figure


def _target_image(density: Density, resolution: int) -> np.ndarray:
    return density.log_prob(view_pixels(resolution)).exp().reshape(resolution, resolution).numpy()
