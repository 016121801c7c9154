"""How a coupling layer parts a value into what it keeps and what it moves.

    half          features 0 .. ceil(D/2) - 1  |  the rest                 (NICE, Glow, WaveGlow)
    alternate     features 0, 2, 4, ...        |  1, 3, 5, ...
    time          samples 0, 2, 4, ...         |  1, 3, 5, ...             (FloWaveNet's even and odd samples)
    checkerboard  feature + sample even        |  odd                      (RealNVP's spatial checkerboard)

The first three cut the value in two, so that a network sees half of it and answers for the other half; the
checkerboard, whose halves differ from feature to feature, keeps the shape and sets what the network must not see to
zero.

References:
    Density estimation using Real NVP (Dinh et al., 2016), https://arxiv.org/abs/1605.08803, section 3.4
    FloWaveNet: A Generative Flow for Raw Audio (Kim et al., 2018), https://arxiv.org/abs/1811.02155
"""

from __future__ import annotations

import torch
from torch import Tensor

MASKS = ("half", "alternate", "time", "checkerboard")


def split(x: Tensor, mask: str) -> tuple[Tensor, Tensor]:
    """The two parts of x by a mask that cuts; the first is the larger by at most one.

    Example:
        >>> import torch
        >>> from wavedistill.flows.masks import split
        >>> split(torch.tensor([[0, 1, 2, 3, 4]]), "alternate")
        (tensor([[0, 2, 4]]), tensor([[1, 3]]))
    """
    if mask == "half":
        size = (x.shape[1] + 1) // 2
        return x[:, :size], x[:, size:]
    return (x[..., 0::2], x[..., 1::2]) if mask == "time" else (x[:, 0::2], x[:, 1::2])


def merge(first: Tensor, second: Tensor, mask: str) -> Tensor:
    """What `split` parted."""
    if mask == "half":
        return torch.cat([first, second], dim=1)
    axis = first.dim() - 1 if mask == "time" else 1
    count = second.shape[axis]
    pairs = torch.stack([first.narrow(axis, 0, count), second], dim=axis + 1).flatten(axis, axis + 1)
    return torch.cat([pairs, first.narrow(axis, count, first.shape[axis] - count)], dim=axis)


def checkerboard(x: Tensor) -> Tensor:
    """(features, samples): True where feature + sample is even.

    Example:
        >>> import torch
        >>> from wavedistill.flows.masks import checkerboard
        >>> checkerboard(torch.zeros(1, 2, 3)).int()
        tensor([[1, 0, 1],
                [0, 1, 0]], dtype=torch.int32)
    """
    features, samples = (torch.arange(size, device=x.device) for size in x.shape[1:])
    return (features.unsqueeze(-1) + samples) % 2 == 0


def halved_condition(cond: Tensor, samples: int, parity: int) -> Tensor:
    """The condition of every other sample, for parts cut by the time mask.

    Shapes: (batch, cond_dim, frames), frames dividing ceil(samples / 2).

    Args:
        cond: (batch, cond_dim, frames), frames dividing ``samples``.
        samples: of the whole waveform.
        parity: 0 for samples 0, 2, ..., 1 for 1, 3, ...
    """
    frames = cond.shape[-1]
    if frames == 1 or (samples // frames) % 2 == 0:  # whole frames are left, at half their length
        return cond
    position = (2 * torch.arange((samples + 1) // 2, device=cond.device) + parity).clamp(max=samples - 1)
    return cond[..., position // (samples // frames)]
