"""Networks with a Lipschitz bound: every linear map is divided by a bound on its largest singular value.

The norm of a convolution is not the norm of its reshaped kernel, which `torch.nn.utils.parametrizations.spectral_norm`
estimates (the kernel 1/sqrt(3) (1, 1, 1) has norm 1 as a matrix and gain sqrt(3) on a constant). It is the largest gain
over all frequencies, sup_w s_max(H(w)) with the transfer matrix H(w) = sum_k W_k exp(-i w k). Cutting a signal, padding
it with zeros and spreading the taps (dilation) cannot raise that, so that the bound holds in the Euclidean norm for
every length.

References:
    The Singular Values of Convolutional Layers (Sedghi et al., 2018), https://arxiv.org/abs/1805.10408
    Residual Flows for Invertible Generative Modeling (Chen et al., 2019), https://arxiv.org/abs/1906.02735 (LipSwish)
    Bounding Multivariate Trigonometric Polynomials (Pfister & Bresler, 2018), https://arxiv.org/abs/1802.09588
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, linear, softplus

from wavedistill.errors import WavedistillError
from wavedistill.nn.coupling_net import NetworkConfig
from wavedistill.numerics import full_precision

OVERSAMPLING = 16


def matrix_gain(weight: Tensor) -> Tensor:
    """The largest singular value of (out, in), by an exact decomposition; with a gradient."""
    return torch.linalg.matrix_norm(full_precision(weight), ord=2)


def convolution_gain(weight: Tensor) -> Tensor:
    """A bound on sup_w s_max(H(w)) for a kernel (out, in, taps), at most 0.5 % above it; with a gradient.

    H is evaluated at N = 16 (taps - 1) frequencies, and the largest s_max among them divided by cos(pi (taps - 1) / (2
    N)).

    That is enough: let the supremum M be reached at w0 with singular vectors u, v. q(w) = |u* H(w) v|^2 is a
    trigonometric polynomial of degree n = taps - 1 with 0 <= q <= M^2 = q(w0), so that M. Riesz's lemma, applied to q -
    M^2 / 2, gives q(w0 + t) >= M^2 (1 + cos(n t)) / 2 = M^2 cos(n t / 2)^2 for |t| <= pi / n; some frequency of the
    grid lies within pi / N of w0.
    """
    degree = weight.shape[-1] - 1
    if degree == 0:
        return matrix_gain(weight[..., 0])
    count = OVERSAMPLING * degree
    transfer = torch.fft.rfft(full_precision(weight), n=count).movedim(-1, 0)
    return torch.linalg.matrix_norm(transfer, ord=2).amax() / math.cos(math.pi * degree / (2 * count))


class _Bounded(nn.Module):
    """A linear map whose gain is at most ``bound``: W min(1, bound / gain(W))."""

    def __init__(self, shape: tuple[int, ...], bound: float, gain: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        if not 0 < bound:
            raise WavedistillError(f"{type(self).__name__} needs a bound above 0, got {bound}.")
        self.bound = bound
        self.gain = gain
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.zeros(shape[0]))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5.0))

    def bounded_weight(self) -> Tensor:
        """The weight that is used, float32 at least."""
        gain = self.gain(self.weight)
        gain = gain * (1.0 + 64.0 * torch.finfo(gain.dtype).eps)  # for the rounding of the decomposition
        return full_precision(self.weight) * (self.bound / gain.clamp_min(self.bound))

    def apply_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        """The map with a weight from `bounded_weight`."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.apply_weight(x, self.bounded_weight())


class LipschitzLinear(_Bounded):
    """y = W x + b over axis 1, the spectral norm of W at most ``bound``: the stored weight times min(1, bound / s_max).

    Args:
        in_features, out_features: sizes of axis 1.
        bound: on |y - y'| / |x - x'|.

    Shapes: (batch, in_features[, samples]) -> (batch, out_features[, samples]), float32 at least.

    Example:
        >>> import torch
        >>> from wavedistill.nn.lipschitz import LipschitzLinear
        >>> layer = LipschitzLinear(4, 6, bound=0.5)
        >>> _ = layer.weight.data.mul_(100.0)
        >>> bool(torch.linalg.matrix_norm(layer.bounded_weight(), ord=2) <= 0.5)
        True
    """

    def __init__(self, in_features: int, out_features: int, bound: float = 1.0) -> None:
        super().__init__((out_features, in_features), bound, matrix_gain)

    def apply_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        bias = full_precision(self.bias)
        return linear(x, weight, bias) if x.dim() == 2 else conv1d(x, weight.unsqueeze(-1), bias)


class LipschitzConv1d(_Bounded):
    """A convolution padded with zeros to the same length whose gain is at most ``bound`` for signals of every length.

    The stored weight times min(1, bound / `convolution_gain`).

    Args:
        in_channels, out_channels: sizes of axis 1.
        kernel_size: odd.
        dilation: samples between taps.
        bound: on |y - y'| / |x - x'|, Euclidean norms over channels and samples.

    Shapes: (batch, in_channels, samples) -> (batch, out_channels, samples), float32 at least.

    Example:
        >>> import torch
        >>> from wavedistill.nn.lipschitz import LipschitzConv1d
        >>> layer = LipschitzConv1d(1, 1, kernel_size=3, bound=0.5)
        >>> _ = layer.weight.data.fill_(1.0)
        >>> layer(torch.ones(1, 1, 1000)).norm() / torch.ones(1000).norm() <= 0.5
        tensor(True)
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1, bound: float = 1.0
    ) -> None:
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise WavedistillError(f"LipschitzConv1d needs an odd kernel_size, got {kernel_size}.")
        super().__init__((out_channels, in_channels, kernel_size), bound, convolution_gain)
        self.dilation = dilation

    def apply_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        padding = self.dilation * (weight.shape[-1] // 2)
        return conv1d(x, weight, full_precision(self.bias), padding=padding, dilation=self.dilation)


class LipSwish(nn.Module):
    """x sigmoid(b x) / 1.1 with a learned b > 0: slope at most 0.9999 for every b.

    Its curvature does not vanish where the slope is largest.

    Example:
        >>> import torch
        >>> from wavedistill.nn.lipschitz import LipSwish
        >>> LipSwish()(torch.tensor([0.0]))
        tensor([0.], grad_fn=<DivBackward0>)
    """

    def __init__(self) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(softplus(self.sharpness) * x) / 1.1


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"lipswish": LipSwish, "elu": nn.ELU, "softplus": nn.Softplus}
"""Activations with slopes of at most 1."""


class LipschitzNetwork(nn.Module):
    """A network g with |g(x | c) - g(x' | c)| <= lipschitz |x - x'| for every condition c.

    Layers are h -> activation(W h + b + P c), then a last W h + b.

    Every W has the bound lipschitz^(1 / (num_layers + 1)). The condition's own map P is free. With ``kernel_size`` 1 it
    is a multilayer perceptron; above it the hidden layers are convolutions over samples with dilations 1, 2, 4, ...

    Args:
        dim: features of the value.
        config: its size; None: `NetworkConfig`'s defaults.
        cond_dim: channels of the condition.
        lipschitz: the bound.
        activation: "lipswish", "elu" or "softplus".

    Shapes: x (batch, dim[, samples]), cond (batch, cond_dim[, frames]) -> (batch, dim[, samples]), float32 at least.

    Example:
        >>> import torch
        >>> from wavedistill.nn.lipschitz import LipschitzNetwork
        >>> g = LipschitzNetwork(3, lipschitz=0.9)
        >>> a, b = 100 * torch.randn(2, 50, 3)
        >>> bool(((g(a) - g(b)).norm(dim=1) <= 0.9 * (a - b).norm(dim=1)).all())
        True
    """

    def __init__(
        self,
        dim: int,
        config: NetworkConfig | None = None,
        cond_dim: int = 0,
        lipschitz: float = 0.9,
        activation: str = "lipswish",
    ) -> None:
        super().__init__()
        config = config or NetworkConfig()
        hidden = config.hidden
        num_layers = config.num_layers
        kernel_size = config.kernel_size
        if activation not in ACTIVATIONS:
            raise WavedistillError(
                f"LipschitzNetwork knows the activations {', '.join(ACTIVATIONS)}, got {activation!r}."
            )
        if min(dim, hidden, num_layers) < 1:
            raise WavedistillError(
                f"LipschitzNetwork needs dim, hidden and num_layers of 1 or more, got {dim}, {hidden} and {num_layers}."
            )
        bound = lipschitz ** (1.0 / (num_layers + 1))
        self.layers = nn.ModuleList()
        for layer in range(num_layers):
            width = hidden if layer else dim
            if kernel_size == 1:
                self.layers.append(LipschitzLinear(width, hidden, bound))
            else:
                self.layers.append(LipschitzConv1d(width, hidden, kernel_size, 2**layer, bound))
        self.activations = nn.ModuleList(ACTIVATIONS[activation]() for _ in range(num_layers))
        self.output = LipschitzLinear(hidden, dim, bound)
        self.conds = nn.ModuleList(nn.Linear(cond_dim, hidden, bias=False) for _ in range(num_layers) if cond_dim)

    def bind(self, x: Tensor, cond: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """g(. | cond) for values of x's shape, weights bounded and condition projected once for all calls."""
        weights = [layer.bounded_weight() for layer in self.layers]
        last = self.output.bounded_weight()
        shifts = [_shift(layer, cond, x) for layer in self.conds] or [0.0] * len(self.layers)

        def network(x: Tensor) -> Tensor:
            for layer, weight, shift, activation in zip(self.layers, weights, shifts, self.activations, strict=True):
                x = activation(layer.apply_weight(x, weight) + shift)
            return self.output.apply_weight(x, last)

        return network

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        return self.bind(x, cond)(x)


def _shift(layer: nn.Linear, cond: Tensor, x: Tensor) -> Tensor:
    """The condition's share of a layer, each frame of it over its samples."""
    shift = layer(full_precision(cond).movedim(1, -1)).movedim(-1, 1)
    if x.dim() == 2:
        return shift
    shift = shift if shift.dim() == 3 else shift.unsqueeze(-1)
    return shift if shift.shape[-1] == 1 else shift.repeat_interleave(x.shape[-1] // shift.shape[-1], dim=-1)
