"""The prior on its way through the layers of a two-dimensional flow, as an animated GIF.

Example:
    >>> import tempfile
    >>> from pathlib import Path
    >>> from wavedistill.flows import Compose, Flow, Scale
    >>> from wavedistill.playground import animate_layers
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     animate_layers(Flow(Compose(Scale(2.0))), Path(folder) / "layers.gif").name
    'layers.gif'
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wavedistill.errors import WavedistillError
from wavedistill.files import atomic
from wavedistill.flows import Flow
from wavedistill.playground.pictures import (
    COLOR_MAP,
    GRID_COLOR,
    GROUND,
    draw_density,
    draw_grid,
    draw_panel,
    draw_samples,
    latent_colors,
    new_figure,
)
from wavedistill.playground.stages import Stage, warp_stages

if TYPE_CHECKING:
    from PIL.Image import Image

MOVING_SAMPLES = 800
"""Fewer than in a still picture, to keep the file small."""


def animate_layers(
    flow: Flow,
    path: str | Path,
    stages: list[Stage] | None = None,
    title: str = "",
    frames_per_layer: int = 6,
    pause_seconds: float = 0.8,
) -> Path:
    """An animated GIF, about a megabyte at most: the prior moves, layer by layer, to the model of the data.

    At the pauses everything is exact. Between two layers the whole turns by the angle that fits best, the points go the
    rest of their way straight, and the densities are cross-faded.

    Args:
        flow: over vectors of two numbers.
        path: the ``.gif`` file.
        stages: from `warp_stages`, where they are at hand already.
        title: above the picture.
        frames_per_layer: pictures from one layer to the next.
        pause_seconds: how long each layer's result stands still; the last one stands three times as long.
    """
    if Path(path).suffix != ".gif":
        raise WavedistillError(f"an animation is a .gif file, not {path}")
    stages = warp_stages(flow) if stages is None else stages
    images = []
    milliseconds = []
    for image, still in _frames(stages, title, frames_per_layer):
        images.append(image)
        milliseconds.append(round(1000 * pause_seconds) if still else 60)
    milliseconds[-1] = round(3000 * pause_seconds)
    palette = _palette()
    images = [image.quantize(palette=palette, dither=0) for image in images]
    path = Path(path)
    with atomic(path) as temporary:
        images[0].save(
            temporary, "GIF", save_all=True, append_images=images[1:], duration=milliseconds, loop=0, optimize=True
        )
    return path


def _frames(stages: list[Stage], title: str, frames_per_layer: int) -> Iterator[tuple[Image, bool]]:
    """Pictures, and whether each shows a stage as it is."""
    from PIL import Image

    stages = [stage._replace(samples=stage.samples[:MOVING_SAMPLES]) for stage in stages]
    figure = new_figure(4.8, 2.88)
    left = figure.add_axes((0.01, 0.02, 0.485, 0.81))
    right = figure.add_axes((0.505, 0.02, 0.485, 0.81))
    heading = figure.text(0.5, 0.985, "", ha="center", va="top", fontsize=9, linespacing=1.35)
    draw_panel(left)
    draw_panel(right)
    image = draw_density(left, stages[0].density)
    lines = draw_grid(right, stages[0].grid)
    dots = draw_samples(right, stages[0].samples, latent_colors(stages[0].samples))

    def picture(text: str, density: np.ndarray, grid: np.ndarray, samples: np.ndarray) -> Image:
        heading.set_text(f"{title}\n{text}" if title else text)
        image.set_data(density)
        lines.set_segments(list(grid))
        dots.set_offsets(samples)
        figure.canvas.draw()
        return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")

    shown = [stage.density / max(float(stage.density.max()), 1e-30) for stage in stages]
    image.set_clim(0.0, 1.0)
    yield picture("prior", shown[0], stages[0].grid, stages[0].samples), True
    for index in range(1, len(stages)):
        before = stages[index - 1]
        after = stages[index]
        angle = _turn(before.samples, after.samples)
        text = after.label.replace("\n", ": ", 1).replace("\n", " · ")
        for step in range(1, frames_per_layer + 1):
            share = 0.5 - 0.5 * math.cos(math.pi * step / frames_per_layer)
            density = (1.0 - share) * shown[index - 1] + share * shown[index]
            points = [
                _between(a, b, share, angle) for a, b in ((before.grid, after.grid), (before.samples, after.samples))
            ]
            yield picture(text, density, *points), step == frames_per_layer


def _turn(before: np.ndarray, after: np.ndarray) -> float:
    """Angle of the rotation that brings points (count, 2) nearest to where they go, in the sense of least squares."""
    known = np.isfinite(before).all(1) & np.isfinite(after).all(1)
    a = before[known] - before[known].mean(0)
    b = after[known] - after[known].mean(0)
    return math.atan2(float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()), float((a * b).sum()))


def _between(before: np.ndarray, after: np.ndarray, share: float, angle: float) -> np.ndarray:
    """Points (..., 2) on the way: turned by a share of the angle, what is left goes straight."""

    def turned(points: np.ndarray, by: float) -> np.ndarray:
        return points @ np.array([[math.cos(by), math.sin(by)], [-math.sin(by), math.cos(by)]], dtype=points.dtype)

    return turned((1.0 - share) * before + share * turned(after, -angle), share * angle)


def _palette() -> Image:
    """Exactly the colours of an animation: of densities, of samples and their edges, of the grid and of the text."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb
    from PIL import Image

    angles = np.linspace(-math.pi, math.pi, 16, endpoint=False)
    hues = latent_colors(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    ground = np.array(to_rgb(GROUND))
    line = np.array(to_rgb(GRID_COLOR))
    edges = [ground + share * (hues - ground) for share in (1.0, 0.6, 0.3)]
    greys = ground + np.linspace(0.0, 1.0, 8)[:, None] * (line - ground)
    text = np.linspace(0.0, 1.0, 8)[:, None] * np.ones(3)
    colors = np.concatenate([colormaps[COLOR_MAP](np.linspace(0.0, 1.0, 48))[:, :3], *edges, greys, text])
    palette = Image.new("P", (1, 1))
    palette.putpalette((255 * colors).round().astype(np.uint8).tobytes())
    return palette
