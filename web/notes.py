"""The tab "Notes": pick an instrument, press a key; a student of notes plays it in one shot."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import gradio as gr
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from wavedistill.audio.io import to_int16
from wavedistill.audio.plot import plot_mels
from wavedistill.inference.vocoder import Vocoder
from wavedistill.notes.play import play_note
from wavedistill.notes.template import HIGHEST, LOWEST, note_name, note_number

KEYS = range(LOWEST, HIGHEST + 1)
MIDDLE_C = 60
PHRASES = {"Note": (0,), "Chord": (0, 4, 7), "Scale": (0, 2, 4, 5, 7, 9, 11, 12)}
"""What the buttons play: semitones above the chosen note, together (the chord) or one after the other (the scale)."""
STEP_SECONDS = 0.4
"""From note to note of a scale."""
INTRO = """A second pair of models was distilled on notes in place of speech: its condition is the mel of a plain
template of the pitch, and what it makes of it is the instrument's note. Press a key."""


class Notes:
    """What the tab's controls do.

    Args:
        models: names of the checkpoints to offer, and the instruments of each.
        voice: gives the vocoder of a name.
        busy: lock of the page's computations.
        errors_shown: context that shows a `WavedistillError` on the page.
    """

    def __init__(
        self,
        models: dict[str, list[str]],
        voice: Callable[[str], Vocoder],
        busy: AbstractContextManager,
        errors_shown: Callable[[], AbstractContextManager],
    ) -> None:
        self.models = models
        self._voice = voice
        self._busy = busy
        self._errors_shown = errors_shown

    def instruments(self, model: str) -> gr.Dropdown:
        """The choice among what a model plays, at first the first."""
        return gr.Dropdown(self.models[model], value=self.models[model][0], label="Instrument")

    def play(
        self,
        phrase: str,
        note: str,
        model: str,
        instrument: str,
        velocity: float,
        seconds: float,
        seed: float | None,
        temperature: float,
    ) -> tuple[tuple[int, np.ndarray], str, Figure]:
        """A phrase of `PHRASES` on ``note`` ("C4"), as far as the keys reach: the sound, its caption and its mel
        picture.
        """
        with self._busy, self._errors_shown():
            voice = self._voice(model)
            root = note_number(note)
            pitches = [pitch for step in PHRASES[phrase] if (pitch := root + step) in KEYS]
            began = time.perf_counter()
            options = {"velocity": int(velocity), "temperature": temperature, "speaker": instrument}
            played = [
                play_note(voice, pitch, seconds, seed=int(seed or 0) + i, **options) for i, pitch in enumerate(pitches)
            ]
            took = time.perf_counter() - began
            audio = mixed(played, round(STEP_SECONDS * voice.sample_rate) if phrase == "Scale" else 0)
            names = " ".join(map(note_name, pitches))
            caption = (
                f"**{instrument}: {names}**  \n{sum(map(len, played)) / voice.sample_rate:.2f} s of notes in "
                f"{took:.2f} s"
            )
            picture = plot_mels({names: voice.mel(audio)}, None, voice.hop_length, voice.sample_rate)
            return (voice.sample_rate, to_int16(audio)), caption, picture


def mixed(notes: list[Tensor], step: int) -> Tensor:
    """Notes (samples,) that begin ``step`` samples after each other, added up; turned down where the sum would clip."""
    total = torch.zeros(max(step * i + len(note) for i, note in enumerate(notes)))
    for i, note in enumerate(notes):
        total[step * i : step * i + len(note)] += note
    return total / max(1.0, float(total.abs().max()) / 0.99)


def notes_tab(notes: Notes, **compute: object) -> None:
    """Lay out the tab; ``compute`` goes to the buttons' events."""
    gr.Markdown(INTRO)
    names = [note_name(key) for key in KEYS]
    models = list(notes.models)
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=300):
            instrument = notes.instruments(models[0])
            note = gr.Dropdown(names, value=note_name(MIDDLE_C), label="Note")
            velocity = gr.Slider(30, 127, 96, step=1, label="Velocity")
            seconds = gr.Slider(0.8, 2.0, 1.5, step=0.1, label="Length (s)")
            with gr.Group():
                seed = gr.Number(0, label="Seed", precision=0, minimum=0)
                temperature = gr.Slider(0.0, 1.5, 1.0, step=0.05, label="Temperature")
                model = gr.Dropdown(models, value=models[0], label="Model", visible=len(models) > 1)
        with gr.Column(scale=3):
            keys = []
            for row in (names[12:], names[:12]):
                with gr.Row(elem_classes="keys"):
                    keys += [
                        gr.Button(name, min_width=44, elem_classes="black" if "#" in name else "white") for name in row
                    ]
            with gr.Row():
                buttons = {phrase: gr.Button(phrase, variant="primary") for phrase in PHRASES}
            sound = gr.Audio(label="Notes", interactive=False, autoplay=True, buttons=["download"])
            caption = gr.Markdown("Nothing is played yet.", elem_classes="caption", elem_id="notes-caption")
            picture = gr.Plot(show_label=False, elem_id="notes-mel")
    settings = [model, instrument, velocity, seconds, seed, temperature]
    shown = [sound, caption, picture]
    options = {"show_progress_on": caption, **compute}
    single = gr.State("Note")
    for phrase, button in buttons.items():
        named = {"api_name": "note"} if phrase == "Note" else {"api_visibility": "private"}
        button.click(
            notes.play, [single if phrase == "Note" else gr.State(phrase), note, *settings], shown, **named, **options
        )
    for key in keys:  # a button's value is its label
        key.click(notes.play, [single, key, *settings], shown, api_visibility="private", **options)
        key.click(lambda name: name, key, note, api_visibility="private", queue=False, show_progress="hidden")
    model.change(notes.instruments, model, instrument, api_visibility="private")
