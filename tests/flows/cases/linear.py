"""Permutations, linear maps, normalisation and reshaping."""

import torch
from helpers.flow_case import Case, shake

from wavedistill.flows import (
    ActNorm,
    AffineCoupling,
    Compose,
    InvertibleBatchNorm,
    InvertibleConv1x1,
    LearnedPermutation,
    NetworkConfig,
    Orthogonal,
    Permutation,
    Reverse,
    Split,
    Squeeze,
)

STRAIGHT_THROUGH = (
    "the scores have a straight-through gradient, not that of the piecewise constant map (tested in "
    "test_permutation.py); learned-permutation-frozen checks the gradient by the input"
)


def actnorm(dim):
    """Initialised by a training batch."""
    layer = ActNorm(dim)
    layer.forward(3.0 * torch.randn(64, dim) + 1.0)
    return shake(layer)


def batchnorm(dim):
    """With running statistics unlike a standard normal's; eval mode promises an exact bijection."""
    layer = InvertibleBatchNorm(dim, momentum=1.0)
    layer.forward(3.0 * torch.randn(64, dim) + 1.0)
    return shake(layer).eval()


def learned_permutation(dim):
    layer = LearnedPermutation(dim)
    torch.nn.init.normal_(layer.scores)
    return layer


def coupling(dim, **options):
    return shake(AffineCoupling(dim, network=NetworkConfig(8), **options))


def speaker(batch):
    return torch.randn(batch, 3)


CASES = {
    "permutation": Case(lambda: Permutation([2, 0, 3, 1]), (4,)),
    "permutation-waveform": Case(lambda: Permutation.random(3), (3, 12)),
    "reverse": Case(lambda: Reverse(3), (3, 7)),
    "learned-permutation": Case(lambda: learned_permutation(4), (4,), exempt={"gradients": STRAIGHT_THROUGH}),
    "learned-permutation-frozen": Case(lambda: learned_permutation(4).requires_grad_(False), (4,)),
    "orthogonal": Case(lambda: shake(Orthogonal(4)), (4,), density=lambda dim: Orthogonal(dim)),
    "orthogonal-waveform": Case(lambda: shake(Orthogonal(3)), (3, 10)),
    "actnorm": Case(lambda: actnorm(4), (4,), density=actnorm),
    "actnorm-waveform": Case(lambda: actnorm(2), (2, 12)),
    "actnorm-first-batch": Case(lambda: ActNorm(3), (3, 8)),
    "batchnorm": Case(lambda: batchnorm(4), (4,), density=batchnorm),
    "batchnorm-waveform": Case(lambda: batchnorm(2), (2, 12)),
    "conv1x1": Case(lambda: shake(InvertibleConv1x1(4)), (4,), density=lambda dim: shake(InvertibleConv1x1(dim))),
    "conv1x1-waveform": Case(lambda: shake(InvertibleConv1x1(3)), (3, 10)),
    "conv1x1-mono": Case(lambda: shake(InvertibleConv1x1(1)), (1, 10)),
    "conv1x1-lu": Case(
        lambda: shake(InvertibleConv1x1(4, lu=True)),
        (4,),
        density=lambda dim: shake(InvertibleConv1x1(dim, lu=True)),
    ),
    "conv1x1-lu-waveform": Case(lambda: shake(InvertibleConv1x1(3, lu=True)), (3, 10)),
    "squeeze": Case(lambda: Squeeze(2), (2, 12), events=[(2, 2), (1, 6)]),
    "squeeze-backwards": Case(lambda: Squeeze(2).inv, (4, 5), events=[(4, 1), (2, 3)]),
    "split": Case(lambda: Split(coupling(3, cond_dim=3), keep=2), (5,), cond=speaker),
    "multi-scale": Case(
        lambda: Compose(
            Squeeze(4),
            shake(InvertibleConv1x1(4)),
            Split(Compose(coupling(3, cond_dim=3), Split(shake(InvertibleConv1x1(2)), keep=1)), keep=1),
            Squeeze(4).inv,
        ),
        (1, 24),
        cond=speaker,
        events=[(1, 4), (1, 20)],
    ),
}
