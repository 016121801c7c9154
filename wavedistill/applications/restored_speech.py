"""How gaps in speech are filled, beside zeros, repetition of the pitch period and linear prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wavedistill.applications.extrapolation import bridge, extrapolate, repeat_period
from wavedistill.applications.gap_filling import RestoreConfig, Restored, gap_samples, restore_sound
from wavedistill.evaluation.systems import Clip, LoadedModel, load_clips
from wavedistill.metrics.mos import plcmos
from wavedistill.metrics.signal import pesq_wb
from wavedistill.text import markdown_table

MILLISECONDS = (20, 60, 120)
SECONDS = 2.0
"""Of each clip, from its start."""
EVERY = 0.5
"""Seconds from gap to gap, the first after one such time, as long as one fits."""
_QUIETEST = 0.01
"""Gaps in which the lost sound has a smaller root mean square than this are left whole: there is nothing to restore."""


def measure_restoration(
    manifest: str | Path,
    checkpoint: str | Path,
    clips: int = 8,
    config: RestoreConfig | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> str:
    """Gaps of `MILLISECONDS` cut into held-out clips and filled again, as a Markdown table.

    Columns: SNR in dB over all gaps of one length (their mean over the gaps); PESQ-wb and PLCMOS, means over the clips;
    share of the true samples in the 90 % band of the candidates; mean effective sample size.

    Args:
        manifest: whose split "test" is used.
        checkpoint: a teacher.
        clips: at most.
        config: candidates and seed.
        progress: wraps the iterable of clips and lengths.
    """
    loaded = LoadedModel.load(checkpoint, str(checkpoint), "cpu")
    rate = loaded.model.sample_rate
    chosen = load_clips(
        manifest,
        "test",
        limit=clips,
        speakers=None,
        min_seconds=SECONDS,
        sample_rate=rate,
        hop_length=loaded.model.hop_length,
    )
    chosen = [clip.excerpt(round(SECONDS * rate)) for clip in chosen]
    found: dict[tuple[int, str], list[dict[str, list[float]]]] = {}
    for clip, length in progress([(clip, length) for length in MILLISECONDS for clip in chosen]):
        for system, values in _clip_values(clip, length / 1000, loaded, config).items():
            found.setdefault((length, system), []).append(values)
    columns = ("snr", "pesq", "plcmos", "coverage", "effective_size")
    rows = []
    for (length, system), values in found.items():
        means = [[x for one in values for x in one.get(name, [])] for name in columns]
        digits = (1, 2, 2, 2, 2)
        rows.append(
            [f"{length} ms", system, *(f"{np.mean(m):.{d}f}" if m else "-" for m, d in zip(means, digits, strict=True))]
        )
    return markdown_table(["gap", "filled by", "SNR dB", "PESQ-wb", "PLCMOS", "in 90 % band", "ESS"], rows, left=2)


def gaps_of(audio: Tensor, seconds: float, sample_rate: int) -> list[tuple[int, int]]:
    """First samples and those after the last of the gaps that are cut into a clip (samples,)."""
    starts = np.arange(EVERY, len(audio) / sample_rate - seconds, EVERY)
    spans = gap_samples([(start, start + seconds) for start in starts], len(audio), sample_rate)
    return [(a, b) for a, b in spans if float(audio[a:b].square().mean().sqrt()) >= _QUIETEST]


def _clip_values(
    clip: Clip, seconds: float, loaded: LoadedModel, config: RestoreConfig | None
) -> dict[str, dict[str, list[float]]]:
    """Of each way to fill the gaps of one clip: SNR and coverage a gap, PESQ and PLCMOS of the clip."""
    rate = loaded.model.sample_rate
    spans = gaps_of(clip.audio, seconds, rate)
    if not spans:
        return {}
    gaps = [(start / rate, stop / rate) for start, stop in spans]
    restored = restore_sound(clip.audio, gaps, loaded, config, loaded.speaker(clip))
    unweighed = clip.audio.clone()
    for filling in restored.fillings:
        unweighed[filling.start : filling.stop] = filling.candidates[0]
    ways = {
        "zeros": _filled(clip.audio, spans, lambda audio, start, stop: torch.zeros(stop - start)),
        "last period": _filled(clip.audio, spans, lambda a, start, stop: repeat_period(a[:start], stop - start, rate)),
        "linear prediction": _filled(clip.audio, spans, lambda a, start, stop: extrapolate(a[:start], stop - start)),
        "linear prediction, both sides": _filled(clip.audio, spans, bridge),
        "teacher, unweighed": unweighed,
        "teacher": restored.audio,
    }
    found = {
        name: {
            "snr": [_snr(clip.audio[start:stop], audio[start:stop]) for start, stop in spans],
            "pesq": [pesq_wb(clip.audio, audio, rate)],
            "plcmos": [plcmos(audio, rate)],
        }
        for name, audio in {**ways, "nothing lost": clip.audio}.items()
    }
    found["nothing lost"].pop("snr")
    found["teacher"] |= {
        "coverage": [_coverage(clip.audio, restored)],
        "effective_size": [filling.effective_size for filling in restored.fillings],
    }
    return found


def _filled(audio: Tensor, spans: Sequence[tuple[int, int]], fill: Callable[[Tensor, int, int], Tensor]) -> Tensor:
    """A clip (samples,) with each span as ``fill`` (audio, start, stop) makes it, left to right."""
    audio = audio.clone()
    for start, stop in spans:
        audio[start:stop] = fill(audio, start, stop)
    return audio


def _snr(true: Tensor, made: Tensor) -> float:
    """dB."""
    return float(10 * torch.log10(true.square().sum() / (true - made).square().sum()))


def _coverage(audio: Tensor, restored: Restored) -> float:
    """Share of the lost samples that lie in the 90 % band."""
    inside = []
    for filling in restored.fillings:
        low, high = filling.band(0.9)
        true = audio[filling.start : filling.stop]
        inside.append((low <= true) & (true <= high))
    return float(torch.cat(inside).float().mean())
