"""Coupling layers with each mask, and stacks of them whose backward pass recomputes."""

import torch
from helpers.flow_case import Case, shake

from wavedistill.flows import (
    AdditiveCoupling,
    AffineCoupling,
    NetworkConfig,
    Rescale,
    ReversibleSequence,
    SplineCoupling,
)


def small(layer, dim, kernel_size=1, **options):
    """A layer with a small network and parameters far from the identity."""
    return shake(layer(dim, network=NetworkConfig(8, kernel_size=kernel_size), **options), 0.3)


def features(batch):
    return torch.randn(batch, 2)


def frames(batch):
    return torch.randn(batch, 2, 4)


def stack(depth, dim, **options):
    """A reversible stack that moves every element, with a layer that is no coupling."""
    couplings = [small(AffineCoupling, dim, swap=bool(layer % 2), **options) for layer in range(depth)]
    return ReversibleSequence(*couplings[:1], shake(Rescale(dim)), *couplings[1:])


REFUSES = {"second_derivatives": "take Compose"}

CASES = {
    "additive-coupling": Case(lambda: small(AdditiveCoupling, 5, swap=True), (5,)),
    "additive-coupling-time": Case(lambda: small(AdditiveCoupling, 1, mask="time", kernel_size=3, swap=True), (1, 12)),
    "affine-coupling": Case(lambda: small(AffineCoupling, 3, mask="alternate", cond_dim=2), (3,), features),
    "affine-coupling-waveform": Case(lambda: small(AffineCoupling, 3, kernel_size=3, cond_dim=2), (3, 8), frames),
    "affine-coupling-alternate": Case(
        lambda: small(AffineCoupling, 3, mask="alternate", swap=True, kernel_size=3), (3, 7)
    ),
    "affine-coupling-time": Case(
        lambda: small(AffineCoupling, 1, mask="time", kernel_size=3, cond_dim=2), (1, 12), frames
    ),
    "affine-coupling-time-swap": Case(
        lambda: small(AffineCoupling, 2, mask="time", swap=True, cond_dim=2), (2, 8), frames
    ),
    "affine-coupling-checkerboard": Case(
        lambda: small(AffineCoupling, 2, mask="checkerboard", kernel_size=3, cond_dim=2), (2, 8), frames
    ),
    "spline-coupling": Case(lambda: small(SplineCoupling, 3, bins=4, bound=2.0, cond_dim=2), (3,), features),
    "spline-coupling-half": Case(lambda: small(SplineCoupling, 3, swap=True), (3, 5)),
    "spline-coupling-time": Case(lambda: small(SplineCoupling, 1, mask="time", kernel_size=3, bins=5), (1, 11)),
    "reversible": Case(lambda: stack(4, 3), (3,), refuses=REFUSES),
    "reversible-waveform": Case(
        lambda: stack(3, 1, mask="time", kernel_size=3, cond_dim=2), (1, 8), frames, refuses=REFUSES
    ),
    "reversible-backwards": Case(lambda: stack(3, 2, cond_dim=2).inv, (2,), features, refuses=REFUSES),
}
