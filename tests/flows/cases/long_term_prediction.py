"""Long-term prediction, its lags and taps given as a condition."""

import torch
from helpers.flow_case import Case

from wavedistill.flows import LTP, LongTermPredictionFlow


def predictor(batch):
    taps = torch.randn(batch, 3, 5)
    return LTP(torch.randint(10, 17, (batch, 3)), taps / (1.0 + taps.abs().sum(-1, keepdim=True)))


CASES = {
    "long-term-prediction": Case(
        lambda: LongTermPredictionFlow(max_lag=16),
        (1, 24),
        cond=predictor,
        triangular="lower",
        events=[],
        exempt={"long": "the check cannot lengthen a named tuple"},
    ),
}
