"""Signals to compress, from the kindest to the most hostile."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from wavedistill.applications.compression.pcm import SUBTYPES, Pcm

Signal = Callable[[np.random.Generator, int], np.ndarray]


def _resonance(generator: np.random.Generator, frames: int) -> np.ndarray:
    x = np.zeros(frames + 2)
    noise = generator.standard_normal(frames) * 0.01
    for t in range(frames):
        x[t + 2] = 1.8 * x[t + 1] - 0.9 * x[t] + noise[t]
    return x[2:]


KINDS: dict[str, Signal] = {
    "silence": lambda generator, frames: np.zeros(frames),
    "constant": lambda generator, frames: np.full(frames, -1.0),
    "white noise": lambda generator, frames: generator.uniform(-1, 1, frames),
    "quiet noise": lambda generator, frames: generator.uniform(-1, 1, frames) / 100,
    "square": lambda generator, frames: np.where(np.arange(frames) // 40 % 2, 1.0, -1.0),
    "alternating": lambda generator, frames: np.where(np.arange(frames) % 2, 1.0, -1.0),
    "sine": lambda generator, frames: np.sin(0.1 * np.arange(frames)),
    "resonance": _resonance,
    "impulses": lambda generator, frames: (generator.random(frames) < 0.01) * generator.choice([-1.0, 1.0], frames),
    "silence, then noise": lambda generator, frames: (
        generator.uniform(-1, 1, frames) * (np.arange(frames) > frames / 2)
    ),
    "noise, then silence": lambda generator, frames: (
        generator.uniform(-1, 1, frames) * (np.arange(frames) < frames / 2)
    ),
    "growing": lambda generator, frames: generator.standard_normal(frames) * 2.0 ** (np.arange(frames) / 30 - 20),
}
"""Name -> samples in [-1, 1] (what lies outside is clipped)."""


def make_pcm(kind: str, *, frames: int, channels: int, subtype: str, sample_rate: int, seed: int) -> Pcm:
    """A recording whose channels are of one kind."""
    generator = np.random.default_rng(seed)
    full = 1 << (SUBTYPES[subtype] - 1)
    signal = np.stack([KINDS[kind](generator, frames) for _ in range(channels)], axis=1)
    samples = np.clip(np.rint(signal * full), -full, full - 1).astype(np.int64)
    return Pcm(samples, sample_rate, "WAV", subtype)
