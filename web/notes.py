"""The tab "Notes": pick an instrument, press a key; a student of notes plays it in one pass."""

from __future__ import annotations

import time
from typing import NamedTuple

import gradio as gr
import torch
from matplotlib.figure import Figure
from torch import Tensor

from wavedistill.audio.io import to_int16
from wavedistill.audio.plot import plot_mels
from wavedistill.notes.play import play_note
from wavedistill.notes.template import HIGHEST, LOWEST, note_name, note_number

from .errors import errors_shown
from .models import Models
from .sounds import Sound
from .widgets import PRIVATE, Results, picture_output, sound_output

KEYS = range(LOWEST, HIGHEST + 1)
KEYS_PER_OCTAVE = 12
MIDDLE_C = 60
PHRASES = {"Note": (0,), "Chord": (0, 4, 7), "Scale": (0, 2, 4, 5, 7, 9, 11, 12)}
"""What the buttons play: semitones above the chosen note, together (the chord) or one after the other (the scale)."""
STEP_SECONDS = 0.4
"""From note to note of a scale."""
INTRO = """A second pair of models was distilled on notes instead of speech: its condition is the mel spectrogram of a
plain template of the pitch, and its output is that note played by the instrument."""


class Played(NamedTuple):
    """Notes as they sound, what they are, and their mel spectrogram."""

    sound: Sound
    caption: str
    mel: Figure


class Notes:
    """The functions of the tab over the page's models."""

    def __init__(self, models: Models) -> None:
        self.models = models

    def instruments(self, model: str) -> gr.Dropdown:
        """The choice among what a model plays, at first the first."""
        names = self.models.notes[model]
        return gr.Dropdown(names, value=names[0], label="Instrument")

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
    ) -> Played:
        """Play a phrase of `PHRASES` that begins on ``note`` ("C4"), as far as the keys reach."""
        with self.models.busy, errors_shown():
            vocoder = self.models.vocoder(model)
            root = note_number(note)
            pitches = [pitch for step in PHRASES[phrase] if (pitch := root + step) in KEYS]
            began = time.perf_counter()
            options = {"velocity": int(velocity), "temperature": temperature, "speaker": instrument}
            played = [
                play_note(vocoder, pitch, seconds, seed=int(seed or 0) + i, **options)
                for i, pitch in enumerate(pitches)
            ]
            took = time.perf_counter() - began
            audio = mixed(played, round(STEP_SECONDS * vocoder.sample_rate) if phrase == "Scale" else 0)
            names = " ".join(map(note_name, pitches))
            total = sum(map(len, played)) / vocoder.sample_rate
            return Played(
                sound=(vocoder.sample_rate, to_int16(audio)),
                caption=f"**{instrument}: {names}**  \n{total:.2f} s of notes in {took:.2f} s",
                mel=plot_mels({names: vocoder.mel(audio)}, None, vocoder.hop_length, vocoder.sample_rate),
            )


def mixed(notes: list[Tensor], step: int) -> Tensor:
    """The sum of notes (samples,) that begin ``step`` samples after each other, turned down where it would clip."""
    total = torch.zeros(max(step * i + len(note) for i, note in enumerate(notes)))
    for i, note in enumerate(notes):
        total[step * i : step * i + len(note)] += note
    return total / max(1.0, float(total.abs().max()) / 0.99)


def notes_tab(notes: Notes) -> None:
    """Lay out the tab."""
    gr.Markdown(INTRO)
    models = list(notes.models.notes)
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=300):
            with gr.Row():
                instrument = notes.instruments(models[0])
                instrument.min_width = 120
                note = gr.Dropdown(list(map(note_name, KEYS)), value=note_name(MIDDLE_C), label="Note", min_width=120)
            with gr.Accordion("Options", open=False):
                velocity = gr.Slider(30, 127, 96, step=1, label="Velocity")
                seconds = gr.Slider(0.8, 2.0, 1.5, step=0.1, label="Length (s)")
                seed = gr.Number(0, label="Seed", precision=0, minimum=0)
                temperature = gr.Slider(0.0, 1.5, 1.0, step=0.05, label="Temperature")
                model = gr.Dropdown(models, value=models[0], label="Model", visible=len(models) > 1)
        with gr.Column(scale=3):
            keys = _keyboard()
            with gr.Row():
                buttons = {
                    phrase: gr.Button(phrase, variant="primary", min_width=80, elem_id=f"play-{phrase.lower()}")
                    for phrase in PHRASES
                }
            results = Results("Press a key, or a button for what begins on the chosen note.", "Played", "notes-caption")
            with results.shown:
                sound = sound_output("Sound", autoplay=True)
                mel = picture_output("Mel spectrogram", "notes-mel")
    settings = [model, instrument, velocity, seconds, seed, temperature]
    options = {"outputs": [sound, results.status, mel], "working": "The student plays …"}
    phrases = {phrase: gr.State(phrase) for phrase in PHRASES}
    for phrase, button in buttons.items():
        inputs = [phrases[phrase], note, *settings]
        results.run(button.click, notes.play, inputs, api_name=phrase.lower(), **options)
    chosen = gr.on([key.click for key in keys], name_of_key, None, note, **PRIVATE)
    results.run(chosen.then, notes.play, [phrases["Note"], note, *settings], api_visibility="private", **options)
    model.change(notes.instruments, model, instrument, **PRIVATE)


def name_of_key(event: gr.EventData) -> str:
    """The note of the key that was pressed: a button's value is its label."""
    return event.target.value


def _keyboard() -> list[gr.Button]:
    """The keys of a piano, from low to high; ``style.css`` lays the black ones over the white ones."""
    keys = []
    with gr.Row(elem_classes="keyboard"):
        for first in KEYS[::KEYS_PER_OCTAVE]:
            with gr.Row(elem_classes="octave"):
                for pitch in range(first, first + KEYS_PER_OCTAVE):
                    name = note_name(pitch)
                    keys.append(gr.Button(name, min_width=0, elem_classes="black" if "#" in name else "white"))
    return keys
