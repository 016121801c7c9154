"""The models that the page offers."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from pathlib import Path

import torch

from wavedistill.assets import bundled_checkpoints
from wavedistill.errors import WavedistillError
from wavedistill.inference.vocoder import Vocoder
from wavedistill.models.pretrained import CONFIG_FILE, read_config, resolve_checkpoint
from wavedistill.notes.play import plays_notes

FIRST_STUDENT = "speech-student"
FIRST_TEACHER = "speech-teacher"
"""Chosen when the page opens, where they are among the given ones."""


class Turn:
    """A computation's turn: one runs at a time, and what it has freed goes back to the system.

    The allocator would keep it, for each of the page's threads: 0.2 GB after a minute of a crowd (measured).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        trim = getattr(ctypes.pythonapi, "malloc_trim", None)  # glibc's
        if trim is not None:
            trim(0)
        self._lock.release()


class Models:
    """Checkpoints, sorted by what the page can do with them. A model is loaded when it is first used.

    Args:
        checkpoints: bundled names, checkpoint or run folders, in the order to offer them; None: all bundled ones.

    Attributes:
        students: names of the models that compute speech in one pass: students, then one-stage flows.
        flows: those of them that are one-stage flows.
        teachers: names of the models that sample speech one value after another.
        unconditional: names of the models that need no mel spectrogram.
        notes: names of the models that play notes, students first, with the instruments of each; they are in none of
            the lists above.
        speakers: names of the speakers that any model of speech knows.
        busy: held by the computation that runs.

    Raises:
        WavedistillError: for a checkpoint that cannot be found or read.
    """

    def __init__(self, checkpoints: Sequence[str | Path] | None = None) -> None:
        self.students: list[str] = []
        self.teachers: list[str] = []
        self.unconditional: list[str] = []
        self.notes: dict[str, list[str]] = {}
        self.speakers: list[str] = []
        self.busy = Turn()
        self._types: dict[str, str] = {}
        self._loaded: dict[str, Vocoder] = {}
        self._loading = threading.Lock()
        for name in map(str, bundled_checkpoints() if checkpoints is None else checkpoints):
            self._add(name)
        self.students.sort(key=lambda name: (name != FIRST_STUDENT, self._types[name] != "parallel_wavenet"))
        self.teachers.sort(key=lambda name: name != FIRST_TEACHER)
        self.notes = dict(sorted(self.notes.items(), key=lambda item: not self.one_pass(item[0])))

    def _add(self, name: str) -> None:
        """Put a checkpoint into its list, by its configuration alone."""
        stored = read_config(resolve_checkpoint(name) / CONFIG_FILE)
        speakers = stored["config"].get("speakers", [])
        self._types[name] = stored["model_type"]
        if plays_notes(speakers):
            self.notes[name] = speakers
            return
        self.speakers += [speaker for speaker in speakers if speaker not in self.speakers]
        if stored["config"].get("mel") is None:
            self.unconditional.append(name)
        elif self.one_pass(name):
            self.students.append(name)
        else:
            self.teachers.append(name)

    def one_pass(self, name: str) -> bool:
        """Whether the model computes all samples at once."""
        return self._types[name] != "wavenet"

    @property
    def flows(self) -> list[str]:
        return [name for name in self.students if self._types[name] == "waveform_flow"]

    def vocoder(self, name: str) -> Vocoder:
        """The model of that name, loaded and warmed up at its first use.

        Raises:
            WavedistillError: it is none of those that the page offers; no other checkpoint is ever loaded.
        """
        if name not in self._types:
            raise WavedistillError(f"the page offers no model {name!r}: choose one of {', '.join(self._types)}")
        with self._loading:
            if name not in self._loaded:
                vocoder = Vocoder.from_pretrained(name)
                self._warm_up(name, vocoder)
                self._loaded[name] = vocoder
            return self._loaded[name]

    def _warm_up(self, name: str, vocoder: Vocoder) -> None:
        """The first pass allocates buffers or compiles the sampling loop, which no later timing should contain."""
        seconds = 0.25 if self.one_pass(name) else 0.02
        options = noise_options(vocoder, 0, 0.0, None)
        if vocoder.mel_config is None:
            vocoder.sample(seconds, **options)
        else:
            vocoder(vocoder.mel(torch.zeros(round(seconds * vocoder.sample_rate))), **options)

    def wait(self) -> None:
        """Wait for the computation that runs, if any: a process that ends inside one would be aborted."""
        with self.busy:
            pass


def noise_options(vocoder: Vocoder, seed: float | None, temperature: float, speaker: str | None) -> dict:
    """Values of the page's controls (an emptied number field gives None) as options of the vocoder."""
    known = vocoder.model.config.speakers
    if not known:
        speaker = None
    elif speaker not in known:
        speaker = 0
    return {"seed": int(seed or 0), "temperature": temperature, "speaker": speaker}
