"""What the network is trained on: its inputs before every sample of some recordings, as the codec will compute them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wavedistill.applications.compression.compiled import loops, new_state
from wavedistill.applications.compression.features import FEATURES
from wavedistill.applications.compression.pcm import read_pcm
from wavedistill.data.manifest import read_manifest


@dataclass
class Observations:
    """Samples of recordings, one after the other.

    Attributes:
        inputs: (samples, FEATURES) float32, the network's inputs.
        errors: (samples,) float32, sample minus the cascade's prediction, in steps of the grid.
        scales: (samples,) float32, the mean size of the errors before.
        lengths: samples of each recording.
        names: each recording's speaker.
    """

    inputs: np.ndarray
    errors: np.ndarray
    scales: np.ndarray
    lengths: np.ndarray
    names: np.ndarray

    def save(self, path: str | Path) -> None:
        np.savez(path, **vars(self))

    @classmethod
    def load(cls, path: str | Path) -> Observations:
        with np.load(path) as arrays:
            return cls(**arrays)


def observe(manifests: Sequence[str | Path], split: str, clips: int, seconds: float, seed: int = 0) -> Observations:
    """Observations of the first ``seconds`` of ``clips`` recordings of each speaker, drawn by ``seed``."""
    from tqdm import tqdm

    generator = np.random.default_rng(seed)
    drawn = [
        (speaker, paths[i])
        for speaker, paths in paths_by_speaker(manifests, split)
        for i in generator.permutation(len(paths))[:clips]
    ]
    parts = []
    for _, path in tqdm(drawn, desc="observing", unit="clip"):
        pcm = read_pcm(path)
        parts.append(_observe(pcm.samples[: int(seconds * pcm.sample_rate)], pcm.bits))
    inputs, errors, scales = (np.concatenate(column) for column in zip(*parts, strict=True))
    lengths = np.array([len(part[1]) for part in parts])
    return Observations(inputs, errors, scales, lengths, np.array([speaker for speaker, _ in drawn]))


def paths_by_speaker(manifests: Sequence[str | Path], split: str) -> list[tuple[str, list[str]]]:
    """Each speaker, by name, and the recordings of a split."""
    found = defaultdict(list)
    for manifest in manifests:
        for entry in read_manifest(manifest):
            if entry.split == split:
                found[entry.speaker].append(entry.audio)
    return sorted(found.items())


def _observe(samples: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    inputs = np.zeros((samples.size, FEATURES), np.float32)
    centres = np.zeros(samples.size)
    scales = np.zeros(samples.size)
    low, high = -float(1 << (bits - 1)), float((1 << (bits - 1)) - 1)
    loops().observe_all(new_state(samples.shape[1]), samples, inputs, centres, scales, low, high)
    return inputs, (samples.ravel() - centres).astype(np.float32), scales.astype(np.float32)
