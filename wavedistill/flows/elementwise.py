"""The simplest invertible maps: scaling, NICE's rescaling layer, logit and pre-emphasis."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from wavedistill.dsp.filters import all_pole
from wavedistill.errors import WavedistillError
from wavedistill.flows.transform import Transform, require_sizes


class Scale(Transform):
    """y = c x with a constant c > 0; log|det| = (number of elements) log c.

    References:
        Normalizing Flows for Probabilistic Modeling and Inference (Papamakarios et al., 2021),
            https://arxiv.org/abs/1912.02762, section 3

    Example:
        >>> import torch
        >>> from wavedistill.flows import Scale
        >>> Scale(2.0).forward(torch.ones(1, 3)).log_det
        tensor([2.0794])
    """

    def __init__(self, factor: float) -> None:
        super().__init__()
        if not factor > 0:
            raise WavedistillError(f"Scale needs a factor above 0, got {factor}.")
        self.factor = factor

    def _forward(self, x: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        return x * self.factor, torch.full_like(x, math.log(self.factor))

    def _inverse(self, y: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        return y / self.factor, torch.full_like(y, -math.log(self.factor))


class Rescale(Transform):
    """y_i = exp(s_i) x_i, a learned positive factor for each feature: the last layer of NICE.

    log|det| = samples * sum_i s_i.

    Shapes: (batch, dim) or (batch, dim, samples).

    References:
        NICE: Non-linear Independent Components Estimation (Dinh et al., 2014), https://arxiv.org/abs/1410.8516, section
            3.3

    Example:
        >>> import torch
        >>> from wavedistill.flows import Rescale
        >>> Rescale(3).forward(torch.ones(2, 3, 5)).log_det
        tensor([0., 0.], grad_fn=<SumBackward1>)
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        require_sizes(self, dim=dim)
        self.dim = dim
        self.log_scale = nn.Parameter(torch.zeros(dim))

    def _forward(self, x: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        log_scale = self._log_scale(x)
        return x * torch.exp(log_scale), log_scale

    def _inverse(self, y: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        log_scale = self._log_scale(y)
        return y * torch.exp(-log_scale), -log_scale

    def _log_scale(self, x: Tensor) -> Tensor:
        return self.log_scale.reshape(1, -1, *(1,) * (x.dim() - 2)).expand_as(x)


class Logit(Transform):
    """y = logit(a + (1 - 2 a) x) from [0, 1] to the real line; with a > 0 the ends stay finite.

    log|det| = sum log((1 - 2 a) / (p (1 - p))), p = a + (1 - 2 a) x, written with log-sigmoids of y.

    References:
        Density estimation using Real NVP (Dinh et al., 2016), https://arxiv.org/abs/1605.08803, section 4.1

    Example:
        >>> import torch
        >>> from wavedistill.flows import Logit
        >>> Logit().forward(torch.tensor([[0.5]])).value
        tensor([[0.]])
    """

    def __init__(self, alpha: float = 0.0) -> None:
        super().__init__()
        if not 0 <= alpha < 0.5:
            raise WavedistillError(f"Logit needs alpha in [0, 0.5), got {alpha}.")
        self.alpha = alpha

    def _forward(self, x: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        y = torch.logit(self.alpha + (1.0 - 2.0 * self.alpha) * x)
        return y, -self._log_slope(y)

    def _inverse(self, y: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        return (torch.sigmoid(y) - self.alpha) / (1.0 - 2.0 * self.alpha), self._log_slope(y)

    def _log_slope(self, y: Tensor) -> Tensor:
        """log dx / dy."""
        logsigmoid = nn.functional.logsigmoid
        return logsigmoid(y) + logsigmoid(-y) - math.log(1.0 - 2.0 * self.alpha)


class PreEmphasis(Transform):
    """y_t = x_t - c x_{t-1}: flattens speech's spectrum with a unit Jacobian (log|det| = 0). Inverse: de-emphasis.

    Shapes: (batch, channels, samples).

    References:
        Linear Prediction of Speech (Markel & Gray, 1976), section 10.2

    Example:
        >>> import torch
        >>> from wavedistill.flows import PreEmphasis
        >>> PreEmphasis(0.5).forward(torch.ones(1, 1, 3)).value
        tensor([[[1.0000, 0.5000, 0.5000]]])
    """

    block = 64
    ranks = (3,)

    def __init__(self, coefficient: float) -> None:
        super().__init__()
        if not 0 <= coefficient < 1:
            raise WavedistillError(f"PreEmphasis needs a coefficient in [0, 1), got {coefficient}.")
        self.coefficient = coefficient

    def _forward(self, x: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        previous = nn.functional.pad(x, (1, 0))[..., :-1]
        return x - self.coefficient * previous, torch.zeros_like(x)

    def _inverse(self, y: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        samples = y.shape[-1]
        padded = nn.functional.pad(y.flatten(0, 1), (0, -samples % self.block))
        excitation = padded.unflatten(1, (-(-samples // self.block), self.block))
        x, _ = all_pole(excitation, y.new_full((*excitation.shape[:2], 1), self.coefficient))
        return x[:, :samples].reshape(y.shape), torch.zeros_like(y)
