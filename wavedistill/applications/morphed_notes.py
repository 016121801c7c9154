"""How morphs of notes do: whether their ends are the notes given, and whether the pitches between are in tune."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from wavedistill.applications.morphing import MorphConfig, morph_sounds
from wavedistill.applications.sounds import Sound, load_sound
from wavedistill.data.manifest import Entry, read_manifest
from wavedistill.evaluation.systems import LoadedModel
from wavedistill.notes.evaluate import cents_from_note
from wavedistill.notes.template import note_name
from wavedistill.text import markdown_table

STEPS = 5
PAIRS = (
    ("piano", 60, "piano", 66),
    ("trumpet", 66, "trumpet", 60),
    ("piano", 60, "flute", 60),
    ("guitar", 57, "trumpet", 63),
)
"""Instrument and pitch of both ends, all of `VELOCITY`, and as the pitches lie 3 or 6 apart, of one length."""
VELOCITY = 100


def measure_morphs(
    manifest: str | Path, checkpoint: str | Path, progress: Callable[[Iterable], Iterable] = iter
) -> str:
    """Each of `PAIRS` morphed in `STEPS` steps, as a Markdown table.

    Columns: largest difference of the ends from the notes given; root mean square of the noise of the middle step over
    the mean of the ends'; for each step the median distance in cents of its voiced frames from the pitch it should
    have.

    Args:
        manifest: of recipes/notes.
        checkpoint: a Gaussian teacher or one-stage flow of notes.
        progress: wraps the iterable of pairs.
    """
    loaded = LoadedModel.load(checkpoint, str(checkpoint), "cpu")
    entries = {(entry.speaker, *_label(entry)): entry for entry in read_manifest(manifest)}
    rows = []
    for one, low, other, high in progress(PAIRS):
        config = MorphConfig(STEPS, (one, other), (float(low), float(high)), VELOCITY)
        ends = [entries[speaker, pitch, VELOCITY] for speaker, pitch in ((one, low), (other, high))]
        sounds = [load_sound(Sound(entry.id, Path(entry.audio)), loaded)[0].audio for entry in ends]
        made = morph_sounds(*sounds, loaded, config)
        norm = made.norms[STEPS // 2] / (0.5 * (made.norms[0] + made.norms[-1]))
        cents = [
            cents_from_note(wave, loaded.model.sample_rate, low + (high - low) * step / (STEPS - 1))
            for step, wave in enumerate(made.waves)
        ]
        title = f"{one} {note_name(low)} → {other} {note_name(high)}"
        rows.append([title, f"{max(made.errors):.1e}", f"{norm:.3f}", *(f"{value:+.0f}" for value in cents)])
    head = ["morph", "ends", "norm", *(f"cents at {step / (STEPS - 1):g}" for step in range(STEPS))]
    return markdown_table(head, rows)


def _label(entry: Entry) -> tuple[int, int]:
    """Pitch and velocity of a note, from the name of its template."""
    pitch, _, velocity = Path(entry.condition).stem.split("-")
    return int(pitch), int(velocity)
