"""How much rounding grows in a sequential inverse.

Each step of x_i = m_i(x_<i) + s_i(x_<i) y_i reads the steps before it together with their errors. The result can be far
from the true inverse and still map back to y almost exactly: as for a triangular system, a small *backward* error |f(x)
- y| says nothing of the *forward* error in x when the map's inverse amplifies. So the round trip is no proof; this
module measures the amplification.

References:
    Accuracy and Stability of Numerical Algorithms (Higham, 2002), chapters 1 and 8
    Understanding and Mitigating Exploding Inverses in Invertible Neural Networks (Behrmann et al., 2021),
        https://arxiv.org/abs/2006.09347
"""

from __future__ import annotations

import copy
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wavedistill.flows.autoregressive import AutoregressiveFlow, Condition
from wavedistill.flows.solvers.inversion import largest

ROUNDINGS = 16.0
"""Size of the noise on y in rounding units of its type: above what float64 stepping adds by itself, small enough to
tell what rounding does.
"""


class IllConditionedWarning(UserWarning):
    """A sequential inverse whose result rounding may have spoilt."""


class ConditioningReport(NamedTuple):
    """Each (batch,), relative to max(1, |value|); ``trusted`` is one answer for all.

    Attributes:
        amplification: largest change of x per change of y, for random noise on y.
        forward_error: of x: against float64 stepping, or for a float64 flow the amplification times the rounding unit.
        backward_error: |f(x) - y|.
        trusted: every forward error is finite and within the tolerance.
    """

    amplification: Tensor
    forward_error: Tensor
    backward_error: Tensor
    trusted: bool


@torch.no_grad()
def check_conditioning(
    flow: AutoregressiveFlow,
    y: Tensor,
    cond: Any = None,
    tolerance: float = 1e-3,
    generator: torch.Generator | None = None,
) -> ConditioningReport:
    """Invert y in its own precision, in float64, and in float64 with a little noise on y; warn where they disagree.

    Args:
        flow: an `AutoregressiveFlow`.
        y, cond: as in ``flow.inverse``.
        tolerance: forward error, relative to max(1, |x|), above which the inverse is not trusted.
        generator: of the noise; None: always the same noise.

    Warns:
        IllConditionedWarning: when the forward error of some example exceeds the tolerance.

    Example:
        >>> import torch
        >>> from wavedistill.flows import AutoregressiveFlow, MADE, check_conditioning
        >>> flow = AutoregressiveFlow(MADE(4, hidden=8))
        >>> check_conditioning(flow, torch.randn(2, 4)).trusted
        True
    """
    x = flow.inverse(y, cond).value
    backward_error = relative(flow.forward(x, cond).value, y)
    exact = copy.deepcopy(flow).double()
    y64 = y.double()
    cond64 = _double(cond)
    x64 = exact.inverse(y64, cond64).value
    generator = generator or torch.Generator().manual_seed(0)
    noise = torch.randn(y.shape, generator=generator, dtype=torch.float64, device=generator.device).to(y.device)
    rounding = torch.finfo(y.dtype).eps
    noisy = y64 + ROUNDINGS * rounding * noise * y64.abs().clamp_min(1.0)
    amplification = relative(exact.inverse(noisy, cond64).value, x64) / relative(noisy, y64)
    forward_error = amplification * rounding if y.dtype is torch.float64 else relative(x, x64)
    trusted = bool((forward_error <= tolerance).all())
    if not trusted:
        bad = ~(forward_error <= tolerance)
        warnings.warn(
            f"the sequential inverse of {type(flow).__name__} is ill-conditioned for {int(bad.sum())} of "
            f"{len(bad)} examples: it amplifies changes up to "
            f"{float(amplification[bad].max()):.1e} times, and x is off by up to "
            f"{float(forward_error[bad].max()):.1e} although f(x) is within "
            f"{float(backward_error[bad].max()):.1e} of y. Invert in float64 (flow.double()), or bound the flow's "
            "log-scale.",
            IllConditionedWarning,
            stacklevel=2,
        )
    return ConditioningReport(amplification, forward_error, backward_error, trusted)


def relative(got: Tensor, expected: Tensor) -> Tensor:
    """Largest error of each example relative to max(1, |expected|), in float64; not-a-number stays."""
    expected = expected.double()
    return largest((got.double() - expected).abs() / expected.abs().clamp_min(1.0))


def _double(cond: Any) -> Any:
    if isinstance(cond, Condition):
        return Condition(*(None if value is None else value.double() for value in cond))
    return cond.double() if isinstance(cond, Tensor) else cond
