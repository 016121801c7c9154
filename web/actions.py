"""What the buttons of the tabs "Synthesise", "Sample" and "Stream" do.

The methods of `Actions` take what Gradio's components hand over and return what they show, in the components' order;
the tabs themselves are laid out in ``tabs.py``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import gradio as gr
from matplotlib.figure import Figure
from torch import Tensor

from wavedistill.audio.io import to_int16
from wavedistill.audio.mel import LogMelSpectrogram, MelConfig
from wavedistill.audio.plot import plot_mels
from wavedistill.errors import WavedistillError

from .errors import errors_shown
from .models import Models, noise_options
from .sounds import Sound, loudest, mel_like, number, placed, read_recording, timed


@dataclass(frozen=True)
class Spoken:
    """The student's last synthesis, kept so that the teacher can be compared with it."""

    recording: str
    student: str
    speed: float
    mels: dict[str, Tensor]


class Synthesis(NamedTuple):
    """A recording and what the student made of its mel spectrogram."""

    original: Sound
    original_caption: str
    student: Sound
    student_caption: str
    mels: Figure
    spoken: Spoken


class Comparison(NamedTuple):
    """An excerpt by the teacher, compared with the student's synthesis."""

    teacher: Sound | None
    teacher_caption: str
    mels: Figure | dict
    comparison: str


class Sampled(NamedTuple):
    """A waveform from noise alone."""

    sound: Sound
    caption: str
    mel: Figure


class Actions:
    """The functions of the tabs over the page's models. Errors that a visitor can repair are shown on the page."""

    def __init__(self, models: Models) -> None:
        self.models = models

    def synthesize(
        self, recording: str | None, student: str, seed: float, temperature: float, speaker: str | None
    ) -> Synthesis:
        """Recording -> mel spectrogram -> student."""
        with self.models.busy, errors_shown():
            vocoder = self.models.vocoder(student)
            original = read_recording(recording, vocoder.sample_rate)
            seconds = len(original) / vocoder.sample_rate
            mel = vocoder.mel(original)
            made = timed(vocoder, mel, **noise_options(vocoder, seed, temperature, speaker))
            mels = {"original": mel, "student": mel_like(vocoder, made)}
            return Synthesis(
                original=(vocoder.sample_rate, to_int16(original)),
                original_caption=f"**The recording itself**  \n{seconds:.2f} s at {vocoder.sample_rate / 1000:g} kHz",
                student=made.sound,
                student_caption=made.caption("all samples in one pass"),
                mels=plot_mels(mels, None, vocoder.hop_length, vocoder.sample_rate),
                spoken=Spoken(recording, student, made.speed, mels),
            )

    def teach(
        self,
        spoken: Spoken | None,
        teacher: str | None,
        seconds: float,
        seed: float,
        temperature: float,
        speaker: str | None,
    ) -> Comparison:
        """The teacher on the loudest ``seconds`` of the recording that the student has just synthesised.

        Without a teacher, or with 0 seconds, the results stay as they are.
        """
        if not teacher or not seconds:
            return Comparison(None, "", gr.skip(), "")
        with self.models.busy, errors_shown():
            if spoken is None:
                raise WavedistillError("there is nothing to compare with yet: let the student speak first")
            student = self.models.vocoder(spoken.student)
            vocoder = self.models.vocoder(teacher)
            source = read_recording(spoken.recording, vocoder.sample_rate)
            num_samples = int(seconds * vocoder.sample_rate)
            excerpt = loudest(vocoder.mel(source), source, vocoder.hop_length, num_samples)
            made = timed(vocoder, excerpt.mel, **noise_options(vocoder, seed, temperature, speaker))
            begin = excerpt.first_frame * vocoder.hop_length / vocoder.sample_rate
            span = f"{begin:.2f} to {begin + made.seconds:.2f} s"
            in_place = placed(mel_like(student, made), spoken.mels["original"], begin, student)
            mels = spoken.mels | {f"teacher, {span}": in_place}
            ratio = number(spoken.speed / made.speed)
            return Comparison(
                teacher=made.sound,
                teacher_caption=made.caption(f"sample by sample ({span})"),
                mels=plot_mels(mels, None, student.hop_length, student.sample_rate),
                comparison=f"On this machine the student is **{ratio} times as fast** as the teacher.",
            )

    def sample(self, checkpoint: str, seconds: float, seed: float, temperature: float, speaker: str | None) -> Sampled:
        """A waveform from a model that needs no mel spectrogram."""
        with self.models.busy, errors_shown():
            vocoder = self.models.vocoder(checkpoint)
            made = timed(vocoder, seconds, **noise_options(vocoder, seed, temperature, speaker))
            config = replace(MelConfig(), sample_rate=vocoder.sample_rate, f_max=vocoder.sample_rate / 2)
            mel = LogMelSpectrogram(config)(made.audio)
            picture = plot_mels({"sample": mel}, None, config.hop_length, config.sample_rate)
            how = "all samples in one pass" if self.models.one_pass(checkpoint) else "sample by sample"
            return Sampled(made.sound, made.caption(how), picture)

    def stream(
        self,
        recording: str | None,
        student: str,
        chunk_seconds: float,
        seed: float,
        temperature: float,
        speaker: str | None,
    ) -> Iterator[tuple[Sound, str]]:
        """The student chunk by chunk: each is yielded as soon as it is computed, with the figures so far."""
        with errors_shown():
            vocoder = self.models.vocoder(student)
            mel = vocoder.mel(read_recording(recording, vocoder.sample_rate))
            whole = mel.shape[-1] * vocoder.hop_length / vocoder.sample_rate
            chunks = vocoder.stream(mel, chunk_seconds, **noise_options(vocoder, seed, temperature, speaker))
            first = 0.0
            compute = 0.0
            heard = 0.0
            while True:
                began = time.perf_counter()
                with self.models.busy:  # not over the yield: a listener who leaves must not keep it
                    chunk = next(chunks, None)
                if chunk is None:
                    return
                compute += time.perf_counter() - began
                first = first or compute
                heard += len(chunk) / vocoder.sample_rate
                figures = (
                    f"**First sound computed after {number(first)} s**  \n"
                    f"{heard:.2f} s of {whole:.2f} s, at {number(heard / compute)} × real time"
                )
                yield (vocoder.sample_rate, to_int16(chunk)), figures
