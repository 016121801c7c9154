"""Gaussianization without gradient: layers fitted to data one after another.

References:
    Iterative Gaussianization: from ICA to Random Rotations (Laparra et al., 2011), https://arxiv.org/abs/1602.00229
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from wavedistill.errors import WavedistillError
from wavedistill.flows.gaussianization import MixtureCDF
from wavedistill.flows.linear import Orthogonal
from wavedistill.flows.transform import Compose, Transform

ROTATIONS = ("random", "pca")


@torch.no_grad()
def fit_rbig(
    x: Tensor,
    num_layers: int,
    num_components: int = 16,
    rotation: str = "random",
    em_steps: int = 20,
    generator: torch.Generator | None = None,
) -> Compose:
    """Rotation-based iterative Gaussianization: marginals made normal, a rotation, and again.

    Each layer is fitted to what the last one left.

    With exact marginals each layer lowers the negentropy of the latent by that of its marginals, and so KL(data ||
    flow); rotations give the next layer marginals that are not normal. The result is a `GaussianizationFlow` in all but
    its start: training by gradient goes on from it.

    Args:
        x: data, (count, dim); of waveforms, (batch, channels, samples) with every sample one vector of channels.
        num_layers: of `MixtureCDF`, the first and the last layer.
        num_components: of each mixture of normals, started at quantiles of the data and improved by
            expectation-maximisation.
        rotation: "random", or "pca" for the principal axes of the latent. In two dimensions these lie always at 45
            degrees to the features, whose variances are equal, so that every second layer finds the same marginals
            again.
        em_steps: of expectation-maximisation in each layer.
        generator: of the random rotations, on the CPU; None: torch's global one.

    Returns:
        Compose of `MixtureCDF` and `Orthogonal` layers, on x's device and in its type.

    Raises:
        WavedistillError: for data of another shape, or fewer than two points for each component.

    References:
        Iterative Gaussianization: from ICA to Random Rotations (Laparra et al., 2011), https://arxiv.org/abs/1602.00229

    Example:
        >>> import torch
        >>> from wavedistill.flows import Flow, fit_rbig
        >>> _ = torch.manual_seed(0)
        >>> x = torch.rand(2000, 2)
        >>> flow = Flow(fit_rbig(x, num_layers=3))  # the uniform distribution has 0 nats
        >>> bool(flow.log_prob(torch.rand(1000, 2)).mean().abs() < 0.2)
        True
    """
    if rotation not in ROTATIONS:
        raise WavedistillError(f"fit_rbig needs rotation {' or '.join(map(repr, ROTATIONS))}, got {rotation!r}.")
    if x.dim() not in (2, 3) or not x.is_floating_point():
        raise WavedistillError(
            f"fit_rbig needs floating-point data (count, dim) or (batch, channels, samples), got {x.dtype} "
            f"{tuple(x.shape)}."
        )
    points = x if x.dim() == 2 else x.transpose(1, 2).flatten(0, 1)
    if len(points) < 2 * num_components:
        raise WavedistillError(
            f"fit_rbig needs at least {2 * num_components} points for {num_components} components, got {len(points)}."
        )
    layers: list[Transform] = []
    for index in range(num_layers):
        if index:
            layers.append(_rotation(points, rotation, generator).to(points))
            points = layers[-1].forward(points).value
        layers.append(_fit_marginals(points, num_components, em_steps))
        points = layers[-1].forward(points).value
    return Compose(*layers)


def _fit_marginals(points: Tensor, num_components: int, em_steps: int) -> MixtureCDF:
    """Mixtures, one component of each being the feature's own normal distribution.

    That component's weight is the one that describes a held-out fifth of the data best. Near the end all marginals are
    normal, and a mixture without it would learn the sample's noise.
    """
    held = torch.arange(len(points), device=points.device) % 5 == 0
    loc, deviation, weight = fit_normal_mixtures(points[~held], num_components, em_steps)
    layer = MixtureCDF(points.shape[1], num_components, "gaussian").to(points)
    best = None
    best_log_weight = None
    for share in (0.02, 0.1, 0.3, 0.6, 1.0 - 1e-6) if num_components > 1 else (1.0,):
        log_weight = torch.cat([torch.full_like(loc[:, :1], share), (1.0 - share) * weight], 1).log()
        layer.set_mixture(loc, deviation, log_weight)
        y, log_slope = layer.forward(points[held], per_step=True)
        score = (log_slope - 0.5 * y.square()).mean(0).unsqueeze(1)
        if best is None:
            best = score
            best_log_weight = log_weight
        best_log_weight = torch.where(score > best, log_weight, best_log_weight)
        best = torch.maximum(score, best)
    layer.set_mixture(loc, deviation, best_log_weight)
    return layer


class NormalMixtures(NamedTuple):
    """A mixture for each feature.

    Attributes:
        loc, deviation: (dim, num_components).
        weight: of all components but the first, (dim, num_components - 1), with sum 1.
    """

    loc: Tensor
    deviation: Tensor
    weight: Tensor


def fit_normal_mixtures(x: Tensor, num_components: int, steps: int) -> NormalMixtures:
    """A normal mixture for each feature, by expectation-maximisation from equal parts of the sorted data.

    The first component stays at the feature's own mean and standard deviation with 2% of the weight and takes the
    points that are far from all others. The others' deviations stay above 1/100 of it: one on a single point has no
    bound.

    Shapes: x (count, dim).
    """
    ordered = x.sort(dim=0).values.T  # (dim, count)
    mean = ordered.mean(1, keepdim=True)
    width = ordered.std(1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny ** 0.5)
    if num_components == 1:
        return NormalMixtures(mean, width, mean[:, :0])
    parts = ordered[:, : ordered.shape[1] // (num_components - 1) * (num_components - 1)].unflatten(
        1, (num_components - 1, -1)
    )
    loc = parts.mean(-1)
    deviation = torch.maximum(parts.std(-1), 0.01 * width)
    weight = torch.full_like(loc, 1.0 / (num_components - 1))
    for _ in range(steps):
        locs = torch.cat([mean, loc], 1).unsqueeze(1)
        deviations = torch.cat([width, deviation], 1).unsqueeze(1)
        weights = torch.cat([torch.full_like(mean, 0.02), 0.98 * weight], 1).unsqueeze(1)
        log_joint = weights.log() - deviations.log() - 0.5 * ((ordered.unsqueeze(-1) - locs) / deviations).square()
        share = torch.softmax(log_joint, dim=-1)[..., 1:]  # (dim, count, components)
        mass = share.sum(1).clamp_min(1e-6)
        loc = (share * ordered.unsqueeze(-1)).sum(1) / mass
        variance = (share * (ordered.unsqueeze(-1) - loc.unsqueeze(1)).square()).sum(1) / mass
        deviation = torch.maximum(variance.sqrt(), 0.01 * width)
        weight = mass / mass.sum(1, keepdim=True)
    return NormalMixtures(torch.cat([mean, loc], 1), torch.cat([width, deviation], 1), weight)


def _rotation(points: Tensor, kind: str, generator: torch.Generator | None) -> Orthogonal:
    dim = points.shape[1]
    if kind == "pca":
        axes = torch.linalg.eigh(torch.cov(points.T.double()).reshape(dim, dim)).eigenvectors.T.cpu()
        axes = axes * torch.where(axes.diagonal() < 0, -1.0, 1.0).unsqueeze(1)
    else:
        axes = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64, generator=generator))[0]
    if torch.linalg.slogdet(axes).sign < 0:  # rotations only
        axes[axes.diagonal().argmin()] *= -1.0
    layer = Orthogonal(dim)
    layer.set_matrix(axes)
    return layer
