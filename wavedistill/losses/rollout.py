"""What a teacher says by itself, beside the recording.

The likelihood judges single steps, each after the real past. A teacher may predict every step well and still amplify
its own small errors: its samples then run away, or a tone dies. A rollout is judged as a whole. It follows the
teacher's own past, errors and all, so that a level that has gone wrong is drawn back.

References:
    Scheduled Sampling for Sequence Prediction with Recurrent Neural Networks (Bengio et al., 2015),
        https://arxiv.org/abs/1506.03099: a past of one's own in training
    Message Passing Neural PDE Solvers (Brandstetter et al., 2022), https://arxiv.org/abs/2202.03376, section 3.1: a
        gradient through the last steps of a longer rollout
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wavedistill.errors import WavedistillError, check_number
from wavedistill.flows.solvers.stepping import CausalStepper
from wavedistill.losses.spectral import MultiResolutionSTFT
from wavedistill.models.sequential_sampling import cached_sampler
from wavedistill.models.wavenet import WaveNet
from wavedistill.numerics import full_precision

RAN_AWAY = 4.0
"""Times the recording's level (12 dB) to which a past of the teacher's own that is louder is turned down."""
BEFORE = 0.05
"""Seconds before a rollout that its spectrum includes."""


@dataclass
class RolloutConfig:
    """Rollouts in a teacher's training.

    Attributes:
        weight: of their distance in the loss (0: none).
        steps: length of the part that the gradient goes through, in steps of the model (``front.bands`` samples each).
            Its cost grows with it: each step is a pass of its own.
    """

    weight: float = 0.0
    steps: int = 128

    def __post_init__(self) -> None:
        check_number("loss.rollout.weight", self.weight)
        check_number("loss.rollout.steps", self.steps, 1)


class Rollout(nn.Module):
    """Distance of what a teacher says by itself from the recordings.

    It speaks from the start of a crop that begins where its recording does, and else goes on from as much of the crop
    as it sees at once: up to a random place without a gradient, from there on for ``steps`` more with one (by
    reparametrisation). Half of the times, where there are such, the crops that begin a recording are taken alone, and
    the gradient goes through their first ``steps``. The spectra of these steps and of the same part of the recording
    are compared by the logarithm of their magnitudes: phases do not count, and one clip that has run away does not
    outweigh all others.

    Args:
        model: a Gaussian teacher; for its settings, it is given anew with every batch.
        steps: as in `RolloutConfig`.

    Shapes: audio (batch, samples), mel and speaker as in `WaveNet.log_prob`, begins (batch,) bool or None -> scalar, in
        nats, see `MultiResolutionSTFT.log_distance`.

    Raises:
        WavedistillError: another distribution; crops that are too short.
    """

    def __init__(self, model: WaveNet, steps: int) -> None:
        super().__init__()
        model.need_gaussian("loss.rollout")
        self.steps = steps
        self.before = round(BEFORE * model.sample_rate)
        self.spectra = MultiResolutionSTFT(model.sample_rate)

    def forward(
        self, model: WaveNet, audio: Tensor, mel: Tensor | None, speaker: Tensor | None, begins: Tensor | None
    ) -> Tensor:
        from_nothing = begins is not None and random_place(2) == 0 and bool(begins.any())
        if from_nothing:
            audio, mel, speaker, begins = (None if x is None else x[begins] for x in (audio, mel, speaker, begins))
        with torch.autocast(audio.device.type, enabled=False):
            lpc = model.front.condition(mel)
            features = model.features(mel, speaker)
            with torch.no_grad():
                real = model.front.forward(audio.unsqueeze(1), lpc).value[:, 0]
            noise = torch.randn_like(real).unsqueeze(-1)
            block = model.step_size if _same_throughout(features) else real.shape[1] // features.shape[1]
            start = 0 if from_nothing else self._start(model, real.shape[1], block)
            past = _own_past(model, real[:, :start], noise, features, block, begins)
            made = self._continued(model, past, noise[:, start:], features, block)
            end = start + made.shape[1]
            rest = real.new_zeros(real.shape[0], real.shape[1] - end)
            u = torch.cat([past, made, rest], dim=1).unsqueeze(1)
            compared = slice(max(0, start - self.before), end)
            own = model.front.inverse(u, lpc).value[:, 0]
            return self.spectra.log_distance(own[:, compared], audio[:, compared])

    def _start(self, model: WaveNet, samples: int, block: int) -> int:
        """Samples before the part with a gradient: a random multiple of ``block``, of the condition."""
        length = self.steps * model.step_size
        reach = _reach(model, block)
        places = (samples - length - reach) // block + 1
        if length <= self.before or places < 1:
            raise WavedistillError(
                f"loss.rollout.steps gives rollouts of {length} samples; they must be longer than {self.before} (50 "
                f"ms), and fit into the crops of {samples} samples (data.segment_seconds) after the {reach} that the "
                "model sees at once."
            )
        return reach + block * random_place(places)

    def _continued(self, model: WaveNet, past: Tensor, noise: Tensor, features: Tensor | None, block: int) -> Tensor:
        """The next ``steps`` after the past (batch, samples)."""
        seen = past[:, max(0, past.shape[1] - _reach(model, block)) :]
        if not _same_throughout(features):
            features = features[:, (past.shape[1] - seen.shape[1]) // block :]
        stepper = CausalStepper(model.predictor, len(past), seen.shape[1] + noise.shape[1], features, None)
        if seen.shape[1]:
            stepper.begin_with(seen, features)
        made = []
        for t in range(self.steps * model.step_size):
            parameters, shift = stepper.parameters(seen.shape[1] + t)
            made.append(model.distribution.sample(parameters, shift, noise[:, t], 1.0))
            stepper.feed(t, made[-1])
        return torch.stack(made, dim=1)


def random_place(places: int) -> int:
    """0, ..., places - 1, from the global generator."""
    return int(torch.randint(places, ()))


@torch.no_grad()
def _own_past(
    model: WaveNet, real: Tensor, noise: Tensor, features: Tensor | None, block: int, begins: Tensor | None
) -> Tensor:
    """Real values (batch, samples), and in their place the model's own: all of them where a crop ``begins`` with its
    recording, elsewhere those after the first that the model sees. Where these ran away they are turned down to where
    the way back can be learned; real ones take the place of what is no number.
    """
    own = full_precision(real).clone()
    samples = real.shape[1]
    reach = min(_reach(model, block), samples)
    if not _same_throughout(features):
        features = features[:, : samples // block]
    groups = [(slice(None), reach)] if begins is None else [(begins, 0), (~begins, reach)]
    for items, known in groups:
        drawn = own[items]
        if known == samples or not len(drawn):
            continue
        sampler = cached_sampler(model.predictor, model.distribution, len(drawn), 1.0)
        drawn[:, known:] = 0.0
        given = None if features is None else features[items]
        for _ in sampler.fill(drawn, known, noise[items, :samples].to(drawn), given):
            pass
        own[items] = drawn
    last = slice(samples - reach, None)
    level, asked = (u[:, last].square().mean(1, keepdim=True).sqrt() for u in (own, real))
    turned_down = own * (RAN_AWAY * asked / level.clamp_min(1e-5)).clamp_max(1.0)
    return torch.where(level.isfinite(), turned_down, real)


def _reach(model: WaveNet, block: int) -> int:
    """Samples of the past that the network sees, in whole blocks."""
    return -(-model.receptive_field // block) * block


def _same_throughout(features: Tensor | None) -> bool:
    return features is None or features.shape[1] == 1
