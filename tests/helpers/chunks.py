"""Pieces of random lengths."""

from __future__ import annotations

import torch


def random_lengths(total: int, longest: int, seed: int) -> list[int]:
    """Lengths from 1 to ``longest`` that add up to ``total``."""
    generator = torch.Generator().manual_seed(seed)
    lengths = []
    while (left := total - sum(lengths)) > 0:
        lengths.append(min(left, int(torch.randint(1, longest + 1, (), generator=generator))))
    return lengths
