"""Scaling and pre-emphasis: the simplest invertible maps of a waveform."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wavedistill.errors import WavedistillError
from wavedistill.flows.transform import Mapped, Transform
from wavedistill.nn.filters import all_pole


class Scale(Transform):
    """y = c x with a constant c > 0; log|det| = (number of elements) log c."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        if not factor > 0:
            raise WavedistillError(f"Scale needs a factor above 0, got {factor}.")
        self.factor = factor

    def forward(self, x: Tensor, cond=None) -> Mapped:
        return Mapped(x * self.factor, self._log_det(x))

    def inverse(self, y: Tensor, cond=None) -> Mapped:
        return Mapped(y / self.factor, -self._log_det(y))

    def _log_det(self, x: Tensor) -> Tensor:
        return x.new_full((x.shape[0],), math.log(self.factor) * x[0].numel() if len(x) else 0.0)


class PreEmphasis(Transform):
    """y_t = x_t - c x_{t-1}: flattens speech's spectrum with a unit Jacobian (log|det| = 0). Inverse: de-emphasis.

    Shapes: (batch, channels, samples).
    """

    block = 64

    def __init__(self, coefficient: float) -> None:
        super().__init__()
        if not 0 <= coefficient < 1:
            raise WavedistillError(f"PreEmphasis needs a coefficient in [0, 1), got {coefficient}.")
        self.coefficient = coefficient

    def forward(self, x: Tensor, cond=None) -> Mapped:
        previous = torch.nn.functional.pad(x, (1, 0))[..., :-1]
        return Mapped(x - self.coefficient * previous, x.new_zeros(x.shape[0]))

    def inverse(self, y: Tensor, cond=None) -> Mapped:
        samples = y.shape[-1]
        padded = torch.nn.functional.pad(y.flatten(0, 1), (0, -samples % self.block))
        excitation = padded.reshape(padded.shape[0], -1, self.block)
        x, _ = all_pole(excitation, y.new_full((*excitation.shape[:2], 1), self.coefficient))
        return Mapped(x[:, :samples].reshape(y.shape), y.new_zeros(y.shape[0]))
