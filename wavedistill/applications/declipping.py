"""Clipped samples drawn anew by a teacher, given all the others and that they lie beyond the threshold.

A Gaussian teacher that makes M sub-bands a step gives a step's M samples, given those before, a normal density

    x ~ N(mu, W^-1 W^-T),    W = diag(1 / sigma) B,    u = B x + c

where u are the teacher's values and B the front's matrix of the step. A step's known samples are put in, and its
clipped ones drawn from what is left, see `wavedistill.applications.truncated_normal`. Candidates go through the sound
side by side as a particle filter: each is weighed by

    p(known samples of the step | its past) * product of P(between the threshold and `CEILING` times it | ...)

which is exact, and where weights have become unequal, they are drawn again by weight. So what follows a clipped sample
decides about it, and one candidate at the end is a sample of p(clipped samples | all others), the better the more of
them there are.

The log-mel condition of a clipped sound is wrong. It is taken from the sound with the clipped samples by linear
prediction, see `wavedistill.applications.clipping`, and in each further round from what the round before has drawn.
Everything is the density before the teacher's contraction towards the mel.

References:
    Novel approach to nonlinear/non-Gaussian Bayesian state estimation (Gordon et al., 1993): particle filter
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wavedistill.applications.clipping import Clipped, find_clipped, interpolate_clipped
from wavedistill.applications.gap_filling import check_teacher
from wavedistill.applications.truncated_normal import draw_beyond
from wavedistill.errors import WavedistillError
from wavedistill.evaluation.systems import Clip, LoadedModel
from wavedistill.flows.linear_prediction import LPC
from wavedistill.flows.solvers.stepping import CausalStepper
from wavedistill.models.base import dequantized
from wavedistill.models.wavenet import WaveNet

EDGES = (0.05, 0.95)
"""Shares of the candidates below the ends of the band."""
_HALF_STEP = 0.5 / 32768  # by which `dequantized` lifts a sound


@dataclass(frozen=True)
class DeclipConfig:
    """How clipped samples are drawn.

    Attributes:
        candidates: that go through the sound side by side, at least 2.
        seed: of all that is drawn.
        threshold: of both signs, above 0 and at most 1; None: found, see `find_clipped`.
        rounds: of drawing, at least 1; the mel of each but the first is that of the round before.
    """

    candidates: int = 32
    seed: int = 0
    threshold: float | None = None
    rounds: int = 3

    def __post_init__(self) -> None:
        if self.candidates < 2:
            raise WavedistillError(f"declipping needs 2 candidates or more, given {self.candidates}")
        if self.rounds < 1:
            raise WavedistillError(f"declipping needs 1 round or more, given {self.rounds}")


class Declipped(NamedTuple):
    """What `declip_sound` makes.

    Attributes:
        audio: (samples,); clipped samples may lie beyond [-1, 1].
        clipped: which samples were clipped, and where.
        low, high: (samples,) each: the central 90 % of the candidates by weight, given all up to a sample's step.
        effective_size: candidates that as many equally weighted ones would be worth, mean over the clipped steps.
    """

    audio: Tensor
    clipped: Clipped
    low: Tensor
    high: Tensor
    effective_size: float


def check_declipper(loaded: LoadedModel) -> None:
    """Refuse a model that is no Gaussian teacher."""
    check_teacher(loaded)
    loaded.model.need_gaussian("declipping")


@torch.inference_mode()
def declip_sound(
    audio: Tensor,
    loaded: LoadedModel,
    config: DeclipConfig | None = None,
    speaker: Tensor | None = None,
    *,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Declipped:
    """Draw the clipped samples of a sound.

    Args:
        audio: (samples,) at the model's rate. Clipped samples after its last whole step keep their interpolation.
        loaded: a Gaussian teacher; whatever its device, all is computed on the CPU, since the steps are small.
        config: None: `DeclipConfig()`.
        speaker: index (1,), for a teacher with speakers.
        progress: wraps the iterable of the teacher's steps.

    Returns:
        the audio, in which all samples that were not clipped are those given, bit for bit.

    Raises:
        WavedistillError: no Gaussian teacher, or nothing clipped.
    """
    check_declipper(loaded)
    config = config or DeclipConfig()
    clipped = find_clipped(audio, config.threshold)
    teacher = copy.deepcopy(loaded.model).cpu()
    voice = None if speaker is None else speaker.cpu()
    pad = (0, -len(audio) % teacher.hop_length)
    made = interpolate_clipped(audio, clipped)
    for number in range(config.rounds):
        padded = torch.nn.functional.pad(made, pad)
        mel = loaded.mel(Clip("", "", padded)).cpu()
        candidates = _Filter(teacher, dequantized(padded), clipped, mel, voice, config.candidates, config.seed + number)
        drawn = candidates.run(len(audio), progress)
        made, low, high = (
            torch.where(clipped.signs != 0, value[: len(audio)] - _HALF_STEP, audio)
            for value in (drawn.path, drawn.low, drawn.high)
        )
    return Declipped(made, clipped, low, high, drawn.effective_size)


class _Drawn(NamedTuple):
    """One candidate and the band of all, (samples,) each, and `Declipped.effective_size`."""

    path: Tensor
    low: Tensor
    high: Tensor
    effective_size: float


class _Filter:
    """The candidates on their way through a sound (samples,) of whole frames."""

    def __init__(
        self,
        teacher: WaveNet,
        sound: Tensor,
        clipped: Clipped,
        mel: Tensor,
        speaker: Tensor | None,
        count: int,
        seed: int,
    ) -> None:
        self.teacher = teacher
        self.count = count
        self.generator = torch.Generator().manual_seed(seed)
        self.sound = sound.double()
        pad = (0, len(sound) - len(clipped.signs))
        self.signs = torch.nn.functional.pad(clipped.signs, pad)
        self.limits = torch.nn.functional.pad(clipped.limits, pad).double() + _HALF_STEP
        self.lpc = teacher.front.condition(mel)
        features = teacher.features(mel, speaker)
        self.stepper = CausalStepper(teacher.predictor, self.count, len(sound), features, None)
        self.past = torch.zeros(self.count, teacher.front.history)
        self.log_weights = torch.zeros(self.count, dtype=torch.float64)

    def run(self, samples: int, progress: Callable[[Iterable], Iterable]) -> _Drawn:
        """Through all whole steps of the first ``samples``."""
        size = self.teacher.step_size
        paths = self.sound.expand(self.count, -1).clone()
        low, high = self.sound.clone(), self.sound.clone()
        chosen: list[tuple[int, Tensor]] = []
        sizes = []
        stop = samples // size * size
        for start in progress(range(0, stop, size)):
            here = slice(start, start + size)
            paths[:, here] = self._step(start)
            weights = self.log_weights.softmax(0)
            effective = float(1.0 / weights.square().sum())
            if self.signs[here].any():
                low[here], high[here] = _band(paths[:, here], weights)
                sizes.append(effective)
            if effective < self.count / 2 and here.stop < stop:
                kept = self._resample(weights)
                chosen.append((here.stop, kept))
        row = int(torch.multinomial(self.log_weights.softmax(0), 1, generator=self.generator))
        path = self.sound.clone()
        for begin, kept in reversed(chosen):  # back to the ancestors
            path[begin:stop] = paths[row, begin:stop]
            row, stop = int(kept[row]), begin
        path[:stop] = paths[row, :stop]
        return _Drawn(path.float(), low.float(), high.float(), sum(sizes) / max(len(sizes), 1))

    def _step(self, start: int) -> Tensor:
        """Draw or weigh the step that begins with sample ``start``; its samples (candidates, step_size)."""
        teacher, size = self.teacher, self.teacher.step_size
        outputs = [self.stepper.parameters(start + i) for i in range(size)]
        loc, log_scale = teacher.distribution.loc_scale(
            torch.stack([parameters for parameters, _ in outputs], dim=1),
            torch.stack([shift for _, shift in outputs], dim=1),
        )
        loc, log_scale = loc.double(), log_scale.double()
        matrix, offset = self._front(start)
        x = self.sound[start : start + size].expand(self.count, -1)
        signs = self.signs[start : start + size]
        if signs.any():
            limits = self.limits[start : start + size]
            x, gained = draw_beyond(x, signs, limits, matrix, (offset - loc), log_scale, self.generator)
        u = x @ matrix.T + offset
        if not signs.any():
            gained = (-0.5 * ((u - loc) * torch.exp(-log_scale)).square() - log_scale).sum(1)
        self.log_weights = self.log_weights + gained
        for i in range(size):
            self.stepper.feed(start + i, u[:, i].float())
        self.past = torch.cat([self.past[:, size:], x.float()], dim=1)
        return x

    def _front(self, start: int) -> tuple[Tensor, Tensor]:
        """B (step_size, step_size) and c (candidates, step_size) of u = B x + c, float64."""
        front, size = self.teacher.front, self.teacher.step_size
        one = None
        if self.lpc is not None:
            block = start * self.lpc.coefficients.shape[1] // len(self.sound)
            one = LPC(*(part[:, block : block + 1] for part in self.lpc))
        count = self.count + size
        many = None if one is None else LPC(*(part.expand(count, *part.shape[1:]) for part in one))
        x = torch.cat([torch.zeros(self.count, size), torch.eye(size)])
        past = torch.cat([self.past, torch.zeros(size, front.history)])
        u = front.analyze(x, many, past)[0].double()
        return u[self.count :].T, u[: self.count]

    def _resample(self, weights: Tensor) -> Tensor:
        """Draw the candidates again by weight, evenly spaced; which each of them was, (candidates,)."""
        places = (torch.arange(self.count) + torch.rand(1, generator=self.generator)) / self.count
        kept = torch.searchsorted(weights.cumsum(0), places.double()).clamp(max=self.count - 1)
        self.stepper.select(kept)
        self.past = self.past[kept]
        self.log_weights = torch.zeros_like(self.log_weights)
        return kept


def _band(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Ends of the central 90 % of values (candidates, samples) by weight, (samples,) each.

    Of n equal weights the i-th value has rank i / (n + 1), as in `Filling.band`.
    """
    ordered, order = values.sort(dim=0)
    count = 1.0 / weights.square().sum()
    middle = weights[order].cumsum(0) - 0.5 * weights[order]
    ranks = (middle * count + 0.5) / (count + 1.0)
    ends = [np.interp(EDGES, ranks[:, i].numpy(), ordered[:, i].numpy()) for i in range(values.shape[1])]
    low, high = torch.tensor(np.array(ends)).T
    return low, high
