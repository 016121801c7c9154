"""Play notes on a model that was trained on them (recipes/notes): pitch in, one shot of audio out."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from wavedistill.errors import WavedistillError
from wavedistill.inference.vocoder import Vocoder
from wavedistill.notes.corpus import INSTRUMENTS
from wavedistill.notes.template import note_template


def plays_notes(speakers: Sequence[str]) -> bool:
    """Whether a model with these speakers is one of notes: all of them are instruments of recipes/notes."""
    return bool(speakers) and set(speakers) <= INSTRUMENTS.keys()


def play_note(
    vocoder: Vocoder,
    midi_pitch: int,
    seconds: float = 1.5,
    *,
    velocity: int = 96,
    seed: int | None = 0,
    temperature: float = 1.0,
    speaker: int | str | None = 0,
) -> Tensor:
    """One note, (samples,) float32 at the vocoder's rate: what the model makes of the mel of `note_template`.

    Args:
        vocoder: a teacher or student of notes, for example ``Vocoder.from_pretrained("notes-student")``.
        midi_pitch: 60 is middle C; the recipe's models know 48 to 71 (C3 to B4).
        seconds: of the whole note; the recipe's last 1 to 2 s.
        velocity: how hard the key is struck, 1 to 127.
        seed, temperature: of the noise, as in `Vocoder`.
        speaker: the instrument, by index or name.

    Example:
        >>> piano = play_note(Vocoder.from_pretrained("notes-student"), 60, speaker="piano")  # doctest: +SKIP
    """
    if not plays_notes(vocoder.model.config.speakers):
        raise WavedistillError(
            "this model was not trained on notes: use notes-student, or train one with recipes/notes"
        )
    template = note_template(midi_pitch, seconds, velocity, vocoder.sample_rate)
    return vocoder(template, seed=seed, temperature=temperature, speaker=speaker)
