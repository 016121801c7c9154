"""How well a score tells anomalous from normal sounds, as DCASE task 2 measures it: AUC and partial AUC.

References:
    Description and Discussion on DCASE2020 Challenge Task 2 (Koizumi et al., 2020), https://arxiv.org/abs/2006.05822
    Analyzing a Portion of the ROC Curve (McClish, 1989): the scale of the partial AUC
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from wavedistill.errors import WavedistillError

MAX_FALSE_POSITIVES = 0.1
"""Rate up to which the partial AUC looks."""
_DRAWS = 2000


class Separation(NamedTuple):
    """Means over groups, in [0, 1]; 0.5 is chance.

    Attributes:
        auc: share of (normal, anomalous) pairs whose anomalous sound scores higher.
        low, high: its 95 % bootstrap interval.
        partial: AUC at a rate of false positives of at most `MAX_FALSE_POSITIVES`, on McClish's scale.
    """

    auc: float
    low: float
    high: float
    partial: float

    def __str__(self) -> str:
        return f"{self.auc:.2f} ({self.low:.2f}-{self.high:.2f})"


def separation(groups: Sequence[tuple[np.ndarray, np.ndarray]], seed: int = 0) -> Separation:
    """How well scores separate, averaged over groups within which they compare.

    The bootstrap draws normal and anomalous sounds of each group with replacement.

    Args:
        groups: scores of normal and of anomalous sounds, (normal,) and (anomalous,); higher is stranger.
        seed: of the bootstrap.

    Raises:
        WavedistillError: for a group without sounds of both kinds, or a score that is NaN.

    Example:
        >>> import numpy as np
        >>> separation([(np.array([0.0, 1.0]), np.array([0.5, 2.0]))]).auc
        0.75
    """
    from sklearn.metrics import roc_auc_score

    if not groups:
        raise WavedistillError("separation needs at least one group of scores.")
    generator = np.random.default_rng(seed)
    aucs = []
    partials = []
    drawn = np.zeros(_DRAWS)
    for normal, anomalous in groups:
        if not (len(normal) and len(anomalous)) or np.isnan(normal).any() or np.isnan(anomalous).any():
            raise WavedistillError(
                f"separation needs scores of normal and anomalous sounds, none of them NaN: given {len(normal)} and "
                f"{len(anomalous)}."
            )
        above = (anomalous[:, None] > normal) + 0.5 * (anomalous[:, None] == normal)
        aucs.append(above.mean())
        truth = np.concatenate([np.zeros(len(normal)), np.ones(len(anomalous))])
        scores = np.concatenate([normal, anomalous])
        partials.append(roc_auc_score(truth, scores, max_fpr=MAX_FALSE_POSITIVES))
        rows, columns = (
            generator.multinomial(n, np.full(n, 1 / n), size=_DRAWS) / n for n in (len(anomalous), len(normal))
        )
        drawn += np.einsum("da,an,dn->d", rows, above, columns, optimize=True) / len(groups)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Separation(float(np.mean(aucs)), float(low), float(high), float(np.mean(partials)))


def harmonic_mean(values: Sequence[Separation]) -> float:
    """DCASE's figure for a system: the harmonic mean of all AUCs and partial AUCs."""
    found = np.array([part for value in values for part in (value.auc, value.partial)])
    return float(len(found) / np.sum(1.0 / np.maximum(found, 1e-9)))
