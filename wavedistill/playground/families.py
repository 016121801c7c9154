"""Every flow family of the toolbox in small: what a flow of two-dimensional vectors of each is built of.

Example:
    >>> from wavedistill.playground import FAMILIES
    >>> FAMILIES["realnvp"].build(3)[0]  # the first of three blocks, seen from the data
    Compose(
      (transforms): ModuleList(
        (0): AffineCoupling(
    ...
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from wavedistill.flows import (
    MADE,
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    AutoregressiveFlow,
    Compose,
    ContinuousFlow,
    InvertibleConv1x1,
    MixtureCDF,
    NetworkConfig,
    Orthogonal,
    Planar,
    Radial,
    Rescale,
    ResidualFlow,
    SplineCoupling,
    Transform,
)

DIM = 2
ORDERS = ("natural", "reverse")
BOUND = 2.0
"""Of a layer's log-scale: with wide limits a single point far out can cost a thousand nats."""
AFFINE = {"network": NetworkConfig(128), "log_scale_bound": BOUND}
"""Options of the affine couplings."""


@dataclass(frozen=True)
class Family:
    """A kind of flow.

    Attributes:
        name: key in `FAMILIES`.
        title: for tables and pictures.
        summary: one line on what a layer does.
        build: depth -> the transform, a `Compose` whose entries are the layers to look at.
        depth: number of layers (blocks) by default.
        steps: of training by default: 15 to 50 seconds on one core.
        learning_rate: of Adam.
        batch_size: samples a step.
    """

    name: str
    title: str
    summary: str
    build: Callable[[int], Compose]
    depth: int
    steps: int
    learning_rate: float
    batch_size: int = 512


def _unsettled(layer: Transform, output: nn.Parameter, std: float) -> Transform:
    """Move a layer that is the identity at first, since on a symmetric density (rings) that is a saddle point."""
    nn.init.normal_(output, std=std)
    return layer


def _coupling(kind: type[Transform], std: float = 0.05, **options: Any) -> Transform:
    layer = kind(DIM, **options)
    return _unsettled(layer, layer.network.output.weight, std)


def _pair(kind: type[Transform], **options: Any) -> Compose:
    """Two couplings that exchange the roles of the two coordinates."""
    return Compose(*(_coupling(kind, swap=swap, **options) for swap in (False, True)))


def _nice(depth: int) -> Compose:
    return Compose(*(_pair(AdditiveCoupling, network=NetworkConfig(num_layers=3)) for _ in range(depth)), Rescale(DIM))


def _realnvp(depth: int) -> Compose:
    return Compose(*(_pair(AffineCoupling, **AFFINE) for _ in range(depth)))


def _glow(depth: int) -> Compose:
    return Compose(
        *(Compose(ActNorm(DIM), InvertibleConv1x1(DIM), _coupling(AffineCoupling, **AFFINE)) for _ in range(depth))
    )


def _spline(depth: int) -> Compose:
    return Compose(
        *(Compose(_pair(SplineCoupling, std=0.02, bins=16, bound=3.0), Orthogonal(DIM)) for _ in range(depth))
    )


def _maf(depth: int) -> Compose:
    def layer(order: str) -> Transform:
        network = MADE(DIM, hidden=128, order=order)
        return _unsettled(
            AutoregressiveFlow(network, log_scale_min=-BOUND, log_scale_max=BOUND), network.layers[-1].weight, 0.1
        )

    return Compose(*(Compose(*map(layer, ORDERS)) for _ in range(depth)))


def _iaf(depth: int) -> Compose:
    return Compose(*(layer.inv for layer in reversed(_maf(depth).transforms)))


def _planar(depth: int) -> Compose:
    return Compose(*(Planar(DIM) for _ in range(depth)))


def _radial(depth: int) -> Compose:
    return Compose(*(Radial(DIM) for _ in range(depth)))


def _gaussianization(depth: int) -> Compose:
    return Compose(*(Compose(MixtureCDF(DIM, num_components=8), Orthogonal(DIM)) for _ in range(depth)))


def _residual(depth: int) -> Compose:
    def layer() -> ResidualFlow:
        residual = ResidualFlow(DIM, network=NetworkConfig(16), lipschitz=0.97)
        for name, parameter in residual.named_parameters():
            # weights of a bounded norm leave the activations almost linear at first; sharp bends in different places
            # learn faster
            if name.endswith("sharpness"):
                nn.init.constant_(parameter, 4.0)
            elif name.endswith("bias"):
                nn.init.normal_(parameter, std=0.3)
        return residual

    return Compose(*(Compose(ActNorm(DIM), layer()) for _ in range(depth)))


def _continuous(depth: int) -> Compose:
    def layer() -> Transform:
        # fixed steps take a third of an adaptive solver's time; the round trip of trained flows is exact within 0.06
        flow = ContinuousFlow(DIM, network=NetworkConfig(num_layers=3), solver="rk4", step_size=0.5, adjoint=False)
        return _unsettled(flow, flow.network.output.weight, 0.02)

    return Compose(*(layer() for _ in range(depth)))


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            "nice",
            "NICE",
            "additive couplings: each layer shears, the volume is kept; a rescaling at the end",
            _nice,
            5,
            800,
            1e-2,
        ),
        Family(
            "realnvp",
            "RealNVP",
            "affine couplings: one coordinate shifts and scales the other",
            _realnvp,
            5,
            1000,
            7e-3,
            256,
        ),
        Family(
            "glow", "Glow", "a learned normalisation and mixing before each affine coupling", _glow, 8, 1000, 7e-3, 256
        ),
        Family(
            "spline",
            "neural spline flow",
            "spline couplings: one coordinate bends the other monotonically",
            _spline,
            2,
            800,
            1.5e-2,
        ),
        Family("maf", "MAF", "masked autoregressive: fast density, sequential sampling", _maf, 5, 1200, 4e-3, 256),
        Family("iaf", "IAF", "inverse autoregressive: fast sampling, sequential density", _iaf, 5, 900, 4e-3, 256),
        Family("planar", "planar", "each layer bends the plane along one line", _planar, 24, 800, 2e-2),
        Family("radial", "radial", "each layer contracts or expands around one point", _radial, 24, 800, 2e-2),
        Family(
            "gaussianization",
            "Gaussianization",
            "each coordinate made normal by a mixture, then a rotation",
            _gaussianization,
            6,
            500,
            1e-2,
        ),
        Family(
            "residual",
            "residual (i-ResNet)",
            "the identity plus a contraction, with the exact log-determinant",
            _residual,
            8,
            500,
            2e-2,
            256,
        ),
        Family(
            "continuous",
            "continuous (FFJORD)",
            "an ordinary differential equation, the trace integrated along",
            _continuous,
            2,
            400,
            1e-2,
            256,
        ),
    )
}
"""The families by name."""
