"""Positive numbers without overflow or underflow: positive(raw) = (raw + sqrt(raw^2 + 4)) / 2 = exp(asinh(raw / 2)).

Where exp overflows at raw = 89 in float32, this map grows like raw and falls like 1 / |raw|: raw = -1e4 gives 1e-4.
positive(0) = 1 and positive(-raw) = 1 / positive(raw).

Example:
    >>> import torch
    >>> from wavedistill.nn.positive import log_positive, raw_of_log
    >>> log_positive(torch.tensor([0.0, 1e4, -1e4]))
    tensor([ 0.0000,  9.2103, -9.2103])
    >>> log_positive(raw_of_log(torch.tensor([2.5])))
    tensor([2.5000])
"""

from __future__ import annotations

import torch
from torch import Tensor


def log_positive(raw: Tensor) -> Tensor:
    """log positive(raw), between -88 and 88 for every float32."""
    return torch.asinh(0.5 * raw)


def positive(raw: Tensor) -> Tensor:
    return torch.exp(log_positive(raw))


def raw_of_log(log_value: Tensor) -> Tensor:
    """The raw parameter of a wanted logarithm: the inverse of `log_positive`."""
    return 2.0 * torch.sinh(log_value)
