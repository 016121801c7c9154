"""How clipped speech is restored, beside the clipped sound and least squares of linear prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wavedistill.applications.clipping import find_clipped, interpolate_clipped
from wavedistill.applications.declipping import DeclipConfig, check_declipper, declip_sound
from wavedistill.applications.sounds import find_sounds, load_sound
from wavedistill.evaluation.systems import Clip, LoadedModel
from wavedistill.metrics.mos import plcmos
from wavedistill.metrics.signal import pesq_wb
from wavedistill.text import markdown_table

LEVELS = (0.5, 0.3)
"""Thresholds, as shares of a clip's peak."""
SECONDS = 1.0
"""Of each clip, from its start."""


def measure_declipping(
    inputs: Sequence[str | Path],
    checkpoint: str | Path,
    config: DeclipConfig | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> str:
    """Clips clipped at `LEVELS` and restored, as a Markdown table.

    Columns: share of the samples that are clipped; SNR in dB over these, PESQ-wb and PLCMOS, each a mean over the
    clips; share of the true samples in the 90 % band of the candidates; effective sample size.

    Args:
        inputs: files, folders and manifests of whole recordings; another rate is resampled.
        checkpoint: a Gaussian teacher.
        config: None: `DeclipConfig()`.
        progress: wraps the iterable of clips and levels.
    """
    loaded = LoadedModel.load(checkpoint, str(checkpoint), "cpu")
    check_declipper(loaded)
    length = round(SECONDS * loaded.model.sample_rate)
    clips = [load_sound(sound, loaded)[0].excerpt(length) for sound in find_sounds(inputs)]
    found: dict[tuple[float, str], list[dict[str, float]]] = {}
    for level, clip in progress([(level, clip) for level in LEVELS for clip in clips]):
        for system, values in _clip_values(clip, level, loaded, config).items():
            found.setdefault((level, system), []).append(values)
    columns = {"share": 2, "snr": 1, "pesq": 2, "plcmos": 2, "coverage": 2, "effective_size": 1}
    rows = []
    for (level, system), values in found.items():
        cells = []
        for name, digits in columns.items():
            numbers = [one[name] for one in values if name in one]
            cells.append(f"{np.mean(numbers):.{digits}f}" if numbers else "-")
        rows.append([f"{level:g} of the peak", system, *cells])
    head = ["clipped at", "restored by", "clipped", "SNR dB", "PESQ-wb", "PLCMOS", "in 90 % band", "ESS"]
    return markdown_table(head, rows, left=2)


def _clip_values(
    clip: Clip, level: float, loaded: LoadedModel, config: DeclipConfig | None
) -> dict[str, dict[str, float]]:
    true, rate = clip.audio, loaded.model.sample_rate
    threshold = round(32768 * level * float(true.abs().max())) / 32768
    given = true.clamp(-threshold, threshold)
    clipped = find_clipped(given)
    lost = clipped.signs != 0
    made = declip_sound(given, loaded, config, loaded.speaker(clip))
    ways = {
        "nothing": given,
        "linear prediction": interpolate_clipped(given, clipped),
        "teacher": made.audio,
    }
    share = {"share": float(lost.float().mean())}
    found = {
        name: share
        | {
            "snr": _snr(true[lost], audio[lost]),
            "pesq": pesq_wb(true, audio, rate),
            "plcmos": plcmos(audio, rate),
        }
        for name, audio in ways.items()
    }
    inside = (made.low <= true) & (true <= made.high)
    found["teacher"] |= {"coverage": float(inside[lost].float().mean()), "effective_size": made.effective_size}
    return found


def _snr(true: Tensor, made: Tensor) -> float:
    """dB."""
    return float(10 * torch.log10(true.square().sum() / (true - made).square().sum()))
