"""Continuous normalizing flows: the value follows an ordinary differential equation from data to latent.

References:
    Neural Ordinary Differential Equations (Chen et al., 2018), https://arxiv.org/abs/1806.07366
    FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative Models (Grathwohl et al., 2018),
        https://arxiv.org/abs/1810.01367
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from wavedistill.errors import WavedistillError
from wavedistill.flows.solvers.log_det import NOISES, draw_noise, jacobian
from wavedistill.flows.transform import Transform, require_sizes
from wavedistill.nn.coupling_net import CouplingNet, NetworkConfig
from wavedistill.numerics import full_precision, refuse_second_derivative, refuse_vmap, under_torch_func

ADAPTIVE = ("dopri5", "dopri8")
FIXED = ("rk4", "midpoint", "euler")
TOLERANCES = {torch.float32: 1e-6, torch.float64: 1e-12}


class ContinuousFlow(Transform):
    """y = z(1) where z(0) = x and dz/dt = f(z, t | cond) with a smooth network f (FFJORD).

    The inverse runs from t = 1 to 0.

    log|det| = integral over t of tr(df/dz), integrated along with z. tr is

    * "exact": the diagonal of the whole Jacobian. For events of up to about a hundred elements.
    * "hutchinson": v' (df/dz) v, unbiased, with one noise vector v for a whole solve, without which an adaptive solver
      would chase the noise.

    The map is as invertible as the solver is accurate. At the start f is 0 and the map the identity. An example that is
    not finite is left out of the solve and comes back as NaN. Everything is computed in float32 at least, under
    autocast too. Needs torchdiffeq.

    Args:
        dim: features.
        network: size of f, a `CouplingNet` that gets t as one more feature; None: `NetworkConfig`'s defaults.
        cond_dim: channels of the condition, 0 for none.
        trace: "exact" or "hutchinson".
        noise: "rademacher" or "normal", of "hutchinson".
        solver: adaptive "dopri5" or "dopri8", or "rk4", "midpoint" or "euler" with ``step_size``.
        rtol, atol: of an adaptive solver, for the worst example of a batch; None: 1e-6 in float32, 1e-12 in float64.
        step_size: of a solver with fixed steps.
        adjoint: gradient from a second equation solved backwards, in memory that does not grow with the number of
            steps, first derivatives only; otherwise, and under torch.func, through the steps of the solver.
        generator: source of the noise; None: torch's global one.

    Shapes: (batch, dim) or (batch, dim, samples); cond (batch, cond_dim[, frames]).

    Raises:
        WavedistillError: for an argument out of range, where torchdiffeq is not installed, where the solver gives up,
            for a second derivative by the adjoint, and under torch.vmap.

    Example:
        >>> import torch
        >>> from wavedistill.flows import ContinuousFlow
        >>> flow, x = ContinuousFlow(2), torch.randn(4, 2)
        >>> _ = torch.nn.init.normal_(flow.network.output.weight, std=0.1)
        >>> y, log_det = flow.forward(x)
        >>> bool(torch.allclose(flow.inverse(y).value, x, atol=1e-4)), log_det.shape
        (True, torch.Size([4]))
    """

    def __init__(
        self,
        dim: int,
        *,
        network: NetworkConfig | None = None,
        cond_dim: int = 0,
        trace: str = "exact",
        noise: str = "rademacher",
        solver: str = "dopri5",
        rtol: float | None = None,
        atol: float | None = None,
        step_size: float | None = None,
        adjoint: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if trace not in ("exact", "hutchinson") or noise not in NOISES:
            raise WavedistillError(
                f"ContinuousFlow needs trace of exact, hutchinson and noise of {', '.join(NOISES)}, got {trace!r} "
                f"and {noise!r}."
            )
        if solver not in ADAPTIVE + FIXED:
            raise WavedistillError(f"ContinuousFlow needs a solver of {', '.join(ADAPTIVE + FIXED)}, got {solver!r}.")
        if (solver in FIXED) != (step_size is not None) or (solver in FIXED and (rtol, atol) != (None, None)):
            raise WavedistillError(
                f"{', '.join(FIXED)} need a step_size and no rtol or atol, {' and '.join(ADAPTIVE)} the opposite, "
                f"got {solver} with step_size={step_size}, rtol={rtol}, atol={atol}."
            )
        if step_size is not None and not 0 < step_size <= 1:
            raise WavedistillError(f"ContinuousFlow needs a step_size in (0, 1], got {step_size}.")
        require_sizes(self, dim=dim)
        require_sizes(self, 0, cond_dim=cond_dim)
        network = NetworkConfig.checked(network, self)
        self.dim = dim
        self.cond_dim = cond_dim
        if network.kernel_size > 1:
            self.ranks = (3,)
        self.network = CouplingNet(dim + 1, dim, network, cond_dim)
        self.trace = trace
        self.noise = noise
        self.generator = generator
        self.solver = solver
        self.rtol = rtol
        self.atol = atol
        self.step_size = step_size
        self.adjoint = adjoint

    def _forward(self, x: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        return self._integrate(x, cond, backwards=False)

    def _inverse(self, y: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        return self._integrate(y, cond, backwards=True)

    def _integrate(self, start: Tensor, cond: Any, backwards: bool) -> tuple[Tensor, Tensor]:
        with torch.autocast(start.device.type, enabled=False):
            value = full_precision(start)
            cond = full_precision(cond) if self.cond_dim else None
            finite = value.flatten(1).isfinite().all(1)
            if self.cond_dim:
                finite = finite & cond.flatten(1).isfinite().all(1)
                cond = torch.where(_like(finite, cond), cond, 0.0)
            value = torch.where(_like(finite, value), value, 0.0)
            if start.numel():
                value, log_det = self._solve(value, cond, backwards)
            else:
                log_det = value.flatten(1).sum(1)
            value = torch.where(_like(finite, value), value, torch.nan)
            return value.to(start), torch.where(finite, log_det, torch.nan)

    def _solve(self, value: Tensor, cond: Tensor | None, backwards: bool) -> tuple[Tensor, Tensor]:
        plain, adjoint = _solvers()
        # captured here, so that the adjoint, which runs later, sees the parameters of this call
        parameters = dict(self.network.named_parameters())
        noise = draw_noise(self.noise, value, self.generator) if self.trace == "hutchinson" else None

        def derivative(elapsed: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            def field(z: Tensor) -> Tensor:
                t = 1.0 - elapsed if backwards else elapsed
                change = functional_call(
                    self.network, parameters, (torch.cat([z, t.expand(len(z), 1, *z.shape[2:])], dim=1), cond)
                )
                return -change if backwards else change

            if noise is None:
                change, matrix = jacobian(field, state[0])
                return change, matrix.diagonal(dim1=1, dim2=2).sum(1)
            change, pullback = torch.func.vjp(field, state[0])
            return change, (pullback(noise)[0] * noise).flatten(1).sum(1)

        times = torch.tensor([0.0, 1.0], dtype=value.dtype, device=value.device)
        options: dict[str, Any] = {"method": self.solver}
        if self.solver in FIXED:
            options["options"] = {"step_size": self.step_size}
        else:
            tolerance = TOLERANCES[value.dtype]
            options["rtol"] = tolerance if self.rtol is None else self.rtol
            options["atol"] = tolerance if self.atol is None else self.atol
            # a last step that ends at the end: torchdiffeq would step past it and interpolate, which is of low order
            options["options"] = {"norm": _worst_example, "step_t": times[1:]}
        refuse_vmap("the solution of a differential equation")
        if under_torch_func() and self.solver in ADAPTIVE:
            raise WavedistillError(
                f"torchdiffeq's {self.solver} cannot go through torch.func: take a solver with fixed steps, "
                f"{', '.join(FIXED)}, or torch.autograd."
            )
        odeint = plain
        by_adjoint = self.adjoint and not under_torch_func()
        if by_adjoint:
            odeint = adjoint
            options["adjoint_params"] = (*parameters.values(), *([] if cond is None else [cond]))
            options["adjoint_options"] = (
                {"step_size": self.step_size} if self.solver in FIXED else {"step_t": times[:1]}
            )
        state = (value, value.new_zeros(value.shape[0]))
        try:
            values, log_dets = odeint(derivative, state, times, **options)
        except AssertionError as stopped:  # what torchdiffeq raises where steps underflow or values overflow
            raise WavedistillError(
                f"the solver {self.solver} gave up ({stopped}): f is too steep for these tolerances. Raise rtol "
                "and atol, compute in float64, or train with a smaller learning rate."
            ) from stopped
        results = values[-1], log_dets[-1]
        for result in results if by_adjoint else ():
            if result.requires_grad:
                result.register_hook(_refuse_second)
        return results


def _worst_example(state: tuple[Tensor, ...]) -> Tensor:
    """The norm of an error: root mean square over an example's elements, then the largest of the batch.

    So an example counts the same in every batch.
    """
    return torch.stack(
        [part.flatten(1).square().mean(1).sqrt().max() if part.dim() > 1 else part.abs().max() for part in state]
    ).max()


def _refuse_second(_: Tensor) -> None:
    refuse_second_derivative("ContinuousFlow with an adjoint", "take adjoint=False, or torch.func")


def _like(rows: Tensor, x: Tensor) -> Tensor:
    return rows.reshape(-1, *(1,) * (x.dim() - 1))


def _solvers() -> tuple[Callable[..., Any], Callable[..., Any]]:
    try:
        from torchdiffeq import odeint, odeint_adjoint
    except ImportError as missing:
        raise WavedistillError('ContinuousFlow needs torchdiffeq. Type: pip install "wavedistill[ode]"') from missing
    return odeint, odeint_adjoint
