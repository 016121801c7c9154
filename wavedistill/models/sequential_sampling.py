"""The teacher's cached sampler: one step after another, each O(layers) work, whole signals or chunk after chunk.

`CompiledSampler` makes one call of `wavedistill.kernels.wavenet_step` per stretch of samples; `StepwiseSampler` is the
reference in torch: any device, any precision. Both draw the same samples up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from wavedistill.distributions import Gaussian, MixtureOfLogistics, MuLawCategorical
from wavedistill.flows.solvers.stepping import CausalStepper
from wavedistill.kernels.wavenet_step import CATEGORICAL, GAUSSIAN, MIXTURE, ROWS, Draw, Memory, Weights, kernel
from wavedistill.nn.causal_network import CausalNetwork

AHEAD = 16
"""Steps, at most, for which the products with a layer's old taps are made at once."""
STRETCH = 1024
"""Samples, about, of one call: the condition is projected for so many, and a progress bar moves by so many."""
Distribution = Gaussian | MixtureOfLogistics | MuLawCategorical


def can_compile(predictor: CausalNetwork) -> bool:
    """Whether `CompiledSampler` can draw from this network: float32 on the CPU."""
    weight = predictor.stack.input.weight
    return weight.is_cpu and weight.dtype is torch.float32


def cached_sampler(
    predictor: CausalNetwork, distribution: Distribution, batch: int, temperature: float
) -> CompiledSampler | StepwiseSampler:
    """The compiled sampler where it can draw from this network, else the stepwise one."""
    kind = CompiledSampler if can_compile(predictor) else StepwiseSampler
    return kind(predictor, distribution, batch, temperature)


class StepwiseSampler:
    """Draws from a `CausalNetwork` without source, step by step in torch.

    Args:
        predictor: the network.
        distribution: of its output.
        batch: signals drawn at once.
        temperature: as in `WaveNet.sample`.
    """

    def __init__(self, predictor: CausalNetwork, distribution: Distribution, batch: int, temperature: float) -> None:
        self.predictor = predictor
        self.distribution = distribution
        self.temperature = temperature
        self.stepper: CausalStepper | None = None

    def fill(self, u: Tensor, known: int, noise: Tensor, features: Tensor | None) -> Iterator[int]:
        """Draw the signal's next values u in place, from value ``known`` of them on; yields how many came each time.

        Shapes: u (batch, samples); noise (batch, samples, n); features (batch, blocks, channels), samples a multiple of
        blocks where blocks > 1; or None. ``known`` is a whole number of steps.
        """
        if self.stepper is None:
            self.stepper = CausalStepper(self.predictor, *u.shape, features, None)
        else:
            self.stepper.go_on(u.shape[1], features, None)
        for t in range(u.shape[1]):
            parameters, shift = self.stepper.parameters(t)
            if t >= known:
                u[:, t] = self.distribution.sample(parameters, shift, noise[:, t], self.temperature)
            self.stepper.feed(t, u[:, t])
            yield 1


class CompiledSampler:
    """Draws from a `CausalNetwork` without source in compiled code, the batch on as many threads as torch may use.

    Arguments as those of `StepwiseSampler`; the network must pass `can_compile`.
    """

    def __init__(self, predictor: CausalNetwork, distribution: Distribution, batch: int, temperature: float) -> None:
        draw = _draw(distribution, temperature)
        weights = _weights(predictor)
        self.predictor = predictor
        self.groups = [
            (_Rows(predictor, len(rows), draw, weights), slice(int(rows[0]), int(rows[-1]) + 1))
            for rows in torch.arange(batch).tensor_split(min(torch.get_num_threads(), batch))
        ]

    def fill(self, u: Tensor, known: int, noise: Tensor, features: Tensor | None) -> Iterator[int]:
        """As `StepwiseSampler.fill`; yields stretch after stretch."""
        samples = u.shape[1]
        blocks = 1 if features is None else features.shape[1]
        size = self.predictor.step_size if blocks == 1 else samples // blocks
        stretch = max(STRETCH // size, 1) * size
        with ThreadPoolExecutor(len(self.groups)) as pool:
            for start in range(0, samples, stretch):
                stop = min(start + stretch, samples)
                here = features if blocks == 1 else features[:, start // size : stop // size]
                jobs = [
                    pool.submit(
                        group.fill,
                        u[rows, start:stop],
                        max(known - start, 0),
                        noise[rows, start:stop],
                        None if here is None else here[rows],
                    )
                    for group, rows in self.groups
                ]
                for job in jobs:
                    job.result()
                yield stop - start


class _Rows:
    """Signals that one thread draws together."""

    def __init__(self, predictor: CausalNetwork, batch: int, draw: Draw, weights: Weights) -> None:
        config = predictor.stack.config
        self.predictor = predictor
        self.draw = draw
        self.weights = weights
        self.memory = _memory(config.dilations, config.kernel_size, batch, predictor.step_size, weights)
        self.steps = 0
        self.past = np.zeros((batch, 0, predictor.step_size), np.float32)

    @torch.inference_mode()
    def fill(self, u: Tensor, known: int, noise: Tensor, features: Tensor | None) -> None:
        batch = u.shape[0]
        blocks = 1 if features is None else features.shape[1]
        step_size = self.predictor.step_size
        taps = u.new_zeros(batch, blocks, 0, step_size)
        if self.predictor.linear_order:
            taps = self.predictor.linear_taps(features, batch)[0].flip(2).flatten(2, 3)
        coming = u.unflatten(1, (-1, step_size)).numpy()
        known_steps = self.past.shape[1] + known // step_size
        signal = np.concatenate([self.past, coming], axis=1)
        kernel()(
            signal,
            self.steps - self.past.shape[1],
            self.past.shape[1],
            known_steps,
            _array(noise.unflatten(1, (-1, step_size))),
            coming.shape[1] // blocks,
            self._biases(features, batch),
            _array(taps),
            self.weights,
            self.memory,
            self.draw,
        )
        coming[:] = signal[:, self.past.shape[1] :]
        self.steps += coming.shape[1]
        self.past = signal[:, -max(self.predictor.linear_order, 1) :].copy()

    def _biases(self, features: Tensor | None, batch: int) -> np.ndarray:
        """What is added to each layer's gates, by block: (layers, blocks, batch, 2 * padded channels)."""
        stack = self.predictor.stack
        biases = torch.stack([conv.bias for conv in stack.convs])[:, None, None]
        if stack.cond is not None:
            biases = biases + torch.stack(stack.project_condition(features)).transpose(1, 2)
        halves = biases.expand(-1, -1, batch, -1).unflatten(-1, (2, -1))
        more = self.memory.gated.shape[1] - halves.shape[-1]
        return _array(torch.nn.functional.pad(halves, (0, more)).flatten(-2))


def _draw(distribution: Distribution, temperature: float) -> Draw:
    if isinstance(distribution, MuLawCategorical):
        return Draw(CATEGORICAL, 0.0, distribution.edges.numpy(), float(temperature))
    mixture = isinstance(distribution, MixtureOfLogistics)
    table = distribution.spread.numpy() if mixture else np.zeros(0, np.float32)
    return Draw(MIXTURE if mixture else GAUSSIAN, float(distribution.log_scale_min), table, float(temperature))


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
