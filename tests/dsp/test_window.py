"""Windows: a value with context on either side."""

from __future__ import annotations

import torch

from wavedistill.dsp.window import Window, trim_parts
from wavedistill.flows import LPC


def test_trim_takes_the_margins_off():
    value = torch.arange(24).reshape(1, 12, 2)
    assert torch.equal(Window(value, 3).trim(), value[:, 3:9])
    assert torch.equal(Window(value, 0).trim(), value)
    assert torch.equal(Window(value.transpose(1, 2), 3, axis=2).trim(), value[:, 3:9].transpose(1, 2))


def test_every_part_of_a_named_tuple_is_trimmed():
    lpc = LPC(torch.randn(2, 10, 3), torch.randn(2, 10))
    trimmed = trim_parts(lpc, 4)
    assert isinstance(trimmed, LPC)
    assert torch.equal(trimmed.coefficients, lpc.coefficients[:, 4:6]) and torch.equal(
        trimmed.log_gain, lpc.log_gain[:, 4:6]
    )
