"""Features in another order: what makes coupling and autoregressive layers touch every feature in turn.

References:
    Density estimation using Real NVP (Dinh et al., 2016), https://arxiv.org/abs/1605.08803, section 3.5
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wavedistill.errors import WavedistillError
from wavedistill.flows.transform import Transform, require_sizes
from wavedistill.numerics import full_precision


class Permutation(Transform):
    """y_i = x_{p(i)} for a fixed order p, kept in the state; log|det| = 0.

    Args:
        permutation: p, the numbers 0 .. dim - 1 in any order.

    Shapes: (batch, dim) or (batch, dim, samples). Step by step for waveforms only.

    Raises:
        WavedistillError: if a number is missing, repeated or not whole.

    Example:
        >>> import torch
        >>> from wavedistill.flows import Permutation
        >>> Permutation([2, 0, 1]).forward(torch.tensor([[10.0, 11.0, 12.0]])).value
        tensor([[12., 10., 11.]])
    """

    permutation: Tensor

    def __init__(self, permutation: Sequence[int] | Tensor) -> None:
        super().__init__()
        given = torch.as_tensor(permutation, device="cpu")
        whole = not (given.is_floating_point() or given.is_complex())
        order = given.tolist()
        if given.dim() != 1 or not whole or sorted(order) != list(range(max(len(order), 1))):
            raise WavedistillError(f"Permutation needs each of the numbers 0 .. dim - 1 once, got {order}.")
        self.dim = len(order)
        self.register_buffer("permutation", torch.tensor(order))

    @classmethod
    def random(cls, dim: int, generator: torch.Generator | None = None) -> Permutation:
        """One of the dim! orders, each as likely."""
        device = generator.device if generator else "cpu"
        return Permutation(torch.randperm(max(dim, 0), generator=generator, device=device))

    def _forward(self, x: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        return x.index_select(1, self.permutation), _no_change(x)

    def _inverse(self, y: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        return y.index_select(1, self.permutation.argsort()), _no_change(y)


class Reverse(Permutation):
    """The features in opposite order, y_i = x_{dim - 1 - i}; log|det| = 0.

    Args:
        dim: features.

    Shapes: (batch, dim) or (batch, dim, samples). Step by step for waveforms only.

    Example:
        >>> import torch
        >>> from wavedistill.flows import Reverse
        >>> Reverse(3).forward(torch.tensor([[10.0, 11.0, 12.0]])).value
        tensor([[12., 11., 10.]])
    """

    def __init__(self, dim: int) -> None:
        super().__init__(range(dim - 1, -1, -1))


class LearnedPermutation(Transform):
    """The features in the order of learned scores: y_i = x_{p(i)}, p = argsort(scores); log|det| = 0.

    The map is always a permutation and exactly invertible. Its dependence on the scores has no useful derivative, so
    they learn from the *straight-through* gradient: that of the relaxation S x (backwards: S^T y), where row i of the
    SoftSort matrix S is softmax_j(-|s_{p(i)} - s_j| / temperature). The gradient by x is that of the permutation. The
    order begins as it is, with scores one apart; equal scores keep their order.

    Args:
        dim: features.
        temperature: of the relaxation, in units of the scores: larger values let scores learn from features further
            away in the order.

    Shapes: (batch, dim) or (batch, dim, samples). Step by step for waveforms only.

    References:
        SoftSort: A Continuous Relaxation for the argsort Operator (Prillo & Eisenschlos, 2020),
            https://arxiv.org/abs/2006.16038
        Estimating or Propagating Gradients Through Stochastic Neurons (Bengio et al., 2013),
            https://arxiv.org/abs/1308.3432

    Example:
        >>> import torch
        >>> from wavedistill.flows import LearnedPermutation
        >>> layer = LearnedPermutation(3)
        >>> _ = layer.load_state_dict({"scores": torch.tensor([0.5, 0.9, 0.1])})
        >>> layer.permutation, layer.forward(torch.tensor([[10.0, 11.0, 12.0]])).value.tolist()
        (tensor([2, 0, 1]), [[12.0, 10.0, 11.0]])
    """

    def __init__(self, dim: int, temperature: float = 1.0) -> None:
        super().__init__()
        require_sizes(self, dim=dim)
        if not temperature > 0:
            raise WavedistillError(f"LearnedPermutation needs a temperature above 0, got {temperature}.")
        self.dim = dim
        self.temperature = temperature
        self.scores = nn.Parameter(torch.arange(dim, dtype=torch.get_default_dtype()))

    @property
    def permutation(self) -> Tensor:
        """p, (dim,)."""
        return self.scores.detach().argsort(stable=True)

    def _forward(self, x: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        order = self.permutation
        y = self._straight_through(x.index_select(1, order), x, order, backwards=False)
        return y, _no_change(x)

    def _inverse(self, y: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        order = self.permutation
        x = self._straight_through(y.index_select(1, order.argsort()), y, order, backwards=True)
        return x, _no_change(y)

    def _straight_through(self, permuted: Tensor, x: Tensor, order: Tensor, backwards: bool) -> Tensor:
        """The value of ``permuted`` exactly, with the scores' gradient of the relaxation."""
        if not (torch.is_grad_enabled() and self.scores.requires_grad):
            return permuted
        with torch.autocast(x.device.type, enabled=False):
            scores = full_precision(self.scores)
            soft = torch.softmax(-(scores[order].unsqueeze(1) - scores).abs() / self.temperature, dim=1)
            matrix = (soft.T if backwards else soft).to(x.dtype)
            relaxed = torch.einsum("ij,bj...->bi...", matrix, x.detach())
        return permuted + (relaxed - relaxed.detach())


def _no_change(x: Tensor) -> Tensor:
    """A log-determinant of 0: for each sample of a waveform (batch, samples), for a whole vector (batch,)."""
    return x.new_zeros(x.shape[0], *x.shape[2:])
