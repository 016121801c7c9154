"""Convolution over the frames of a mel, and over what is made of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wavedistill.kernels.operators import runs_at_once

FEW_FRAMES = 24
"""Up to so many are convolved as a product of matrices."""


def convolve(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """A convolution without padding, in the type of x.

    Of few frames on a CPU, such as a chunk of a stream has, it is one product of matrices: torch's own takes up to
    twice as long for them, and in float64 goes through a batch item by item (measured; it is faster for many).

    Shapes: x (batch, in_channels, frames) -> (batch, out_channels, frames - kernel_size + 1).
    """
    weight = conv.weight.to(x.dtype)
    bias = conv.bias.to(x.dtype)
    if not runs_at_once(x) or x.shape[2] > FEW_FRAMES:  # in this order: graphs are for any number
        return nn.functional.conv1d(x, weight, bias)
    matrix = weight.flatten(1)
    windows = x.unfold(2, weight.shape[2], 1).transpose(1, 2)  # (batch, frames, in_channels, kernel_size)
    rows = windows.reshape(-1, matrix.shape[1])
    return torch.addmm(bias, rows, matrix.t()).view(*windows.shape[:2], -1).transpose(1, 2)
