"""Gaussianization: make every feature normal by itself, rotate, repeat.

A feature with distribution function F becomes normal by y = Phi^-1(F(x)), Phi the normal distribution function. Here F
is a mixture, and everything is computed from the logarithm of the smaller tail, F or 1 - F, so that a value 1,000
standard deviations out keeps a finite image, log-determinant and gradient.

References:
    Gaussianization (Chen & Gopinath, 2000), NeurIPS 13
    Gaussianization Flows (Meng et al., 2020), https://arxiv.org/abs/2003.01941
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wavedistill.errors import WavedistillError
from wavedistill.flows.linear import Orthogonal
from wavedistill.flows.transform import Compose, Transform, require_sizes
from wavedistill.numerics import (
    attach_gradient,
    full_precision,
    increasing_root,
    log_mills_ratio,
    log_normal_tail,
    log_positive,
    normal_quantile_of_tail,
    raw_of_log,
)

KINDS = ("logistic", "gaussian")
LOGISTIC_DEVIATION = math.pi / math.sqrt(3.0)
"""Standard deviation of the logistic distribution with scale 1."""


class _Mixture(NamedTuple):
    """Each (dim, components), with an axis for the samples of a waveform."""

    loc: Tensor
    log_scale: Tensor
    log_weight: Tensor


class MixtureCDF(Transform):
    """y_i = Phi^-1(F_i(x_i)), with F_i a mixture of logistic or normal distribution functions for each feature i.

    log|det| = sum_i log f_i(x_i) - log phi(y_i), computed as the difference of the log-hazards log f / (1 - F) and log
    phi / (1 - Phi) (below the median those of -x and -y), which stay small where densities underflow. The inverse finds
    x between the components' own quantiles.

    A mixture of normals is linear far outside the data, and with one component everywhere; a mixture of logistics
    bends: 1,000 scales become 44.7 standard deviations.

    Args:
        dim: features.
        num_components: of each mixture; at first at the normal quantiles, with the mixture's variance 1.
        kind: "logistic" or "gaussian".

    Shapes: (batch, dim) or (batch, dim, samples). Step by step.

    References:
        Gaussianization Flows (Meng et al., 2020), https://arxiv.org/abs/2003.01941, section 3.1
        Flow++ (Ho et al., 2019), https://arxiv.org/abs/1902.00275, section 3.2 (mixtures of logistics)

    Example:
        >>> import torch
        >>> from wavedistill.flows import MixtureCDF
        >>> layer = MixtureCDF(1, num_components=1)
        >>> y, log_det = layer.forward(torch.tensor([[0.0], [1000.0]]))
        >>> y.flatten()
        tensor([ 0.0000, 60.1462], grad_fn=<ViewBackward0>)
        >>> bool(torch.isfinite(log_det).all()), bool(torch.allclose(layer.inverse(y).value[1], torch.tensor(1000.0)))
        (True, True)
    """

    # of the root finder; 16 to 20 bring float64 to its last digits, modes a thousand widths apart need ten more
    iterations = 32

    def __init__(self, dim: int, num_components: int = 8, kind: str = "logistic") -> None:
        super().__init__()
        require_sizes(self, dim=dim, num_components=num_components)
        if kind not in KINDS:
            raise WavedistillError(f"MixtureCDF needs kind {' or '.join(map(repr, KINDS))}, got {kind!r}.")
        self.dim = dim
        self.kind = kind
        self.loc = nn.Parameter(torch.empty(dim, num_components))
        self.raw_scale = nn.Parameter(torch.empty(dim, num_components))  # see wavedistill.numerics
        self.weight_logits = nn.Parameter(torch.empty(dim, num_components))
        loc = torch.special.ndtri((torch.arange(num_components, dtype=torch.float64) + 0.5) / num_components)
        self.set_mixture(loc, torch.sqrt(1.0 - loc.square().mean()), torch.zeros(()))

    @torch.no_grad()
    def set_mixture(self, loc: Tensor, deviation: Tensor, log_weight: Tensor) -> None:
        """Set locations, standard deviations and log-weights, each broadcast to (dim, num_components)."""
        scale = deviation if self.kind == "gaussian" else deviation / LOGISTIC_DEVIATION
        self.loc.copy_(loc)
        self.raw_scale.copy_(raw_of_log(torch.log(scale)))
        self.weight_logits.copy_(log_weight)

    def _forward(self, x: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        x = full_precision(x)
        side = self._side_of_median(x)
        log_tail, log_hazard = self._tail(x, side)
        size = normal_quantile_of_tail(log_tail)
        return side * size, log_hazard + log_mills_ratio(size)

    def _inverse(self, y: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        y = full_precision(y)
        side = torch.where(y < 0, -1.0, 1.0).to(y)
        size = side * y
        log_tail = log_normal_tail(size)
        x = self._quantile(log_tail, side, size)
        slope = torch.exp(self._tail(x, side)[1]).clamp_min(torch.finfo(x.dtype).tiny)
        x = side * attach_gradient(side * x, lambda u: log_tail - self._tail(side * u, side)[0], slope)
        return x, -(self._tail(x, side)[1] + log_mills_ratio(size))

    @torch.no_grad()
    def _side_of_median(self, x: Tensor) -> Tensor:
        loc, log_scale, log_weight = self._mixture(x)
        t = (x.unsqueeze(-1) - loc) * torch.exp(-log_scale)
        cdf = torch.sigmoid(t) if self.kind == "logistic" else torch.special.ndtr(t)
        return torch.where((torch.exp(log_weight) * cdf).sum(-1) < 0.5, -1.0, 1.0).to(x)

    def _tail(self, x: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        """log(1 - F(x)) and the log-hazard log(f(x) / (1 - F(x))) where ``side`` is 1.

        Where it is -1, those of -x: log F and log(f / F).
        """
        loc, log_scale, log_weight = self._mixture(x)
        t = side.unsqueeze(-1) * (x.unsqueeze(-1) - loc) * torch.exp(-log_scale)
        if self.kind == "logistic":
            tails = nn.functional.logsigmoid(-t)
            log_hazards = nn.functional.logsigmoid(t)
        else:
            log_mills = log_mills_ratio(t)
            tails = log_normal_tail(t, log_mills)
            log_hazards = -log_mills
        joint = log_weight + tails
        share = torch.log_softmax(joint, dim=-1)  # of each component in the tail
        return torch.logsumexp(joint, dim=-1), torch.logsumexp(share + log_hazards - log_scale, dim=-1)

    @torch.no_grad()
    def _quantile(self, log_tail: Tensor, side: Tensor, size: Tensor) -> Tensor:
        """x whose tail has this logarithm."""
        loc, log_scale, _ = self._mixture(size)
        standard = size if self.kind == "gaussian" else torch.special.log_ndtr(size) - log_tail
        quantiles = side.unsqueeze(-1) * loc + torch.exp(log_scale) * standard.unsqueeze(-1)

        def excess(u: Tensor) -> tuple[Tensor, Tensor]:
            value, log_hazard = self._tail(side * u, side)
            return log_tail - value, torch.exp(log_hazard)

        return side * increasing_root(excess, quantiles.amin(-1), quantiles.amax(-1), self.iterations)

    def _mixture(self, x: Tensor) -> _Mixture:
        shape = (self.dim, *(1,) * (x.dim() - 2), -1)
        loc, raw_scale, logits = (
            full_precision(p).reshape(shape) for p in (self.loc, self.raw_scale, self.weight_logits)
        )
        return _Mixture(loc, log_positive(raw_scale), torch.log_softmax(logits, dim=-1))


class GaussianizationFlow(Compose):
    """`MixtureCDF` and `Orthogonal` in turn, trained by gradient: a universal approximator.

    The first and the last layer are a `MixtureCDF`.

    Every layer is elementwise or a rotation, so that densities cost one pass and samples one numeric inverse of a
    function of one number for each feature and layer. `fit_rbig` makes the same layers from data without gradient.

    Args:
        dim: features.
        num_layers: of `MixtureCDF`.
        num_components, kind: of each mixture.

    Shapes: (batch, dim) or (batch, dim, samples).

    References:
        Gaussianization Flows (Meng et al., 2020), https://arxiv.org/abs/2003.01941

    Example:
        >>> import torch
        >>> from wavedistill.flows import Flow, GaussianizationFlow
        >>> flow = Flow(GaussianizationFlow(2, num_layers=3))
        >>> flow.log_prob(torch.zeros(5, 2)).shape, flow.sample((4, 2)).shape
        (torch.Size([5]), torch.Size([4, 2]))
    """

    def __init__(self, dim: int, num_layers: int, num_components: int = 8, kind: str = "logistic") -> None:
        layers: list[Transform] = [MixtureCDF(dim, num_components, kind)]
        for _ in range(num_layers - 1):
            layers += [Orthogonal(dim), MixtureCDF(dim, num_components, kind)]
        super().__init__(*layers)
