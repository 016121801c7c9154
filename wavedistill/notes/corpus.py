"""Notes of General MIDI instruments, rendered by FluidSynth: single notes as in NSynth, each beside its template.

Reference: Neural Audio Synthesis of Musical Notes with WaveNet Autoencoders (Engel et al., 2017),
https://arxiv.org/abs/1704.01279
"""

from __future__ import annotations

import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from wavedistill.audio.io import load_audio, resample, save_audio
from wavedistill.data.manifest import Entry, write_manifest
from wavedistill.data.prepare import PrepareConfig
from wavedistill.errors import WavedistillError
from wavedistill.notes.template import HIGHEST, LOWEST, RELEASE_SECONDS, note_name, note_template

INSTRUMENTS = {"piano": 0, "guitar": 24, "trumpet": 56, "flute": 73}
"""Speakers of a model of notes: program numbers of General MIDI (grand piano, nylon guitar, trumpet, flute)."""
VELOCITIES = (40, 60, 80, 100, 120)
SECONDS = (1.0, 1.5, 2.0)
SOUNDFONT = "FluidR3_GM.sf2"
SOUNDFONT_FOLDER = Path("/usr/share/sounds/sf2")

_RATE = 48000  # FluidSynth does not filter what it resamples: render high, resample properly
_SLOT = 4  # seconds from note to note: whole blocks of 64 samples, so that all notes are aligned alike
_PEAK = 0.7  # of an instrument's loudest note
_PACKAGES = "apt-get install fluidsynth fluid-soundfont-gm"


class Note(NamedTuple):
    """What to play, and in which split it is."""

    pitch: int
    velocity: int
    seconds: float
    split: str


def notes() -> list[Note]:
    """All notes of one instrument, each combination of pitch and velocity once: 70 % train, 10 % valid, 20 % test.

    The splits are the same for all instruments: what is held out has been heard at this pitch and velocity from none of
    them.
    """
    found = []
    for i, pitch in enumerate(range(LOWEST, HIGHEST + 1)):
        for j, velocity in enumerate(VELOCITIES):
            place = (i + 3 * j) % 10
            split = {0: "valid", 4: "test", 7: "test"}.get(place, "train")
            found.append(Note(pitch, velocity, SECONDS[(i + j) % len(SECONDS)], split))
    return found


def prepare_notes(
    out: str | Path,
    source: str | Path | None = None,
    *,
    config: PrepareConfig | None = None,
    workers: int | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Path:
    """Render every note of every instrument with its template, and write the manifest.

    Args:
        out: folder for wavs/, templates/ and manifest.jsonl.
        source: folder that holds FluidR3_GM.sf2; by default where Debian's package fluid-soundfont-gm puts it.
        config: its ``sample_rate`` is used.
        workers: ignored: an instrument takes seconds.
        progress: wraps the iterable of instruments.

    Raises:
        WavedistillError: without FluidSynth or the soundfont; names the packages.
    """
    out = Path(out)
    rate = (config or PrepareConfig()).sample_rate
    soundfont = Path(source or SOUNDFONT_FOLDER) / SOUNDFONT
    if not soundfont.is_file():
        raise WavedistillError(f"there is no soundfont {soundfont}: type {_PACKAGES}, or give its folder: --source DIR")
    wanted = notes()
    templates = {}
    for note in wanted:
        template = note_template(note.pitch, note.seconds, note.velocity, rate)
        templates[note] = save_audio(out / "templates" / f"{_label(note)}.wav", template, rate)
    entries = []
    for instrument in progress(list(INSTRUMENTS)):
        for note, audio in zip(wanted, _play(INSTRUMENTS[instrument], wanted, soundfont, rate), strict=True):
            name = f"{instrument}-{_label(note)}"
            path = save_audio(out / "wavs" / f"{name}.wav", audio, rate)
            entries.append(
                Entry(
                    id=name,
                    audio=str(path.absolute()),
                    condition=str(templates[note].absolute()),
                    duration=len(audio) / rate,
                    speaker=instrument,
                    split=note.split,
                )
            )
    return write_manifest(out / "manifest.jsonl", entries)


def _label(note: Note) -> str:
    return f"{note.pitch:03d}-{note_name(note.pitch).replace('#', 's')}-{note.velocity:03d}"


def _play(program: int, wanted: Sequence[Note], soundfont: Path, sample_rate: int) -> Iterator[Tensor]:
    """Each note as mono audio (samples,), all at one gain."""
    with tempfile.TemporaryDirectory() as folder:
        score = Path(folder) / "notes.mid"
        rendered = Path(folder) / "notes.wav"
        score.write_bytes(midi_file(program, wanted))
        # no reverberation, no chorus; float samples, since FluidSynth dithers integers
        options = f"-n -i -q -R 0 -C 0 -g 0.5 -r {_RATE} -T wav -O float -F".split()
        command = ["fluidsynth", *options, str(rendered), str(soundfont), str(score)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise WavedistillError(f"the program fluidsynth is missing: {_PACKAGES}") from error
        if done.returncode or not rendered.is_file():
            raise WavedistillError(
                f"fluidsynth could not play {soundfont}: {done.stderr.strip() or done.stdout.strip()}"
            )
        audio, _ = load_audio(rendered, max_seconds=_SLOT * (len(wanted) + 60))
    audio = torch.nn.functional.pad(audio, (0, max(0, _SLOT * _RATE * len(wanted) - len(audio))))
    pieces = [
        audio[_SLOT * _RATE * i : _SLOT * _RATE * i + round(note.seconds * _RATE)] for i, note in enumerate(wanted)
    ]
    resampled = [resample(piece, _RATE, sample_rate) for piece in pieces]
    gain = _PEAK / max(float(piece.abs().max()) for piece in resampled)
    return (gain * piece for piece in resampled)


def midi_file(program: int, wanted: Sequence[Note]) -> bytes:
    """A Standard MIDI File (format 0, a tick a millisecond) that plays the notes one after the other, 4 s apart."""
    events = [(0, bytes([0xC0, program]))]
    for index, note in enumerate(wanted):
        start = 1000 * _SLOT * index
        end = start + round(1000 * (note.seconds - RELEASE_SECONDS))
        events += [(start, bytes([0x90, note.pitch, note.velocity])), (end, bytes([0x80, note.pitch, 0]))]
    track = b"\x00\xff\x51\x03" + (1_000_000).to_bytes(3, "big")  # tempo: a quarter a second
    now = 0
    for tick, message in events:
        track += _variable_length(tick - now) + message
        now = tick
    track += b"\x00\xff\x2f\x00"
    return b"MThd" + struct.pack(">IHHH", 6, 0, 1, 1000) + b"MTrk" + struct.pack(">I", len(track)) + track


def _variable_length(value: int) -> bytes:
    """Seven bits a byte, most significant first, the high bit on all but the last."""
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(value & 0x7F | 0x80)
    return bytes(reversed(groups))
