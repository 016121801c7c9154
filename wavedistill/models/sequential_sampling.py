"""The teacher's cached sampler in compiled code: one call of `wavedistill.kernels.wavenet_step` per stretch of samples.

`CausalStepper` of `wavedistill.flows.solvers.stepping` is the reference: any device, any precision, differentiable.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from wavedistill.kernels.wavenet_step import ROWS, Draw, Memory, Weights, kernel
from wavedistill.nn.causal_network import CausalNetwork

AHEAD = 16
"""Steps, at most, for which the products with a layer's old taps are made at once."""
STRETCH = 1024
"""Samples, about, of one call: the condition is projected for so many, and a progress bar moves by so many."""


def can_compile(predictor: CausalNetwork) -> bool:
    """Whether `fill` can draw from this network: float32 on the CPU."""
    weight = predictor.stack.input.weight
    return weight.is_cpu and weight.dtype is torch.float32


def fill(
    predictor: CausalNetwork, u: Tensor, known: int, noise: Tensor, features: Tensor | None, draw: Draw
) -> Iterator[int]:
    """Draw u in place from sample ``known`` on; yields how many samples each stretch added.

    Equal to the stepwise pass up to rounding. The batch is split over as many threads as torch may use.

    Shapes: u (batch, samples) and noise (batch, samples, n) float32 on the CPU; features (batch, blocks, channels),
    samples a multiple of blocks where blocks > 1; or None. ``known`` is a whole number of steps.
    """
    batch, samples = u.shape
    blocks = 1 if features is None else features.shape[1]
    size = predictor.step_size if blocks == 1 else samples // blocks
    stretch = max(STRETCH // size, 1) * size
    groups = torch.arange(batch).tensor_split(min(torch.get_num_threads(), batch))
    samplers = [
        (CompiledSampler(predictor, len(rows), draw), slice(int(rows[0]), int(rows[-1]) + 1)) for rows in groups
    ]
    with ThreadPoolExecutor(len(samplers)) as pool:
        for start in range(0, samples, stretch):
            stop = min(start + stretch, samples)
            here = features if blocks == 1 else features[:, start // size : stop // size]
            jobs = [
                pool.submit(
                    sampler.fill, u[rows], start, stop, known, noise[rows], None if here is None else here[rows]
                )
                for sampler, rows in samplers
            ]
            for job in jobs:
                job.result()
            yield stop - start


class CompiledSampler:
    """Samples a `CausalNetwork` without source, step by step, stretch by stretch.

    Args:
        predictor: the network.
        batch: signals drawn at once.
        draw: the output distribution.
    """

    def __init__(self, predictor: CausalNetwork, batch: int, draw: Draw) -> None:
        config = predictor.stack.config
        self.predictor = predictor
        self.draw = draw
        self.weights = _weights(predictor)
        self.memory = _memory(config.dilations, config.kernel_size, batch, predictor.step_size, self.weights)

    @torch.inference_mode()
    def fill(self, u: Tensor, start: int, stop: int, known: int, noise: Tensor, features: Tensor | None) -> None:
        """Draw u[:, start:stop]; as `fill`, with the features of this stretch. Call it for stretches in order."""
        batch = u.shape[0]
        blocks = 1 if features is None else features.shape[1]
        step_size = self.predictor.step_size
        taps = u.new_zeros(batch, blocks, 0, step_size)
        if self.predictor.linear_order:
            taps = self.predictor.linear_taps(features, batch)[0].flip(2).flatten(2, 3)
        size = (stop - start) // blocks // step_size
        by_step = u.unflatten(1, (-1, step_size)).numpy()
        signals = (
            by_step,
            start // step_size,
            stop // step_size,
            known // step_size,
            _array(noise.unflatten(1, (-1, step_size))),
        )
        kernel()(*signals, size, self._biases(features, batch), _array(taps), self.weights, self.memory, self.draw)

    def _biases(self, features: Tensor | None, batch: int) -> np.ndarray:
        """What is added to each layer's gates, by block: (layers, blocks, batch, 2 * padded channels)."""
        stack = self.predictor.stack
        biases = torch.stack([conv.bias for conv in stack.convs])[:, None, None]
        if stack.cond is not None:
            biases = biases + torch.stack(stack.project_condition(features)).transpose(1, 2)
        halves = biases.expand(-1, -1, batch, -1).unflatten(-1, (2, -1))
        more = self.memory.gated.shape[1] - halves.shape[-1]
        return _array(torch.nn.functional.pad(halves, (0, more)).flatten(-2))


def _weights(predictor: CausalNetwork) -> Weights:
    stack = predictor.stack
    channels = stack.config.channels
    skip = stack.config.skip_channels
    outputs = stack.output.out_features
    more, more_skip, more_outputs = (-width % ROWS for width in (channels, skip, outputs))
    pad = torch.nn.functional.pad
    conv = torch.stack([conv.step_weight() for conv in stack.convs]).view(-1, channels, 2, channels)
    residual = [*stack.residual, stack.skip[0].new_zeros(channels, channels)]  # nothing follows the last layer
    mix = [
        pad(torch.cat([pad(to_next, (0, more)), pad(to_skip, (0, more_skip))], dim=1), (0, 0, 0, more))
        for to_next, to_skip in zip(residual, stack.skip, strict=True)
    ]
    return Weights(
        input=_array(pad(torch.cat([stack.input.weight.t(), stack.input.bias.unsqueeze(0)]), (0, more))),
        conv=_array(pad(conv, (0, more, 0, 0, 0, more)).flatten(2).flatten(0, 1)),
        mix=_array(torch.cat(mix)),
        hidden=_array(pad(stack.hidden.weight.t(), (0, more_skip, 0, more_skip))),
        hidden_bias=_array(pad(stack.hidden.bias, (0, more_skip))),
        output=_array(pad(stack.output.weight.t(), (0, more_outputs, 0, more_skip))),
        output_bias=_array(pad(stack.output.bias, (0, more_outputs))),
    )


def _memory(dilations: list[int], kernel_size: int, batch: int, step_size: int, weights: Weights) -> Memory:
    layers = []
    ring_rows = 0
    sum_rows = 0
    for dilation in dilations:
        ahead = math.gcd(dilation, AHEAD)
        blocks = (kernel_size - 1) * dilation // ahead + 1
        layers.append((dilation, ahead, blocks, ring_rows, sum_rows))
        ring_rows += blocks * ahead * batch
        sum_rows += ahead * batch

    def zeros(*shape: int) -> np.ndarray:
        return np.zeros(shape, np.float32)

    channels = weights.input.shape[1]
    skip = len(weights.hidden)
    outputs = len(weights.output_bias)
    return Memory(
        layers=np.array(layers, np.int64),
        rings=zeros(ring_rows, channels),
        sums=zeros(sum_rows, 2 * channels),
        state=zeros(batch, channels + skip),
        gated=zeros(batch, channels),
        head=zeros(2, batch, skip),
        out=zeros(batch, outputs),
        shift=zeros(step_size),
    )


def _array(x: Tensor) -> np.ndarray:
    return np.ascontiguousarray(x.detach().numpy())
