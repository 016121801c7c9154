"""Continuous densities of integers.

References:
    A note on the evaluation of generative models (Theis et al., 2016), https://arxiv.org/abs/1511.01844, section 3.1
    Flow++ (Ho et al., 2019), https://arxiv.org/abs/1902.00275, section 3.1
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from wavedistill.errors import WavedistillError
from wavedistill.flows.transform import HALF, Transform


class Dequantize(Transform):
    """Integers 0 .. 2^bits - 1 -> [0, 1) by adding uniform noise: y = (x + u) / 2^bits, u ~ U[0, 1).

    log|det| = -(number of elements) bits ln 2, the volume term without which bits per dimension mean nothing. The
    expected log-density of a flow behind this layer is a lower bound of the log-probability of the integers. The
    inverse rounds down and forgets u, so that forward(inverse(y)) is y up to one step and inverse(forward(x)) is x
    exactly.

    Args:
        bits: of the integers; float32 holds at most 23 of them with room for noise.
        generator: source of the noise in eval mode too; None: torch's global one.

    Shapes: x, y (batch, dim) or (batch, channels, samples).

    Example:
        >>> import torch
        >>> from wavedistill.flows import Dequantize
        >>> y, log_det = Dequantize(bits=8).forward(torch.tensor([[0.0, 255.0]]))
        >>> log_det, Dequantize(8).inverse(y).value
        (tensor([-11.0904]), tensor([[  0., 255.]]))
    """

    def __init__(self, bits: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if not 1 <= bits <= 23:
            raise WavedistillError(f"Dequantize needs 1 to 23 bits, got {bits}.")
        self.bits = bits
        self.generator = generator

    def _check(self, x: Tensor) -> None:
        super()._check(x)
        if x.dtype in HALF:
            raise WavedistillError(
                f"Dequantize needs values of torch.float32 or torch.float64, got {x.dtype}, which has too few digits "
                "for the noise."
            )

    def _forward(self, x: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        if (
            not torch.compiler.is_compiling()
            and x.numel()
            and not bool(((x == x.floor()) & (x >= 0) & (x < 2**self.bits)).all())
        ):
            raise WavedistillError(f"Dequantize(bits={self.bits}) needs whole numbers from 0 to {2**self.bits - 1}.")
        noise = torch.rand(
            x.shape, generator=self.generator, device=self.generator.device if self.generator else x.device
        )
        # rounding must not reach the next integer
        y = torch.minimum(x + noise.to(x), torch.nextafter(x + 1, x)) / 2**self.bits
        return y, torch.full_like(x, -self.bits * math.log(2.0))

    def _inverse(self, y: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        x = (y * 2**self.bits).floor().clamp(0, 2**self.bits - 1)
        return x, torch.full_like(y, self.bits * math.log(2.0))
