"""The precision that densities need."""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """float32 at least; float64 is kept."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
