"""Elementwise layers, compositions and the pre-emphasis filter."""

import torch
from helpers.flow_case import Case, shake

from wavedistill.flows import Compose, Logit, PreEmphasis, Rescale, Scale

CASES = {
    "scale": Case(lambda: Scale(3.0), (4,), density=lambda dim: Scale(3.0)),
    "scale-waveform": Case(lambda: Scale(3.0), (1, 24)),
    "rescale": Case(lambda: shake(Rescale(4)), (4,), density=lambda dim: shake(Rescale(dim))),
    "rescale-waveform": Case(lambda: shake(Rescale(2)), (2, 12)),
    "logit": Case(lambda: Logit(0.05), (3,), domain=torch.sigmoid, codomain=lambda y: 0.9 * torch.tanh(y)),
    "pre-emphasis": Case(lambda: PreEmphasis(0.9), (2, 24), triangular="lower"),
    "composed": Case(lambda: shake(Compose(Scale(2.0), PreEmphasis(0.5), Rescale(1))), (1, 24), triangular="lower"),
    "read-backwards": Case(lambda: shake(Compose(Scale(2.0), Rescale(3))).inv, (3,)),
}
