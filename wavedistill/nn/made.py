"""Masked multilayer perceptron: parameters of every feature from the features before it, in one pass.

References:
    MADE: Masked Autoencoder for Distribution Estimation (Germain et al., 2015), https://arxiv.org/abs/1502.03509
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wavedistill.errors import WavedistillError
from wavedistill.numerics import full_precision


class MaskedLinear(nn.Linear):
    """y = (W * mask) x + b; the owner sets the mask, which is no part of the state."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.register_buffer("mask", torch.ones(out_features, in_features), persistent=False)

    @property
    def masked_weight(self) -> Tensor:
        return self.weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.masked_weight, self.bias)


class MADE(nn.Module):
    """out_i = network(x_j for the j before i; cond): masked linear layers with rectifiers between them.

    A hidden unit of degree k sees the first k features in the order; it feeds units of the same or a higher degree, and
    the outputs of features at positions k and later. Degrees are spread evenly over the units, which are stored sorted
    by degree; units of degree 0 (with a condition, or for dim = 1) see the condition alone. The masks are exact zeros.
    The last layer starts at zero. Arithmetic is float32 at least, autocast or not: sequential inversion needs both
    directions to agree.

    Args:
        dim: features.
        hidden: units of each hidden layer.
        num_layers: hidden layers.
        order: "natural", "reverse", or the position of each feature (a permutation of 0..dim-1). Part of the state.
        cond_dim: width of the condition (0: none).
        out_channels: parameters per feature.

    Attributes:
        order: (dim,) position of each feature.
        first_units: for each position, and one more, the number of units in a hidden layer that see fewer features than
            that.

    Shapes:
        x (batch, dim), cond (batch, cond_dim) -> (batch, dim, out_channels).

    Raises:
        WavedistillError: for sizes below 1 or an order that is no permutation.

    Example:
        >>> import torch
        >>> from wavedistill.nn.made import MADE
        >>> _ = torch.manual_seed(0)
        >>> network = MADE(3, hidden=8, order="reverse")
        >>> _ = torch.nn.init.normal_(network.layers[-1].weight)
        >>> x = torch.randn(3)
        >>> jacobian = torch.func.jacrev(lambda x: network(x[None])[0, :, 0])(x)  # 1 and 2 before 0, 2 before 1
        >>> (jacobian != 0).int()
        tensor([[0, 1, 1],
                [0, 0, 1],
                [0, 0, 0]], dtype=torch.int32)
    """

    order: Tensor

    def __init__(
        self,
        dim: int,
        hidden: int = 64,
        num_layers: int = 2,
        order: str | Sequence[int] = "natural",
        cond_dim: int = 0,
        out_channels: int = 2,
    ) -> None:
        super().__init__()
        if min(dim, hidden, num_layers, out_channels) < 1:
            raise WavedistillError(
                f"MADE needs dim, hidden, num_layers and out_channels of at least 1, got {dim}, "
                f"{hidden}, {num_layers}, {out_channels}."
            )
        self.dim = dim
        self.cond_dim = cond_dim
        self.out_channels = out_channels
        self.degrees = _spread(hidden, 0 if cond_dim else min(1, dim - 1), dim - 1)
        self.first_units = [sum(degree < step for degree in self.degrees) for step in range(dim + 1)]
        sizes = [dim, *[hidden] * num_layers, out_channels * dim]
        self.layers = nn.ModuleList(MaskedLinear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
        self.cond = nn.Linear(cond_dim, hidden, bias=False) if cond_dim else None
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)
        self.register_buffer("order", _positions(order, dim))
        self._set_masks()

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            hidden = self.layers[0](full_precision(x))
            if self.cond is not None:
                hidden = hidden + self.cond(full_precision(cond))
            for layer in self.layers[1:]:
                hidden = layer(torch.relu(hidden))
        return hidden.reshape(x.shape[0], self.out_channels, self.dim).transpose(1, 2)

    def _set_masks(self) -> None:
        order = self.order
        degrees = torch.tensor(self.degrees, device=order.device)
        masks = [degrees[:, None] > order, *[degrees[:, None] >= degrees] * (len(self.layers) - 2)]
        masks.append((order[:, None] >= degrees).repeat(self.out_channels, 1))
        for layer, mask in zip(self.layers, masks, strict=True):
            layer.mask = mask.to(layer.weight)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._set_masks()


def _positions(order: str | Sequence[int], dim: int) -> Tensor:
    if order in ("natural", "reverse"):
        positions = range(dim) if order == "natural" else range(dim)[::-1]
        return torch.tensor(list(positions), dtype=torch.long)
    if isinstance(order, str) or sorted(order) != list(range(dim)):
        raise WavedistillError(f"order must be 'natural', 'reverse' or a permutation of 0..{dim - 1}, got {order!r}.")
    return torch.tensor(list(order), dtype=torch.long)


def _spread(hidden: int, low: int, high: int) -> list[int]:
    """``hidden`` ascending degrees from low to high, as even as they can be; two or more keep both ends."""
    count = high - low + 1
    if hidden >= count:
        return [low + unit * count // hidden for unit in range(hidden)]
    return [low + round(unit * (count - 1) / max(hidden - 1, 1)) for unit in range(hidden)]
