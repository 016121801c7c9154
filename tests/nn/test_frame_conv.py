"""Convolution over frames: a product of matrices gives what torch's convolution gives, whatever the weights become."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wavedistill.nn.frame_conv import FEW_FRAMES, convolve


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("frames", [3, 7, FEW_FRAMES, FEW_FRAMES + 1])
@pytest.mark.parametrize("taps", [1, 3])
def test_few_frames_are_convolved_as_many_are(dtype, frames, taps):
    torch.manual_seed(0)
    conv = nn.Conv1d(5, 4, taps)
    x = torch.randn(2, 5, frames, dtype=dtype)
    with torch.no_grad():
        few = convolve(conv, x)
        conv.weight.data.mul_(2.0)
        doubled = convolve(conv, x)
    assert few.dtype is dtype
    torch.testing.assert_close(doubled, convolve(conv, x).detach())  # with gradient it is torch's own
    torch.testing.assert_close(doubled - few, few - conv.bias.to(dtype).detach().view(1, -1, 1))


def test_it_is_differentiable_in_input_and_weights():
    torch.manual_seed(0)
    conv = nn.Conv1d(2, 3, 3)
    x = torch.randn(1, 2, 5, requires_grad=True)
    convolve(conv, x).square().sum().backward()
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in (x, conv.weight, conv.bias))
