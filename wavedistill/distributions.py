"""Output distributions of a teacher: single Gaussian, mixture of logistics, mu-law categorical.

Each turns a network's raw parameters into a density per sample, and noise drawn beforehand into samples, so that one
seed gives one waveform however it is computed. Densities are in nats per sample.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from wavedistill.numerics import LOG_2PI


class Gaussian:
    """N(loc, exp(log_scale)^2) (ClariNet, Ping et al., 2018, https://arxiv.org/abs/1807.07281).

    Shapes: parameters (..., 2) = (loc, log_scale); shift (...) is added to loc; values (...); noise (..., 1) standard
    normal.
    """

    def __init__(self, log_scale_min: float) -> None:
        self.log_scale_min = log_scale_min
        self.num_parameters = 2

    def loc_scale(self, parameters: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        return parameters[..., 0] + shift, parameters[..., 1].clamp_min(self.log_scale_min)

    def log_prob(self, parameters: Tensor, shift: Tensor, value: Tensor) -> Tensor:
        loc, log_scale = self.loc_scale(parameters, shift)
        return -0.5 * (((value - loc) * torch.exp(-log_scale)).square() + LOG_2PI) - log_scale

    def draw_noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.randn(*shape, 1, generator=generator)

    def sample(self, parameters: Tensor, shift: Tensor, noise: Tensor, temperature: float) -> Tensor:
        loc, log_scale = self.loc_scale(parameters, shift)
        return loc + torch.exp(log_scale) * noise[..., 0] * temperature

    @staticmethod
    def entropy(log_scale: Tensor) -> Tensor:
        return log_scale + 0.5 * (1.0 + LOG_2PI)


class Mixture(NamedTuple):
    """Components of a mixture, each (..., num_mixtures)."""

    log_weights: Tensor
    locs: Tensor
    log_scales: Tensor


class MixtureOfLogistics:
    """sum_i w_i Logistic(loc_i, s_i) (PixelCNN++, Salimans et al., 2017, https://arxiv.org/abs/1701.05517).

    Shapes: parameters (..., 3 * num_mixtures) = (logits, locs, log_scales); noise (..., 2) uniform in (0, 1):
    component, value.
    """

    def __init__(self, num_mixtures: int, log_scale_min: float) -> None:
        self.num_mixtures = num_mixtures
        self.log_scale_min = log_scale_min
        self.num_parameters = 3 * num_mixtures
        self.spread = torch.linspace(-1.0, 1.0, num_mixtures) if num_mixtures > 1 else torch.zeros(1)

    def components(self, parameters: Tensor, shift: Tensor) -> Mixture:
        """The mixture that these parameters stand for. Locs start apart, so that components can specialise."""
        logits, locs, log_scales = parameters.chunk(3, dim=-1)
        locs = locs + self.spread.to(locs) + shift.unsqueeze(-1)
        return Mixture(torch.log_softmax(logits, dim=-1), locs, (log_scales - 0.5).clamp_min(self.log_scale_min))

    def log_prob(self, parameters: Tensor, shift: Tensor, value: Tensor) -> Tensor:
        log_weights, locs, log_scales = self.components(parameters, shift)
        z = (value.unsqueeze(-1) - locs) * torch.exp(-log_scales)
        log_densities = -z - log_scales - 2.0 * torch.nn.functional.softplus(-z)
        return torch.logsumexp(log_weights + log_densities, dim=-1)

    def draw_noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.rand(*shape, 2, generator=generator).clamp(1e-5, 1.0 - 1e-5)

    def sample(self, parameters: Tensor, shift: Tensor, noise: Tensor, temperature: float) -> Tensor:
        log_weights, locs, log_scales = self.components(parameters, shift)
        chosen = _inverse_cdf(log_weights.exp(), noise[..., 0])
        loc = locs.gather(-1, chosen).squeeze(-1)
        log_scale = log_scales.gather(-1, chosen).squeeze(-1)
        return loc + torch.exp(log_scale) * torch.logit(noise[..., 1]) * temperature


class MuLawCategorical:
    """Categorical over the cells of the mu-law companded range [-1, 1) (WaveNet, van den Oord et al., 2016).

    The density is uniform inside a cell, so that likelihoods compare with the continuous distributions'.

    Shapes: parameters (..., num_classes) logits; noise (..., 2) uniform: cell, place inside the cell.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_parameters = num_classes
        self.mu = num_classes - 1
        companded = torch.linspace(-1.0, 1.0, num_classes + 1)
        self.edges = companded.sign() * torch.expm1(companded.abs() * math.log1p(self.mu)) / self.mu

    def log_prob(self, parameters: Tensor, shift: Tensor, value: Tensor) -> Tensor:
        edges = self.edges.to(value)
        cell = (torch.searchsorted(edges, value.contiguous(), right=True) - 1).clamp(0, self.num_parameters - 1)
        log_weights = torch.log_softmax(parameters, dim=-1).gather(-1, cell.unsqueeze(-1)).squeeze(-1)
        return log_weights - (edges[cell + 1] - edges[cell]).log()

    def draw_noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.rand(*shape, 2, generator=generator)

    def sample(self, parameters: Tensor, shift: Tensor, noise: Tensor, temperature: float) -> Tensor:
        weights = torch.softmax(parameters / max(temperature, 1e-4), dim=-1)
        cell = _inverse_cdf(weights, noise[..., 0]).squeeze(-1)
        edges = self.edges.to(parameters)
        return edges[cell] + (edges[cell + 1] - edges[cell]) * noise[..., 1]


def gaussian_kl(loc_q: Tensor, log_scale_q: Tensor, loc_p: Tensor, log_scale_p: Tensor) -> Tensor:
    """KL(N(loc_q, scale_q) || N(loc_p, scale_p)) in closed form, elementwise, in nats."""
    ratio = log_scale_p - log_scale_q
    return ratio + 0.5 * (torch.exp(-2.0 * ratio) + ((loc_q - loc_p) * torch.exp(-log_scale_p)).square() - 1.0)


def noise_generators(seed: int | list[int] | None, batch: int) -> list[torch.Generator]:
    """One CPU generator per item of a batch: item b of an integer seed has seed + b, in a batch of any size."""
    if seed is None:
        seed = int(torch.randint(2**62, ()))
    seeds = seed if isinstance(seed, list) else [seed + index for index in range(batch)]
    return [torch.Generator().manual_seed(one) for one in seeds]


def _inverse_cdf(weights: Tensor, uniform: Tensor) -> Tensor:
    """Index (..., 1) of the category whose cumulative weight first exceeds ``uniform`` (...)."""
    above = weights.cumsum(-1) > uniform.unsqueeze(-1) * weights.sum(-1, keepdim=True)
    return above.float().argmax(-1, keepdim=True)
