"""The tab "Text": another program reads a text aloud, a student makes the waveform from the mel of that."""

from __future__ import annotations

from typing import NamedTuple

import gradio as gr
from matplotlib.figure import Figure

from wavedistill.audio.plot import plot_mels
from wavedistill.audio.tts import MAX_CHARACTERS, PROGRAM, SAMPLE_RATE, TextToSpeech
from wavedistill.inference.speak import speak

from .errors import errors_shown
from .models import Models, noise_options
from .sounds import Sound, Timed, mel_like, number
from .widgets import Results, choice, noise_controls, picture_output, player

EXAMPLE = "The night train stopped without a warning, just as the music began."
FIRST_VOICE = "speech-24k"
"""Chosen when the page opens: it makes as many samples a second as the program that reads."""
INTRO = f"""Words, timing and pitch are those of [{PROGRAM}](https://pypi.org/project/hibari-tts/), another program \
that runs here, too. The student is given the mel spectrogram of what it says, nothing else, and makes every sample of \
the waveform."""


class Read(NamedTuple):
    """What the tab shows: both waveforms, their captions, their mel spectrograms, the time of each part."""

    source: Sound
    source_caption: str
    student: Sound
    student_caption: str
    mels: Figure
    times: str


class Reader:
    """The function of the tab over the page's models."""

    def __init__(self, models: Models) -> None:
        self.models = models
        self._tts: TextToSpeech | None = None

    def read(self, text: str, student: str, seed: float, temperature: float, speaker: str | None) -> Read:
        """Text -> text-to-speech program -> mel spectrogram -> student."""
        with self.models.busy, errors_shown():
            vocoder = self.models.vocoder(student)
            if self._tts is None:
                self._tts = TextToSpeech()
                self._tts("One.")  # its first call is slower
            spoken = speak(text or "", vocoder, self._tts, **noise_options(vocoder, seed, temperature, speaker))
            source = Timed(spoken.source, SAMPLE_RATE, spoken.tts_seconds)
            made = Timed(spoken.audio, spoken.sample_rate, spoken.voice_seconds)
            mels = {PROGRAM: mel_like(vocoder, source), "student": mel_like(vocoder, made)}
            return Read(
                source=source.sound,
                source_caption=source.caption(f"by {PROGRAM}, {SAMPLE_RATE / 1000:g} kHz"),
                student=made.sound,
                student_caption=made.caption("all samples in one pass"),
                mels=plot_mels(mels, None, vocoder.hop_length, vocoder.sample_rate),
                times=f"Read aloud in {number(spoken.tts_seconds)} s, mel spectrogram in "
                f"{number(spoken.mel_seconds)} s, waveform in {number(spoken.voice_seconds)} s.",
            )


def speak_tab(reader: Reader) -> None:
    """Lay out the tab."""
    models = reader.models
    gr.Markdown(INTRO)
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=300):
            text = gr.Textbox(EXAMPLE, label="Text (English)", lines=3, max_length=MAX_CHARACTERS)
            student = choice(sorted(models.students, key=lambda name: name != FIRST_VOICE), "Student")
            button = gr.Button("Speak", variant="primary")
            with gr.Accordion("Options", open=False):
                noise = noise_controls(models.speakers)
        with gr.Column(scale=3):
            results = Results(
                "Press **Speak** to hear the text-to-speech program and the student beside each other.", "Times"
            )
            with results.shown:
                with gr.Row():
                    source = player("Text-to-speech program", "Its speed")
                    spoken = player("Student", "Student speed")
                mels = picture_output("Mel spectrograms", "text-mels")
    results.run(
        button.click,
        reader.read,
        [text, student, *noise],
        [source.sound, source.caption, spoken.sound, spoken.caption, mels, results.status],
        working="The text is read aloud, then the student makes the waveform …",
        api_name="speak",
    )
