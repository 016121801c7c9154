"""Invertible residual networks."""

import torch
from helpers.flow_case import BACKWARD_INSIDE, Case, shake

from wavedistill.flows import NetworkConfig, ResidualFlow

LONG = {
    "long": (
        "the exact log-determinant of 240,000 samples is that of a 240,000 x 240,000 matrix; test_residual.py has the "
        "series at that length"
    )
}
CUDA = {"cuda": BACKWARD_INSIDE}
REFUSES = {"inverse second_derivatives": "torch.func"}


def residual(dim, hidden=16, kernel_size=1, **options):
    network = NetworkConfig(hidden, kernel_size=kernel_size)
    return shake(ResidualFlow(dim, network=network, **({"lipschitz": 0.5} | options)), 0.3)


CASES = {
    "residual": Case(
        lambda: residual(3, lipschitz=0.9),
        (3,),
        density=lambda dim: residual(dim, lipschitz=0.9),
        exempt=CUDA,
        refuses=REFUSES,
    ),
    "residual-waveform": Case(
        lambda: residual(2, hidden=8, kernel_size=3, cond_dim=3, activation="softplus"),
        (2, 8),
        cond=lambda batch: torch.randn(batch, 3),
        exempt=LONG | CUDA,
        refuses=REFUSES,
    ),
}
