"""Masked and inverse autoregressive flows over vectors (any order) and waveforms."""

from __future__ import annotations

import torch
from helpers.flow_case import Case, shake

from wavedistill.flows import MADE, AutoregressiveFlow, Compose, Condition, PreEmphasis, Scale
from wavedistill.nn.causal_network import CausalNetwork
from wavedistill.nn.wavenet_stack import StackConfig

SAMPLES = 8
ORDER = [2, 0, 4, 1, 3]
LENGTHENS = "the check cannot lengthen a named tuple; 'maf-waveform' covers it"


def vectors(dim=4, order="natural", cond_dim=0, **options):
    return shake(AutoregressiveFlow(MADE(dim, 12, 2, order, cond_dim), **options))


def waveform(standardize=True, cond=5, source=0, step=1, **options):
    network = CausalNetwork(2, StackConfig(2, 1, 2, 5, 5), cond, 3, source, step)
    return shake(AutoregressiveFlow(network, standardize, **options))


def features_and_source(batch):
    return Condition(torch.randn(batch, 4, 5), torch.randn(batch, SAMPLES))


CASES = {
    "maf": Case(vectors, (4,), triangular="lower", density=vectors),
    "maf-reverse": Case(lambda: vectors(3, "reverse"), (3,), triangular=[2, 1, 0]),
    "maf-any-order-conditional": Case(
        lambda: vectors(5, ORDER, cond_dim=2, log_scale_min=-3.0),
        (5,),
        cond=lambda batch: torch.randn(batch, 2),
        triangular=ORDER,
    ),
    "maf-wider-than-its-network": Case(lambda: vectors(14), (14,), triangular="lower"),
    "iaf": Case(
        lambda: vectors(standardize=False).inv,
        (4,),
        triangular="lower",
        density=lambda dim: vectors(dim, standardize=False).inv,
    ),
    "maf-waveform": Case(waveform, (1, SAMPLES), cond=lambda batch: torch.randn(batch, 5), triangular="lower"),
    "maf-waveform-with-source": Case(
        lambda: waveform(source=3),
        (1, SAMPLES),
        cond=features_and_source,
        triangular="lower",
        events=[],
        exempt={"long": LENGTHENS},
    ),
    "iaf-waveform": Case(
        lambda: waveform(False, cond=0).inv,
        (1, SAMPLES),
        triangular="lower",
        exempt={"long": "240,000 steps one after another; its one-pass direction is that of 'maf-waveform'"},
    ),
    "maf-waveform-in-steps": Case(
        lambda: waveform(source=2, step=2),
        (1, SAMPLES),
        cond=features_and_source,
        triangular="lower",
        events=[],
        exempt={"long": LENGTHENS},
    ),
    "iaf-waveform-in-steps": Case(
        lambda: waveform(False, cond=0, step=4).inv,
        (1, SAMPLES),
        triangular="lower",
        events=[(1, 4), (1, 12)],
        exempt={"long": "as of 'iaf-waveform'"},
    ),
    "maf-composed": Case(
        lambda: Compose(Scale(2.0), PreEmphasis(0.5), waveform(cond=0)), (1, SAMPLES), triangular="lower"
    ),
}
