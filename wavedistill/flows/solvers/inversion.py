"""Inverses of an autoregressive flow by choice of method, with their work counted and their result checked.

Given y, find x with y_i = affine(x_i; x_<i). For n elements, in units of passes over the whole input:

| method | idea | work | steps that wait for each other |
|---|---|---|---|
| naive | a whole pass for each element | n | n |
| incremental | each hidden unit once (`wavedistill.flows.solvers.stepping`); what ``flow.inverse`` does | 1 | n |
| jacobi | all elements at once from the last sweep's x, until nothing changes | sweeps | sweeps |
| gauss_seidel | the same block after block, each from the finished ones before it | mean sweeps + 1 | their sum |
| quasi_newton | waveforms: Newton's step in a moving window (see that module) | sweeps * window / n + 1 | sweeps |

After k sweeps the first k elements are exact, whatever the iteration started from, so n sweeps always suffice; where
elements depend weakly on each other far fewer do, and a good draft saves more. Where they depend strongly, as in
speech, only "quasi_newton" is far from n. Each example stops by itself and is left out of later sweeps, so a result
does not depend on the batch it is in. These methods are for use without gradient; ``flow.inverse`` is differentiable.

References:
    Accelerating Feedforward Computation via Parallel Nonlinear Equation Solving (Song et al., 2021),
        https://arxiv.org/abs/2002.03629
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from wavedistill.errors import WavedistillError
from wavedistill.flows.autoregressive import AutoregressiveFlow, Condition, LocScale
from wavedistill.flows.solvers.quasi_newton import select, solve
from wavedistill.flows.solvers.stepping import MaskedStepper
from wavedistill.nn.causal_network import CausalState

METHODS = ("incremental", "naive", "jacobi", "gauss_seidel", "quasi_newton")
ITERATIONS = METHODS[2:]


class Inversion(NamedTuple):
    """An inverse and how it was found.

    Attributes:
        value: x, shaped as y.
        log_det: log|det dx/dy|, (batch,), from a last pass at x.
        residual: (batch,) largest |f(x) - y| / max(1, |y|), from that pass: the backward error.
        sweeps: (batch,) sweeps of each example, summed over blocks; for the sequential methods their steps.
        network_evaluations: work in passes over the whole batch, the last pass included: elements evaluated / elements
            of y.
    """

    value: Tensor
    log_det: Tensor
    residual: Tensor
    sweeps: Tensor
    network_evaluations: float


@torch.no_grad()
def invert(
    flow: AutoregressiveFlow,
    y: Tensor,
    cond: Any = None,
    method: str = "incremental",
    *,
    tolerance: float = 1e-6,
    max_sweeps: int | None = None,
    block_size: int | None = None,
    draft: Tensor | None = None,
) -> Inversion:
    """x with flow.forward(x, cond) = y.

    Args:
        flow: an `AutoregressiveFlow`.
        y, cond: as in ``flow.inverse``.
        method: "incremental", "naive", "jacobi", "gauss_seidel" or, for waveforms, "quasi_newton".
        tolerance: an iteration has converged when no element changes by more than this, relative to max(1, |x|). 0 goes
            on until nothing changes at all. For "quasi_newton" it is F(x) - x that must not be more, x = F(x) being the
            solution.
        max_sweeps: sweeps allowed (in each block of "gauss_seidel"); None: as many as there are elements, which is
            always enough.
        block_size: elements of a block of "gauss_seidel", None: about the square root of their number; samples of the
            window of "quasi_newton", None: 256. It is rounded up to whole blocks of the condition.
        draft: first guess of x, shaped as y; None: zeros. For the three iterations.

    Raises:
        WavedistillError: for an unknown method, an option that the method does not take, or an iteration that has not
            converged after ``max_sweeps``.

    Example:
        >>> import torch
        >>> from wavedistill.flows import AutoregressiveFlow, MADE, invert
        >>> _ = torch.manual_seed(0)
        >>> flow = AutoregressiveFlow(MADE(6, hidden=32)).double()
        >>> _ = torch.nn.init.normal_(flow.predictor.layers[-1].weight, std=0.05)
        >>> y = torch.randn(2, 6).double()
        >>> found = invert(flow, y, method="jacobi", tolerance=1e-12)
        >>> bool((found.residual < 1e-11).all()), bool(torch.allclose(found.value, flow.inverse(y).value))
        (True, True)
    """
    if not isinstance(flow, AutoregressiveFlow):
        raise WavedistillError(
            f"invert needs an AutoregressiveFlow (to invert its .inv, run forward), got {type(flow).__name__}."
        )
    _check_options(flow, method, y, max_sweeps, block_size, draft)
    flow._check(y)
    network_cond = flow.check_condition(y, cond)
    steps = y.shape[-1]
    with torch.autocast(y.device.type, enabled=False):
        guess = torch.zeros_like(y) if draft is None else draft.to(y)
        if method == "incremental":
            found = _Found(flow.inverse(y, cond).value, torch.full(y.shape[:1], steps, device=y.device), 1.0)
        elif method == "naive":
            x = _naive(flow, _flat(flow, y), network_cond)
            found = _Found(x, torch.full(y.shape[:1], steps, device=y.device), float(steps))
        elif method == "quasi_newton":
            found = _in_windows(flow, y, guess, network_cond, block_size, tolerance, max_sweeps)
        else:
            size = max(steps, 1) if method == "jacobi" else block_size or max(1, round(steps**0.5))
            if not flow.of_vectors:  # whole steps
                size += -size % flow.predictor.step_size
            found = _iterate(flow, y, guess, network_cond, size, tolerance, max_sweeps)
        x = found.value.reshape(y.shape)
        there, log_det = flow.forward(x, cond)
    residual = largest((there - y).abs() / y.abs().clamp_min(1.0))
    return Inversion(x, -log_det, residual, found.sweeps, found.passes + 1.0)


class _Found(NamedTuple):
    """x, the sweeps of each example, and the work in passes over the whole batch."""

    value: Tensor
    sweeps: Tensor
    passes: float


def _check_options(
    flow: AutoregressiveFlow,
    method: str,
    y: Tensor,
    max_sweeps: int | None,
    block_size: int | None,
    draft: Tensor | None,
) -> None:
    if method not in METHODS:
        raise WavedistillError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")
    if method == "quasi_newton" and flow.of_vectors:
        raise WavedistillError(
            "method 'quasi_newton' is for flows of waveforms; for vectors use 'gauss_seidel' or 'incremental'."
        )
    if (draft is not None or max_sweeps is not None) and method not in ITERATIONS:
        raise WavedistillError(f"draft and max_sweeps are for {', '.join(map(repr, ITERATIONS))}, not for {method!r}.")
    if block_size is not None and (method not in ("gauss_seidel", "quasi_newton") or block_size < 1):
        raise WavedistillError(
            f"block_size is for 'gauss_seidel' and 'quasi_newton' and at least 1, got {block_size} for {method!r}."
        )
    if draft is not None and draft.shape != y.shape:
        raise WavedistillError(f"draft must have the shape of y, {tuple(y.shape)}, got {tuple(draft.shape)}.")


def _flat(flow: AutoregressiveFlow, y: Tensor) -> Tensor:
    return y if flow.of_vectors else y[:, 0]


def _naive(flow: AutoregressiveFlow, y: Tensor, cond: Any) -> Tensor:
    """One whole pass for every element: the measure of the others."""
    x = torch.zeros_like(y)
    order = flow.predictor.order.argsort().tolist() if flow.of_vectors else range(y.shape[1])
    for element in order:
        loc, log_scale = flow.loc_scale(x, cond)
        x[:, element] = flow.affine_inverse(y[:, element], LocScale(loc[:, element], log_scale[:, element]))[0]
    return x


def _in_windows(
    flow: AutoregressiveFlow,
    y: Tensor,
    guess: Tensor,
    cond: Any,
    window: int | None,
    tolerance: float,
    max_sweeps: int | None,
) -> _Found:
    """`wavedistill.flows.solvers.quasi_newton.solve`, with an error where it has been stopped."""
    solution = solve(
        flow, _flat(flow, y), cond, _flat(flow, guess), tolerance=tolerance, window=window, max_sweeps=max_sweeps
    )
    missing = int((~solution.found).sum())
    if missing:
        raise WavedistillError(
            f"no convergence: after {max_sweeps} sweeps {missing} of {len(y)} examples are not found to the end "
            f"(tolerance {tolerance:.0e}). "
            f"Raise max_sweeps ({y.shape[-1]} are always enough) or tolerance, give a better draft, or use "
            "method='incremental'."
        )
    return _Found(solution.value, solution.sweeps, solution.passes)


def _iterate(
    flow: AutoregressiveFlow, y: Tensor, guess: Tensor, cond: Any, size: int, tolerance: float, max_sweeps: int | None
) -> _Found:
    """Jacobi sweeps in one block after another."""
    y = _flat(flow, y)
    x = _flat(flow, guess).clone()
    batch, steps = y.shape
    if flow.of_vectors:
        order = flow.predictor.order
        y = y[:, order.argsort()]
        x = x[:, order.argsort()]
        blocks = _VectorBlocks(flow, batch, cond)
    else:
        blocks = _WaveformBlocks(flow, steps, cond)
    everyone = torch.arange(batch, device=y.device)
    sweeps = torch.zeros_like(everyone)
    work = 0
    for start in range(0, steps, size):
        end = min(start + size, steps)
        blocks.open(start, end)
        target = y[:, start:end]
        found = x[:, start:end]
        active = everyone
        limit = end - start if max_sweeps is None else min(max_sweeps, end - start)
        change = None
        for _ in range(limit):
            new = flow.affine_inverse(target[active], blocks.loc_scale(found[active], active))[0]
            change = _change(new, found[active])
            found[active] = new
            sweeps[active] += 1
            work += new.numel()
            moving = ~(change <= tolerance)
            active = active[moving]
            change = change[moving]
            if not len(active):
                break
        if len(active) and limit < end - start:
            raise WavedistillError(
                f"no convergence: after {limit} sweeps {len(active)} of {batch} examples still change by up to "
                f"{'everything' if change is None else format(float(change.max()), '.1e')} (tolerance "
                f"{tolerance:.0e}). Raise max_sweeps ({end - start} are always "
                "enough) or tolerance, give a better draft, or use method='incremental'."
            )
        if end < steps:
            blocks.close(found)
            work += found.numel()
    if flow.of_vectors:
        x = x[:, order]
    return _Found(x, sweeps, work / max(y.numel(), 1))


class _VectorBlocks:
    """Parameters of one block of features, in the order, from a guess of the block and the final values before it."""

    def __init__(self, flow: AutoregressiveFlow, batch: int, cond: Tensor | None) -> None:
        self.flow = flow
        self.stepper = MaskedStepper(flow.predictor, batch, cond)
        self.open = self.stepper.open
        self.close = self.stepper.close

    def loc_scale(self, x: Tensor, examples: Tensor) -> LocScale:
        return self.flow.split(self.stepper.block_parameters(x, examples))


class _WaveformBlocks:
    """The same for samples: the causal stack's state stands for all samples before the block."""

    def __init__(self, flow: AutoregressiveFlow, samples: int, cond: Condition) -> None:
        self.flow = flow
        self.samples = samples
        self.cond = cond
        self.state: CausalState | None = None

    def open(self, start: int, end: int) -> None:
        features, source = self.cond
        if features is not None and features.shape[1] > 1:
            hop = self.samples // features.shape[1]
            if start % hop == 0 and end % hop == 0:
                features = features[:, start // hop : end // hop]
            else:  # the block cuts through blocks of the condition: one vector a step
                steps = torch.arange(start, end, self.flow.predictor.step_size, device=features.device)
                features = features[:, steps // hop]
        self.part = Condition(features, None if source is None else source[:, start:end])

    def loc_scale(self, x: Tensor, examples: Tensor) -> LocScale:
        part = Condition(*(None if one is None else one[examples] for one in self.part))
        state = None if self.state is None else select(self.state, examples)
        return self.flow.forward_chunk(x, part, state)[0]

    def close(self, x: Tensor) -> None:
        self.state = self.flow.forward_chunk(x, self.part, self.state)[1]


def _change(new: Tensor, old: Tensor) -> Tensor:
    """Largest relative change of each example; a value that stays infinite or not a number does not change."""
    same = (new == old) | (new.isnan() & old.isnan())
    return largest(torch.where(same, 0.0, (new - old).abs() / new.abs().clamp_min(1.0)))


def largest(x: Tensor) -> Tensor:
    """Maximum over all but the batch axis, (batch,); 0 of nothing."""
    return x.flatten(1).amax(1) if x[0:1].numel() else x.new_zeros(x.shape[0])
