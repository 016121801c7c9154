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

from wavedistill.applications.roc import Separation, separation
from wavedistill.applications.scoring import ScoreReport, score
from wavedistill.applications.strangeness import SCORES, Values, detector_scores, likelihood_scores
from wavedistill.audio.io import load_audio, save_audio
from wavedistill.data.manifest import Entry, write_manifest
from wavedistill.evaluation.systems import Clip, LoadedModel, System, anchor_systems, load_clips, original
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
        clips: of each unheard speaker and voice, at most.
        normal_clips: of the people the teacher was trained on, at most.
    """

    normal: str
    unheard: Mapping[str, tuple[str, ...]]
    synthetic: Mapping[str, tuple[str, ...]]
    clips: int = 10
    normal_clips: int = 50


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
    people = _clips(corpora.unheard, "test", corpora.clips, loaded)
    synthetic = {system.name: (system, people) for system in _vocoders(student, loaded)}
    for manifest, speakers in corpora.synthetic.items():
        for speaker in speakers:
            clips = _clips({manifest: (speaker,)}, "test", corpora.clips, loaded)
            synthetic[f"text-to-speech, {speaker}"] = (original(), clips)
    normal = _clips({corpora.normal: None}, "valid", corpora.normal_clips, loaded)
    given = {"normal": (original(), normal), "people": (original(), people), "probes": (original(), _probes(loaded))}
    entries = [entry for kind, made in (given | synthetic).items() for entry in _write(out, kind, *made, loaded)]
    report = score(write_manifest(out / "manifest.jsonl", entries), loaded, out, pictures=False, progress=progress)
    values = _scores(report, entries, loaded)
    found = {kind: _separations(values, people, kind, clips) for kind, (_, clips) in synthetic.items()}
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


def _write(out: Path, kind: str, system: System, clips: list[Clip], loaded: LoadedModel) -> list[Entry]:
    """The clips as the system says them, each kept as soon as it is made."""
    entries = []
    for clip in clips:
        path = out / "clips" / kind / f"{clip.id}.wav"
        if not path.is_file():
            save_audio(path, system.generate([clip])[0], loaded.model.sample_rate)
        seconds = len(clip.audio) / loaded.model.sample_rate
        name = f"{kind}/{clip.id}"
        entries.append(Entry(id=name, audio=str(path.absolute()), duration=seconds, speaker=clip.speaker, split="test"))
    return entries


def _probes(loaded: LoadedModel) -> list[Clip]:
    rate = loaded.model.sample_rate
    time = torch.arange(2 * rate) / rate
    noise = 0.05 * torch.randn(2 * rate, generator=torch.Generator().manual_seed(0))
    waves = (torch.zeros(2 * rate), 0.3 * torch.sin(2 * torch.pi * 220 * time), noise)
    return [Clip(name, "none", wave) for name, wave in zip(PROBES, waves, strict=True)]


def _scores(report: ScoreReport, entries: list[Entry], loaded: LoadedModel) -> dict[str, Values]:
    """Of each of `SCORES`; the detectors are fitted to the speakers that the teacher knows."""
    mels = {entry.id: loaded.front_end(load_audio(entry.audio)[0]) for entry in entries}
    normal = [name for name in mels if name.startswith("normal/")]
    return likelihood_scores(report) | detector_scores(report, mels, normal)


def _separations(values: dict[str, Values], people: list[Clip], kind: str, clips: list[Clip]) -> dict[str, Separation]:
    """Of each score: within each person where it is their clips said again, else all people from all of the kind."""
    groups = [(people, clips)]
    if clips is people:
        speakers = dict.fromkeys(clip.speaker for clip in people)
        groups = [(own := [clip for clip in people if clip.speaker == speaker], own) for speaker in speakers]
    return {
        column: separation(
            [
                (
                    np.array([scored[f"people/{clip.id}"] for clip in real]),
                    np.array([scored[f"{kind}/{clip.id}"] for clip in fake]),
                )
                for real, fake in groups
            ]
        )
        for column, scored in values.items()
    }
