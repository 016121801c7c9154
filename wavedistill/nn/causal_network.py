"""Parameters of each value's distribution from the steps before it: a WaveNet stack beside a linear path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wavedistill.dsp.filters import average_steps, predict_steps
from wavedistill.errors import WavedistillError
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
    """out_t = stack(x_{t-1}, x_{t-2}, ...; cond) and shift_t = sum_{k >= 1} x_{t-k} H_k + sum_{k >= 0} s_{t-k} B_k.

    A step t holds one sample, or ``step_size`` values x_t that all depend on the steps before alone. The linear path
    knows at once what a stack learns slowly: its matrices H (one set a block, from the condition; constant without one)
    start at zero and cost almost nothing. A deterministic source signal s (see `wavedistill.dsp.harmonic_source`) is
    optional and enters both the stack and, through matrices B, the linear path.

    Args:
        out_channels: parameters per value.
        stack: size of the WaveNet stack.
        cond_channels: width of the condition (0: none).
        linear_order: matrices H, each of step_size x step_size (0: no linear path on x).
        source_order: matrices B (0: no source).
        step_size: values of a step; must divide the samples of a block.

    Shapes:
        x (batch, samples), the values step after step, cond (batch, blocks, cond_channels), source (batch, samples)
        -> parameters (batch, samples, out_channels), shift (batch, samples).
    """

    def __init__(
        self,
        out_channels: int,
        stack: StackConfig,
        cond_channels: int,
        linear_order: int,
        source_order: int = 0,
        step_size: int = 1,
    ) -> None:
        super().__init__()
        self.linear_order = linear_order
        self.source_order = source_order
        self.step_size = step_size
        inputs = 2 * step_size if source_order else step_size
        self.stack = WaveNetStack(inputs, out_channels * step_size, stack, cond_channels)
        self.reach = step_size * (max(stack.receptive_field, linear_order) + 1) - 1
        taps = (linear_order + source_order) * step_size**2
        if taps and cond_channels:
            self.taps = nn.Linear(cond_channels, taps)
            nn.init.zeros_(self.taps.weight)
            nn.init.zeros_(self.taps.bias)
        elif taps:
            self.constant_taps = nn.Parameter(torch.zeros(taps))
        self.has_condition = bool(cond_channels)

    def pass_source(self, gain: float) -> None:
        """Start the linear path as ``gain`` times the source's present step."""
        bias = self.taps.bias if self.has_condition else self.constant_taps
        with torch.no_grad():
            matrices = bias.view(-1, self.step_size, self.step_size)
            matrices[self.linear_order] = gain * torch.eye(self.step_size)

    def linear_taps(self, cond: Tensor | None, batch: int) -> tuple[Tensor, Tensor]:
        """H (batch, blocks, linear_order, step_size, step_size), and B with source_order in its place.

        A row of a matrix belongs to a value that is read, a column to one that is made. In float32 at least.
        """
        taps = full_precision(self.taps(cond)) if self.has_condition else self.constant_taps.expand(batch, 1, -1)
        matrices = taps.unflatten(-1, (-1, self.step_size, self.step_size))
        return matrices[:, :, : self.linear_order], matrices[:, :, self.linear_order :]

    def forward(self, x: Tensor, cond: Tensor | None, source: Tensor | None = None) -> tuple[Tensor, Tensor]:
        parameters = self.stack(self._stack_input(x, source, None), cond)
        return self._by_value(parameters), self._linear_path(x, cond, source, None)

    def forward_chunk(
        self, x: Tensor, cond: Tensor | None, source: Tensor | None, state: CausalState | None
    ) -> CausalChunk:
        """One chunk of a long signal, continued from the state of the chunk before (None: the first)."""
        stacked = self._stack_input(x, source, state)
        parameters, past = self.stack.forward_chunk(stacked, cond, state.stack if state else None)
        shift = self._linear_path(x, cond, source, state)
        inputs = keep_last(x, state.inputs if state else None, max(self.linear_order, 1) * self.step_size)
        sources = None
        if self.source_order:
            sources = keep_last(source, state.source if state else None, (self.source_order - 1) * self.step_size)
        return CausalChunk(self._by_value(parameters), shift, CausalState(inputs, sources, past))

    def by_step(self, x: Tensor) -> Tensor:
        """(batch, samples) -> (batch, steps, step_size)."""
        return x.reshape(x.shape[0], x.shape[1] // self.step_size, self.step_size)

    def _stack_input(self, x: Tensor, source: Tensor | None, state: CausalState | None) -> Tensor:
        """The step before and one of the source side by side at each step of the stack."""
        batch, samples = x.shape
        if samples % self.step_size:
            raise WavedistillError(
                f"a network that makes {self.step_size} samples (a patch) at a time needs a multiple of them, got "
                f"shape {tuple(x.shape)}."
            )
        before = x.new_zeros(batch, self.step_size) if state is None else state.inputs[:, -self.step_size :]
        shifted = torch.cat([before, x[:, : samples - self.step_size]], dim=1).clamp(-INPUT_RANGE, INPUT_RANGE)
        channels = [shifted, source] if self.source_order else [shifted]
        return torch.cat([self.by_step(channel) for channel in channels], dim=-1)

    def _by_value(self, parameters: Tensor) -> Tensor:
        """The stack's output (batch, steps, step_size * out_channels) as (batch, samples, out_channels)."""
        batch, steps, channels = parameters.shape
        return parameters.reshape(batch, steps * self.step_size, channels // self.step_size)

    def _linear_path(self, x: Tensor, cond: Tensor | None, source: Tensor | None, state: CausalState | None) -> Tensor:
        shift = torch.zeros_like(x)
        if not self.linear_order + self.source_order:
            return shift
        of_input, of_source = self.linear_taps(cond, x.shape[0])
        with torch.autocast(x.device.type, enabled=False):
            if self.linear_order:
                past = self.by_step(state.inputs)[:, -self.linear_order :] if state else None
                shift = shift + predict_steps(self.by_step(x), of_input, past).flatten(1)
            if self.source_order:
                past = self.by_step(state.source) if state else None
                shift = shift + average_steps(self.by_step(source), of_source, past).flatten(1)
        return shift
