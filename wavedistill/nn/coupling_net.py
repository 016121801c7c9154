"""The network inside a flow layer: from the kept part of a value and a condition to the parameters of a map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from wavedistill.errors import WavedistillError
from wavedistill.numerics import full_precision


@dataclass(frozen=True)
class NetworkConfig:
    """Size of the network inside a flow layer.

    Attributes:
        hidden: width.
        num_layers: hidden layers (1 at least).
        kernel_size: odd; 1 is a perceptron of each vector or sample, above it hidden layers are convolutions over the
            samples (waveforms only).
    """

    hidden: int = 64
    num_layers: int = 2
    kernel_size: int = 1

    @classmethod
    def checked(cls, network: Any, owner: nn.Module) -> NetworkConfig:
        """What a layer was given as its network: one of these, or None for the defaults; all else is refused."""
        if network is not None and not isinstance(network, cls):
            raise WavedistillError(
                f"{type(owner).__name__} needs network=NetworkConfig(...), the size of its network, got a "
                f"{type(network).__name__}."
            )
        return network or cls()


class CouplingNet(nn.Module):
    """A residual network from the kept part of a value and a condition to the parameters of a map.

    h_0 = A x + c_0;  h_l = h_{l-1} + W_l silu(h_{l-1}) + c_l;  output = B silu(h).

    With ``kernel_size`` 1 it is the same multilayer perceptron for each vector or sample; with an odd one above it
    W_l are convolutions over the samples, padded to the same length, with dilations 1, 2, 4, ... B is zero at the
    start, so that a layer begins as the map that zeros describe. The condition is projected at its own (frame) rate and
    stretched over the samples of a frame.

    Args:
        in_channels, out_channels: features of the value, parameters of the map.
        config: its size; None: `NetworkConfig`'s defaults.
        cond_dim: channels of the condition; 0: none, and one that is given is ignored.

    Shapes:
        x (batch, in_channels), cond (batch, cond_dim) -> (batch, out_channels), and
        x (batch, in_channels, samples), cond (batch, cond_dim[, frames]), frames dividing samples -> (batch,
        out_channels, samples); float32 at least.

    Raises:
        WavedistillError: for an even ``kernel_size``, and for a vector where it is above 1.

    Example:
        >>> import torch
        >>> from wavedistill.nn.coupling_net import CouplingNet, NetworkConfig
        >>> network = CouplingNet(2, 6, NetworkConfig(kernel_size=3), cond_dim=4)
        >>> network(torch.randn(1, 2, 20), torch.randn(1, 4, 5)).shape
        torch.Size([1, 6, 20])
        >>> bool((network(torch.randn(1, 2, 20), torch.randn(1, 4, 5)) == 0).all())
        True
    """

    def __init__(
        self, in_channels: int, out_channels: int, config: NetworkConfig | None = None, cond_dim: int = 0
    ) -> None:
        super().__init__()
        config = config or NetworkConfig()
        hidden = config.hidden
        num_layers = config.num_layers
        kernel_size = config.kernel_size
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise WavedistillError(f"CouplingNet needs an odd kernel_size, got {kernel_size}.")
        if min(in_channels, out_channels, hidden, num_layers) < 1:
            raise WavedistillError(
                "CouplingNet needs in_channels, out_channels, hidden and num_layers of 1 or more, "
                f"got {in_channels}, {out_channels}, {hidden} and {num_layers}."
            )
        self.kernel_size = kernel_size
        widths = [in_channels] + [hidden] * (num_layers - 1)
        self.layers = nn.ModuleList(
            nn.Conv1d(width, hidden, kernel_size, padding=2**layer * (kernel_size // 2), dilation=2**layer)
            for layer, width in enumerate(widths)
        )
        self.cond = nn.Conv1d(cond_dim, hidden * num_layers, 1, bias=False) if cond_dim else None
        self.output = nn.Conv1d(hidden, out_channels, 1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        if x.dim() == 2 and self.kernel_size > 1:
            raise WavedistillError(
                f"CouplingNet with kernel_size {self.kernel_size} needs (batch, channels, samples), "
                f"got {tuple(x.shape)}: take kernel_size 1 for vectors."
            )
        shares = self._project(x, cond)
        hidden = _add(_convolve(self.layers[0], x), shares[0])
        for layer, share in zip(self.layers[1:], shares[1:], strict=True):
            hidden = _add(_residual(hidden, layer), share)
        with torch.autocast(x.device.type, enabled=False):  # locations and log-scales need more than 8 bits
            return _convolve(self.output, full_precision(silu(hidden)))

    def _project(self, x: Tensor, cond: Tensor | None) -> tuple[Tensor | None, ...]:
        """Each layer's share of the condition, at the condition's rate."""
        if self.cond is None:
            return (None,) * len(self.layers)
        if cond.dim() < x.dim():
            cond = cond.unsqueeze(-1)
        return _convolve(self.cond, cond).chunk(len(self.layers), dim=1)


def _convolve(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """The convolution over samples; for a vector its only tap as a matrix."""
    if x.dim() == 3:
        return conv(x)
    return linear(x, conv.weight[..., 0], conv.bias)


def _residual(hidden: Tensor, conv: nn.Conv1d) -> Tensor:
    """hidden + conv(silu(hidden)); for a vector the sum is the matrix product's own, which saves a pass over memory."""
    if hidden.dim() == 3:
        return hidden + conv(silu(hidden))
    return torch.addmm(hidden, silu(hidden), conv.weight[..., 0].t()) + conv.bias


def _add(hidden: Tensor, share: Tensor | None) -> Tensor:
    """hidden + share, each frame of the share over its samples."""
    if share is None:
        return hidden
    if hidden.dim() == 2 or share.shape[-1] in (1, hidden.shape[-1]):
        return hidden + share
    return (hidden.unflatten(-1, (share.shape[-1], -1)) + share.unsqueeze(-1)).flatten(-2)
