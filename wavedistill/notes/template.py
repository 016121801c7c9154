"""The template of a note, whose mel tells a model which note is asked for.

Nobody has the mel of a note that is still to be played. So the condition is that of a template, the same for all
instruments: a band-limited pulse train at the note's pitch that fades as a plucked string does. Every frame of it tells
the pitch (its harmonics), how long ago the key was struck (high harmonics fade faster, so that the spectrum's tilt is a
clock) and how hard (the level that goes with this tilt).
"""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor

from wavedistill.errors import WavedistillError

LOWEST = 48
HIGHEST = 71
"""MIDI numbers of the notes that recipes/notes renders, C3 to B4: a student reads pitches from 60 to 500 Hz."""
RELEASE_SECONDS = 0.35
"""The key is let go this long before a note's end."""

_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_FADE_DB = 5.0  # per second
_FADE_DB_PER_KHZ = 2.5  # per second
_RELEASE_DB = 200.0  # per second
_TILT = 1.5  # amplitude of harmonic k at the attack: k ** -_TILT
_ATTACK_SECONDS = 0.004
_PEAK = 0.9  # of the loudest note, velocity 127


def note_name(midi_pitch: int) -> str:
    """Scientific pitch notation: 60 is "C4", 61 "C#4"."""
    return f"{_NAMES[midi_pitch % 12]}{midi_pitch // 12 - 1}"


def note_number(name: str) -> int:
    """MIDI number of a note's name: "C4" is 60; "Db4" and "C#4" are 61."""
    found = re.fullmatch(r"([A-Ga-g])([#b]?)(-?\d)", name.strip())
    if not found:
        raise WavedistillError(f"{name!r} is no note: a letter, # or b where needed, and the octave, as C4, F#3, Bb3")
    letter, accidental, octave = found.groups()
    return 12 * (int(octave) + 1) + _NAMES.index(letter.upper()) + {"": 0, "#": 1, "b": -1}[accidental]


def note_frequency(midi_pitch: float) -> float:
    """Fundamental in Hz, equal temperament, A4 (69) = 440 Hz."""
    return 440.0 * 2.0 ** ((midi_pitch - 69) / 12)


def note_template(midi_pitch: float, seconds: float = 1.5, velocity: int = 96, sample_rate: int = 16000) -> Tensor:
    """The template of a note, (samples,) float32, ``round(seconds * sample_rate)`` long.

    x(t) = g a(t) sum_k k^-1.5 10^(-(5 + 2.5 k f0 / kHz) t / 20) cos(2 pi k f0 t), over all harmonics below 0.45
    ``sample_rate``; the gain g goes with the square of the velocity (General MIDI's recommendation: 40 log10(velocity /
    127) dB), a(t) rises within 4 ms and falls by 200 dB a second from `RELEASE_SECONDS` before the end.

    Args:
        midi_pitch: 60 is middle C; a fraction lies between two notes.
        seconds: of the whole note, more than `RELEASE_SECONDS`.
        velocity: how hard the key is struck, 1 to 127.
        sample_rate: Hz.

    Raises:
        WavedistillError: a pitch without harmonics below 0.45 ``sample_rate``, a note that is too short, a velocity out
            of range.
    """
    if not 1 <= velocity <= 127:
        raise WavedistillError(f"velocity must be 1 to 127, given {velocity}")
    if not seconds > RELEASE_SECONDS:
        raise WavedistillError(
            f"a note needs more than {RELEASE_SECONDS:g} seconds, which its release takes; given {seconds:g}"
        )
    f0 = note_frequency(midi_pitch)
    if not 0 <= midi_pitch <= 127 or f0 > 0.45 * sample_rate:
        raise WavedistillError(
            f"pitch must be a MIDI number from 0 to 127 below 0.45 x {sample_rate} Hz, given {midi_pitch}"
        )
    time = torch.arange(round(seconds * sample_rate), dtype=torch.float64) / sample_rate
    harmonics = torch.arange(1, int(0.45 * sample_rate / f0) + 1, dtype=torch.float64)[:, None]
    fade = (_FADE_DB + _FADE_DB_PER_KHZ * harmonics * f0 / 1000.0) * time
    amplitudes = harmonics**-_TILT * torch.pow(10.0, -fade / 20.0)
    wave = (amplitudes * torch.cos(2.0 * math.pi * f0 * harmonics * time)).sum(0) / (harmonics**-_TILT).sum()
    release = _RELEASE_DB * (time - (seconds - RELEASE_SECONDS)).clamp_min(0.0)
    envelope = (time / _ATTACK_SECONDS).clamp_max(1.0) * torch.pow(10.0, -release / 20.0)
    return (_PEAK * (velocity / 127) ** 2 * envelope * wave).float()
