"""Bijections with tractable Jacobian determinants: the contract that every layer of the toolbox keeps.

Values are vectors (batch, dim) or waveforms (batch, channels, samples); axis 1 holds the features in both. A condition
goes to every layer; a layer that takes none ignores it.

Example:
    >>> import torch
    >>> from wavedistill.flows import Compose, Reverse, Scale
    >>> transform = Compose(Scale(2.0), Reverse(3))
    >>> y, log_det = transform.forward(torch.tensor([[1.0, 2.0, 3.0]]))
    >>> y, log_det
    (tensor([[6., 4., 2.]]), tensor([2.0794]))
    >>> transform.inv.forward(y).value
    tensor([[1., 2., 3.]])

References:
    Normalizing Flows for Probabilistic Modeling and Inference (Papamakarios et al., 2021),
        https://arxiv.org/abs/1912.02762
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_map

from wavedistill.errors import WavedistillError
from wavedistill.numerics import full_precision

HALF = (torch.float16, torch.bfloat16)


class Mapped(NamedTuple):
    """A transformed value and log |det Jacobian| of its map: (batch,), or (batch, steps) with ``per_step``."""

    value: Tensor
    log_det: Tensor


class Transform(nn.Module):
    """A bijection y = f(x | cond) from data x to latent y.

    `forward` maps data -> latent, `inverse` latent -> data; each returns the value and the log-determinant of the map
    it carried out, from one evaluation. `inv` is the same bijection, with the same weights, read backwards.

    A layer writes `_forward` and `_inverse`. They get a checked value and condition and return the new value and the
    *terms* of the log-determinant, in any shape that begins with the batch axis: they are added up here, in float32 at
    least. Terms whose last axis is the value's own (dim of a vector, samples of a waveform) can be had one by one
    (``per_step``).

    Precision: weights, value and condition have one type, and the new value has it, too. Under autocast float32 and the
    two half types may meet. A whole flow in half precision (``.to(torch.bfloat16)``) computes in float32 and rounds
    each layer's value once.

    Attributes:
        dim: features (axis 1) that the layer needs; None: any number.
        cond_dim: channels of its condition; 0: it takes none, or one that is no tensor and is handed on as it is.
        ranks: 2 for vectors, 3 for waveforms, or both.
    """

    dim: int | None = None
    cond_dim: int = 0
    ranks: tuple[int, ...] = (2, 3)

    def forward(self, x: Tensor, cond: Any = None, per_step: bool = False) -> Mapped:
        """Data -> latent.

        Args:
            x: (batch, dim) or (batch, channels, samples).
            cond: (cond_dim,) or (batch or 1, cond_dim), for waveforms also (batch or 1, cond_dim, frames) with samples
                a multiple of frames.
            per_step: give the log-determinant term by term along the last axis, (batch, dim) or (batch, samples).

        Raises:
            WavedistillError: (a ValueError) for a value, a condition or a ``per_step`` that this layer cannot take, by
                its shape or its type.
        """
        return self._mapped(self._forward, x, cond, per_step)

    def inverse(self, y: Tensor, cond: Any = None, per_step: bool = False) -> Mapped:
        """Latent -> data; arguments as in `forward`."""
        return self._mapped(self._inverse, y, cond, per_step)

    @property
    def inv(self) -> Transform:
        """The same bijection, with the same weights, read backwards."""
        return Inverse(self)

    def _forward(self, x: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def _inverse(self, y: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def _mapped(
        self, function: Callable[[Tensor, Any], tuple[Tensor, Tensor]], x: Tensor, cond: Any, per_step: bool
    ) -> Mapped:
        self._check(x)
        cond = broadcast_condition(cond, self.cond_dim, x, self) if self.cond_dim else cond
        autocast = torch.is_autocast_enabled(x.device.type)
        if x.dtype in HALF and not autocast:
            value, terms = self._in_float32(function, x, cond)
        else:
            value, terms = function(x, cond)
        if not autocast:
            value = value.to(x.dtype)
        terms = full_precision(terms)
        if not per_step:
            return Mapped(value, terms.flatten(1).sum(1) if terms.dim() > 1 else terms)
        if terms.dim() < 2 or terms.shape[-1] != x.shape[-1]:
            raise WavedistillError(f"{type(self).__name__} has no log-determinant step by step: leave per_step out.")
        return Mapped(value, terms if terms.dim() == 2 else terms.flatten(1, -2).sum(1))

    def _in_float32(
        self, function: Callable[[Tensor, Any], tuple[Tensor, Tensor]], x: Tensor, cond: Any
    ) -> tuple[Tensor, Tensor]:
        """``function`` with weights, value and condition in float32.

        What the layer writes into its weights meanwhile (statistics of a first batch) is kept.
        """
        state = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        state = {name: value for name, value in state.items() if value.dtype in HALF}
        wide = {name: value.float() for name, value in state.items()}
        result = call_with(self, wide, function, x.float(), tree_map(_widened, cond))
        with torch.no_grad():
            for name, value in state.items():
                if wide[name].is_inference() or wide[name]._version:  # the former do not count their changes
                    value.copy_(wide[name])
        return result

    def _check(self, x: Tensor) -> None:
        require_tensor(x, self)
        features = "dim" if self.dim is None else self.dim
        shapes = {2: f"(batch, {features})", 3: f"(batch, {'channels' if self.dim is None else self.dim}, samples)"}
        if x.dim() not in self.ranks or (self.dim is not None and x.shape[1] != self.dim):
            needed = " or ".join(shapes[rank] for rank in self.ranks)
            raise WavedistillError(f"{type(self).__name__} needs values of shape {needed}, got {tuple(x.shape)}.")
        if not x.is_floating_point():
            raise WavedistillError(f"{type(self).__name__} needs floating-point values, got {x.dtype}.")
        weight = next((p for p in self.parameters() if p.is_floating_point()), x)
        if not _go_together(weight.dtype, x):
            raise WavedistillError(
                f"{type(self).__name__} has weights of {weight.dtype} and got values of {x.dtype}: convert the values, "
                f".to({weight.dtype}), or the flow, .to({x.dtype})."
            )


class Inverse(Transform):
    """A transform read backwards; ``t.inv.inv`` is ``t``."""

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.transform = transform

    @property
    def dim(self) -> int | None:
        return self.transform.dim

    @property
    def ranks(self) -> tuple[int, ...]:
        return self.transform.ranks

    def forward(self, x: Tensor, cond: Any = None, per_step: bool = False) -> Mapped:
        return self.transform.inverse(x, cond, per_step)

    def inverse(self, y: Tensor, cond: Any = None, per_step: bool = False) -> Mapped:
        return self.transform.forward(y, cond, per_step)

    @property
    def inv(self) -> Transform:
        return self.transform


class Compose(Transform):
    """Transforms one after another, data -> latent; log-determinants add up. ``compose[i]`` is the i-th."""

    def __init__(self, *transforms: Transform) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(transforms)

    @property
    def dim(self) -> int | None:
        """Of vectors: no layer changes their number of features. Of waveforms: what the first layer needs."""
        layers = self.transforms if 2 in self.ranks else self.transforms[:1]
        return next((layer.dim for layer in layers if layer.dim is not None), None)

    @property
    def ranks(self) -> tuple[int, ...]:
        return tuple(rank for rank in (2, 3) if all(rank in layer.ranks for layer in self.transforms))

    def __getitem__(self, index: int) -> Transform:
        return self.transforms[index]

    def __len__(self) -> int:
        return len(self.transforms)

    def forward(self, x: Tensor, cond: Any = None, per_step: bool = False) -> Mapped:
        return self._chain(x, [transform.forward for transform in self.transforms], cond, per_step)

    def inverse(self, y: Tensor, cond: Any = None, per_step: bool = False) -> Mapped:
        return self._chain(y, [transform.inverse for transform in reversed(self.transforms)], cond, per_step)

    @staticmethod
    def _chain(value: Tensor, maps: list[Callable[..., Mapped]], cond: Any, per_step: bool) -> Mapped:
        require_tensor(value, Compose)
        shape = (value.shape[0], value.shape[-1]) if per_step else value.shape[:1]
        total = value.new_zeros(shape, dtype=torch.promote_types(value.dtype, torch.float32))
        for one in maps:
            value, log_det = one(value, cond, per_step)
            if log_det.shape != total.shape:
                raise WavedistillError(
                    "a layer changes the number of steps, so there are no terms step by step: leave per_step out."
                )
            total = total + log_det
        return Mapped(value, total)


def broadcast_condition(cond: Any, cond_dim: int, x: Tensor, owner: nn.Module) -> Tensor:
    """``cond`` with x's batch axis, checked: (batch, cond_dim), for waveforms (batch, cond_dim, frames).

    The frames divide the samples.

    Raises:
        WavedistillError: naming the layer, the shape or type given and the one needed.
    """
    name = type(owner).__name__
    batch = x.shape[0]
    waveform = x.dim() == 3
    if not isinstance(cond, Tensor):
        given = "none" if cond is None else f"a {type(cond).__name__}"
        raise WavedistillError(f"{name} needs a condition of shape (batch, {cond_dim}), got {given}.")
    require_dtype(x, owner, cond)
    spread = cond
    if spread.dim() == 1:
        spread = spread.unsqueeze(0)
    if waveform and spread.dim() == 2:
        spread = spread.unsqueeze(-1)
    fits = spread.dim() == x.dim() and spread.shape[0] in (1, batch) and spread.shape[1] == cond_dim
    if fits and waveform:
        fits = spread.shape[-1] > 0 and x.shape[-1] % spread.shape[-1] == 0
    if not fits:
        frames = f" or ({batch}, {cond_dim}, frames) with frames dividing {x.shape[-1]} samples" if waveform else ""
        raise WavedistillError(
            f"{name} needs a condition of shape ({batch}, {cond_dim}){frames}, got {tuple(cond.shape)}."
        )
    return spread.expand(batch, *spread.shape[1:])


def require_dtype(x: Tensor, owner: nn.Module, *conditions: Tensor | None) -> None:
    """Refuse a condition of another type than x; under autocast float32 and the half types may meet."""
    for cond in conditions:
        if cond is not None and not _go_together(cond.dtype, x):
            raise WavedistillError(
                f"{type(owner).__name__} needs a condition of the values' type, {x.dtype}, got {cond.dtype}: "
                f"convert it, .to({x.dtype})."
            )


def require_tensor(x: Any, owner: nn.Module | type) -> None:
    """Refuse arrays, lists and numbers."""
    if not isinstance(x, Tensor):
        name = owner.__name__ if isinstance(owner, type) else type(owner).__name__
        raise WavedistillError(f"{name} needs a torch.Tensor, got {type(x).__name__}: give torch.as_tensor of it.")


def require_sizes(owner: nn.Module, least: int = 1, **sizes: Any) -> None:
    """Refuse sizes (dim, cond_dim, kernel_size, ...) that are no whole numbers, or below ``least``."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, Integral) or size < least:
            raise WavedistillError(
                f"{type(owner).__name__} needs {name}, a whole number of at least {least}, got {name}={size!r}."
            )


def call_with(transform: Transform, state: dict[str, Tensor], method: Callable[..., Any], *arguments: Any) -> Any:
    """A method of the transform, with other tensors in the place of some of its parameters and buffers."""
    renamed = {f"transform.{name}": value for name, value in state.items()}
    return functional_call(_Called(transform), renamed, (method, *arguments))


class _Called(nn.Module):
    """Any method of a transform as a module's call, which is what `functional_call` takes."""

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, method: Callable[..., Any], *arguments: Any) -> Any:
        return method(*arguments)


def _go_together(dtype: torch.dtype, x: Tensor) -> bool:
    narrow = (*HALF, torch.float32)
    return dtype == x.dtype or (dtype in narrow and x.dtype in narrow and torch.is_autocast_enabled(x.device.type))


def _widened(leaf: Any) -> Any:
    return leaf.float() if isinstance(leaf, Tensor) and leaf.dtype in HALF else leaf
