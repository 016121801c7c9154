"""Pictures of log-mel spectrograms on one colour scale."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from wavedistill.errors import WavedistillError
from wavedistill.files import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor


def plot_mels(
    mels: Mapping[str, Tensor],
    path: str | Path | None = None,
    hop_length: int = 256,
    sample_rate: int = 16000,
) -> Figure:
    """Draw log-mel spectrograms above each other, with a shared time axis and a shared colour scale.

    Args:
        mels: title -> log-mel (n_mels, frames), drawn in this order.
        path: where to save the picture (type by suffix, for example ``.png``); not saved if None.
        hop_length: samples from frame to frame.
        sample_rate: Hz.

    Returns:
        The figure. It belongs to no pyplot state, so threads may draw at the same time.
    """
    # matplotlib takes 0.3 s to import, so not at the top
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not mels:
        raise WavedistillError("there is no mel to draw: give at least one")
    arrays = {title: mel.detach().float().cpu().numpy() for title, mel in mels.items()}
    for title, array in arrays.items():
        if array.ndim != 2 or array.shape[1] == 0:
            raise WavedistillError(f"the mel {title!r} has shape {array.shape}; needed is (n_mels, frames)")
    low = min(a.min() for a in arrays.values())
    high = max(a.max() for a in arrays.values())
    longest = max(a.shape[1] for a in arrays.values()) * hop_length / sample_rate

    figure = Figure(figsize=(9, 1.0 + 1.9 * len(arrays)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(arrays), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (title, array) in zip(axes, arrays.items(), strict=True):
        seconds = array.shape[1] * hop_length / sample_rate
        image = axis.imshow(
            array,
            origin="lower",
            aspect="auto",
            interpolation="nearest",
            vmin=low,
            vmax=high,
            cmap="magma",
            extent=(0.0, seconds, 0, array.shape[0]),
        )
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_ylabel("mel band")
    axes[-1].set_xlim(0.0, longest)
    axes[-1].set_xlabel("seconds")
    figure.colorbar(image, ax=list(axes), label="log mel (natural)", shrink=min(1.0, 1.6 / len(arrays)))
    if path is not None:
        save_figure(figure, path)
    return figure


def save_figure(figure: Figure, path: str | Path) -> None:
    """Save a figure atomically; the suffix says which type of file.

    Raises:
        WavedistillError: for a suffix that matplotlib does not know, or where the folder cannot be written.
    """
    path = Path(path)
    try:
        with atomic(path) as temporary:
            figure.savefig(temporary, dpi=110, format=path.suffix[1:])
    except ValueError as error:
        raise WavedistillError(f"cannot write the picture {path}: {error}") from error
