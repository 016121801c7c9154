"""The Frechet distance against its closed form, and the embedding it is taken of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wavedistill.errors import WavedistillError
from wavedistill.metrics.frechet import frechet_distance, log_mel_statistics


def exactly(mean, covariance, n: int, seed: int) -> np.ndarray:
    """n points whose sample mean and covariance are exactly the given ones."""
    points = np.random.default_rng(seed).standard_normal((n, len(mean)))
    points -= points.mean(0)
    points = points @ np.linalg.inv(np.linalg.cholesky(np.cov(points, rowvar=False))).T
    return points @ np.linalg.cholesky(covariance).T + mean


def random_covariance(dim: int, seed: int) -> np.ndarray:
    factor = np.random.default_rng(seed).standard_normal((dim, 2 * dim))
    return factor @ factor.T / dim


def test_closed_form_where_the_covariances_commute():
    scales = np.array([[1.0, 2.0, 0.5], [3.0, 0.1, 0.5]])
    means = np.array([[0.0, 1.0, -2.0], [1.0, 1.0, 0.0]])
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    first, second = (
        exactly(m, np.diag(s**2), 40, i) @ rotation for i, (m, s) in enumerate(zip(means, scales, strict=True))
    )
    expected = ((means[0] - means[1]) ** 2).sum() + ((scales[0] - scales[1]) ** 2).sum()
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(torch.from_numpy(first), second) == pytest.approx(expected, rel=1e-9)


def test_matrix_root_is_that_of_scipy():
    linalg = pytest.importorskip("scipy.linalg")
    first, second = (exactly(np.zeros(5), random_covariance(5, seed), 60, seed) for seed in (1, 2))
    c1 = random_covariance(5, 1)
    c2 = random_covariance(5, 2)
    expected = np.trace(c1 + c2 - 2 * linalg.sqrtm(c1 @ c2).real)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-6)


def test_zero_for_equal_symmetric_and_moved_by_the_mean():
    first, second = (exactly(np.zeros(4), random_covariance(4, seed), 30, seed) for seed in (3, 4))
    assert frechet_distance(first, first) == pytest.approx(0.0, abs=1e-9)
    distance = frechet_distance(first, second)
    assert distance > 0.1 and distance == pytest.approx(frechet_distance(second, first), rel=1e-9)
    moved = frechet_distance(first, second + np.array([3.0, 0.0, -4.0, 0.0]))
    assert moved == pytest.approx(distance + 25.0, rel=1e-9)


def test_fewer_points_than_dimensions():
    points = np.random.default_rng(5).standard_normal((6, 20))
    assert frechet_distance(points[:3], points[:3]) == pytest.approx(0.0, abs=1e-6)
    assert np.isfinite(frechet_distance(points[:3], points[3:]))


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [((4, 3), (4, 2), "equal dim"), ((1, 3), (4, 3), "at least 2"), ((4,), (4,), "at least 2")],
)
def test_wrong_shapes_are_named(first, second, words):
    with pytest.raises(WavedistillError, match=words):
        frechet_distance(np.zeros(first), np.zeros(second))
    with pytest.raises(WavedistillError, match="finite"):
        frechet_distance(np.full((3, 2), np.nan), np.zeros((3, 2)))


def test_embedding_hears_level_spectrum_and_movement():
    time = torch.arange(16000) / 16000
    tone = 0.3 * torch.sin(2 * torch.pi * 440 * time)
    steady = log_mel_statistics(tone, 16000)
    assert steady.shape == (7, 64)
    louder = log_mel_statistics(2 * tone, 16000) - steady
    band = int(steady[3, :32].argmax())
    assert louder[1:-1, band] == pytest.approx(np.log(2), abs=1e-3)
    higher = log_mel_statistics(0.3 * torch.sin(2 * torch.pi * 3000 * time), 16000)
    assert higher[3, :32].argmax() > band
    fading = log_mel_statistics(tone * torch.exp(-6 * time), 16000)
    assert (fading[:, 32 + band] > steady[:, 32 + band] + 0.1).all()
    with pytest.raises(WavedistillError, match="0.25 s"):
        log_mel_statistics(tone[:2000], 16000)
