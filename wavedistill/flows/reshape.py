"""Time folded into channels, and channels that leave a flow early: the two devices of multi-scale flows.

References:
    Density estimation using Real NVP (Dinh et al., 2016), https://arxiv.org/abs/1605.08803, section 3.6
    WaveGlow: A Flow-based Generative Network for Speech Synthesis (Prenger et al., 2018),
        https://arxiv.org/abs/1811.00002, section 2.4
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from wavedistill.errors import WavedistillError
from wavedistill.flows.transform import Mapped, Transform, require_sizes


class Squeeze(Transform):
    """Groups of ``factor`` successive samples become channels: y[c * factor + j, t] = x[c, t * factor + j].

    Channel c becomes the ``factor`` neighbouring channels c * factor ... c * factor + factor - 1, earliest sample
    first: of a mono waveform, channel j holds the samples j, j + factor, j + 2 factor, ... log|det| = 0, and none step
    by step, as the number of steps changes. A condition for the layers behind it counts its frames against the shorter
    signal.

    Args:
        factor: samples in a group, from 1.

    Shapes: (batch, channels, samples) -> (batch, channels * factor, samples / factor).

    Raises:
        WavedistillError: if samples (backwards: channels) are not a multiple of ``factor``.

    Example:
        >>> import torch
        >>> from wavedistill.flows import Squeeze
        >>> Squeeze(2).forward(torch.arange(6.0).reshape(1, 1, 6)).value
        tensor([[[0., 2., 4.],
                 [1., 3., 5.]]])
    """

    ranks = (3,)

    def __init__(self, factor: int) -> None:
        super().__init__()
        require_sizes(self, factor=factor)
        self.factor = factor

    def _forward(self, x: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        batch, channels, samples = x.shape
        self._check_multiple("samples", samples, x)
        groups = x.reshape(batch, channels, samples // self.factor, self.factor).transpose(2, 3)
        return groups.reshape(batch, channels * self.factor, samples // self.factor), x.new_zeros(batch)

    def _inverse(self, y: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        batch, channels, samples = y.shape
        self._check_multiple("channels", channels, y)
        groups = y.reshape(batch, channels // self.factor, self.factor, samples).transpose(2, 3)
        return groups.reshape(batch, channels // self.factor, samples * self.factor), y.new_zeros(batch)

    def _check_multiple(self, name: str, count: int, x: Tensor) -> None:
        if count % self.factor:
            raise WavedistillError(
                f"Squeeze needs a number of {name} that is a multiple of {self.factor}, got shape {tuple(x.shape)}."
            )


class Split(Transform):
    """A transform of the first channels; the last ``keep`` channels stay as they are: y = (f(x_1), x_2).

    The kept channels are finished latents, which the layers behind never touch: an early output. As the whole is still
    one bijection, splits nest and compose, and ``Compose(a, Split(Compose(b, Split(c, keep=2)), keep=2))`` is a
    multi-scale flow whose latents come out in one tensor. log|det| is that of f. The condition is handed on to f.

    Args:
        transform: f, on channels - ``keep`` channels (of a vector: features). It must keep the shape: end it with
            ``Squeeze(n).inv`` if it begins with ``Squeeze(n)``.
        keep: channels left as they are, from 1 to channels - 1.

    Shapes: (batch, dim) or (batch, channels, samples), as f takes them.

    Raises:
        WavedistillError: if no channel is left for f, or f changes the shape.

    Example:
        >>> import torch
        >>> from wavedistill.flows import Scale, Split
        >>> Split(Scale(2.0), keep=1).forward(torch.ones(1, 3))
        Mapped(value=tensor([[2., 2., 1.]]), log_det=tensor([1.3863]))
    """

    def __init__(self, transform: Transform, keep: int) -> None:
        super().__init__()
        require_sizes(self, keep=keep)
        self.transform = transform
        self.keep = keep
        self.dim = None if transform.dim is None else transform.dim + keep
        self.ranks = transform.ranks

    def forward(self, x: Tensor, cond: Any = None, per_step: bool = False) -> Mapped:
        return self._on_first(self.transform.forward, x, cond, per_step)

    def inverse(self, y: Tensor, cond: Any = None, per_step: bool = False) -> Mapped:
        return self._on_first(self.transform.inverse, y, cond, per_step)

    def _on_first(self, function: Callable[..., Mapped], x: Tensor, cond: Any, per_step: bool) -> Mapped:
        self._check(x)
        count = x.shape[1] - self.keep
        if count < 1:
            raise WavedistillError(
                f"Split(keep={self.keep}) needs values of more than {self.keep} channels, got shape {tuple(x.shape)}."
            )
        first = x[:, :count]
        last = x[:, count:]
        value, log_det = function(first, cond, per_step)
        if value.shape != first.shape:
            raise WavedistillError(
                f"Split needs a transform that keeps the shape {tuple(first.shape)}, but it made "
                f"{tuple(value.shape)} of it."
            )
        if per_step and x.dim() == 2:  # a term for each feature: none of the kept ones moves
            log_det = torch.cat([log_det, log_det.new_zeros(log_det.shape[0], self.keep)], dim=1)
        return Mapped(torch.cat([value, last], dim=1), log_det)
