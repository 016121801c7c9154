"""Parameters of each sample's distribution from the samples before it: a WaveNet stack beside a linear path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wavedistill.dsp.filters import moving_average, predict
from wavedistill.kernels.wavenet_step import INPUT_RANGE
from wavedistill.nn.causal_conv import keep_last
from wavedistill.nn.wavenet_stack import StackConfig, WaveNetStack
from wavedistill.numerics import full_precision


@dataclass
class CausalState:
    """What a `CausalNetwork` remembers between chunks: (batch, samples) of past input and source, and the stack's."""

    inputs: Tensor
    source: Tensor | None
    stack: list[Tensor]


class CausalChunk(NamedTuple):
    """One chunk of a long signal: parameters and shift as of `CausalNetwork`, and the state for the next chunk."""

    parameters: Tensor
    shift: Tensor
    state: CausalState


class CausalNetwork(nn.Module):
    """out_t = stack(x_{t-1}, x_{t-2}, ...; cond) and shift_t = sum_{k >= 1} h_k x_{t-k} + sum_{k >= 0} b_k s_{t-k}.

    The linear path knows at once what a stack learns slowly: its coefficients h (one set a block, from the condition;
    constant without one) start at zero and cost almost nothing. A deterministic source signal s (see
    `wavedistill.dsp.harmonic_source`) is optional and enters both the stack and, through coefficients b, the linear
    path.

    Args:
        out_channels: parameters per sample.
        stack: size of the WaveNet stack.
        cond_channels: width of the condition (0: none).
        linear_order: coefficients h (0: no linear path on x).
        source_order: coefficients b (0: no source).
        patch_size: samples a step of the stack stands for; must divide the samples of a block.

    Shapes:
        x (batch, samples), cond (batch, blocks, cond_channels), source (batch, samples)
        -> parameters (batch, samples, out_channels), shift (batch, samples).
    """

    def __init__(
        self,
        out_channels: int,
        stack: StackConfig,
        cond_channels: int,
        linear_order: int,
        source_order: int = 0,
        patch_size: int = 1,
    ) -> None:
        super().__init__()
        self.linear_order = linear_order
        self.source_order = source_order
        self.patch_size = patch_size
        inputs = 2 * patch_size if source_order else patch_size
        self.stack = WaveNetStack(inputs, out_channels * patch_size, stack, cond_channels)
        self.reach = max(patch_size * (stack.receptive_field + 1) - 1, linear_order)
        taps = linear_order + source_order
        if taps and cond_channels:
            self.taps = nn.Linear(cond_channels, taps)
            nn.init.zeros_(self.taps.weight)
            nn.init.zeros_(self.taps.bias)
        elif taps:
            self.constant_taps = nn.Parameter(torch.zeros(taps))
        self.has_condition = bool(cond_channels)

    def linear_taps(self, cond: Tensor | None, batch: int) -> tuple[Tensor, Tensor]:
        """h (batch, blocks, linear_order) and b (batch, blocks, source_order), in float32 at least."""
        taps = full_precision(self.taps(cond)) if self.has_condition else self.constant_taps.expand(batch, 1, -1)
        return taps[..., : self.linear_order], taps[..., self.linear_order :]

    def forward(self, x: Tensor, cond: Tensor | None, source: Tensor | None = None) -> tuple[Tensor, Tensor]:
        parameters = self.stack(self._stack_input(x, source, None), cond)
        return self._unpatched(parameters, x.shape[1]), self._linear_path(x, cond, source, None)

    def forward_chunk(
        self, x: Tensor, cond: Tensor | None, source: Tensor | None, state: CausalState | None
    ) -> CausalChunk:
        """One chunk of a long signal, continued from the state of the chunk before (None: the first)."""
        stacked = self._stack_input(x, source, state)
        parameters, past = self.stack.forward_chunk(stacked, cond, state.stack if state else None)
        shift = self._linear_path(x, cond, source, state)
        inputs = keep_last(x, state.inputs if state else None, max(self.linear_order, self.patch_size))
        sources = None
        if self.source_order:
            sources = keep_last(source, state.source if state else None, self.source_order - 1)
        return CausalChunk(self._unpatched(parameters, x.shape[1]), shift, CausalState(inputs, sources, past))

    def _stack_input(self, x: Tensor, source: Tensor | None, state: CausalState | None) -> Tensor:
        """A patch of the past and one of the source side by side at each step of the stack."""
        batch, samples = x.shape
        size = self.patch_size
        before = x.new_zeros(batch, size) if state is None else state.inputs[:, -size:]
        shifted = torch.cat([before, x[:, : samples - size]], dim=1).clamp(-INPUT_RANGE, INPUT_RANGE)
        channels = [shifted, source] if self.source_order else [shifted]
        return torch.cat([channel.reshape(batch, channel.shape[1] // size, size) for channel in channels], dim=-1)

    def _unpatched(self, parameters: Tensor, samples: int) -> Tensor:
        """The stack's output (batch, steps, patch_size * out_channels) as (batch, samples, out_channels)."""
        batch, steps, channels = parameters.shape
        return parameters.reshape(batch, steps * self.patch_size, channels // self.patch_size)[:, :samples]

    def _linear_path(self, x: Tensor, cond: Tensor | None, source: Tensor | None, state: CausalState | None) -> Tensor:
        shift = torch.zeros_like(x)
        if not self.linear_order + self.source_order:
            return shift
        of_input, of_source = self.linear_taps(cond, x.shape[0])
        with torch.autocast(x.device.type, enabled=False):
            if self.linear_order:
                shift = shift + predict(x, of_input, state.inputs[:, -self.linear_order :] if state else None)
            if self.source_order:
                shift = shift + moving_average(source, of_source, state.source if state else None)
        return shift
