"""Every bundled voice makes the samples that it made when it was released.

The references were made on a processor with AVX-512. Other instructions round differently. Measured, as the root mean
square of the difference over that of the signal:

| | AVX2 | SSE4 | one layer's output weights times 1.01 |
|---|---|---|---|
| teachers, a quarter of a second | 1.5e-5 | 1.2e-5 | 5e-2 to 2.5e-1 |
| students | 1.1e-4 | 1.8e-3 | 4e-4 to 6e-3 (the contraction to the mel corrects most of it) |
| flow | 6.5e-6 | 4.9e-6 | 2e-3 |
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.released_voices import REFERENCES, SECONDS, TEACHER_SECONDS, load_voice, synthesize

from wavedistill.assets import bundled_checkpoints

TOLERANCE = {"teacher": 2e-4, "student": 2.5e-3, "flow": 2e-4}
CHANGE = {"teacher": 1.01, "student": 1.1, "flow": 1.01}
"""Factor on the output weights of one layer that must not pass."""
STEADY_SAMPLES = 500
"""A teacher's first samples, before its feedback has magnified rounding: 3e-6 at most was measured."""


def error(found: np.ndarray, expected: np.ndarray) -> float:
    """Root mean square of the difference over that of the reference."""
    return float(np.sqrt(np.square(found - expected).mean() / np.square(expected).mean()))


def references() -> dict[str, np.ndarray]:
    with np.load(REFERENCES) as file:
        return dict(file)


def spoken(voice) -> np.ndarray:
    return synthesize(voice, TEACHER_SECONDS if voice.model.role == "teacher" else SECONDS)


def test_every_bundled_voice_has_a_reference():
    assert references().keys() == set(bundled_checkpoints())
    assert REFERENCES.stat().st_size < 300_000


@pytest.mark.parametrize("name", sorted(references()))
def test_released_voice_makes_its_samples(name):
    expected = references()[name]
    voice = load_voice(name)
    found = spoken(voice)
    assert found.shape == expected.shape
    assert error(found, expected) < TOLERANCE[voice.model.role]
    if voice.model.role == "teacher":
        np.testing.assert_allclose(found[:STEADY_SAMPLES], expected[:STEADY_SAMPLES], atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", sorted(references()))
def test_a_changed_weight_fails(name):
    voice = load_voice(name)
    with torch.no_grad():
        changed = next(value for key, value in voice.model.named_parameters() if key.endswith("stack.output.weight"))
        changed *= CHANGE[voice.model.role]
    assert error(spoken(voice), references()[name]) > 1.3 * TOLERANCE[voice.model.role]
