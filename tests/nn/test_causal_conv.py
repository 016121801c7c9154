"""The causal convolution: its way without gradient gives what the other gives, whatever happens to the weights."""

from __future__ import annotations

import pytest
import torch

from wavedistill.nn.causal_conv import CausalConv

CHANGES = {
    "nothing": lambda conv: None,
    "a step of an optimizer": lambda conv: conv.weight.mul_(2.0),
    "data of the weight": lambda conv: conv.weight.data.mul_(2.0),
    "another type and back": lambda conv: conv.to(torch.bfloat16).to(torch.float32),
    "loaded weights": lambda conv: conv.load_state_dict(CausalConv(3, 4, 3, dilation=2).state_dict()),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("past", [False, True])
def test_products_of_taps_are_the_convolution(change, past):
    torch.manual_seed(0)
    conv = CausalConv(3, 4, 3, dilation=2)
    x = torch.randn(2, 7, 3)
    before = torch.randn(2, conv.history, 3) if past else None
    with torch.no_grad():
        conv.products(x, before)
        CHANGES[change](conv)
        torch.testing.assert_close(conv.products(x, before) + conv.bias, conv(x, before))
