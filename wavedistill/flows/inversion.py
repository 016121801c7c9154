"""Evaluating a causal network one sample at a time with cached layers: O(layers) work per sample.

The parallel pass recomputes nothing across samples, but sequential sampling with it would rerun the whole receptive field for every
sample. Here each layer keeps its past inputs, so that one step costs one small matrix product per layer.

References:
    Fast Wavenet Generation Algorithm (Le Paine et al., 2016), https://arxiv.org/abs/1611.09482
"""

from __future__ import annotations

import torch
from torch import Tensor

from wavedistill.nn.filters import moving_average
from wavedistill.nn.predictor import INPUT_RANGE, CausalPredictor

BUFFER_STEPS = 2048


class StepwisePredictor:
    """Steps through a `CausalPredictor`; equal to its parallel pass up to float rounding.

    Use `parameters(t)` for t = 0, 1, ... in order, each followed by `feed(t, x_t)`.

    Args:
        predictor: the network.
        batch, samples: shape of the signal to come.
        features: condition (batch, blocks, channels) or None.
        source: deterministic source (batch, samples) or None.
    """

    @torch.no_grad()
    def __init__(
        self, predictor: CausalPredictor, batch: int, samples: int, features: Tensor | None, source: Tensor | None
    ) -> None:
        stack = predictor.stack
        device, dtype = stack.input.weight.device, stack.input.weight.dtype
        self.stack, self.source = stack, source if predictor.source_order else None
        self.weights = [conv.step_weight() for conv in stack.convs]
        self.histories = [conv.history for conv in stack.convs]
        self.strides = [conv.dilation for conv in stack.convs]
        channels = stack.config.channels
        self.buffers = [torch.zeros(batch, h + BUFFER_STEPS, channels, device=device, dtype=dtype) for h in self.histories]
        blocks = features.shape[1] if features is not None else 1
        self.block_size = max(samples // blocks, 1)
        projected = stack.project_condition(features)
        self.biases = [  # per layer (blocks, batch, 2 * channels), the convolution's own bias included
            (conv.bias + projected[layer]).transpose(0, 1).contiguous() if projected else conv.bias.expand(1, batch, -1)
            for layer, conv in enumerate(stack.convs)
        ]
        self.linear_order = predictor.linear_order
        self.shift_by_source = torch.zeros(batch, 1, device=device, dtype=dtype)
        self.taps = None
        if predictor.linear_order + predictor.source_order:
            of_input, of_source = predictor.linear_taps(features, batch)
            self.taps = of_input.flip(-1).transpose(0, 1).contiguous()  # (blocks, batch, order), oldest first
            if predictor.source_order:
                self.shift_by_source = moving_average(source, of_source)
        self.past = torch.zeros(batch, max(self.linear_order, 1) + BUFFER_STEPS, device=device, dtype=dtype)

    @torch.no_grad()
    def parameters(self, t: int) -> tuple[Tensor, Tensor]:
        """Network output (batch, out_channels) and linear path (batch,) at sample t."""
        step, stack = t % BUFFER_STEPS, self.stack
        if t and step == 0:
            self._wrap()
        block = t // self.block_size
        order = max(self.linear_order, 1)
        previous = self.past[:, order + step - 1 : order + step].clamp(-INPUT_RANGE, INPUT_RANGE)
        if self.source is not None:
            previous = torch.cat([previous, self.source[:, t : t + 1]], dim=1)
        hidden = torch.addmm(stack.input.bias, previous, stack.input.weight.t())
        skip = None
        for layer, weight in enumerate(self.weights):
            buffer, position = self.buffers[layer], self.histories[layer] + step
            buffer[:, position] = hidden
            taps = buffer[:, step : position + 1 : self.strides[layer]].reshape(hidden.shape[0], -1)
            gates = torch.addmm(self.biases[layer][min(block, len(self.biases[layer]) - 1)], taps, weight)
            filters, openings = gates.chunk(2, dim=-1)
            gated = torch.tanh(filters).mul_(torch.sigmoid(openings))
            skip = gated @ stack.skip[layer] if skip is None else torch.addmm(skip, gated, stack.skip[layer])
            if layer < len(stack.residual):
                hidden = torch.addmm(hidden, gated, stack.residual[layer])
        out = stack.output(torch.relu_(stack.hidden(torch.relu_(skip))))
        return out, self._shift(t, step, block)

    @torch.no_grad()
    def feed(self, t: int, x: Tensor) -> None:
        """Make x (batch,) known as sample t."""
        self.past[:, max(self.linear_order, 1) + t % BUFFER_STEPS] = x

    def _shift(self, t: int, step: int, block: int) -> Tensor:
        shift = self.shift_by_source[:, min(t, self.shift_by_source.shape[1] - 1)]
        if self.taps is None or not self.linear_order:
            return shift
        window = self.past[:, step : step + self.linear_order]
        return shift + (window * self.taps[min(block, len(self.taps) - 1)]).sum(-1)

    def _wrap(self) -> None:
        """Move the newest inputs to the front of every buffer and start over behind them."""
        for buffer, history in zip(self.buffers, self.histories, strict=True):
            if history:
                buffer[:, :history] = buffer[:, -history:].clone()
        order = max(self.linear_order, 1)
        self.past[:, :order] = self.past[:, -order:].clone()
