"""`wavedistill score`: how a teacher sees sounds, as a table, as JSON and as pictures of nats over time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from wavedistill.applications.detector import Detector, fit_detector, load_detector, log_energy, robust
from wavedistill.applications.score_picture import plot_score
from wavedistill.applications.sound_statistics import SoundStatistics, feature_names, sound_statistics
from wavedistill.applications.sounds import Sound, clip_speaker, find_sounds, load_sound, made_before
from wavedistill.errors import OutputError, WavedistillError
from wavedistill.evaluation.statistics import plain
from wavedistill.evaluation.systems import Clip, LoadedModel, digest
from wavedistill.files import printable, write_json, write_text
from wavedistill.models.wavenet import WaveNet
from wavedistill.text import markdown_table

STANDS_OUT = 5.0
"""Robust deviations of a frame's log energy above the usual from which it stands out."""
_SPANS = 3  # of a sound's frames that stand out are told, the strangest ones
_VERSION = "1"  # of the statistics: stored ones of another version are computed again


@dataclass(frozen=True)
class Span:
    """Frames that stand out: seconds, and the largest of their robust deviations."""

    start: float
    end: float
    deviation: float


@dataclass(frozen=True)
class SoundScore:
    """One sound as a model sees it.

    Attributes:
        name: of the sound.
        seconds: its length.
        hop_seconds: length of a frame.
        statistics: under the model.
        spans: frames that stand out, the strangest first, `_SPANS` at most.
        anomaly, p_value: of a detector, where there is one.
    """

    name: str
    seconds: float
    hop_seconds: float
    statistics: SoundStatistics
    spans: list[Span]
    anomaly: float = math.nan
    p_value: float = math.nan

    def to_json(self) -> dict[str, Any]:
        values = {name: value for name, value in vars(self).items() if name not in ("statistics", "spans")}
        statistics = {name: _plain(value) for name, value in vars(self.statistics).items()}
        return plain(values) | {"spans": [vars(span) for span in self.spans], "statistics": statistics}


@dataclass
class ScoreReport:
    """What `score` found. ``markdown`` for people, ``to_json()`` for programs.

    Attributes:
        scores: one a sound, by name.
        failures: why a sound could not be scored, by its file.
        names: of the values of ``features``.
    """

    scores: list[SoundScore] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)

    @property
    def markdown(self) -> str:
        """The table, one row a sound, the strangest first where there is a detector."""
        detected = any(not math.isnan(one.anomaly) for one in self.scores)
        head = ["sound", "bits", "- LP's", "typicality", "mean", "variance", "kurtosis", "autocorr.", "KS"]
        head += [*(["anomaly", "p"] if detected else []), "stands out, s"]
        ordered = sorted(self.scores, key=lambda one: -one.anomaly) if detected else self.scores
        rows = []
        for one in ordered:
            s = one.statistics
            cells = [f"{s.bits:.2f}", f"{s.bits - s.linear_prediction_bits:+.2f}", f"{s.typicality:.3f}"]
            cells += [f"{s.mean:.3f}", f"{s.variance:.2f}", f"{s.kurtosis:.1f}", f"{s.autocorrelation:.3f}"]
            cells += [f"{s.kolmogorov_smirnov:.3f}"]
            if detected:
                cells += [f"{one.anomaly:.1f}", f"{one.p_value:.3f}"]
            rows.append([one.name, *cells, " ".join(f"{a.start:.2f}-{a.end:.2f}" for a in one.spans) or "-"])
        return markdown_table(head, rows)

    def to_json(self) -> dict[str, Any]:
        return {
            "feature_names": self.names,
            "sounds": [one.to_json() for one in self.scores],
            "failures": self.failures,
        }

    @property
    def features(self) -> np.ndarray:
        """(sounds, features)."""
        return np.array([one.statistics.features for one in self.scores])

    def fit(self, model: str) -> Detector:
        """A detector of sounds unlike these, which the teacher of fingerprint ``model`` has scored."""
        return fit_detector(self.features, [one.statistics.energy for one in self.scores], model)


def score(
    inputs: str | Path | Sequence[str | Path],
    checkpoint: str | Path | LoadedModel,
    out: str | Path | None = None,
    *,
    speaker: str | None = None,
    detector: str | Path | Detector | None = None,
    pictures: bool = True,
    device: str = "cpu",
    progress: Callable[[Iterable], Iterable] = iter,
) -> ScoreReport:
    """Score sounds by a Gaussian teacher: likelihood, typicality, statistics of its noise, frames that stand out.

    Formulas: `wavedistill.applications.sound_statistics`. A sound of another rate is resampled to the model's, a stereo
    one mixed down; what is left over after whole frames is cut.

    Args:
        inputs: files, folders and manifests (``*.jsonl``), whose entries tell the speaker and the condition.
        checkpoint: folder, run folder, bundled name or hub id of a teacher, or a loaded one.
        out: folder for scores.md, scores.json and, in sounds/, each sound's statistics and picture; statistics that
            are there are not computed again. None keeps nothing.
        speaker: of sounds that do not tell theirs, for a model with speakers.
        detector: of `ScoreReport.fit`, or its file: adds an anomaly score and its p-value.
        pictures: draw them, where there is ``out``.
        device: where the model runs; of a loaded one its own.
        progress: wraps the iterable of sounds; tqdm for example.

    Raises:
        WavedistillError: no sounds, no Gaussian teacher, or a detector of another model. A sound that cannot be
            scored is told in ``failures`` and stops nothing.

    Example:
        >>> from wavedistill.applications.scoring import score
        >>> report = score("recordings", "speech-teacher", "scored")  # doctest: +SKIP
        >>> print(report.markdown)  # doctest: +SKIP
    """
    folder = None if out is None else Path(out)
    loaded = LoadedModel.of(checkpoint, device)
    if not isinstance(loaded.model, WaveNet):
        raise WavedistillError(
            f"score needs the density of every sample: {loaded.name} is a {loaded.model.role_name}, give a teacher"
        )
    loaded.model.need_gaussian("score")
    if speaker is not None and speaker not in (known := loaded.model.config.speakers):
        raise WavedistillError(
            f"{loaded.name} does not know the speaker {speaker}: "
            + (f"give one of {', '.join(known)}" if known else "it has no speakers, leave it out")
        )
    if detector is not None and not isinstance(detector, Detector):
        detector = load_detector(detector, loaded.key)
    given = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
    report = ScoreReport(names=feature_names(loaded.model.step_size))
    for sound in progress(find_sounds(given, folder)):
        try:
            report.scores.append(_score(sound, loaded, folder, speaker, detector, pictures))
        except OutputError:
            raise
        except WavedistillError as error:
            report.failures[printable(sound.path)] = str(error)
    if folder is not None:
        write_json(folder / "scores.json", report.to_json())
        write_text(folder / "scores.md", report.markdown + "\n")
    return report


def stands_out(energy: np.ndarray, hop_seconds: float, usual: tuple[float, float] | None = None) -> list[Span]:
    """Runs of frames with far more energy of the noise than usual, above `STANDS_OUT`: the strangest, in that order.

    Args:
        energy: mean z^2 of every frame, (frames,).
        hop_seconds: length of a frame.
        usual: center and scale of the log energy; None: those of this sound.
    """
    logs = log_energy(energy)
    center, scale = robust(logs) if usual is None else usual
    deviations = (logs - center) / scale
    above = np.concatenate([[False], deviations > STANDS_OUT, [False]])
    edges = np.flatnonzero(above[1:] != above[:-1]).reshape(-1, 2)
    spans = [
        Span(round(start * hop_seconds, 3), round(end * hop_seconds, 3), float(deviations[start:end].max()))
        for start, end in edges
    ]
    return sorted(spans, key=lambda span: -span.deviation)[:_SPANS]


def _score(
    sound: Sound,
    loaded: LoadedModel,
    folder: Path | None,
    speaker: str | None,
    detector: Detector | None,
    pictures: bool,
) -> SoundScore:
    clip, mel = load_sound(sound, loaded, clip_speaker(sound, loaded, speaker))
    hop_seconds = loaded.model.hop_length / loaded.model.sample_rate
    statistics = _statistics(clip, mel, loaded, folder)
    usual = None if detector is None else (detector.frame_center, detector.frame_scale)
    spans = stands_out(statistics.energy, hop_seconds, usual)
    anomaly = p_value = math.nan
    if detector is not None:
        anomaly = detector.score(statistics.features)
        p_value = detector.p_value(anomaly)
    seconds = len(clip.audio) / loaded.model.sample_rate
    if folder is not None and pictures:
        marks = [(span.start, span.end) for span in spans]
        plot_score(sound.name, mel[0], statistics, marks, hop_seconds, folder / "sounds" / f"{sound.name}.png")
    return SoundScore(sound.name, seconds, hop_seconds, statistics, spans, anomaly, p_value)


def _statistics(clip: Clip, mel: Tensor, loaded: LoadedModel, folder: Path | None) -> SoundStatistics:
    """Computed, or as an earlier run stored them for this very sound, condition and model."""
    key = digest(clip.key, mel.cpu().numpy().tobytes(), loaded.key, str(loaded.speaker(clip)), _VERSION)
    path = None if folder is None else folder / "sounds" / f"{clip.id}.json"
    if path is not None and (stored := made_before(path, key)) is not None:
        values = stored["statistics"]
        return SoundStatistics(**{f.name: _array(values[f.name]) for f in fields(SoundStatistics)})
    found = sound_statistics(loaded.model, clip.audio, mel, loaded.speaker(clip))
    if path is not None:
        write_json(path, {"key": key, "statistics": {name: _plain(value) for name, value in vars(found).items()}})
    return found


def _plain(value: float | np.ndarray) -> float | list[float]:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _array(value: float | list[float]) -> float | np.ndarray:
    return np.array(value) if isinstance(value, list) else value
