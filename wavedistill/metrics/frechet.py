"""Frechet distance between two sets of recordings: do they sound alike as populations, not clip by clip?

References:
    GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium (Heusel et al., 2017),
        https://arxiv.org/abs/1706.08500
    Frechet Audio Distance (Kilgour et al., 2019), https://arxiv.org/abs/1812.08466
    The Frechet Distance between Multivariate Normal Distributions (Dowson & Landau, 1982): the closed form
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wavedistill.audio.mel import LogMelSpectrogram, MelConfig
from wavedistill.errors import WavedistillError

WINDOW_SECONDS = 0.25
"""What one embedding describes; the next one begins half of it later."""
_BANDS = 32
_FLOOR = 1e-4


def frechet_distance(first: np.ndarray | Tensor, second: np.ndarray | Tensor) -> float:
    """Squared Frechet (2-Wasserstein) distance of the Gaussians fitted to two sets of embeddings.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2), 0 or more and symmetric; matrix roots by eigen-decomposition.
    With few embeddings it is biased upwards: compare distances of equally many, and put that of two real sets beside
    them.

    Shapes: (n, dim) and (m, dim), n and m at least 2 -> float, in squared units of the embeddings.

    Raises:
        WavedistillError: other shapes, or values that are not finite.
    """
    sets = [np.asarray(x, dtype=np.float64) for x in (first, second)]
    shapes = " and ".join(str(x.shape) for x in sets)
    if any(x.ndim != 2 or len(x) < 2 for x in sets) or sets[0].shape[1] != sets[1].shape[1]:
        raise WavedistillError(
            f"the Frechet distance needs two sets of embeddings (at least 2, dim) of equal dim, given {shapes}"
        )
    if not all(np.isfinite(x).all() for x in sets):
        raise WavedistillError("the Frechet distance needs finite embeddings")
    means = [x.mean(0) for x in sets]
    c1, c2 = [np.atleast_2d(np.cov(x, rowvar=False)) for x in sets]
    values, vectors = np.linalg.eigh(c1)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    overlap = np.sqrt(np.linalg.eigvalsh(root @ c2 @ root).clip(0)).sum()
    return max(0.0, float(((means[0] - means[1]) ** 2).sum() + np.trace(c1) + np.trace(c2) - 2.0 * overlap))


def log_mel_statistics(audio: Tensor, sample_rate: int) -> Tensor:
    """Mean and standard deviation over time of 32 log-mel bands in windows of 0.25 s.

    An embedding that needs no trained network. It hears level, spectrum and their movement, not phase or fine structure
    between harmonics. Distances of it are not those of papers, whose embedding is VGGish's.

    Shapes: audio (samples,), at least one window -> (windows, 64) in nepers; a band counts from 1e-4 up.
    """
    config = MelConfig(
        sample_rate=sample_rate,
        n_fft=1024,
        win_length=round(0.032 * sample_rate),
        hop_length=round(0.01 * sample_rate),
        n_mels=_BANDS,
        f_max=sample_rate / 2,
        floor=_FLOOR,
    )
    size = round(WINDOW_SECONDS * 100)
    mel = LogMelSpectrogram(config)(torch.as_tensor(audio, dtype=torch.float32))
    if audio.ndim != 1 or mel.shape[-1] < size:
        raise WavedistillError(
            f"an embedding needs audio (samples,) of at least {WINDOW_SECONDS:g} s, given shape {tuple(audio.shape)}"
        )
    windows = mel.unfold(1, size, size // 2)  # (bands, windows, frames)
    return torch.cat([windows.mean(2), windows.std(2)]).T
