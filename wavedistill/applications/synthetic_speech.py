"""Is this speech synthetic? Recordings of people told from what vocoders and text-to-speech make, by a teacher's noise.

The detector is fitted to recordings of speakers that the teacher was trained on (their held-out clips), and asked about
people whom neither has heard. Vocoders say these people's own clips again, so that words, voice and room are the same
and the comparison is within a speaker. Text-to-speech has voices and words of its own: what is found there may be the
voice, the level or the bandwidth as well as the synthesis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wavedistill.applications.roc import Separation, separation
from wavedistill.applications.scoring import ScoreReport, score
from wavedistill.applications.strangeness import SCORES, Values, detector_scores, likelihood_scores
from wavedistill.audio.io import load_audio, save_audio
from wavedistill.audio.mel import LogMelSpectrogram
from wavedistill.evaluation.systems import Clip, LoadedModel, System, anchor_systems, load_clips
from wavedistill.text import markdown_table

VOCODERS = ("Griffin-Lim", "WORLD")
PROBES = ("silence", "tone", "white noise")
"""Signals that show what raw likelihood likes."""


@dataclass(frozen=True)
class Corpora:
    """Where the clips come from: manifests or their folders.

    Attributes:
        normal: people the teacher was trained on; the split "valid" is used.
        unheard: people it was not, by manifest -> speakers; the split "test" is used.
        synthetic: voices of text-to-speech, the same.
        clips: of each speaker, at most.
    """

    normal: str
    unheard: Mapping[str, tuple[str, ...]]
    synthetic: Mapping[str, tuple[str, ...]]
    clips: int = 10


def measure_speech(
    corpora: Corpora,
    teacher: str | Path,
    student: str | Path,
    out: str | Path,
    progress: Callable[[Iterable], Iterable] = iter,
) -> str:
    """AUC of each kind of synthetic speech and, below it, the bits of `PROBES`, as two Markdown tables.

    Args:
        teacher: whose statistics are used.
        student: one of the vocoders.
        out: folder for the clips and their statistics; what is there is not made again.
        progress: wraps the iterable of sounds.
    """
    out = Path(out)
    loaded = LoadedModel.load(teacher, str(teacher), "cpu")
    _write(out / "clips" / "normal", _clips({corpora.normal: None}, "valid", 5 * corpora.clips, loaded), loaded)
    people = _clips(corpora.unheard, "test", corpora.clips, loaded)
    kinds = {"people": people} | {system.name: _again(system, people, out) for system in _vocoders(student, loaded)}
    for manifest, speakers in corpora.synthetic.items():
        for speaker in speakers:
            kinds[f"text-to-speech, {speaker}"] = _clips({manifest: (speaker,)}, "test", corpora.clips, loaded)
    for kind, clips in kinds.items():
        _write(out / "clips" / kind, clips, loaded)
    for name, audio in _probes(loaded.model.sample_rate).items():
        save_audio(out / "clips" / "probes" / f"{name}.wav", audio, loaded.model.sample_rate)
    report = score(out / "clips", loaded, out, pictures=False, progress=progress)
    values = _scores(report, out / "clips", loaded.front_end)
    found = {kind: _separations(values, people, kind) for kind in kinds if kind != "people"}
    return f"{speech_table(found)}\n\n{probe_table(report)}"


def speech_table(found: dict[str, dict[str, Separation]]) -> str:
    """One row a kind of synthetic speech, one column a score: AUC with its interval."""
    rows = [[kind, *(str(scores[name]) for name in SCORES)] for kind, scores in found.items()]
    return markdown_table(["synthetic speech", *SCORES], rows)


def probe_table(report: ScoreReport) -> str:
    """Bits and typicality of `PROBES` beside the people's."""
    groups = {"people, median": "people/"} | {name: f"probes/{name}" for name in PROBES}
    rows = []
    for title, start in groups.items():
        chosen = [one.statistics for one in report.scores if one.name.startswith(start)]
        rows.append([title, *(f"{np.median([getattr(s, n) for s in chosen]):.3f}" for n in ("bits", "typicality"))])
    return markdown_table(["signal", "bits", "typicality"], rows)


def _clips(manifests: Mapping[str, tuple[str, ...] | None], split: str, limit: int, loaded: LoadedModel) -> list[Clip]:
    found = []
    for manifest, speakers in manifests.items():
        for speaker in speakers or (None,):
            found += load_clips(
                manifest,
                split,
                limit=limit,
                speakers=None if speaker is None else [speaker],
                min_seconds=1.0,
                sample_rate=loaded.model.sample_rate,
                hop_length=loaded.model.hop_length,
            )
    return found


def _vocoders(student: str | Path, loaded: LoadedModel) -> list[System]:
    anchors = [system for system in anchor_systems(loaded.model.config.mel, 0) if system.name in VOCODERS]
    return [*anchors, LoadedModel.load(student, Path(student).name, "cpu").system(0)]


def _again(system: System, clips: list[Clip], out: Path) -> list[Clip]:
    """The clips as the system says them, kept in ``out``."""
    made = []
    for clip in clips:
        path = out / "clips" / system.name / f"{clip.id}.wav"
        audio = load_audio(path)[0] if path.is_file() else system.generate([clip])[0]
        made.append(Clip(clip.id, clip.speaker, audio))
    return made


def _write(folder: Path, clips: list[Clip], loaded: LoadedModel) -> None:
    for clip in clips:
        if not (folder / f"{clip.id}.wav").is_file():
            save_audio(folder / f"{clip.id}.wav", clip.audio, loaded.model.sample_rate)


def _probes(rate: int) -> dict[str, Tensor]:
    time = torch.arange(2 * rate) / rate
    noise = 0.05 * torch.randn(2 * rate, generator=torch.Generator().manual_seed(0))
    return dict(zip(PROBES, (torch.zeros(2 * rate), 0.3 * torch.sin(2 * torch.pi * 220 * time), noise), strict=True))


def _scores(report: ScoreReport, folder: Path, front_end: LogMelSpectrogram) -> dict[str, Values]:
    """Of each of `SCORES`; the detectors are fitted to the speakers that the teacher knows."""
    mels = {one.name: front_end(load_audio(folder / f"{one.name}.wav")[0]) for one in report.scores}
    normal = [name for name in mels if name.startswith("normal/")]
    return likelihood_scores(report) | detector_scores(report, mels, normal)


def _separations(values: dict[str, Values], people: list[Clip], kind: str) -> dict[str, Separation]:
    """Of each score: within each person where it is their speech said again, else all people from all of the kind."""
    found = {}
    for column, scored in values.items():
        synthetic = {name.removeprefix(f"{kind}/"): v for name, v in scored.items() if name.startswith(f"{kind}/")}
        real = {clip.id: scored[f"people/{clip.id}"] for clip in people}
        groups = [(list(real), list(synthetic))]
        if synthetic.keys() == real.keys():
            speakers = dict.fromkeys(clip.speaker for clip in people)
            members = [[clip.id for clip in people if clip.speaker == speaker] for speaker in speakers]
            groups = [(own, own) for own in members]
        found[column] = separation(
            [(np.array([real[n] for n in a]), np.array([synthetic[n] for n in b])) for a, b in groups]
        )
    return found
