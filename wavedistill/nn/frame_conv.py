"""Convolution over the frames of a mel, and over what is made of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wavedistill.kernels.operators import runs_at_once


class FrameConv(nn.Conv1d):
    """Convolution without padding, in the type of its input.

    Without gradient on a CPU it is one product of matrices: torch's own convolution takes 3 to 5 times as long for
    the few frames of a stream's chunk, and in float64 goes through a batch item by item (measured).

    Shapes: x (batch, in_channels, frames) -> (batch, out_channels, frames - kernel_size + 1).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> None:
        super().__init__(in_channels, out_channels, kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(x.dtype)
        bias = self.bias.to(x.dtype)
        if not runs_at_once(x):
            return nn.functional.conv1d(x, weight, bias)
        windows = x.unfold(2, self.kernel_size[0], 1).transpose(1, 2)  # (batch, frames, in_channels, kernel_size)
        rows = windows.reshape(-1, weight[0].numel())
        return torch.addmm(bias, rows, weight.flatten(1).t()).unflatten(0, windows.shape[:2]).transpose(1, 2)
