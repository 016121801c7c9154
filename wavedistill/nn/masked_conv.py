"""Convolutions that see only what comes before: the masks of PixelCNN, along time.

References:
    Pixel Recurrent Neural Networks (van den Oord et al., 2016), https://arxiv.org/abs/1601.06759, section 3.4
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wavedistill.errors import WavedistillError


def autoregressive_mask(
    in_channels: int, out_channels: int, kernel_size: int, mask_type: str, num_groups: int
) -> Tensor:
    """(out_channels, in_channels, kernel_size) of ones and zeros, the present sample last.

    All taps but the last look into the past and are free. At the present sample an output of group g sees inputs of
    groups below g, and with type "B" those of g too. Channels are split into ``num_groups`` equal parts in their order.
    """
    group_in = torch.arange(in_channels) * num_groups // in_channels
    group_out = torch.arange(out_channels) * num_groups // out_channels
    mask = torch.ones(out_channels, in_channels, kernel_size)
    before = group_in[None, :] < group_out[:, None]
    mask[..., -1] = before | (group_in[None, :] == group_out[:, None]) if mask_type == "B" else before
    return mask


class MaskedConv1d(nn.Conv1d):
    """Causal dilated convolution of type "A", without the present sample, or "B", with it.

    A network over one signal begins with an "A" layer and goes on with "B" layers. With several channels inside one
    sample, such as bands or stereo, ``num_groups`` orders them: group g of a sample is given the groups before it, and
    "B" itself.

    Args:
        in_channels, out_channels, kernel_size, dilation, bias: as in `torch.nn.Conv1d`; kernel_size counts the present
            sample.
        mask_type: "A" or "B".
        num_groups: parts into which both numbers of channels divide; 1: all channels of a sample come at once.

    Shapes: (batch, in_channels, samples) -> (batch, out_channels, samples).

    Raises:
        WavedistillError: for another type, or channels that do not divide.

    References:
        Pixel Recurrent Neural Networks (van den Oord et al., 2016), https://arxiv.org/abs/1601.06759, section 3.4
        WaveNet: A Generative Model for Raw Audio (van den Oord et al., 2016), https://arxiv.org/abs/1609.03499, section
            2.1

    Example:
        >>> import torch
        >>> from wavedistill.nn.masked_conv import MaskedConv1d
        >>> layer = MaskedConv1d(1, 1, kernel_size=3, mask_type="A", bias=False)
        >>> x = torch.zeros(1, 1, 5)
        >>> x[..., 2] = 1.0
        >>> layer(x).ne(0).int().tolist()
        [[[0, 0, 0, 1, 1]]]
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        mask_type: str = "B",
        dilation: int = 1,
        num_groups: int = 1,
        bias: bool = True,
    ) -> None:
        if mask_type not in ("A", "B"):
            raise WavedistillError(f"MaskedConv1d needs mask_type 'A' or 'B', got {mask_type!r}.")
        if in_channels % num_groups or out_channels % num_groups:
            raise WavedistillError(
                f"MaskedConv1d needs channels that divide into {num_groups} groups, got {in_channels} and "
                f"{out_channels}."
            )
        super().__init__(in_channels, out_channels, kernel_size, dilation=dilation, bias=bias)
        mask = autoregressive_mask(in_channels, out_channels, kernel_size, mask_type, num_groups)
        self.register_buffer("mask", mask, persistent=False)

    def masked_weight(self) -> Tensor:
        return self.weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        padded = nn.functional.pad(x, ((self.kernel_size[0] - 1) * self.dilation[0], 0))
        return nn.functional.conv1d(padded, self.masked_weight(), self.bias, dilation=self.dilation)
