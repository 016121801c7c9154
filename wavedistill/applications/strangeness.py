"""How strange each of many sounds is, by everything that a measurement compares: likelihoods, detectors, no model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from wavedistill.applications.detector import fit_gaussian, mahalanobis
from wavedistill.applications.scoring import ScoreReport

SCORES = ("bits", "bits - LP's", "typicality", "mel, no model", "detector")
"""Columns of the tables: raw likelihood, and what else there is."""

Values = dict[str, float]
"""sound -> how strange it is; higher is stranger"""


def likelihood_scores(report: ScoreReport) -> dict[str, Values]:
    """The first three of `SCORES`."""
    statistics = {one.name: one.statistics for one in report.scores}
    return {
        "bits": {name: s.bits for name, s in statistics.items()},
        "bits - LP's": {name: s.bits - s.linear_prediction_bits for name, s in statistics.items()},
        "typicality": {name: s.typicality for name, s in statistics.items()},
    }


def detector_scores(report: ScoreReport, mels: Mapping[str, Tensor], normal: Iterable[str]) -> dict[str, Values]:
    """The other two, both fitted to the ``normal`` sounds, of all sounds in ``mels``.

    Args:
        mels: sound -> (n_mels, frames), whose mean and deviation over time are what a detector without a model looks
            at.
        normal: names of sounds.
    """
    noise = {one.name: one.statistics.features for one in report.scores if one.name in mels}
    spectra = {name: torch.cat([mel.mean(1), mel.std(1)]).double().numpy() for name, mel in mels.items()}
    found = {}
    for column, features in (("mel, no model", spectra), ("detector", noise)):
        gaussian = fit_gaussian(np.stack([features[name] for name in normal]))
        found[column] = {name: mahalanobis(one, *gaussian) for name, one in features.items()}
    return found
