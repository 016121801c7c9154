"""The distribution that a bijection makes of a simple one.

Example:
    >>> import torch
    >>> from wavedistill.flows import Flow, Scale
    >>> flow = Flow(Scale(0.5))  # x = 2 z: a normal distribution with standard deviation 2
    >>> flow.log_prob(torch.zeros(1, 1))
    tensor([-1.6121])
    >>> x, log_prob = flow.rsample_and_log_prob((4, 1), generator=torch.Generator().manual_seed(0))
    >>> bool(torch.allclose(log_prob, flow.log_prob(x)))
    True

References:
    Variational Inference with Normalizing Flows (Rezende & Mohamed, 2015), https://arxiv.org/abs/1505.05770
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from wavedistill.errors import WavedistillError
from wavedistill.flows.transform import Mapped, Transform
from wavedistill.numerics import LOG_2PI, full_precision


class Base(Protocol):
    """The distribution of the latent."""

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of every element, in z's shape, float32 at least."""

    def sample(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        """Values of the full shape."""


class StandardNormal:
    """Independent N(0, 1)."""

    def log_prob(self, z: Tensor) -> Tensor:
        return -0.5 * (full_precision(z).square() + LOG_2PI)

    def sample(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(shape, generator=generator, device=generator.device if generator else None)


class StandardUniform:
    """Independent U(0, 1): what a Gaussianizing map's probability integral transform leads to."""

    def log_prob(self, z: Tensor) -> Tensor:
        inside = (z >= 0) & (z <= 1)
        return torch.where(inside, 0.0, -math.inf).to(torch.promote_types(z.dtype, torch.float32))

    def sample(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        return torch.rand(shape, generator=generator, device=generator.device if generator else None)


class Likelihood(NamedTuple):
    """Log-probability in nats (batch,), in nats per dimension, and its negative in bits per dimension."""

    nats: Tensor
    nats_per_dimension: Tensor
    bits_per_dimension: Tensor


class Flow(nn.Module):
    """The distribution of x when ``transform.forward(x)`` has the base distribution (standard normal by default).

    Called, ``flow(x, cond)``, it gives `log_prob`, so that torch's wrappers of a module's call (torch.compile,
    DistributedDataParallel) can train it.

    Shapes: values (batch, *event); log-probabilities (batch,) in nats.
    """

    def __init__(self, transform: Transform, base: Base | None = None) -> None:
        super().__init__()
        self.transform = transform
        self.base = base or StandardNormal()
        self.register_buffer("_like", torch.empty(0), persistent=False)  # moved and converted with the flow

    def forward(self, x: Tensor, cond: Any = None) -> Tensor:
        return self.log_prob(x, cond)

    def log_prob(self, x: Tensor, cond: Any = None) -> Tensor:
        latent, log_det = self.transform.forward(x, cond)
        return self._base_log_prob(latent) + log_det

    def likelihood(self, x: Tensor, cond: Any = None) -> Likelihood:
        """`log_prob` in the units of the literature.

        Behind `Dequantize`, bits per dimension bound the length of a lossless code.
        """
        nats = self.log_prob(x, cond)
        per_dimension = nats / x[0].numel()
        return Likelihood(nats, per_dimension, -per_dimension / math.log(2.0))

    def to_latent(self, x: Tensor, cond: Any = None) -> Tensor:
        return self.transform.forward(x, cond).value

    def from_latent(self, z: Tensor, cond: Any = None) -> Tensor:
        return self.transform.inverse(z, cond).value

    def sample(self, shape: int | Sequence[int], cond: Any = None, generator: torch.Generator | None = None) -> Tensor:
        """Draw samples without gradient; arguments as in `rsample_and_log_prob`."""
        with torch.no_grad():
            return self.rsample_and_log_prob(shape, cond, generator).value

    def rsample_and_log_prob(
        self, shape: int | Sequence[int], cond: Any = None, generator: torch.Generator | None = None
    ) -> Mapped:
        """Reparametrised samples and their exact log-probability, from one evaluation of the inverse.

        Noise is drawn on the generator's device and brought to the device and type of the transform's parameters, or
        without any to those that the flow was moved and converted to.

        Args:
            shape: the full shape (batch, *event), for which ``cond`` is as in `log_prob`. Or, for vectors, a number of
                samples S or (S,): without a condition, or with one of shape (cond_dim,), the samples are (S, dim); with
                one whose first axis is a batch of B they are S for each of its rows, (S, B, dim).
            cond: the condition.
            generator: source of the noise; None: torch's global one.

        Raises:
            WavedistillError: for a number of samples where the flow leaves the shape of one open, and for what is no
                shape.
        """
        sizes = tuple(shape) if isinstance(shape, Sequence) else (shape,)
        if not sizes or not all(isinstance(size, Integral | torch.SymInt) and size >= 0 for size in sizes):
            raise WavedistillError(f"a shape is a number of samples or whole numbers of at least 0, got {shape!r}.")
        leading = None
        if len(sizes) == 1:
            sizes, cond, leading = self._repeated(sizes[0], cond)
        z = self.base.sample(sizes, generator)
        state = itertools.chain(self.transform.parameters(), self.transform.buffers(), [self._like])
        z = z.to(next(value for value in state if value.is_floating_point()))
        x, log_det = self.transform.inverse(z, cond)
        drawn = Mapped(x, self._base_log_prob(z) - log_det)
        return drawn if leading is None else Mapped(*(one.unflatten(0, leading) for one in drawn))

    def _repeated(self, count: int, cond: Any) -> tuple[tuple[int, int], Any, tuple[int, ...]]:
        """Of ``count`` samples for every row of a condition: the full shape, the rows repeated, and the batch axes."""
        dim = self.transform.dim
        if dim is None or 2 not in self.transform.ranks:
            raise WavedistillError(
                f"this flow leaves open of what shape a sample is: in place of {count} give the full shape, "
                f"({count}, dim) of vectors or ({count}, channels, samples) of waveforms."
            )
        tensors = [leaf for leaf in tree_leaves(cond) if isinstance(leaf, Tensor) and leaf.dim() > 1]
        if not tensors:
            return (count, dim), cond, (count,)
        rows = len(tensors[0])
        cond = tree_map(
            lambda leaf: leaf.repeat(count, *(1,) * (leaf.dim() - 1)) if isinstance(leaf, Tensor) else leaf, cond
        )
        return (count * rows, dim), cond, (count, rows)

    def _base_log_prob(self, z: Tensor) -> Tensor:
        return self.base.log_prob(z).flatten(1).sum(1)
