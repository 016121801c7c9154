"""The gated dilated causal stack that teacher and student share.

References:
    WaveNet: A Generative Model for Raw Audio (van den Oord et al., 2016), https://arxiv.org/abs/1609.03499
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wavedistill.kernels.block_gate import block_gate
from wavedistill.kernels.gate import bfloat16_gate, suits_kernel
from wavedistill.kernels.operators import computes_at_once
from wavedistill.nn.causal_conv import CausalConv, keep_last
from wavedistill.numerics import full_precision, refuse_second_derivative


@dataclass
class StackConfig:
    """Size of a `WaveNetStack`.

    Attributes:
        num_layers: residual layers.
        num_cycles: how often the dilations 1, 2, 4, ... start again; must divide ``num_layers``.
        kernel_size: taps of each dilated convolution.
        channels: residual and gate width.
        skip_channels: width of the summed skip connections.
    """

    num_layers: int = 16
    num_cycles: int = 2
    kernel_size: int = 3
    channels: int = 64
    skip_channels: int = 64

    @property
    def dilations(self) -> list[int]:
        per_cycle = self.num_layers // self.num_cycles
        return [2 ** (layer % per_cycle) for layer in range(self.num_layers)]

    @property
    def receptive_field(self) -> int:
        """How many input samples, the current one included, an output sample depends on."""
        return 1 + (self.kernel_size - 1) * sum(self.dilations)


class WaveNetStack(nn.Module):
    """z_l = tanh(W_f * h_l + V_f c) . sigmoid(W_g * h_l + V_g c);  h_{l+1} = h_l + R z_l;  output from sum_l S z_l.

    Output at time t depends on inputs at times <= t: the caller shifts its input by one sample where the present
    must not be seen. The condition is projected at its own (block) rate and repeated over the samples of a block,
    which costs a small part of projecting it at the sample rate and gives the same result.

    Args:
        in_channels, out_channels: of the samples.
        config: size.
        cond_channels: width of the condition (0: none).

    Shapes:
        x (batch, time, in_channels), cond (batch, blocks, cond_channels) with time a multiple of blocks
        -> (batch, time, out_channels), float32 at least.
    """

    def __init__(self, in_channels: int, out_channels: int, config: StackConfig, cond_channels: int = 0) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        skip = config.skip_channels
        self.input = nn.Linear(in_channels, channels)
        self.convs = nn.ModuleList(CausalConv(channels, 2 * channels, config.kernel_size, d) for d in config.dilations)
        self.cond = nn.Linear(cond_channels, 2 * channels * config.num_layers, bias=False) if cond_channels else None
        self.residual = nn.ParameterList(_matrix(channels, channels, 1.0) for _ in config.dilations[:-1])
        self.skip = nn.ParameterList(
            _matrix(channels, skip, 1.0 / math.sqrt(config.num_layers)) for _ in config.dilations
        )
        self.hidden = nn.Linear(skip, skip)
        self.output = nn.Linear(skip, out_channels)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def compute_in(self, dtype: torch.dtype) -> WaveNetStack:
        """Keep the weights in ``dtype`` and compute in it, without gradient; the output layer stays in float32."""
        self.to(dtype)
        self.output.float()
        return self

    def project_condition(self, cond: Tensor | None) -> list[Tensor] | None:
        """Each layer's share of the condition, (batch, blocks, 2 * channels)."""
        if self.cond is None:
            return None
        return list(self.cond(cond.to(self.cond.weight.dtype)).chunk(self.config.num_layers, dim=-1))

    def forward(self, x: Tensor, cond: Tensor | None = None, past: list[Tensor] | None = None) -> Tensor:
        return self._run(x, cond, past)[0]

    def forward_chunk(self, x: Tensor, cond: Tensor | None, past: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        """One chunk of a long signal; returns the output and the per-layer state the next chunk needs."""
        out, inputs = self._run(x, cond, past)
        pasts = past or [None] * len(inputs)
        return out, [keep_last(h, p, conv.history) for h, p, conv in zip(inputs, pasts, self.convs, strict=True)]

    def _run(self, x: Tensor, cond: Tensor | None, past: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        batch, time, _ = x.shape
        channels = self.config.channels
        conditions = self.project_condition(cond)
        hidden = self.input(x.to(self.input.weight.dtype))
        skip = None
        inputs = []
        for layer in range(len(self.convs)):
            inputs.append(hidden)
            gated = self._gated(layer, hidden, past, conditions).reshape(-1, channels)
            skip = gated @ self.skip[layer] if skip is None else torch.addmm(skip, gated, self.skip[layer])
            if layer < len(self.residual):
                hidden = torch.addmm(hidden.reshape(-1, channels), gated, self.residual[layer]).view(
                    batch, time, channels
                )
        head = torch.relu(self.hidden(torch.relu(skip)))
        with torch.autocast(x.device.type, enabled=False):  # locations and log-scales need more than 8 bits
            out = self.output(full_precision(head))
        return out.view(batch, time, out.shape[-1]), inputs

    def _gated(self, layer: int, hidden: Tensor, past: list[Tensor] | None, conditions: list[Tensor] | None) -> Tensor:
        """The gated unit of a layer, (batch, time, channels)."""
        conv = self.convs[layer]
        before = past[layer] if past else None
        if computes_at_once(hidden):
            bias = conv.bias.expand(hidden.shape[0], 1, -1)
            return block_gate(conv.products(hidden, before), bias + conditions[layer] if conditions else bias)
        gates = conv(hidden, before)
        if conditions:
            blocks = conditions[layer].shape[1]
            gates = (gates.unflatten(1, (blocks, -1)) + conditions[layer].unsqueeze(2)).flatten(1, 2)
        return gated_unit(gates)


def gated_unit(gates: Tensor) -> Tensor:
    """tanh of the first half of the channels times sigmoid of the second; gates that need no gradient are overwritten.

    bfloat16 on a CPU goes through `wavedistill.kernels.gate`. In float32 tanh(a) = 2 sigmoid(2a) - 1 makes one sigmoid
    over contiguous memory out of two functions over strided halves (2-3 times as fast on a CPU, measured). It gives the
    same bits with gradient and without; torch.compile and torch.func get the plain formula.
    """
    if suits_kernel(gates):
        return bfloat16_gate(gates)
    traced = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    if gates.dtype is not torch.float32 or traced:
        filters, openings = gates.chunk(2, dim=-1)
        return torch.tanh(filters) * torch.sigmoid(openings)
    if gates.requires_grad:
        return _GatedUnit.apply(gates)
    filters, openings = gates.chunk(2, dim=-1)
    return _activate(gates, filters.mul_(2.0), openings)


def _activate(gates: Tensor, doubled: Tensor, openings: Tensor) -> Tensor:
    """The gated unit; the halves of ``gates``, of which the first comes doubled, become tanh and sigmoid."""
    gates.sigmoid_()
    return doubled.mul_(2.0).sub_(1.0) * openings


class _GatedUnit(torch.autograd.Function):
    """The same on a copy, which is what the gradient needs."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor) -> Tensor:
        copy = torch.empty_like(gates)
        doubled, openings = copy.chunk(2, dim=-1)
        filters, given = gates.chunk(2, dim=-1)
        torch.add(filters, filters, out=doubled)
        openings.copy_(given)
        ctx.save_for_backward(copy)
        return _activate(copy, doubled, openings)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        refuse_second_derivative("a WaveNet's gate in float32", "torch.func (grad, hessian) gives second ones, too")
        tanh, sigmoid = ctx.saved_tensors[0].chunk(2, dim=-1)
        of_filters = torch.ops.aten.tanh_backward(gradient * sigmoid, tanh)
        of_openings = torch.ops.aten.sigmoid_backward(gradient * tanh, sigmoid)
        return torch.cat([of_filters, of_openings], dim=-1)


def _matrix(rows: int, columns: int, gain: float) -> nn.Parameter:
    return nn.Parameter(torch.randn(rows, columns) * (gain / math.sqrt(rows)))
