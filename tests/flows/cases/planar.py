"""Planar and radial flows."""

import torch
from helpers.flow_case import Case, shake

from wavedistill.flows import Planar, Radial


def contracting(dim: int) -> Planar:
    """A planar flow whose w.u is below -1."""
    planar = shake(Planar(dim))
    with torch.no_grad():
        planar.u.copy_(-2.0 * planar.w / planar.w.square().sum() + 0.1 * planar.u)
    return planar


def cond(batch: int) -> torch.Tensor:
    return torch.randn(batch, 2)


CASES = {
    "planar": Case(lambda: contracting(3), (3,), density=contracting),
    "planar-conditioned": Case(lambda: shake(Planar(2, cond_dim=2)), (2, 12), cond=cond),
    "radial": Case(lambda: shake(Radial(1, cond_dim=2)), (1,), cond=cond),
    "radial-waveform": Case(
        lambda: shake(Radial(2, cond_dim=2)), (2, 12), cond=cond, density=lambda dim: shake(Radial(dim), 0.5)
    ),
}
