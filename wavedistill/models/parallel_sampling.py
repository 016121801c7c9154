"""A Gaussian teacher's exact samples without its sample-by-sample loop.

For given noise a teacher's sample is the solution of u_t = loc(u_<t) + scale(u_<t) noise_t in the domain of its front.
It is found by sweeps that evaluate many samples at once (`wavedistill.flows.solvers.quasi_newton`): the same samples as
`WaveNet.sample` makes from that noise, up to the tolerance and to what the teacher makes of it. A teacher amplifies: an
error of 1e-7 by rounding in an early sample can be one of 1e-3 or more later (`wavedistill.flows.check_conditioning`
measures it), between the two samplers as between two machines. What always holds is the equation itself, and its
residual is reported.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from wavedistill.errors import WavedistillError
from wavedistill.flows.autoregressive import AutoregressiveFlow, Condition
from wavedistill.flows.solvers.inversion import largest
from wavedistill.flows.solvers.quasi_newton import WINDOW, solve
from wavedistill.models.parallel_wavenet import ParallelWaveNet
from wavedistill.models.wavenet import WaveNet


class ParallelSample(NamedTuple):
    """Waveforms and how they were found.

    Attributes:
        audio: (batch, 1, samples), not clipped.
        excitation: u (batch, samples), the signal in the front's domain (about unit variance for speech).
        sweeps: (batch,) network evaluations that had to wait for one another; the sequential sampler has as many as
            samples.
        passes: work: samples evaluated / samples of the result, in evaluations of the network over the whole result;
            without the last one, which measures the residual, and the draft's.
        residual: (batch,) largest |loc(u) + scale(u) noise - u| / max(1, |u|).
    """

    audio: Tensor
    excitation: Tensor
    sweeps: Tensor
    passes: float
    residual: Tensor


@torch.inference_mode()
def sample_parallel(
    teacher: WaveNet,
    mel: Tensor | None = None,
    num_samples: int | None = None,
    batch_size: int = 1,
    seed: int | list[int] | None = None,
    temperature: float = 1.0,
    noise: Tensor | None = None,
    speaker: Tensor | None = None,
    *,
    draft: ParallelWaveNet | None = None,
    tolerance: float = 1e-6,
    window: int = WINDOW,
) -> ParallelSample:
    """What ``teacher.sample`` draws from the same arguments.

    Args:
        teacher: with a Gaussian distribution.
        mel, num_samples, batch_size, seed, temperature, noise, speaker: as in `WaveNet.sample`.
        draft: a student of this teacher, whose sample from the same noise is the first guess; None: zeros.
        tolerance: of every sample's residual, in the front's domain relative to max(1, |u|). Above 0.
        window: samples that a sweep evaluates, at least 1. Wider windows take fewer sweeps and more work.

    Raises:
        WavedistillError: for a teacher that is not Gaussian, a draft with another mel, front or speakers, noise of
            another shape, or an option out of its range.

    Example:
        >>> import torch
        >>> from wavedistill.models.parallel_sampling import sample_parallel
        >>> from wavedistill.models.wavenet import WaveNet, WaveNetConfig
        >>> from wavedistill.nn.wavenet_stack import StackConfig
        >>> teacher = WaveNet(WaveNetConfig(mel=None, stack=StackConfig(4, 2, 2, 8, 8)))
        >>> found = sample_parallel(teacher, num_samples=300, seed=0)
        >>> sequential = teacher.sample(num_samples=300, seed=0)
        >>> bool(torch.allclose(found.audio, sequential, atol=1e-4)), int(found.sweeps) < 300
        (True, True)
    """
    teacher.need_gaussian("sample_parallel")
    if tolerance <= 0.0 or window < 1:
        raise WavedistillError(f"tolerance must be above 0 and window at least 1, got {tolerance} and {window}.")
    batch, samples = teacher.check_condition(mel, speaker, num_samples, batch_size)
    if noise is None:
        noise = teacher.draw_noise(batch, samples, seed)
    elif noise.shape != (batch, 1, samples):
        raise WavedistillError(f"noise must have the shape ({batch}, 1, {samples}), got {tuple(noise.shape)}.")
    noise = noise.to(next(teacher.parameters())) * temperature
    guess = torch.zeros_like(noise[:, 0])
    if draft is not None:
        if different := differences(teacher, draft):
            name = different[0]
            own = getattr(teacher.config, name)
            other = getattr(draft.config, name)
            raise WavedistillError(
                f"the draft's {name} must be the teacher's ({own}), got {other}: give a student distilled from "
                "this teacher."
            )
        guess = draft.rsample(noise, mel, speaker, in_pieces=True).excitation
    lpc = teacher.front.condition(mel)
    condition = Condition(teacher.features(mel, speaker))
    floor = teacher.distribution.log_scale_min
    flow = AutoregressiveFlow(teacher.predictor, log_scale_min=floor, log_scale_max=float("inf"))
    solution = solve(flow, noise[:, 0], condition, guess, tolerance=tolerance, window=window)
    u = solution.value
    residual = flow.affine_inverse(noise[:, 0], flow.loc_scale(u, condition))[0] - u
    audio = teacher.contracted(teacher.front.inverse(u.unsqueeze(1), lpc).value, mel)
    return ParallelSample(audio, u, solution.sweeps, solution.passes, largest(residual.abs() / u.abs().clamp_min(1.0)))


def differences(teacher: WaveNet, draft: ParallelWaveNet) -> list[str]:
    """The settings in which a draft must be as the teacher and is not."""
    return [
        name for name in ("front", "mel", "speakers") if getattr(teacher.config, name) != getattr(draft.config, name)
    ]
