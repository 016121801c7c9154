"""The detector on features of known distribution, its file, and the figures that judge it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from wavedistill.applications.detector import fit_detector, fit_gaussian, load_detector, mahalanobis
from wavedistill.applications.roc import harmonic_mean, separation
from wavedistill.errors import WavedistillError

ENERGIES = [np.ones(4)]


def features(count: int, seed: int) -> np.ndarray:
    """Correlated, of very different sizes."""
    generator = np.random.default_rng(seed)
    mix = np.random.default_rng(0).normal(size=(12, 12)) * np.logspace(-2, 2, 12)
    return generator.normal(size=(count, 12)) @ mix + 5


def test_p_values_of_normal_sounds_are_uniform_and_of_strange_ones_small():
    detector = fit_detector(features(100, 1), ENERGIES, "model")
    p = np.array([detector.p_value(detector.score(one)) for one in features(2000, 2)])
    for level in (0.1, 0.25, 0.5):
        assert np.mean(p <= level) == pytest.approx(level, abs=0.08)
    strange = [detector.p_value(detector.score(one)) for one in 3 * features(50, 3)]
    assert np.median(strange) == pytest.approx(1 / 101)


def test_the_scale_of_a_feature_does_not_matter():
    scale = np.logspace(-3, 3, 12)
    one = features(1, 9)[0]
    plain = mahalanobis(one, *fit_gaussian(features(40, 1)))
    scaled = mahalanobis(one * scale, *fit_gaussian(features(40, 1) * scale))
    assert scaled == pytest.approx(plain, rel=1e-6)


def test_round_trip_and_refusals(tmp_path):
    detector = fit_detector(features(30, 1), ENERGIES, "model")
    path = tmp_path / "detector.json"
    detector.save(path)
    again = load_detector(path, "model")
    assert again == detector
    with pytest.raises(WavedistillError, match="fitted with model model, this one is other"):
        load_detector(path, "other")
    content = json.loads(path.read_text())
    for damaged in (content | {"mean": content["mean"][1:]}, content | {"format": 9}, [1]):
        path.write_text(json.dumps(damaged))
        with pytest.raises(WavedistillError, match="damaged|no detector"):
            load_detector(path, "model")
    with pytest.raises(WavedistillError, match="8 normal sounds or more, given 7"):
        fit_detector(features(7, 1), ENERGIES, "model")


def test_separation_is_the_area_under_the_curve():
    from sklearn.metrics import roc_auc_score

    generator = np.random.default_rng(0)
    normal = generator.normal(size=60).round(1)
    strange = (generator.normal(size=40) + 1).round(1)
    found = separation([(normal, strange)])
    truth = np.repeat([0, 1], [60, 40])
    assert found.auc == pytest.approx(roc_auc_score(truth, np.concatenate([normal, strange])))
    assert found.partial == pytest.approx(roc_auc_score(truth, np.concatenate([normal, strange]), max_fpr=0.1))
    assert found.low < found.auc < found.high and found.high - found.low < 0.25
    assert separation([(-normal, -strange)]).auc == pytest.approx(1 - found.auc)
    both = separation([(normal, strange), (strange, normal)])
    assert both.auc == pytest.approx(0.5)
    assert separation([(normal, normal + 9)]) == pytest.approx((1.0, 1.0, 1.0, 1.0))
    assert harmonic_mean([found, found]) == pytest.approx(2 / (1 / found.auc + 1 / found.partial))


def test_separation_refuses_what_has_no_answer():
    with pytest.raises(WavedistillError, match="both|kinds|none of them NaN"):
        separation([(np.array([1.0]), np.array([]))])
    with pytest.raises(WavedistillError, match="none of them NaN"):
        separation([(np.array([1.0]), np.array([np.nan]))])
