"""Flows of zuko, nflows and normflows for the benchmark, as far as they are installed.

``python -m wavedistill.benchmark`` alone imports this module, in a process of its own: importing zuko changes
torch.distributions for the whole process.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import nn

from wavedistill.benchmark.flows import HIDDEN, LAYERS, Build, Contender


def zuko(flow: str, dim: int) -> Contender:
    import zuko

    make = {"MAF": zuko.flows.MAF, "RealNVP": zuko.flows.RealNVP}[flow]
    module = make(dim, transforms=LAYERS, hidden_features=(HIDDEN, HIDDEN)).transform
    return Contender(module, lambda m, x: m().call_and_ladj(x), lambda m, z: m().inv.call_and_ladj(z))


def nflows(flow: str, dim: int) -> Contender:
    from nflows import transforms
    from nflows.nn.nets import MLP

    class Network(MLP):
        def forward(self, inputs, context=None):
            return super().forward(inputs)

    layers = []
    for index in range(LAYERS):
        if flow == "MAF":
            layers.append(
                transforms.MaskedAffineAutoregressiveTransform(dim, HIDDEN, num_blocks=1, use_residual_blocks=False)
            )
            layers.append(transforms.ReversePermutation(dim))
        else:
            mask = (torch.arange(dim) < dim // 2) ^ bool(index % 2)
            layers.append(
                transforms.AffineCouplingTransform(mask.float(), lambda i, o: Network((i,), (o,), [HIDDEN, HIDDEN]))
            )
    module = transforms.CompositeTransform(layers).eval()
    return Contender(module, lambda m, x: m(x), lambda m, z: m.inverse(z))


def normflows(flow: str, dim: int) -> Contender:
    import normflows as nf

    layers = []
    for _ in range(LAYERS):
        if flow == "MAF":  # its forward is the parallel direction
            layers.append(nf.flows.MaskedAffineAutoregressive(dim, HIDDEN, num_blocks=1, use_residual_blocks=False))
            layers.append(nf.flows.Permute(dim, mode="swap"))
        else:
            layers.append(nf.flows.AffineCouplingBlock(nf.nets.MLP([dim // 2, HIDDEN, HIDDEN, dim], init_zeros=False)))
            layers.append(nf.flows.Permute(dim, mode="swap"))

    def run(module: nn.Module, x: torch.Tensor, backwards: bool) -> tuple[torch.Tensor, torch.Tensor]:
        total = x.new_zeros(len(x))
        for layer in reversed(module) if backwards else module:
            x, log_det = layer.inverse(x) if backwards else layer(x)
            total = total + log_det
        return x, total

    module = nn.ModuleList(layers).eval()
    return Contender(module, lambda m, x: run(m, x, False), lambda m, z: run(m, z, True))


def installed_flow_libraries() -> dict[str, Build]:
    """Library -> builder of its flows, of those that are installed."""
    return {build.__name__: build for build in (zuko, nflows, normflows) if importlib.util.find_spec(build.__name__)}
