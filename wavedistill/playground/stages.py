"""What each layer of a two-dimensional flow makes of the prior: densities, and images of a latent grid and samples.

A flow of layers f_1 .. f_K (data -> latent) is a chain of K + 1 flows: behind layer i stands the density of f_{i+1} ..
f_K, from the prior (i = K) to the model of the data (i = 0).

Example:
    >>> from wavedistill.flows import Compose, Flow, Rescale, Scale
    >>> from wavedistill.playground import warp_stages
    >>> [stage.label for stage in warp_stages(Flow(Compose(Scale(2.0), Rescale(2))))]
    ['prior', 'layer 2\\nRescale', 'layer 1\\nScale']
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wavedistill.errors import WavedistillError
from wavedistill.flows import Compose, Flow, Inverse, Transform

VIEW = 2.5
"""Every picture shows [-VIEW, VIEW] x [-VIEW, VIEW]."""
GRID_LINES = 21
GRID_POINTS = 161


class Stage(NamedTuple):
    """The chain behind one layer.

    Attributes:
        label: the layers that led here from the stage before (towards the data).
        density: on the pixels of the view (resolution, resolution), row by row from below.
        grid: images of the latent grid's lines (2 GRID_LINES, GRID_POINTS, 2).
        samples: images of the latent samples (count, 2).
    """

    label: str
    density: np.ndarray
    grid: np.ndarray
    samples: np.ndarray


def layers_of(transform: Transform) -> list[Transform]:
    """The layers of a `Compose` (also one read backwards), data -> latent; any other transform is one layer."""
    if isinstance(transform, Compose):
        return list(transform.transforms)
    if isinstance(transform, Inverse) and isinstance(transform.transform, Compose):
        return [layer.inv for layer in reversed(transform.transform.transforms)]
    return [transform]


def label_of(layers: Sequence[Transform]) -> str:
    """Class names of the layers, one a line, repeated ones counted; ``.inv`` marks a layer read backwards."""

    def names(transform: Transform) -> Iterator[str]:
        parts = layers_of(transform)
        if len(parts) == 1 and parts[0] is transform:
            backwards = isinstance(transform, Inverse)
            yield f"{type(transform.transform).__name__}.inv" if backwards else type(transform).__name__
        else:
            for part in parts:
                yield from names(part)

    counts = Counter(name for layer in layers for name in names(layer))
    return "\n".join(name if count == 1 else f"{count} × {name}" for name, count in counts.items())


def _numbered(group: list[int], label: str) -> str:
    first = group[0] + 1
    last = group[-1] + 1
    return f"layer {first}\n{label}" if first == last else f"layers {first} to {last}\n{label}"


@torch.no_grad()
def warp_stages(
    flow: Flow, max_layers: int = 6, resolution: int = 160, num_samples: int = 1500, seed: int = 0
) -> list[Stage]:
    """Prior first, model of the data last; more than ``max_layers`` layers are taken together in groups.

    Raises:
        WavedistillError: the flow is not one of vectors of two numbers, or cannot be inverted.
    """
    layers = layers_of(flow.transform)
    count = min(max_layers, len(layers))
    groups = [list(part) for part in np.array_split(np.arange(len(layers)), count)] if count else []
    training = flow.training
    flow.eval()
    try:
        like = next(flow.parameters(), torch.empty(0))
        samples = flow.base.sample((num_samples, 2), torch.Generator().manual_seed(seed))
        points = torch.cat([samples, _latent_grid().flatten(0, 1)]).to(like)
        pixels = view_pixels(resolution).to(like)
        stages = []
        for group in [[], *reversed(groups)]:
            members = [layers[index] for index in group]
            for layer in reversed(members):
                points = layer.inverse(points).value
            rest = layers[group[0] if members else len(layers) :]
            density = Flow(Compose(*rest), flow.base).log_prob(pixels).exp().nan_to_num(0.0, 0.0, 0.0)
            stages.append(
                Stage(
                    _numbered(group, label_of(members)) if members else "prior",
                    density.reshape(resolution, resolution).float().cpu().numpy(),
                    points[num_samples:].reshape(2 * GRID_LINES, GRID_POINTS, 2).float().cpu().numpy(),
                    points[:num_samples].float().cpu().numpy(),
                )
            )
    except WavedistillError as error:
        raise WavedistillError(f"this flow cannot be drawn in two dimensions: {error}") from error
    finally:
        flow.train(training)
    return stages


def view_pixels(resolution: int) -> Tensor:
    """Centres of the view's pixels, row by row from below (resolution^2, 2)."""
    ticks = (torch.arange(resolution) + 0.5) * (2 * VIEW / resolution) - VIEW
    return torch.cartesian_prod(ticks, ticks).flip(1)


def _latent_grid() -> Tensor:
    """Lines of constant first, then of constant second coordinate (2 GRID_LINES, GRID_POINTS, 2)."""
    fixed = torch.linspace(-VIEW, VIEW, GRID_LINES)
    running = torch.linspace(-VIEW, VIEW, GRID_POINTS)
    lines = torch.stack(torch.meshgrid(fixed, running, indexing="ij"), dim=-1)
    return torch.cat([lines, lines.flip(-1)])
