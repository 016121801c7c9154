"""A voice made of harmonics."""

import torch

RATE = 16000


def voice(seconds: float = 1.5, pitch: float = 120.0, seed: int = 0) -> torch.Tensor:
    """Harmonics with formant-like weights, in syllables, over a little noise."""
    time = torch.arange(round(seconds * RATE)) / RATE
    harmonics = sum(torch.sin(2 * torch.pi * pitch * k * time) / (1 + (k - 5) ** 2 / 4) for k in range(1, 30))
    syllables = (0.5 - 0.5 * torch.cos(2 * torch.pi * 3 * time)) ** 0.5
    noise = torch.randn(len(time), generator=torch.Generator().manual_seed(seed))
    return 0.1 * harmonics * syllables + 0.001 * noise
