"""The evaluation report: checkpoints against the recordings and against systems of known quality, on held-out clips."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from wavedistill.audio.io import save_audio
from wavedistill.audio.mel import MelConfig, whole_frames
from wavedistill.config import read_json, write_json, write_text
from wavedistill.evaluation.likelihood import (
    Statistic,
    bits_by_speaker,
    clip_log_probs,
    divergence_applies,
    student_divergence,
    weighted,
)
from wavedistill.evaluation.metrics import measure, missing_packages
from wavedistill.evaluation.systems import (
    Clip,
    System,
    Voice,
    anchor_systems,
    digest,
    load_clips,
    load_voices,
    original,
    timed,
)

Rows = dict[str, dict[str, Statistic]]
COLUMNS = {
    "pesq_wb": "PESQ-wb",
    "stoi": "STOI",
    "mcd": "MCD dB",
    "f0_cents": "F0 cents",
    "voicing_percent": "V/UV %",
    "level_db": "level dB",
    "real_time": "x real time",
}
_VERSION = "2"  # of the metrics' definitions: stored results of another version are computed again


@dataclass
class EvaluationReport:
    """What `evaluate` found. ``markdown`` for people, ``to_json()`` for programs; means with standard errors over clips.

    Attributes:
        title: what was evaluated on what.
        quality: metrics of each system on all clips.
        excerpts: metrics of each system on the few short excerpts that the teachers spoke; empty without a teacher.
        bits: for each teacher and one-stage flow, bits per sample of each speaker's clips.
        divergences: KL(student || teacher) and entropy in nats per sample, by "student ‖ teacher".
        notes: what a reader has to know beside the numbers.
    """

    title: str
    quality: Rows
    excerpts: Rows = field(default_factory=dict)
    bits: dict[str, dict[str, dict[str, Statistic]]] = field(default_factory=dict)
    divergences: dict[str, dict[str, Statistic]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def markdown(self) -> str:
        """All tables."""
        parts = [f"# {self.title}", _quality_table("Quality", self.quality)]
        if self.excerpts:
            parts.append(_quality_table("Quality on the excerpts the teacher spoke", self.excerpts))
        parts += [_bits_table({name: self.bits[name] for name in names}) for names in _by_baseline(self.bits)]
        if self.divergences:
            rows = [[pair, v["kl"], v["entropy"], v["kl"].n] for pair, v in self.divergences.items()]
            parts.append(_table("Nats per sample", ["student ‖ teacher", "KL(student ‖ teacher)", "entropy of the student", "n"], rows))
        parts.append("\n".join(f"* {note}" for note in self.notes))
        return "\n\n".join(parts) + "\n"

    def to_json(self) -> dict[str, Any]:
        """The report as nested dictionaries; a `Statistic` is {mean, standard_error, n}, NaN is null."""
        return _plain(vars(self))

    def save(self, folder: str | Path) -> Path:
        """Write ``report.json`` and ``report.md``; returns the latter's path."""
        write_json(Path(folder) / "report.json", self.to_json())
        write_text(Path(folder) / "report.md", self.markdown)
        return Path(folder) / "report.md"


def evaluate(
    manifest: str | Path,
    checkpoints: str | Path | Sequence[str | Path],
    *,
    split: str = "test",
    limit: int | None = None,
    speakers: list[str] | None = None,
    out: str | Path | None = None,
    anchors: bool = True,
    seed: int = 0,
    min_seconds: float = 1.0,
    teacher_clips: int = 8,
    teacher_seconds: float = 2.0,
    device: str = "cpu",
    progress: bool = False,
) -> EvaluationReport:
    """Measure checkpoints on held-out clips, beside the recordings, WORLD, Griffin-Lim and 8-bit mu-law.

    Students and one-stage flows say every clip again. Teachers sample one value after another, so they say ``teacher_clips``
    excerpts only, of at most ``teacher_seconds`` each; all systems are measured on these too. Teachers and one-stage flows are also
    scored by held-out bits per sample on every clip, beside linear prediction, and each student by its divergence from each teacher given.

    Args:
        manifest: manifest.jsonl of prepared data, or its folder.
        checkpoints: folders, run folders, bundled names or hub ids.
        split: of the manifest.
        limit: use this many clips (a random choice that is always the same); None takes all.
        speakers: use these speakers only.
        out: folder for report.md, report.json, the audio, and the results of each clip: a run that was interrupted goes on
            from them. None keeps nothing.
        anchors: also measure WORLD, Griffin-Lim and mu-law.
        seed: of the voices' noise and of Griffin-Lim's phases.
        min_seconds: shorter clips are left out (PESQ wants some speech).
        device: where the checkpoints run.
        progress: show bars on stderr.
    """
    names = [str(c) for c in ([checkpoints] if isinstance(checkpoints, (str, Path)) else checkpoints)]
    voices = load_voices(names, device)
    quick, teachers = [v for v in voices if not v.is_teacher], [v for v in voices if v.is_teacher]
    mel = voices[0].model.config.mel if voices else MelConfig()
    clips = load_clips(
        manifest, split, limit=limit, speakers=speakers, min_seconds=min_seconds, sample_rate=mel.sample_rate,
        hop_length=math.lcm(*(v.model.hop_length for v in voices)) if voices else mel.hop_length,
    )  # fmt: skip
    results = _Results(None if out is None else Path(out), progress)
    systems = [original(), *(v.system(seed) for v in quick), *(anchor_systems(mel, seed) if anchors else [])]
    report = EvaluationReport(
        f"{_corpus(Path(manifest))}, {split} split: {len(clips)} clips, "
        f"{sum(len(c.audio) for c in clips) / mel.sample_rate:.0f} s, speakers {', '.join(sorted({c.speaker for c in clips}))}",
        results.quality(systems, clips, mel.sample_rate),
    )
    if teachers:
        hop = math.lcm(*(v.model.hop_length for v in voices))
        length = whole_frames(teacher_seconds, mel.sample_rate, hop) * hop
        by_chance = sorted(clips, key=lambda clip: clip.key)[:teacher_clips]
        excerpts = [clip.excerpt(length) for clip in by_chance]
        spoken = [*systems[: 1 + len(quick)], *(v.system(seed) for v in teachers), *systems[1 + len(quick) :]]
        report.excerpts = results.quality(spoken, excerpts, mel.sample_rate, together={v.name for v in teachers})
    for voice in (v for v in voices if v.scores_audio):
        values = results.each(f"{voice.name}-bits", voice.key, clips, lambda clip, v=voice: clip_log_probs(v, clip))
        report.bits[voice.name] = bits_by_speaker(clips, values)
    for teacher in teachers:
        for student in (v for v in quick if v.is_student and divergence_applies(v.model, teacher.model)):
            report.divergences[f"{student.name} ‖ {teacher.name}"] = _divergence(results, student, teacher, clips, seed)
    report.notes = _notes(report, anchors, teacher_clips, teacher_seconds)
    if out is not None:
        report.save(out)
    return report


def _divergence(results: _Results, student: Voice, teacher: Voice, clips: list[Clip], seed: int) -> dict[str, Statistic]:
    def one(clip: Clip) -> dict[str, float]:
        return student_divergence(
            student.model, teacher.model, student.mel(clip), student.speaker(clip), teacher.speaker(clip), seed
        )

    values = results.each(f"{student.name}-kl", digest(student.key, teacher.key, str(seed)), clips, one)
    samples = [v["samples"] for v in values]
    return {name: weighted([v[name] for v in values], samples) for name in ("kl", "entropy")}


class _Results:
    """Results of each (system, clip), one small file each, so that an interrupted evaluation goes on where it stopped."""

    def __init__(self, folder: Path | None, progress: bool) -> None:
        self.folder, self.progress = folder, progress
        self.missing = ",".join(missing_packages())
        self.warm: set[str] = set()

    def quality(self, systems: list[System], clips: list[Clip], rate: int, together: Iterable[str] = ()) -> Rows:
        """Metrics of each system; those named in ``together`` say all their clips as one batch."""
        values: dict[str, list[dict[str, float]]] = {system.name: [] for system in systems}
        batches: dict[str, dict[str, tuple[Any, float]]] = {}
        for clip in self._bar(clips, "quality"):
            for system in systems:
                def compute(system: System = system, clip: Clip = clip) -> dict[str, float]:
                    if system.name not in together:
                        if system.name not in self.warm:  # the first call compiles and allocates
                            system.speak([clip])
                            self.warm.add(system.name)
                        made, seconds = timed(system, [clip])
                        return self._measure(system, clip, made[0], len(clip.audio) / rate / max(seconds, 1e-9), rate)
                    if system.name not in batches:
                        todo = [c for c in clips if not self._path(system.name, system.key, c).is_file()] if self.folder else clips
                        made, seconds = timed(system, todo)
                        speed = sum(len(c.audio) for c in todo) / rate / seconds
                        batches[system.name] = {c.key: (audio, speed) for c, audio in zip(todo, made, strict=True)}
                    return self._measure(system, clip, *batches[system.name][clip.key], rate)

                values[system.name].append(self._stored(system.name, system.key, clip, compute))
        return {name: _means(each) for name, each in values.items()}

    def each(self, name: str, key: str, clips: list[Clip], compute: Callable[[Clip], dict[str, float]]) -> list[dict[str, float]]:
        """``compute(clip)`` for every clip, stored under ``name``."""
        return [self._stored(name, key, clip, lambda c=clip: compute(c)) for clip in self._bar(clips, name)]

    def _bar(self, clips: list[Clip], name: str) -> Iterable[Clip]:
        return tqdm(clips, desc=name, unit="clip", disable=not self.progress, dynamic_ncols=True)

    def _measure(self, system: System, clip: Clip, audio: Any, speed: float, rate: int) -> dict[str, float]:
        if self.folder is not None:
            save_audio(self.folder / "audio" / _safe(system.name) / f"{_safe(clip.id)}-{clip.key[:6]}.wav", audio, rate)
        values = measure(clip.audio, audio, rate)
        return values if system.name == "original" else values | {"real_time": speed}

    def _stored(self, name: str, key: str, clip: Clip, compute: Callable[[], dict[str, float]]) -> dict[str, float]:
        if self.folder is None:
            return compute()
        path = self._path(name, key, clip)
        if path.is_file():
            return {k: math.nan if v is None else v for k, v in read_json(path).items()}
        values = compute()
        write_json(path, _plain(values))
        return values

    def _path(self, name: str, key: str, clip: Clip) -> Path:
        version = digest(key, _VERSION, self.missing)[:8]
        return self.folder / "clips" / f"{_safe(name)}-{version}" / f"{_safe(clip.id)}-{clip.key[:8]}.json"


def _means(values: list[dict[str, float]]) -> dict[str, Statistic]:
    return {name: weighted([v[name] for v in values], [1.0] * len(values)) for name in values[0]}


def _notes(report: EvaluationReport, anchors: bool, teacher_clips: int, teacher_seconds: float) -> list[str]:
    notes = [
        "Means over clips ± standard error. PESQ-wb, STOI: higher is better; MCD, F0 cents, V/UV: "
        "lower is better. x real time: seconds of audio per second of computing.",
    ]
    if report.excerpts:
        notes.append(
            f"Teachers sample sequentially: {teacher_clips} excerpts of at most {teacher_seconds:g} s, spoken as one batch "
            "(their speed is the batch's)."
        )
    if report.bits:
        notes.append("Bits: audio dequantised to the 16-bit grid, total bits over total samples of the same clips.")
    if missing := missing_packages():
        without = [COLUMNS.get(name, "F0, V/UV") for name in missing] + (["WORLD"] if anchors and "mcd" in missing else [])
        notes.append(f'Left out for want of packages: {", ".join(without)}. Install them: pip install "wavedistill[eval]"')
    return notes


def _quality_table(title: str, rows: Rows) -> str:
    used = [name for name in COLUMNS if any(name in row for row in rows.values())]
    lines = []
    for name, row in rows.items():
        n = max(value.n for value in row.values())
        lines.append([name, *(_cell(row.get(column), n) for column in used), n])
    return _table(title, ["system", *(COLUMNS[c] for c in used), "n"], lines)


def _by_baseline(bits: dict[str, dict[str, dict[str, Statistic]]]) -> list[list[str]]:
    """Names that share a table: models of one mel, which linear prediction from the mel therefore codes alike."""
    groups: dict[tuple[float, ...], list[str]] = {}
    for name, speakers in bits.items():
        groups.setdefault(tuple(v["linear_prediction_mel"].mean for v in speakers.values()), []).append(name)
    return list(groups.values())


def _bits_table(bits: dict[str, dict[str, dict[str, Statistic]]]) -> str:
    rows = []
    for speaker, first in next(iter(bits.values())).items():
        models = [speakers[speaker]["model"] for speakers in bits.values()]
        rows.append([speaker, *models, first["linear_prediction_causal"], first["linear_prediction_mel"], first["model"].n])
    header = ["speaker", *bits, "linear prediction, causal", "linear prediction, from the mel", "n"]
    return _table("Held-out bits per 16-bit sample", header, rows)


def _cell(value: Statistic | None, n: int) -> str:
    """The number; with its own n where the metric could not be computed for every clip."""
    if value is None or value.n == 0:
        return "-"
    return f"{value}" if value.n == n else f"{value} (n {value.n})"


def _table(title: str, header: list[str], rows: list[list[Any]]) -> str:
    lines = [f"## {title}", "", "| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def _plain(value: Any) -> Any:
    if isinstance(value, Statistic):
        return _plain(value._asdict())
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _corpus(manifest: Path) -> str:
    folder = manifest if manifest.is_dir() else manifest.parent
    return folder.resolve().name


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("_.") or "clip"
