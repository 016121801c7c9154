"""A teacher's network written plainly, with the same weights: for comparison in the benchmark, an oracle for tests.

`PlainWaveNet` is the standard open implementation (conv1d in (batch, channels, time), condition at the sample rate, one
1x1 convolution of it in every layer); `PlainSampler` is the ring-buffer loop that people write around it, one sample a
step in torch.

References:
    WaveNet: A Generative Model for Raw Audio (van den Oord et al., 2016), https://arxiv.org/abs/1609.03499
    wavenet_vocoder (Yamamoto, 2018), https://github.com/r9y9/wavenet_vocoder
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from wavedistill.kernels.wavenet_step import INPUT_RANGE
from wavedistill.models.wavenet import WaveNet
from wavedistill.nn.wavenet_stack import WaveNetStack
from wavedistill.numerics import full_precision


class PlainLayer(nn.Module):
    """One residual layer: dilated convolution and 1x1 convolution of the condition, gate, residual and skip."""

    def __init__(self, stack: WaveNetStack, layer: int) -> None:
        super().__init__()
        conv = stack.convs[layer]
        channels, skip = stack.skip[layer].shape
        self.history = conv.history
        self.conv = nn.Conv1d(channels, 2 * channels, conv.kernel_size, dilation=conv.dilation)
        _set(self.conv, conv.weight[:, :, 0], conv.bias)
        self.cond = None
        if stack.cond is not None:
            self.cond = nn.Conv1d(stack.cond.in_features, 2 * channels, 1, bias=False)
            _set(self.cond, stack.cond.weight[2 * channels * layer : 2 * channels * (layer + 1), :, None])
        self.skip = nn.Conv1d(channels, skip, 1, bias=False)
        _set(self.skip, stack.skip[layer].t()[:, :, None])
        self.residual = None
        if layer < len(stack.residual):
            self.residual = nn.Conv1d(channels, channels, 1, bias=False)
            _set(self.residual, stack.residual[layer].t()[:, :, None])

    def forward(self, x: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        gates = self.conv(nn.functional.pad(x, (self.history, 0)))
        if self.cond is not None:
            gates = gates + self.cond(cond)
        filters, openings = gates.chunk(2, dim=1)
        gated = torch.tanh(filters) * torch.sigmoid(openings)
        return x if self.residual is None else x + self.residual(gated), self.skip(gated)


class PlainStack(nn.Module):
    """`WaveNetStack` in (batch, channels, time), with the same shapes outside."""

    def __init__(self, stack: WaveNetStack) -> None:
        super().__init__()
        self.input = _pointwise(stack.input)
        self.hidden = _pointwise(stack.hidden)
        self.output = _pointwise(stack.output)
        self.layers = nn.ModuleList(PlainLayer(stack, layer) for layer in range(len(stack.convs)))

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        hidden = self.input(x.transpose(1, 2))
        if cond is not None:
            cond = cond.transpose(1, 2).repeat_interleave(x.shape[1] // cond.shape[1], dim=-1)
        skips = 0.0
        for layer in self.layers:
            hidden, skip = layer(hidden, cond)
            skips = skips + skip
        head = torch.relu(self.hidden(torch.relu(skips)))
        with torch.autocast(x.device.type, enabled=False):
            return self.output(full_precision(head)).transpose(1, 2)


class PlainWaveNet(nn.Module):
    """A copy of a teacher with a `PlainStack`: same weights, same likelihood, same loss.

    Example:
        >>> from wavedistill.models.wavenet import WaveNet, WaveNetConfig
        >>> plain = PlainWaveNet(WaveNet(WaveNetConfig(mel=None)))
        >>> plain.log_prob_per_sample(torch.zeros(1, 1, 256)).shape
        torch.Size([1, 256])
    """

    def __init__(self, model: WaveNet) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        self.model.predictor.stack = PlainStack(model.predictor.stack)

    def log_prob_per_sample(
        self,
        audio: Tensor,
        mel: Tensor | None = None,
        speaker: Tensor | None = None,
        *,
        dequantize: bool = True,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """As `WaveNet.log_prob_per_sample`."""
        return self.model.log_prob_per_sample(audio, mel, speaker, dequantize=dequantize, generator=generator)


class PlainSampler:
    """The cached sampler as a loop in torch, with a ring buffer of past inputs for every layer.

    About five operations a layer and sample.
    """

    def __init__(self, model: WaveNet) -> None:
        stack = PlainStack(model.predictor.stack).to(next(model.parameters()).device)
        self.model = model
        self.input = _linear(stack.input)
        self.hidden = _linear(stack.hidden)
        self.output = _linear(stack.output)
        self.layers = [
            (layer.history, layer.conv.dilation[0], *map(_linear, (layer.conv, layer.cond, layer.skip, layer.residual)))
            for layer in stack.layers
        ]

    @torch.inference_mode()
    def sample(
        self,
        mel: Tensor | None = None,
        num_samples: int | None = None,
        batch_size: int = 1,
        seed: int | list[int] | None = None,
        temperature: float = 1.0,
        speaker: Tensor | None = None,
    ) -> Tensor:
        """As `WaveNet.sample`: audio (batch, 1, samples), the same for the same seed."""
        model = self.model
        batch, samples = model.check_condition(mel, speaker, num_samples, batch_size)
        like = self.input[0]
        size = model.predictor.step_size
        steps = samples // size
        noise = model.draw_noise(batch, samples, seed).transpose(1, 2).to(like).unflatten(1, (steps, size))
        features = model.features(mel, speaker)
        cond = features.repeat_interleave(steps // features.shape[1], dim=1) if features is not None else None
        order = model.predictor.linear_order
        taps = like.new_zeros(batch, 1, 0, size)
        if order:  # (batch, blocks, order * size, size), oldest step first
            taps = model.predictor.linear_taps(features, batch)[0].flip(2).flatten(2, 3)
        taps = taps.repeat_interleave(steps // taps.shape[1], dim=1)
        rings = [like.new_zeros(batch, history + 1, like.shape[0]) for history, *_ in self.layers]
        u = like.new_zeros(batch, order + 1 + steps, size)  # begins with silence
        for t in range(steps):
            known = u[:, t : t + order + 1]
            shift = (known[:, 1:].flatten(1).unsqueeze(1) @ taps[:, t]).squeeze(1)
            parameters = self._step(t, known[:, -1], rings, cond[:, t] if cond is not None else None)
            by_value = parameters.unflatten(1, (size, -1))
            u[:, t + order + 1] = model.distribution.sample(by_value, shift, noise[:, t], temperature)
        return model.front.inverse(u[:, order + 1 :].reshape(batch, 1, -1), model.front.condition(mel)).value

    def _step(self, t: int, previous: Tensor, rings: list[Tensor], cond: Tensor | None) -> Tensor:
        linear = nn.functional.linear
        hidden = linear(previous.clamp(-INPUT_RANGE, INPUT_RANGE), *self.input)
        skips = 0.0
        for (history, dilation, conv, of_cond, of_skip, residual), ring in zip(self.layers, rings, strict=True):
            ring[:, t % (history + 1)] = hidden
            taps = [ring[:, (t - age) % (history + 1)] for age in range(history, -1, -dilation)]
            gates = linear(torch.cat(taps, dim=1), *conv)
            if of_cond is not None:
                gates = gates + linear(cond, *of_cond)
            filters, openings = gates.chunk(2, dim=1)
            gated = torch.tanh(filters) * torch.sigmoid(openings)
            skips = skips + linear(gated, *of_skip)
            if residual is not None:
                hidden = hidden + linear(gated, *residual)
        return linear(torch.relu(linear(torch.relu(skips), *self.hidden)), *self.output)


def _pointwise(linear: nn.Linear) -> nn.Conv1d:
    conv = nn.Conv1d(linear.in_features, linear.out_features, 1)
    _set(conv, linear.weight[:, :, None], linear.bias)
    return conv


def _linear(conv: nn.Conv1d | None) -> tuple[Tensor, Tensor | None] | None:
    """A convolution's weight, as a matrix on its taps side by side (oldest first), and its bias."""
    return None if conv is None else (conv.weight.detach().transpose(1, 2).flatten(1), conv.bias)


def _set(conv: nn.Conv1d, weight: Tensor, bias: Tensor | None = None) -> None:
    """Give a convolution copies of these weights."""
    conv.weight = nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format))
    if bias is not None:
        conv.bias = nn.Parameter(bias.detach().clone())
