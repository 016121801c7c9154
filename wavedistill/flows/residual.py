"""Invertible residual networks: the identity plus a contraction.

References:
    Invertible Residual Networks (Behrmann et al., 2019), https://arxiv.org/abs/1811.00995
    Residual Flows for Invertible Generative Modeling (Chen et al., 2019), https://arxiv.org/abs/1906.02735
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from wavedistill.errors import WavedistillError
from wavedistill.flows.solvers.fixed_point import invert_residual
from wavedistill.flows.solvers.log_det import (
    NOISES,
    draw_noise,
    exact_log_det,
    roulette_weights,
    series_log_det,
)
from wavedistill.flows.transform import Transform, require_sizes
from wavedistill.nn.coupling_net import NetworkConfig
from wavedistill.nn.lipschitz import LipschitzNetwork
from wavedistill.numerics import full_precision

LOG_DETS = ("exact", "power_series", "roulette")


class ResidualFlow(Transform):
    """y = x + g(x | cond), g a network with a Lipschitz constant of at most ``lipschitz`` < 1.

    The inverse is a fixed point.

    log|det| = log det (I + J) = sum_{k >= 1} (-1)^(k+1) tr(J^k) / k, J the Jacobian of g, taken

    * "exact": from the whole Jacobian. For events of up to about a thousand elements.
    * "power_series": from ``num_terms`` terms and one noise vector (Hutchinson). Biased by at most size * c^(n+1) / ((n
      + 1) (1 - c)).
    * "roulette": from a random number of terms, ``num_terms`` at least, weighted by 1 / P(N >= k). Unbiased, in
      training and in evaluation.

    The last two are random: log-determinants of the two directions cancel in expectation only. Everything is computed
    in float32 at least, under autocast too.

    Args:
        dim: features.
        network: size of g, a `LipschitzNetwork`; None: `NetworkConfig`'s defaults.
        cond_dim: channels of the condition, 0 for none.
        lipschitz: c. Nearer to 1 a layer can do more, the inverse and the series take longer, and the inverse magnifies
            rounding by up to 1 / (1 - c).
        activation: of g, see `LipschitzNetwork`.
        log_det: see above. "roulette" cannot be compiled into one graph: its length is drawn outside.
        num_terms: of the series; for "roulette" those that are never left out.
        survival: "roulette" goes on to each further term with this probability. Above c^2 the variance is finite; None:
            c.
        noise: "rademacher" or "normal".
        memory_efficient: gradient of the series from one derivative of J, see `series_log_det`.
        tolerance, max_iterations: of the inverse, see `invert_residual`.
        generator: source of the random numbers; None: torch's global one.

    Shapes: (batch, dim) or (batch, dim, samples); cond (batch, cond_dim[, frames]).

    Raises:
        WavedistillError: for an argument out of range, and where the inverse does not settle.

    Example:
        >>> import torch
        >>> from wavedistill.flows import ResidualFlow
        >>> flow, x = ResidualFlow(3), torch.randn(2, 3)
        >>> y, log_det = flow.forward(x)
        >>> bool(torch.allclose(flow.inverse(y).value, x, atol=1e-5)), log_det.shape
        (True, torch.Size([2]))
    """

    def __init__(
        self,
        dim: int,
        *,
        network: NetworkConfig | None = None,
        cond_dim: int = 0,
        lipschitz: float = 0.9,
        activation: str = "lipswish",
        log_det: str = "exact",
        num_terms: int = 8,
        survival: float | None = None,
        noise: str = "rademacher",
        memory_efficient: bool = True,
        tolerance: float | None = None,
        max_iterations: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        survival = lipschitz if survival is None else survival
        if not 0 < lipschitz < 1 or not 0 < survival < 1:
            raise WavedistillError(
                f"ResidualFlow needs lipschitz and survival between 0 and 1, got {lipschitz} and {survival}."
            )
        if log_det not in LOG_DETS or noise not in NOISES:
            raise WavedistillError(
                f"ResidualFlow needs log_det of {', '.join(LOG_DETS)} and noise of {', '.join(NOISES)}, got "
                f"{log_det!r} and {noise!r}."
            )
        require_sizes(self, dim=dim, num_terms=num_terms)
        require_sizes(self, 0, cond_dim=cond_dim)
        if max_iterations is not None:
            require_sizes(self, max_iterations=max_iterations)
        network = NetworkConfig.checked(network, self)
        self.dim = dim
        self.cond_dim = cond_dim
        self.lipschitz = lipschitz
        if network.kernel_size > 1:
            self.ranks = (3,)
        self.network = LipschitzNetwork(dim, network, cond_dim, lipschitz, activation)
        self.log_det = log_det
        self.num_terms = num_terms
        self.survival = survival
        self.noise = noise
        self.memory_efficient = memory_efficient
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        self.generator = generator

    def _forward(self, x: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            start = full_precision(x)
            change, log_det = self._residual_and_log_det(self.network.bind(start, cond), start)
            return (start + change).to(x), log_det

    def _inverse(self, y: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        with torch.autocast(y.device.type, enabled=False):
            g = self.network.bind(y, cond)
            x = invert_residual(g, full_precision(y), self.lipschitz, self.tolerance, self.max_iterations)
            return x.to(y), -self._residual_and_log_det(g, x)[1]

    def _residual_and_log_det(self, g: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        if self.log_det == "exact":
            return exact_log_det(g, x)
        weights = [1.0] * self.num_terms
        if self.log_det == "roulette":
            weights = roulette_weights(self.num_terms, self.survival, self.generator)
        return series_log_det(g, x, weights, draw_noise(self.noise, x, self.generator), self.memory_efficient)
