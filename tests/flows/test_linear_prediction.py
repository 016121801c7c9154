"""The linear-prediction baseline: its density is one, and it finds what there is to predict."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from wavedistill.audio.mel import LogMelSpectrogram
from wavedistill.data.baseline import bits_per_sample, linear_prediction_bits, linear_prediction_log_prob
from wavedistill.errors import WavedistillError


def autoregressive(samples: int, deviation: float = 100.0, seed: int = 0) -> np.ndarray:
    """A resonance at 1 kHz driven by Gaussian noise of known deviation (in 16-bit steps), on the 16-bit grid."""
    from scipy.signal import lfilter

    noise = np.random.default_rng(seed).normal(0, deviation, samples)
    pole = 0.97 * np.exp(2j * np.pi * 1000 / 16000)
    return np.round(lfilter([1], np.poly([pole, pole.conjugate()]).real, noise)) / 32768


def test_white_noise_costs_its_entropy():
    deviation = 200.0
    clip = np.round(np.random.default_rng(0).normal(0, deviation, 32000)) / 32768
    entropy = 0.5 * math.log2(2 * math.pi * math.e * deviation**2)
    assert entropy < linear_prediction_bits([clip]) < entropy + 0.25  # 32 taps fitted to 640 samples, and a heavy tail


@pytest.mark.parametrize("with_mel", [False, True])
def test_a_resonance_is_predicted(with_mel):
    clip = autoregressive(32000)
    mels = [LogMelSpectrogram()(torch.from_numpy(clip).float())] if with_mel else None
    innovation = 0.5 * math.log2(2 * math.pi * math.e * 100.0**2)
    static = 0.5 * math.log2(2 * math.pi * math.e * (clip.std() * 32768) ** 2)
    # the mel has seen the very samples it helps to predict, so it may come out below the innovation's entropy
    assert innovation - 0.1 < linear_prediction_bits([clip], mels) < innovation + 0.35 < static - 1


def test_log_prob_is_causal():
    clip = autoregressive(4000)
    changed = clip.copy()
    changed[3000:] = 0
    before = linear_prediction_log_prob(clip)
    after = linear_prediction_log_prob(changed)
    np.testing.assert_array_equal(before[:3000], after[:3000])
    assert np.abs(before[3000:] - after[3000:]).max() > 0.1


def test_density_integrates_to_one():
    """Over all values of the last sample given its past, by a sum with steps below its scale."""
    clip = autoregressive(700, deviation=300.0)
    values = np.arange(-32768, 32768, 256) / 32768
    mass = 0.0
    for value in values:
        clip[-1] = value
        mass += math.exp(linear_prediction_log_prob(clip[-700:])[-1]) * 256 / 32768
    assert mass == pytest.approx(1, abs=0.02)


def test_all_clips_count_by_their_samples():
    loud = autoregressive(16000, 300.0)
    quiet = autoregressive(4000, 10.0, seed=1)
    both = linear_prediction_bits([loud, quiet])
    alone = [bits_per_sample(linear_prediction_log_prob(c, seed=i).mean()) for i, c in enumerate((loud, quiet))]
    assert both == pytest.approx(0.8 * alone[0] + 0.2 * alone[1], abs=1e-9)


def test_accepts_tensors_and_refuses_nothing():
    clip = autoregressive(2000)
    assert linear_prediction_bits([torch.from_numpy(clip)]) == linear_prediction_bits([clip])
    with pytest.raises(WavedistillError, match="at least one clip"):
        linear_prediction_bits([])
    with pytest.raises(WavedistillError, match="shape"):
        linear_prediction_log_prob(np.zeros((1, 100)))
