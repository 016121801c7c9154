"""Inverse of a waveform's autoregressive flow by quasi-Newton sweeps over a moving window.

The inverse x of y is the fixed point x = F(x) of a triangular map: F(x)_t reads y_t and the samples before t. Repeating
x <- F(x) (Jacobi) makes one sample more exact at each sweep and, where samples depend strongly on their past as in
speech, few more. Newton's step solves the recursion linearised at x instead,

    x <- x + delta,    (I - J) delta = r,    r = F(x) - x,

with J the Jacobian of F, strictly lower triangular. Here J is a band of lags, 1 to `LAGS` or to the linear path's reach
if that is more. It starts as the network's linear path (its coefficients h; then the step solves that path exactly, as
an all-pole filter) and learns the rest from the sweeps at no evaluation of its own, by Broyden's update of every row on
the row's own band (Schubert's):

    J_t <- J_t + r'_t delta_band / (|delta_band|^2 + damping),    r' = F(x + delta) - (x + delta).

Only a window after the samples found so far is evaluated. A sample is found when its residual and those of all before
it are within the tolerance; the first sample that is not takes F(x)_t, which is its exact value given the samples
before. So every sweep finds one sample at least, and n sweeps always suffice, whatever happens to the samples after it:
steps there that are not finite, or larger than ten times the window's scale, give way to Jacobi's.

References:
    Modification of a Quasi-Newton Method for Nonlinear Equations with a Sparse Jacobian (Schubert, 1970), Mathematics
        of Computation 24
    Parallelizing Non-linear Sequential Models over the Sequence Length (Lim et al., 2023),
        https://arxiv.org/abs/2309.12252
    Towards Scalable and Stable Parallelization of Nonlinear RNNs (Gonzalez et al., 2024),
        https://arxiv.org/abs/2407.19115
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from wavedistill.flows.autoregressive import AutoregressiveFlow, Condition
from wavedistill.nn.causal_network import CausalState

LAGS = 32
"""Band of the Jacobian, at least. Nine of twelve rows of the bundled speech teacher's had more than nine tenths of
their energy inside it.
"""
WINDOW = 256
STEP = 64
"""Samples of the window, and by how many at least it moves (both rounded up to whole blocks of the condition)."""
ROUNDING = 64.0
"""Steps of so many rounding units or less teach the Jacobian nothing."""


class Solution(NamedTuple):
    """What the sweeps found.

    Attributes:
        value: x (batch, samples).
        sweeps: (batch,).
        passes: work in passes over the whole batch.
        found: (batch,), which examples are found to the end.
    """

    value: Tensor
    sweeps: Tensor
    passes: float
    found: Tensor


def solve(
    flow: AutoregressiveFlow,
    y: Tensor,
    cond: Condition,
    guess: Tensor,
    *,
    tolerance: float,
    window: int | None = None,
    max_sweeps: int | None = None,
) -> Solution:
    """x with F(x) = x, F(x) = flow.affine_inverse(y, parameters of x).

    Args:
        flow: of waveforms.
        y: (batch, samples).
        cond: as ``flow.check_condition`` returns it.
        guess: of x, shaped as y.
        tolerance: of a found sample's |F(x) - x|, relative to max(1, |x|).
        window: samples; None: `WINDOW`.
        max_sweeps: None: as many as there are samples.
    """
    batch, samples = y.shape
    if not samples:
        return Solution(
            y,
            torch.zeros(batch, dtype=torch.long, device=y.device),
            0.0,
            torch.ones(batch, dtype=torch.bool, device=y.device),
        )
    limit = samples if max_sweeps is None else min(max_sweeps, samples)
    windows = _Windows(flow, y, cond, guess, window or WINDOW, tolerance)
    found, sweeps = torch.zeros(2, batch, dtype=torch.long, device=y.device)
    while len(active := ((found < samples) & (sweeps < limit)).nonzero()[:, 0]):
        found[active] = windows.sweep(active, found[active])
        sweeps[active] += 1
        while len(
            moving := active[(found[active] < samples) & (found[active] - windows.start[active] >= windows.step)]
        ):
            windows.move(moving)
    return Solution(windows.x[:, :samples], sweeps, windows.evaluated / max(y.numel(), 1), found >= samples)


class _Windows:
    """Each example's window: where it starts, the network's state there, and the Jacobian and last step inside it.

    Signals and condition are lengthened by a window, so that all windows have one length; what comes after an end
    changes nothing before it.
    """

    def __init__(
        self, flow: AutoregressiveFlow, y: Tensor, cond: Condition, guess: Tensor, window: int, tolerance: float
    ) -> None:
        batch, samples = y.shape
        self.flow = flow
        self.tolerance = tolerance
        self.damping = max(tolerance, ROUNDING * torch.finfo(y.dtype).eps) ** 2
        blocks = cond.features.shape[1] if cond.features is not None else 1
        self.block = samples // blocks if blocks > 1 else flow.predictor.step_size
        self.step = -(-min(STEP, samples) // self.block) * self.block
        self.length = -(-min(window, samples) // self.step) * self.step
        padding = -samples % self.step + self.length
        self.x, self.y = (torch.nn.functional.pad(one, (0, padding)) for one in (guess.nan_to_num(0.0, 0.0, 0.0), y))
        self.source = None if cond.source is None else torch.nn.functional.pad(cond.source, (0, padding))
        self.features = cond.features
        if blocks > 1:
            self.features = torch.cat(
                [cond.features, cond.features[:, -1:].expand(-1, padding // self.block, -1)], dim=1
            )
        self.state: CausalState | None = None
        self.evaluated = 0
        self.time = torch.arange(self.length, device=y.device)
        lag = self.time[:, None] - self.time
        size = flow.predictor.step_size
        step = self.time // size
        self.band = (step[:, None] > step) & (lag <= max(LAGS, flow.predictor.linear_order * size))
        self.start = torch.zeros(batch, dtype=torch.long, device=y.device)
        self.last_step, self.predicted = y.new_zeros(2, batch, self.length)
        self.jacobian = self._linear_jacobian(torch.arange(batch, device=y.device))

    def sweep(self, examples: Tensor, found: Tensor) -> Tensor:
        """One step of Newton in the windows of these examples, ``found`` samples known: how many are now."""
        here = self.start[examples, None] + self.time
        rows = torch.arange(len(examples), device=here.device)
        first = found - self.start[examples]
        x = self.x[examples[:, None], here]
        target, _ = self._evaluate(examples, x, self.length)
        residual = torch.where(self.time < first[:, None], 0.0, (target - x).nan_to_num(0.0, 0.0, 0.0))
        jacobian = self._learned(examples, residual)
        identity = torch.eye(self.length, dtype=x.dtype, device=x.device)
        step = torch.linalg.solve_triangular(
            identity - jacobian, residual.unsqueeze(-1), upper=False, unitriangular=True
        ).squeeze(-1)
        scale = 10.0 * torch.maximum(x.abs().amax(1), residual.abs().amax(1)).unsqueeze(1)
        step = torch.where(step.abs() <= scale, step, residual)
        close = (residual.abs() <= self.tolerance * x.abs().clamp_min(1.0)) & target.isfinite() | (
            self.time <= first[:, None]
        )
        self.jacobian[examples] = jacobian
        self.last_step[examples] = step
        self.predicted[examples] = residual - step + torch.bmm(jacobian, step.unsqueeze(-1)).squeeze(-1)
        x = x + step
        exact = target[rows, first]
        x[rows, first] = exact
        self.x[examples[:, None], here] = x
        lost = examples[~exact.isfinite()]  # every later sample depends on this one
        for example, begin in zip(lost.tolist(), found[~exact.isfinite()].tolist(), strict=True):
            self.x[example, begin:] = torch.nan
        reach = torch.where(close.all(1), self.length, (~close).int().argmax(1))
        return torch.where(exact.isfinite(), self.start[examples] + reach, self.x.shape[1])

    def move(self, examples: Tensor) -> None:
        """Shift the windows of these examples, whose first samples are found, by a step."""
        here = self.start[examples, None] + self.time[: self.step]
        _, state = self._evaluate(examples, self.x[examples[:, None], here], self.step)
        if self.state is None:
            self.state = _mapped(lambda past: past.new_zeros(len(self.x), *past.shape[1:]), state)
        self.state = _mapped(lambda every, new: every.index_copy(0, examples, new), self.state, state)
        self.start[examples] += self.step
        kept = self.length - self.step
        jacobian = self._linear_jacobian(examples)
        jacobian[:, :kept, :kept] = self.jacobian[examples, self.step :, self.step :]
        self.jacobian[examples] = jacobian
        for one in (self.last_step, self.predicted):
            one[examples] = torch.nn.functional.pad(one[examples, self.step :], (0, self.step))

    def _evaluate(self, examples: Tensor, x: Tensor, length: int) -> tuple[Tensor, CausalState]:
        """F(x) of these examples' samples from their windows' starts on, and the state after them."""
        here = self.start[examples, None] + self.time[:length]
        cond = Condition(
            self._features(examples, length), None if self.source is None else self.source[examples[:, None], here]
        )
        state = None if self.state is None else select(self.state, examples)
        parameters, state = self.flow.forward_chunk(x, cond, state)
        self.evaluated += x.numel()
        return self.flow.affine_inverse(self.y[examples[:, None], here], parameters)[0], state

    def _features(self, examples: Tensor, length: int) -> Tensor | None:
        if self.features is None or self.features.shape[1] == 1:
            return None if self.features is None else self.features[examples]
        blocks = self.start[examples, None] // self.block + self.time[: length // self.block]
        return self.features[examples[:, None], blocks]

    def _linear_jacobian(self, examples: Tensor) -> Tensor:
        """dF/dx of the linear path alone."""
        network = self.flow.predictor
        jacobian = self.y.new_zeros(len(examples), self.length, self.length)
        if not (
            network.linear_order and self.flow.standardize
        ):  # an inverse autoregressive flow divides it by a scale not known yet
            return jacobian
        taps = network.linear_taps(self._features(examples, self.length), len(examples))[0].to(jacobian)
        size = network.step_size
        steps = self.length // size
        taps = taps.repeat_interleave(steps // taps.shape[1], dim=1)
        by_step = jacobian.view(len(examples), steps, size, steps, size)
        for lag in range(1, min(network.linear_order + 1, steps)):
            by_step.diagonal(-lag, 1, 3).copy_(taps[:, lag:, lag - 1].permute(0, 3, 2, 1))
        return jacobian

    def _learned(self, examples: Tensor, residual: Tensor) -> Tensor:
        """Broyden's update after the last step, which has left this residual.

        The predicted residual is 0, except where the step gave way to Jacobi's.
        """
        step = self.last_step[examples].unsqueeze(1) * self.band  # (examples, rows, lags)
        correction = (residual - self.predicted[examples]) / (step.square().sum(-1) + self.damping)
        return torch.addcmul(self.jacobian[examples], correction.unsqueeze(-1), step)


def select(state: CausalState, examples: Tensor) -> CausalState:
    """The state of these examples."""
    return _mapped(lambda past: past[examples], state)


def _mapped(function: Callable[..., Tensor], *states: CausalState) -> CausalState:
    first = states[0]
    source = None if first.source is None else function(*(state.source for state in states))
    stack = [function(*pasts) for pasts in zip(*(state.stack for state in states), strict=True)]
    return CausalState(function(*(state.inputs for state in states)), source, stack)
