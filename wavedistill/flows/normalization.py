"""Invertible normalisation: each feature shifted and scaled to mean 0 and variance 1, over the batch and the samples.

References:
    Glow: Generative Flow with Invertible 1x1 Convolutions (Kingma & Dhariwal, 2018), https://arxiv.org/abs/1807.03039
    Density estimation using Real NVP (Dinh et al., 2016), https://arxiv.org/abs/1605.08803
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wavedistill.errors import WavedistillError
from wavedistill.flows.transform import Transform, require_sizes
from wavedistill.numerics import full_precision


class ActNorm(Transform):
    """y = (x - loc) exp(-log_scale), learned for each feature and initialised by data.

    log|det| = -samples * sum log_scale.

    The first batch that `forward` sees in training mode sets loc and log_scale to its mean and log standard deviation,
    so that it leaves with mean 0 and variance 1; from then on they are ordinary parameters, and examples do not depend
    on each other. ``initialized``, in the state, remembers it. Before that, in eval mode and in `inverse`, the map is
    the identity: nothing but training data initialises it. In a flow trained in the sampling direction use
    ``ActNorm(dim).inv``, whose `inverse` initialises. A feature that is constant in the first batch (as all are in a
    batch of one vector) is only centred; an empty batch, or one with a value that is not finite, is left to its
    successor. Data-parallel processes must see their first batch before they are made to share parameters, or each
    keeps its own loc and log_scale.

    Args:
        dim: features.

    Shapes: (batch, dim) or (batch, dim, samples).

    References:
        Glow: Generative Flow with Invertible 1x1 Convolutions (Kingma & Dhariwal, 2018),
            https://arxiv.org/abs/1807.03039, section 3.1

    Example:
        >>> import torch
        >>> from wavedistill.flows import ActNorm
        >>> layer = ActNorm(1).train()
        >>> layer.forward(torch.tensor([[1.0], [5.0]])).value.tolist(), layer.loc.item()
        ([[-1.0], [1.0]], 3.0)
    """

    initialized: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        require_sizes(self, dim=dim)
        self.dim = dim
        self.loc = nn.Parameter(torch.zeros(dim))
        self.log_scale = nn.Parameter(torch.zeros(dim))
        self.register_buffer("initialized", torch.tensor(False))
        self._initialized = (
            False  # the same on the host: no wait for the device, and nothing that torch.compile could not read
        )

    def _forward(self, x: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        if self.training and not self._initialized and x.numel():
            self._initialize(x)
        loc, log_scale = (_per_feature(p, x) for p in (self.loc, self.log_scale))
        return (x - loc) * torch.exp(-log_scale), -log_scale.expand_as(x)

    def _inverse(self, y: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        loc, log_scale = (_per_feature(p, y) for p in (self.loc, self.log_scale))
        return y * torch.exp(log_scale) + loc, log_scale.expand_as(y)

    @torch.no_grad()
    def _initialize(self, x: Tensor) -> None:
        variance, mean = _variance_mean(x)
        if not torch.compiler.is_compiling() and not bool((variance + mean).isfinite().all()):
            return
        std = variance.sqrt()
        varies = std > 1e-6 * mean.abs()  # more than the rounding of the mean
        self.loc.copy_(mean)
        self.log_scale.copy_(torch.where(varies, std, 1.0).log())
        self.initialized.fill_(True)
        self._initialized = True

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._initialized = bool(self.initialized)


class InvertibleBatchNorm(Transform):
    """y = (x - m) / sqrt(v + eps) exp(log_gain) + bias; log|det| = samples * sum(log_gain - log(v + eps) / 2).

    In training `forward` takes m and v from the batch, over examples and samples, and moves the running statistics
    towards them. The log-determinant is that of each example's own map with m and v held, as in the papers: what an
    example adds to the statistics of its batch is not counted, so a density seen in training is exact only for large
    batches. The gradient flows through m and v in the value and in the log-determinant. In eval mode m and v are the
    running statistics and the map is a fixed, exact bijection. `inverse` takes the running statistics in both modes:
    the m and v of a batch cannot be told from its normalised values.

    Args:
        dim: features.
        momentum: weight of a new batch in the running statistics.
        eps: lower bound of the variance.

    Shapes: (batch, dim) or (batch, dim, samples).

    Raises:
        WavedistillError: in training, for a batch with fewer than two values of each feature.

    References:
        Density estimation using Real NVP (Dinh et al., 2016), https://arxiv.org/abs/1605.08803, section 3.7
        Masked Autoregressive Flow for Density Estimation (Papamakarios et al., 2017), https://arxiv.org/abs/1705.07057,
            section 3.4

    Example:
        >>> import torch
        >>> from wavedistill.flows import InvertibleBatchNorm
        >>> layer = InvertibleBatchNorm(1, momentum=1.0).train()
        >>> layer.forward(torch.tensor([[1.0], [5.0]])).value.round().tolist(), layer.running_mean
        ([[-1.0], [1.0]], tensor([3.]))
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, dim: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        if not 0 < momentum <= 1 or not eps > 0:
            raise WavedistillError(
                f"InvertibleBatchNorm needs momentum in (0, 1] and eps above 0, got {momentum} and {eps}."
            )
        require_sizes(self, dim=dim)
        self.dim = dim
        self.momentum = momentum
        self.eps = eps
        self.log_gain = nn.Parameter(torch.zeros(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))

    def _forward(self, x: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        mean, log_scale = self._statistics(x, *(self._of_batch(x) if self.training else self._running()))
        return (x - mean) * torch.exp(log_scale) + _per_feature(self.bias, x), log_scale.expand_as(x)

    def _inverse(self, y: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        mean, log_scale = self._statistics(y, *self._running())
        return (y - _per_feature(self.bias, y)) * torch.exp(-log_scale) + mean, -log_scale.expand_as(y)

    def _statistics(self, x: Tensor, variance: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the whole factor, both in x's rank."""
        log_scale = full_precision(self.log_gain) - 0.5 * torch.log(variance + self.eps)
        return _per_feature(mean, x), _per_feature(log_scale, x)

    def _running(self) -> tuple[Tensor, Tensor]:
        return full_precision(self.running_var), full_precision(self.running_mean)

    def _of_batch(self, x: Tensor) -> tuple[Tensor, Tensor]:
        count = x.numel() // x.shape[1]
        if count < 2:
            raise WavedistillError(
                f"InvertibleBatchNorm needs two values of each feature or more in training, got shape {tuple(x.shape)}."
            )
        variance, mean = _variance_mean(x)
        with torch.no_grad():
            unbiased = variance * (count / (count - 1))
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        return variance, mean


def _per_feature(value: Tensor, x: Tensor) -> Tensor:
    """(dim,) -> (1, dim[, 1]), float32 at least."""
    return full_precision(value).reshape(1, -1, *(1,) * (x.dim() - 2))


def _variance_mean(x: Tensor) -> tuple[Tensor, Tensor]:
    """Of each feature over the batch and the samples, (dim,), float32 at least."""
    return torch.var_mean(full_precision(x), dim=(0,) if x.dim() == 2 else (0, 2), correction=0)
