"""An autoregressive network one element at a time: a sequential inverse at the cost of about one pass.

A pass over the whole input gives the parameters of all elements, but a sequential inverse knows one element more at
each step. Running the network anew each time would cost (elements) passes. Instead

* a masked perceptron evaluates at step t only the hidden units of degree t, which have just become computable;
* a dilated causal stack keeps each layer's past inputs in a ring, so that a step costs one small matrix product per
  layer.

Nothing is written in place: with gradients enabled, the steps are differentiable like any other function.

Use ``parameters(t)`` for t = 0, 1, ... in order, each followed by ``feed(t, x_t)``.

References:
    Fast Wavenet Generation Algorithm (Le Paine et al., 2016), https://arxiv.org/abs/1611.09482
    MADE: Masked Autoencoder for Distribution Estimation (Germain et al., 2015), https://arxiv.org/abs/1502.03509
"""

from __future__ import annotations

import torch
from torch import Tensor

from wavedistill.dsp.filters import average_steps
from wavedistill.kernels.wavenet_step import INPUT_RANGE
from wavedistill.nn.causal_network import CausalNetwork
from wavedistill.nn.made import MADE

BLOCK = 16
"""Steps of a masked perceptron after which its pending sums are brought up to date by one matrix product per layer: few
enough that on a CPU the small products in between stay on one thread.
"""


class MaskedStepper:
    """Steps through a `MADE` in its order; equal to its parallel pass up to float rounding.

    Units are stored sorted by degree, so what a step makes known is a slice of rows, and what it changes are the rows
    after it. Each layer's sums (rows, batch) are kept in two parts: ``near``, the rows of this block of steps, updated
    at every step, and ``far``, all later rows, updated once a block. In all, every weight is multiplied once.

    Args:
        predictor: the network.
        batch: of the values to come.
        cond: (batch, cond_dim) or None.
    """

    def __init__(self, predictor: MADE, batch: int, cond: Tensor | None) -> None:
        self.dim = predictor.dim
        self.channels = predictor.out_channels
        sorted_features = predictor.order.argsort()
        weights = [layer.masked_weight for layer in predictor.layers]
        biases = [layer.bias for layer in predictor.layers]
        weights[0] = weights[0][:, sorted_features]
        channels = torch.arange(self.channels, device=sorted_features.device)
        rows = (channels * self.dim + sorted_features[:, None]).flatten()  # all parameters of a feature side by side
        weights[-1] = weights[-1][rows]
        biases[-1] = biases[-1][rows]
        self.weights = weights
        self.far = [bias[:, None].expand(-1, batch) for bias in biases]
        if predictor.cond is not None:
            self.far[0] = self.far[0] + predictor.cond(cond).t()
        # starts[layer][t]: the first row (of layer 0: feature) that belongs to step t or a later one
        outputs = [self.channels * t for t in range(self.dim + 1)]
        self.starts = [list(range(self.dim + 1)), *[predictor.first_units] * (len(weights) - 1), outputs]
        self.near: list[Tensor] = []
        self.known: list[list[Tensor]] = [[] for _ in weights]
        self.start = self.end = 0

    def parameters(self, t: int) -> Tensor:
        """Network output (batch, out_channels) of the t-th feature in the order."""
        if t == self.end:
            self.open(t, min(t + BLOCK, self.dim))
        for layer in range(1, len(self.weights)):
            count = self.starts[layer][t + 1] - self.starts[layer][t]
            if count:
                sums = self.near[layer - 1]
                self.near[layer - 1] = sums[count:]
                self._add(layer, t, t, torch.relu(sums[:count]))
        out = self.near[-1][: self.channels]
        self.near[-1] = self.near[-1][self.channels :]
        return out.t()

    def feed(self, t: int, x: Tensor) -> None:
        """Make x (batch,) known as the t-th feature in the order."""
        self._add(0, t, t + 1, x.unsqueeze(0))

    def open(self, start: int, end: int) -> None:
        """Begin the block of steps start..end - 1, after all before it: bring the sums up to date."""
        self.near = []
        for layer, (weight, sums) in enumerate(zip(self.weights, self.far, strict=True)):
            rows = self.starts[layer + 1]
            if self.known[layer]:
                columns = self._block(layer)
                sums = torch.addmm(sums, weight[rows[start] :, columns], torch.cat(self.known[layer]))
            size = rows[end] - rows[start]
            self.near.append(sums[:size])
            self.far[layer] = sums[size:]
            self.known[layer] = []
        self.start = start
        self.end = end

    def block_parameters(self, x: Tensor, examples: Tensor) -> Tensor:
        """Outputs (examples, steps, out_channels) of the whole open block, if its features were x (examples, steps)."""
        out = self._through_block(x.t(), examples)[-1]
        return out.t().reshape(len(examples), -1, self.channels)

    def close(self, x: Tensor) -> None:
        """Make the open block's features x (batch, steps) known."""
        hidden = self._through_block(x.t(), torch.arange(x.shape[0], device=x.device))[:-1]
        self.known = [[x.t()], *[[torch.relu(sums)] for sums in hidden]]

    def _through_block(self, inputs: Tensor, examples: Tensor) -> list[Tensor]:
        """The open block's sums in every layer."""
        found = []
        for layer, weight in enumerate(self.weights):
            sums = self.near[layer][:, examples]
            found.append(torch.addmm(sums, weight[self._block(layer + 1), self._block(layer)], inputs))
            inputs = torch.relu(found[-1])
        return found

    def _block(self, layer: int) -> slice:
        """Rows of the open block."""
        return slice(self.starts[layer][self.start], self.starts[layer][self.end])

    def _add(self, layer: int, t: int, from_step: int, new: Tensor) -> None:
        """Add what step t makes known in a layer to the next layer's sums of ``from_step`` and later in this block."""
        columns = slice(self.starts[layer][t], self.starts[layer][t + 1])
        rows = slice(self.starts[layer + 1][from_step], self.starts[layer + 1][self.end])
        self.near[layer] = torch.addmm(self.near[layer], self.weights[layer][rows, columns], new)
        self.known[layer].append(new)


class CausalStepper:
    """Steps through a `CausalNetwork`; equal to its parallel pass up to float rounding.

    A signal that comes in chunks is continued by `go_on`, from where on t counts from 0 again.

    Args:
        predictor: the network.
        batch, samples: shape of the signal to come.
        features: condition (batch, blocks, channels) or None.
        source: deterministic source (batch, samples) or None.
    """

    def __init__(
        self, predictor: CausalNetwork, batch: int, samples: int, features: Tensor | None, source: Tensor | None
    ) -> None:
        stack = predictor.stack
        self.predictor = predictor
        self.stack = stack
        self.weights = [conv.step_weight() for conv in stack.convs]
        like = stack.input.weight
        nothing = like.new_zeros(batch, stack.config.channels)
        self.rings = [
            [nothing] * (conv.history + 1) for conv in stack.convs
        ]  # inputs of each layer, step n of all chunks at n modulo length
        self.ages = [range(conv.history, -1, -conv.dilation) for conv in stack.convs]
        self.steps_made = 0
        self.residual = list(stack.residual)
        self.skip = torch.cat(list(stack.skip))  # the sum over layers as one product
        self.linear_order = predictor.linear_order
        self.step_size = predictor.step_size
        self.no_shift = like.new_zeros(batch, self.step_size)
        self.past = like.new_zeros(batch, max(self.linear_order, 1) * self.step_size)
        self.go_on(samples, features, source)

    def go_on(self, samples: int, features: Tensor | None, source: Tensor | None) -> None:
        """Take the condition of so many further samples; shapes as those of the whole signal."""
        predictor = self.predictor
        stack = self.stack
        batch = self.past.shape[0]
        self.source = source if predictor.source_order else None
        blocks = features.shape[1] if features is not None else 1
        self.block_size = max(samples // blocks, 1)
        projected = stack.project_condition(features)
        self.biases = [  # per layer, by block (batch, 2 * channels), the convolution's own bias included
            (conv.bias + projected[layer]).unbind(1) if projected else conv.bias.expand(1, batch, -1)
            for layer, conv in enumerate(stack.convs)
        ]
        self.taps = None
        self.shift_by_source = None
        if predictor.linear_order + predictor.source_order:
            of_input, of_source = predictor.linear_taps(features, batch)
            # by block (batch, order * step_size, step_size), oldest step first
            self.taps = of_input.flip(2).flatten(2, 3).unbind(1)
            if predictor.source_order:
                self.shift_by_source = average_steps(predictor.by_step(source), of_source).flatten(1)

    @torch.no_grad()
    def begin_with(self, x: Tensor, features: Tensor | None) -> None:
        """Make the first values of the signal known, x (batch, values), in one pass; without a source.

        ``features`` are those of the whole signal, and ``values`` a multiple of its blocks.
        """
        if features is not None and features.shape[1] > 1:
            features = features[:, : x.shape[1] // self.block_size]
        state = self.predictor.forward_chunk(x, features, None, None).state
        self.steps_made = x.shape[1] // self.step_size
        for ring, inputs in zip(self.rings, state.stack, strict=True):
            for age, value in enumerate(reversed(inputs.unbind(1)), start=1):
                ring[(self.steps_made - age) % len(ring)] = value
        self.past = state.inputs

    def parameters(self, t: int) -> tuple[Tensor, Tensor]:
        """Network output (batch, out_channels) and linear path (batch,) at value t."""
        place = t % self.step_size
        if not place:
            block = t // self.block_size
            self.step = self._stack_output(t // self.step_size, block).unflatten(1, (self.step_size, -1))
            self.shift = self._shift(t, block)
        return self.step[:, place], self.shift[:, place]

    def _stack_output(self, step: int, block: int) -> Tensor:
        """Output of the stack (batch, step_size * out_channels) at one of its steps."""
        stack = self.stack
        size = self.step_size
        previous = self.past[:, -size:].clamp(-INPUT_RANGE, INPUT_RANGE)
        if self.source is not None:
            previous = torch.cat([previous, self.source[:, step * size : (step + 1) * size]], dim=1)
        hidden = torch.addmm(stack.input.bias, previous, stack.input.weight.t())
        gated = []
        for layer, (weight, biases, ring, ages) in enumerate(
            zip(self.weights, self.biases, self.rings, self.ages, strict=True)
        ):
            if layer:
                hidden = torch.addmm(hidden, gated[-1], self.residual[layer - 1])
            ring[self.steps_made % len(ring)] = hidden
            taps = torch.cat([ring[(self.steps_made - age) % len(ring)] for age in ages], dim=1)
            filters, openings = torch.addmm(biases[min(block, len(biases) - 1)], taps, weight).chunk(2, dim=1)
            gated.append(torch.tanh(filters) * torch.sigmoid(openings))
        self.steps_made += 1
        skip = torch.cat(gated, dim=1) @ self.skip
        return stack.output(torch.relu(stack.hidden(torch.relu(skip))))

    def feed(self, t: int, x: Tensor) -> None:
        """Make x (batch,) known as value t."""
        self.past = torch.cat([self.past[:, 1:], x.unsqueeze(1)], dim=1)

    def select(self, items: Tensor) -> None:
        """Go on with these items of the batch, (batch,) indices, an item as often as it is named.

        Only without a source, and with a condition that all items share: features (1, blocks, channels).
        """
        self.past = self.past[items]
        self.rings = [[inputs[items] for inputs in ring] for ring in self.rings]

    def _shift(self, t: int, block: int) -> Tensor:
        """Linear path (batch, step_size) of the step that begins at value t."""
        shift = self.no_shift if self.shift_by_source is None else self.shift_by_source[:, t : t + self.step_size]
        if not self.linear_order:
            return shift
        past = self.past[:, -self.linear_order * self.step_size :].unsqueeze(1)
        return shift + (past @ self.taps[min(block, len(self.taps) - 1)]).squeeze(1)
