"""A detector of sounds unlike those it was fitted to, on what a teacher's noise is like.

The score of a sound is the Mahalanobis distance of its features (`sound_statistics`) from those of the normal sounds,
with the covariance shrunk as Ledoit and Wolf do, since normal sounds may be fewer than features:

    score = sqrt((f - mean)^T covariance^-1 (f - mean))

How unusual that is tells a conformal p-value: the normal sounds are scored, too, each by a detector that was fitted
without it (five folds), and p is the share of them that score at least as high.

References:
    A Well-Conditioned Estimator for Large-Dimensional Covariance Matrices (Ledoit & Wolf, 2004)
    Cross-conformal Predictors (Vovk, 2015), https://arxiv.org/abs/1208.0806
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wavedistill.config import from_dict
from wavedistill.errors import WavedistillError
from wavedistill.files import read_json, write_json

FORMAT = 1
FEWEST_SOUNDS = 8
"""A detector is fitted to so many sounds at least."""
FOLDS = 5


@dataclass
class Detector:
    """What the normal sounds are like under one model.

    Attributes:
        model: fingerprint of the teacher whose statistics it reads.
        mean: of the features.
        precision: inverse of their covariance.
        normal_scores: of the normal sounds, each without itself, ascending.
        frame_center, frame_scale: median, and median absolute deviation x 1.4826, of the frames' log mean z^2.
        format: of the file.
    """

    model: str
    mean: list[float]
    precision: list[list[float]]
    normal_scores: list[float]
    frame_center: float
    frame_scale: float
    format: int = FORMAT

    def score(self, features: np.ndarray) -> float:
        """Distance of a sound from the normal ones; the higher, the stranger."""
        return mahalanobis(features, np.array(self.mean), np.array(self.precision))

    def p_value(self, score: float) -> float:
        """Share of normal sounds that score at least as high, counting the sound itself as one of them."""
        as_high = len(self.normal_scores) - np.searchsorted(self.normal_scores, score)
        return float((as_high + 1) / (len(self.normal_scores) + 1))

    def save(self, path: str | Path) -> None:
        """Write it as JSON, atomically."""
        write_json(path, vars(self))


def fit_detector(features: np.ndarray, energies: list[np.ndarray], model: str) -> Detector:
    """A detector of sounds unlike these.

    Args:
        features: of the normal sounds, (sounds, features).
        energies: mean z^2 of each sound's frames.
        model: fingerprint of the teacher.

    Raises:
        WavedistillError: for fewer than `FEWEST_SOUNDS` sounds.
    """
    if len(features) < FEWEST_SOUNDS:
        raise WavedistillError(
            f"a detector needs {FEWEST_SOUNDS} normal sounds or more, given {len(features)}: give more, or cut longer "
            "ones into pieces"
        )
    mean, precision = fit_gaussian(features)
    fold = np.arange(len(features)) % FOLDS
    normal = []
    for left_out in range(FOLDS):
        others = fit_gaussian(features[fold != left_out])
        normal += [mahalanobis(one, *others) for one in features[fold == left_out]]
    frames = log_energy(np.concatenate(energies))
    center, scale = robust(frames)
    return Detector(model, mean.tolist(), precision.tolist(), sorted(normal), center, scale)


def load_detector(path: str | Path, model: str) -> Detector:
    """A detector that `Detector.save` wrote, for the teacher with this fingerprint.

    Raises:
        WavedistillError: for another file, a damaged one, or one that was fitted with another model.
    """
    content = read_json(path)
    advice = "make it with: wavedistill score NORMAL_SOUNDS --checkpoint NAME --fit FILE"
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise WavedistillError(f"{path} is no detector of this version: {advice}")
    detector = from_dict(Detector, content, where=str(path))
    size = len(detector.mean)
    if not detector.normal_scores or [len(row) for row in detector.precision] != [size] * size:
        raise WavedistillError(f"{path} is damaged, its numbers do not fit together: {advice}")
    if detector.model != model:
        raise WavedistillError(
            f"{path} was fitted with model {detector.model}, this one is {model}: use that checkpoint, or {advice}"
        )
    return detector


def fit_gaussian(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and inverse covariance of features (sounds, features).

    The shrinkage is towards equal variances, so they are scaled first.
    """
    from sklearn.covariance import LedoitWolf

    scale = np.maximum(features.std(0), 1e-6)
    fitted = LedoitWolf().fit(features / scale)
    return fitted.location_ * scale, fitted.precision_ / np.outer(scale, scale)


def mahalanobis(features: np.ndarray, mean: np.ndarray, precision: np.ndarray) -> float:
    """Distance of one sound's features from a mean."""
    away = features - mean
    return float(np.sqrt(max(away @ precision @ away, 0.0)))


def log_energy(energy: np.ndarray) -> np.ndarray:
    """Log of frames' mean z^2; digital silence, which has none, counts as 1e-3."""
    return np.log(np.maximum(energy, 1e-3))


def robust(values: np.ndarray) -> tuple[float, float]:
    """Median, and median absolute deviation scaled to the standard deviation of a normal distribution."""
    center = float(np.median(values))
    return center, max(1.4826 * float(np.median(np.abs(values - center))), 1e-3)
