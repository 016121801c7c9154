"""The WaveNet stack with context on both sides: for couplings, whose networks may see all of the kept part."""

from __future__ import annotations

from torch import Tensor, nn

from wavedistill.nn.causal_conv import CausalConv
from wavedistill.nn.wavenet_stack import StackConfig, WaveNetStack


class CentredStack(nn.Module):
    """A `WaveNetStack` of centred convolutions, its channels on axis 1 as a coupling's network has them.

    Shapes: x (batch, in_channels, steps), cond (batch, cond_channels, blocks) with steps a multiple of blocks
        -> (batch, out_channels, steps), float32 at least.

    References:
        WaveGlow: A Flow-based Generative Network for Speech Synthesis (Prenger et al., 2018),
            https://arxiv.org/abs/1811.00002
    """

    def __init__(self, in_channels: int, out_channels: int, config: StackConfig, cond_channels: int = 0) -> None:
        super().__init__()
        self.stack = WaveNetStack(in_channels, out_channels, config, cond_channels)
        self.stack.convs = nn.ModuleList(
            CentredConv(config.channels, 2 * config.channels, config.kernel_size, dilation)
            for dilation in config.dilations
        )

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        return self.stack(x.transpose(1, 2), None if cond is None else cond.transpose(1, 2)).transpose(1, 2)


class CentredConv(CausalConv):
    """Dilated convolution that sees as many inputs after as before; zeros outside."""

    def _padded(self, x: Tensor, past: None) -> Tensor:
        return nn.functional.pad(x, (0, 0, self.history // 2, self.history // 2))
