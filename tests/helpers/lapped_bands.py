"""Filters of the lapped transforms: their picture in docs/images and their table on docs/flows.md.

    python tests/helpers/lapped_bands.py data/festvox_ru

makes both again; the folder holds the recordings of the last column (`python recipes/festvox_ru/prepare.py`).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from wavedistill.audio.io import load_audio
from wavedistill.audio.plot import save_figure
from wavedistill.flows import LappedTransform
from wavedistill.text import fill_block, markdown_table

ROOT = Path(__file__).parents[2]
PAGE = "docs/flows.md"
PICTURE = "docs/images/lapped-bands.png"
NAMES = ("DCT-II", "MLT", "ELT")
HEAD = [
    "transform",
    "bands",
    "overlap",
    "filter length",
    "look-ahead, samples",
    "side lobe, dB",
    "gain of AR(1), dB",
    "gain of speech, dB",
]
RECORDINGS = 20
CORRELATION = 0.95
SPECTRUM = 2**15


def transforms() -> Iterator[LappedTransform]:
    """In the order of the table."""
    for bands in (4, 8, 16, 32):
        for overlap in (0, 1, 2):
            yield LappedTransform(bands, overlap)


def figures(split: LappedTransform) -> list[object]:
    """A row of the table, but for the recordings."""
    basis = split.basis()
    gain = coding_gain(ar1_variances(basis))
    return [
        NAMES[split.overlap],
        split.bands,
        split.overlap,
        basis.shape[1],
        split.analysis_delay,
        f"-{side_lobe(basis):.1f}",
        f"{gain:.2f}",
    ]


def response(filters: Tensor) -> Tensor:
    """(bands, taps) -> dB below each band's peak, (bands, SPECTRUM / 2 + 1), from 0 to half the sample rate."""
    power = torch.fft.rfft(filters, SPECTRUM).abs().square()
    return 10 * torch.log10((power / power.amax(1, keepdim=True)).clamp_min(1e-12))


def side_lobe(filters: Tensor) -> float:
    """How many dB the highest side lobe of any band lies below its main lobe, which ends at its first minima."""
    highest = -math.inf
    for band in response(filters).tolist():
        peak = band.index(max(band))
        above = peak
        while above < len(band) - 1 and band[above + 1] <= band[above]:
            above += 1
        below = peak
        while below > 0 and band[below - 1] <= band[below]:
            below -= 1
        highest = max([highest, *band[:below], *band[above + 1 :]])
    return -highest


def ar1_variances(filters: Tensor) -> Tensor:
    """Variances (bands,) of the coefficients of a first-order autoregressive process, whose own variance is 1."""
    time = torch.arange(filters.shape[1], dtype=filters.dtype)
    covariance = CORRELATION ** (time.unsqueeze(1) - time).abs()
    return torch.einsum("bi,ij,bj->b", filters, covariance, filters)


def speech_variances(split: LappedTransform, clips: list[Tensor]) -> Tensor:
    """Mean squares (bands,) of the coefficients of recordings (samples,), each cut to whole blocks."""
    energy = torch.zeros(split.bands, dtype=torch.float64)
    steps = 0
    for clip in clips:
        whole = clip[: len(clip) // split.bands * split.bands].double().reshape(1, 1, -1)
        y = split.forward(whole).value[0]
        energy += y.square().sum(1)
        steps += y.shape[1]
    return energy / steps


def coding_gain(variances: Tensor) -> float:
    """Arithmetic by geometric mean, in dB: by so much a coder at a high rate gains from coding the bands apart."""
    return float(10 * torch.log10(variances.mean() / variances.log().mean().exp()))


def plot_bands(path: Path, bands: int = 8) -> None:
    """The bands' responses for each overlap, one above the other."""
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    colors = colormaps["turbo"](torch.linspace(0.05, 0.95, bands).numpy())
    axes = figure.subplots(len(NAMES), 1, sharex=True, sharey=True)
    frequency = torch.linspace(0, 1, SPECTRUM // 2 + 1)
    for overlap, (name, axis) in enumerate(zip(NAMES, axes, strict=True)):
        filters = LappedTransform(bands, overlap).basis()
        for band, color in zip(response(filters), colors, strict=True):
            axis.plot(frequency, band, color=color, linewidth=1.2)
        lobe = side_lobe(filters)
        axis.axhline(-lobe, color="black", linewidth=0.8, linestyle="--")
        title = f"overlap {overlap}: {name}, {filters.shape[1]} taps, side lobes below -{lobe:.1f} dB"
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_ylabel("dB")
        axis.grid(axis="x", alpha=0.4)
    axes[-1].set(ylim=(-60, 3), xlim=(0, 1), xlabel="frequency / half the sample rate")
    axes[-1].set_xticks([band / bands for band in range(bands + 1)])
    save_figure(figure, path)


def fill(recordings: Path) -> None:
    """Draw the picture and fill the page's table."""
    paths = sorted(recordings.glob("wavs/*.wav"))[:RECORDINGS]
    clips = [load_audio(path)[0] for path in paths]
    rows = [[*figures(split), f"{coding_gain(speech_variances(split, clips)):.2f}"] for split in transforms()]
    fill_block(ROOT / PAGE, "lapped", markdown_table(HEAD, rows))
    (ROOT / PICTURE).parent.mkdir(exist_ok=True)
    plot_bands(ROOT / PICTURE)


if __name__ == "__main__":
    fill(Path(sys.argv[1]))
