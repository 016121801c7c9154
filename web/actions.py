"""What the buttons of the demo do: read a recording, run a voice, time it, draw it.

`Actions` holds the checkpoints that the page offers. Its methods take what Gradio components hand over and
return what they show; the page itself is laid out in ``app.py``.
"""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import gradio as gr
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from wavedistill.assets import bundled_checkpoints
from wavedistill.audio.io import check_audible, load_audio, resample, to_int16
from wavedistill.audio.mel import LogMelSpectrogram, MelConfig
from wavedistill.audio.plot import plot_mels
from wavedistill.errors import WavedistillError
from wavedistill.files import read_json
from wavedistill.inference.vocoder import LONG_SECONDS, Vocoder
from wavedistill.models.pretrained import CONFIG_FILE, resolve_checkpoint
from wavedistill.notes.play import plays_notes

MAX_SECONDS = LONG_SECONDS
"""Longest recording the page takes: up to here a student computes everything in one pass."""
MIN_SECONDS = 0.2
"""Shortest recording the page takes: less than this shows nothing in a mel picture."""

FIRST_STUDENT = "speech-student"
FIRST_TEACHER = "speech-teacher"
"""Chosen when the page opens, where they are among the given."""

Sound = tuple[int, np.ndarray]
"""(sample rate in Hz, int16 samples): floating-point arrays would be peak-normalised by the player."""


@dataclass(frozen=True)
class Timed:
    """A synthesised waveform (samples,) and what it cost."""

    audio: Tensor
    sample_rate: int
    compute_seconds: float

    @property
    def seconds(self) -> float:
        return len(self.audio) / self.sample_rate

    @property
    def speed(self) -> float:
        """Seconds of audio per second of computation: 1 is real time."""
        return self.seconds / max(self.compute_seconds, 1e-9)

    @property
    def sound(self) -> Sound:
        return self.sample_rate, to_int16(self.audio)

    def caption(self, how: str) -> str:
        return (
            f"**{_number(self.speed)} × real time**  \n"
            f"{self.seconds:.2f} s of audio in {_number(self.compute_seconds)} s, {how}"
        )


@dataclass(frozen=True)
class Spoken:
    """What the page keeps of the student's last synthesis, for the teacher to be put beside it."""

    recording: str
    student: str
    speed: float
    pictures: dict[str, Tensor]


class Actions:
    """The demo's functions over a set of checkpoints.

    Args:
        checkpoints: bundled names, checkpoint or run folders, in the order to offer them; None: all bundled.

    Attributes:
        students, teachers, unconditional: the given names by role (students: one-stage flows too; unconditional: it
            takes no mel).
        notes: those that play notes (they are in none of the lists above), students first, and the instruments of each.
        speakers: names of the speakers that any of the others knows.
    """

    def __init__(self, checkpoints: Sequence[str | Path] | None = None) -> None:
        self.students: list[str] = []
        self.teachers: list[str] = []
        self.unconditional: list[str] = []
        self.notes: dict[str, list[str]] = {}
        self.speakers: list[str] = []
        self._parallel: set[str] = set()
        kinds: dict[str, str] = {}
        for name in map(str, bundled_checkpoints() if checkpoints is None else checkpoints):
            config = read_json(resolve_checkpoint(name) / CONFIG_FILE)
            known = config["config"].get("speakers", [])
            if config["model_type"] != "wavenet":
                self._parallel.add(name)
            if plays_notes(known):
                self.notes[name] = known
                continue
            self.speakers += [speaker for speaker in known if speaker not in self.speakers]
            if config["config"].get("mel") is None:
                self.unconditional.append(name)
            else:
                (self.students if name in self._parallel else self.teachers).append(name)
                kinds[name] = config["model_type"]
        # what a visitor meets first; then students before one-stage flows, which take one pass too
        self.students.sort(key=lambda name: (name != FIRST_STUDENT, kinds[name] != "parallel_wavenet"))
        self.teachers.sort(key=lambda name: name != FIRST_TEACHER)
        self.notes = dict(sorted(self.notes.items(), key=lambda item: item[0] not in self._parallel))
        self._voices: dict[str, Vocoder] = {}
        self._loading = threading.Lock()
        self.busy = threading.Lock()

    def wait(self) -> None:
        """Wait for the computation that runs, if any: a process that ends inside one would be aborted."""
        with self.busy:
            pass

    def voice(self, name: str) -> Vocoder:
        """The voice of that name, loaded and warmed up at its first use."""
        with self._loading:
            if name not in self._voices:
                voice = Vocoder.from_pretrained(name)
                if name in self._parallel and voice.mel_config is not None:
                    # the first pass allocates its buffers; what is timed later should not pay for that
                    voice(voice.mel(torch.zeros(voice.sample_rate // 4)), **_options(voice, 0, 0.0, None))
                self._voices[name] = voice
            return self._voices[name]

    def synthesize(
        self, recording: str | None, student: str, seed: float, temperature: float, speaker: str | None
    ) -> tuple[Sound, str, Sound, str, Figure, Spoken]:
        """Recording -> mel -> student.

        Gives the original and its caption, the student's audio and its caption, the mel picture, and what
        `teach` needs.
        """
        with self.busy, errors_shown():
            voice = self.voice(student)
            original = read_recording(recording, voice.sample_rate)
            seconds = len(original) / voice.sample_rate
            mel = voice.mel(original)
            made = _timed(voice, mel, **_options(voice, seed, temperature, speaker))
            pictures = {"original": mel, "student": _mel_like(voice, made)}
            return (
                (voice.sample_rate, to_int16(original)),
                f"**The recording itself**  \n{seconds:.2f} s at {voice.sample_rate / 1000:g} kHz",
                made.sound,
                made.caption("all samples in one pass"),
                plot_mels(pictures, None, voice.hop_length, voice.sample_rate),
                Spoken(recording, student, made.speed, pictures),
            )

    def teach(
        self,
        spoken: Spoken | None,
        teacher: str | None,
        seconds: float,
        seed: float,
        temperature: float,
        speaker: str | None,
    ) -> tuple[Sound | None, str, Figure | dict, str]:
        """The teacher on the loudest ``seconds`` of what the student just spoke.

        Gives its audio and caption, the mel picture of all, and a comparison in one line.
        """
        if not teacher or not seconds:
            return None, "", gr.skip(), ""
        with self.busy, errors_shown():
            if spoken is None:
                raise WavedistillError("there is nothing to compare with yet: let the student speak first")
            student = self.voice(spoken.student)
            voice = self.voice(teacher)
            source = read_recording(spoken.recording, voice.sample_rate)
            num_samples = int(seconds * voice.sample_rate)
            first, mel = _loudest(voice.mel(source), source, voice.hop_length, num_samples)
            made = _timed(voice, mel, **_options(voice, seed, temperature, speaker))
            begin = first * voice.hop_length / voice.sample_rate
            span = f"{begin:.2f} to {begin + made.seconds:.2f} s"
            excerpt = _placed(_mel_like(student, made), spoken.pictures["original"], begin, student)
            ratio = _number(spoken.speed / made.speed)
            pictures = spoken.pictures | {f"teacher, {span}": excerpt}
            return (
                made.sound,
                made.caption(f"sample by sample ({span})"),
                plot_mels(pictures, None, student.hop_length, student.sample_rate),
                f"On this machine the student is **{ratio} times as fast** as the teacher.",
            )

    def sample(
        self, checkpoint: str, seconds: float, seed: float, temperature: float, speaker: str | None
    ) -> tuple[Sound, str, Figure]:
        """A waveform from an unconditional model: the sound, its caption and its mel picture."""
        with self.busy, errors_shown():
            voice = self.voice(checkpoint)
            made = _timed(voice, seconds, **_options(voice, seed, temperature, speaker))
            config = replace(MelConfig(), sample_rate=voice.sample_rate, f_max=voice.sample_rate / 2)
            mel = LogMelSpectrogram(config)(made.audio)
            picture = plot_mels({"sample": mel}, None, config.hop_length, config.sample_rate)
            how = "all samples in one pass" if checkpoint in self._parallel else "sample by sample"
            return made.sound, made.caption(how), picture

    def stream(
        self,
        recording: str | None,
        student: str,
        chunk_seconds: float,
        seed: float,
        temperature: float,
        speaker: str | None,
    ) -> Iterator[tuple[Sound, str]]:
        """The student chunk by chunk: each is yielded as soon as it is computed, with the running figures."""
        with errors_shown():
            voice = self.voice(student)
            mel = voice.mel(read_recording(recording, voice.sample_rate))
            whole = mel.shape[-1] * voice.hop_length / voice.sample_rate
            chunks = voice.stream(mel, chunk_seconds, **_options(voice, seed, temperature, speaker))
            first = compute = heard = 0.0
            while True:
                began = time.perf_counter()
                with self.busy:  # not over the yield: a listener who leaves must not keep it
                    chunk = next(chunks, None)
                if chunk is None:
                    return
                compute += time.perf_counter() - began
                first = first or compute
                heard += len(chunk) / voice.sample_rate
                yield (
                    (voice.sample_rate, to_int16(chunk)),
                    (
                        f"**First sound computed after {_number(first)} s**  \n"
                        f"{heard:.2f} s of {whole:.2f} s, at {_number(heard / compute)} × real time"
                    ),
                )


def read_recording(path: str | None, sample_rate: int) -> Tensor:
    """An uploaded file as mono audio (samples,) at ``sample_rate``; refuses what no voice can speak."""
    if not path:
        raise WavedistillError("there is no recording yet: upload one, record one, or click an example.")
    try:
        audio, _ = load_audio(path, sample_rate, max_seconds=MAX_SECONDS)
    except WavedistillError as error:
        # the user knows the file's name, not the folder that the upload was put in
        raise WavedistillError(str(error).replace(str(Path(path)), Path(path).name)) from error
    check_audible(audio, sample_rate, min_seconds=MIN_SECONDS, name="the recording")
    return audio


@contextmanager
def errors_shown() -> Iterator[None]:
    """Show a `WavedistillError` on the page; anything else is a fault of ours and keeps its traceback."""
    try:
        yield
    except WavedistillError as error:
        # Gradio renders the message as HTML, and it may quote the name of an uploaded file
        message = html.escape(str(error)).replace("\n", "<br>")
        raise gr.Error(message, title="That did not work", print_exception=False) from None


def _options(voice: Vocoder, seed: float | None, temperature: float, speaker: str | None) -> dict:
    """Values of the page's controls (an emptied number field gives None) as options of the vocoder."""
    known = voice.model.config.speakers
    return {
        "seed": int(seed or 0),
        "temperature": temperature,
        "speaker": None if not known else speaker if speaker in known else 0,
    }


def _timed(voice: Vocoder, mel_or_seconds: Tensor | float, **options: object) -> Timed:
    speak = voice if isinstance(mel_or_seconds, Tensor) else voice.sample
    began = time.perf_counter()
    audio = speak(mel_or_seconds, **options)
    return Timed(audio, voice.sample_rate, time.perf_counter() - began)


def _mel_like(voice: Vocoder, made: Timed) -> Tensor:
    """The mel of ``made`` by the front end of ``voice``, so that all pictures are on one scale."""
    return voice.mel(resample(made.audio, made.sample_rate, voice.sample_rate))


def _loudest(mel: Tensor, audio: Tensor, hop_length: int, num_samples: int) -> tuple[int, Tensor]:
    """First frame and mel (n_mels, frames) of the stretch of about ``num_samples`` with the most energy."""
    frames = min(max(1, num_samples // hop_length), mel.shape[-1])
    energy = torch.nn.functional.pad(audio, (0, max(0, mel.shape[-1] * hop_length - len(audio)))).square()
    per_frame = energy[: mel.shape[-1] * hop_length].view(-1, hop_length).sum(1)
    start = int(per_frame.unfold(0, frames, 1).sum(1).argmax())
    return start, mel[:, start : start + frames]


def _placed(mel: Tensor, like: Tensor, begin_seconds: float, voice: Vocoder) -> Tensor:
    """``mel`` at its place in time in an otherwise empty picture of the size of ``like``."""
    canvas = torch.full_like(like, float(like.min()))
    start = round(begin_seconds * voice.sample_rate / voice.hop_length)
    part = mel[:, : canvas.shape[-1] - start]
    canvas[:, start : start + part.shape[-1]] = part
    return canvas


def _number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.001 else f"{value:.5f}"
