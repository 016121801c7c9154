"""Masked and inverse autoregressive flows: one triangular affine map, read in two directions.

With m_i and s_i > 0 computed by one network from the elements before i (features in an order, or samples in time):

| | masked autoregressive flow (MAF) | inverse autoregressive flow (IAF) |
|---|---|---|
| map | z_i = (x_i - m_i(x_<i)) / s_i(x_<i) | x_i = m_i(z_<i) + s_i(z_<i) z_i |
| parameters read | the data | the noise |
| log-density of given data | one pass | sequential: z must be found first |
| sampling | sequential | one pass |
| log-density of its own sample | known from sampling | known from sampling |
| here | ``AutoregressiveFlow(network)`` | ``AutoregressiveFlow(network, standardize=False).inv`` |

The right column is the left one with data and noise exchanged: ``.inv`` turns either into the other. Log-determinants
of x -> z are -sum_i log s_i in both. A sequential direction takes as many steps as there are elements; each hidden unit
is evaluated once, so its arithmetic is that of about one pass (`wavedistill.flows.solvers.stepping`). Both directions
are differentiable (and `torch.compile` unrolls the sequential one, so compile it for short inputs only). Other
inverses, with their costs counted: `wavedistill.flows.solvers.inversion`.

Example:
    >>> import torch
    >>> from wavedistill.flows import AutoregressiveFlow, Flow, MADE
    >>> _ = torch.manual_seed(0)
    >>> maf = AutoregressiveFlow(MADE(4, hidden=16))
    >>> _ = torch.nn.init.normal_(maf.predictor.layers[-1].weight, std=0.1)
    >>> x = torch.randn(2, 4)
    >>> z, log_det = maf.forward(x)                 # one pass
    >>> bool(torch.allclose(maf.inverse(z).value, x, atol=1e-6))  # four steps
    True
    >>> iaf = maf.inv                               # the same weights: now noise -> data is the one pass
    >>> bool(torch.equal(iaf.inverse(x).value, z))
    True
    >>> Flow(maf).log_prob(x).shape, Flow(iaf).sample((5, 4)).shape
    (torch.Size([2]), torch.Size([5, 4]))

References:
    MADE: Masked Autoencoder for Distribution Estimation (Germain et al., 2015), https://arxiv.org/abs/1502.03509
    Improved Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016),
        https://arxiv.org/abs/1606.04934
    Masked Autoregressive Flow for Density Estimation (Papamakarios et al., 2017), https://arxiv.org/abs/1705.07057
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from wavedistill.errors import WavedistillError
from wavedistill.flows.solvers.stepping import CausalStepper, MaskedStepper
from wavedistill.flows.transform import Transform, broadcast_condition, require_dtype
from wavedistill.nn.causal_network import CausalNetwork, CausalState
from wavedistill.nn.made import MADE

LOG2_E = 1.4426950408889634


class Condition(NamedTuple):
    """Condition of a waveform flow: features (batch, blocks, channels) or None, source (batch, samples) or None."""

    features: Tensor | None = None
    source: Tensor | None = None


class LocScale(NamedTuple):
    """Location and log-scale of each element, (batch, steps), float32 at least."""

    loc: Tensor
    log_scale: Tensor


class AutoregressiveFlow(Transform):
    """y_i = (x_i - m_i) / s_i, or m_i + s_i x_i, with m_i and s_i from the x before i: see the module's text.

    log|det| = -sum_i log s_i (or +sum_i log s_i).

    Args:
        network: a `MADE` for vectors in any order of the features, or a `CausalNetwork` for waveforms; two
            parameters an element.
        standardize: True for (x - m) / s, False for m + s x.
        log_scale_min, log_scale_max: log s is clamped to this range: nothing overflows, and tighter limits make better
            conditioned inverses.

    Shapes:
        Vectors x (batch, dim), cond (batch, cond_dim). Waveforms x (batch, 1, samples), cond a `Condition`, or the
        features alone as a tensor (batch, channels, frames). forward is one parallel pass, inverse sequential; both are
        differentiable.

    Raises:
        WavedistillError: for a network that is neither of the two, or limits in the wrong order.

    Example:
        >>> import torch
        >>> from wavedistill.flows import AutoregressiveFlow
        >>> from wavedistill.nn.causal_network import CausalNetwork
        >>> from wavedistill.nn.wavenet_stack import StackConfig
        >>> flow = AutoregressiveFlow(CausalNetwork(2, StackConfig(4, 2, 2, 8, 8), cond_channels=0, linear_order=4))
        >>> y, log_det = flow.forward(torch.randn(2, 1, 50))
        >>> y.shape, log_det.shape
        (torch.Size([2, 1, 50]), torch.Size([2]))
    """

    def __init__(
        self,
        network: MADE | CausalNetwork,
        standardize: bool = True,
        log_scale_min: float = -9.0,
        log_scale_max: float = 9.0,
    ) -> None:
        super().__init__()
        if not isinstance(network, (MADE, CausalNetwork)):
            raise WavedistillError(
                "AutoregressiveFlow needs a MADE (vectors) or a CausalNetwork (waveforms), got "
                f"{type(network).__name__}."
            )
        if not log_scale_min < log_scale_max:
            raise WavedistillError(
                f"log_scale_min must be below log_scale_max, got {log_scale_min} and {log_scale_max}."
            )
        self.predictor = network
        self.standardize = standardize
        self.log_scale_min = log_scale_min
        self.log_scale_max = log_scale_max
        self.of_vectors = isinstance(network, MADE)
        if self.of_vectors:
            self.ranks = (2,)
            self.dim = network.dim
            self.cond_dim = network.cond_dim
        else:
            self.ranks = (3,)
            self.dim = 1

    def loc_scale(self, x: Tensor, cond: Any = None) -> LocScale:
        """Parameters at every element of x, (batch, dim) or (batch, samples), from the elements before it.

        ``cond`` is what `check_condition` returns.
        """
        if self.of_vectors:
            return self.split(self.predictor(x, cond))
        features, source = Condition() if cond is None else cond
        return self.split(*self.predictor(x, features, source))

    def split(self, parameters: Tensor, shift: Tensor | None = None) -> LocScale:
        """Network output (..., 2) and linear path (...) -> loc and limited log-scale."""
        loc, log_scale = parameters.unbind(-1)
        return LocScale(loc if shift is None else loc + shift, log_scale.clamp(self.log_scale_min, self.log_scale_max))

    def affine(self, x: Tensor, parameters: LocScale) -> tuple[Tensor, Tensor]:
        """y and its log-slope from x and the parameters in x's shape."""
        loc, log_scale = parameters
        if self.standardize:
            log_scale = -log_scale
            return (x - loc) * _exp(log_scale), log_scale
        return torch.addcmul(loc, x, _exp(log_scale)), log_scale

    def affine_inverse(self, y: Tensor, parameters: LocScale) -> tuple[Tensor, Tensor]:
        """x from y and the parameters at x, and its log-slope."""
        loc, log_scale = parameters
        if self.standardize:
            return torch.addcmul(loc, y, _exp(log_scale)), log_scale
        log_scale = -log_scale
        return (y - loc) * _exp(log_scale), log_scale

    def check_condition(self, x: Tensor, cond: Any) -> Any:
        """The checked condition: a `Condition` for waveforms, (batch, cond_dim) or None for vectors."""
        if self.of_vectors:
            return broadcast_condition(cond, self.cond_dim, x, self) if self.cond_dim else None
        network = self.predictor
        batch = x.shape[0]
        samples = x.shape[-1]
        steps = samples // network.step_size
        if samples % network.step_size:
            raise WavedistillError(
                f"AutoregressiveFlow needs whole steps of {network.step_size} samples, got shape {tuple(x.shape)}."
            )
        channels = network.stack.cond.in_features if network.stack.cond is not None else 0
        if channels and not isinstance(cond, Condition):
            cond = Condition(broadcast_condition(cond, channels, x, self).transpose(1, 2))
        features, source = cond if isinstance(cond, Condition) else Condition()
        require_dtype(x, self, features if channels else None, source if network.source_order else None)
        if channels and (
            features is None
            or features.dim() != 3
            or features.shape[::2] != (batch, channels)
            or not features.shape[1]
            or steps % features.shape[1]
        ):
            raise WavedistillError(
                f"AutoregressiveFlow needs condition features of shape ({batch}, blocks, {channels}) with blocks "
                f"dividing {steps} steps, got {_shape(features)}."
            )
        if network.source_order and (source is None or source.shape != (batch, samples)):
            raise WavedistillError(
                f"AutoregressiveFlow needs a condition with a source of shape ({batch}, {samples}), got "
                f"{_shape(source)}."
            )
        return Condition(features if channels else None, source if network.source_order else None)

    def _forward(self, x: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        steps = x if self.of_vectors else x[:, 0]
        y, log_slope = self.affine(steps, self.loc_scale(steps, self.check_condition(x, cond)))
        return y.reshape(x.shape), log_slope

    def _inverse(self, y: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        cond = self.check_condition(y, cond)
        if not y.shape[-1]:
            return y, y[:, 0]
        with torch.autocast(y.device.type, enabled=False):
            value, log_slope = self._step_through(y if self.of_vectors else y[:, 0], cond)
        return value.reshape(y.shape), log_slope

    def _step_through(self, y: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        """y (batch, steps) -> x and its log-slopes, in as many steps."""
        batch, steps = y.shape
        columns = y.t()
        if self.of_vectors:
            stepper = MaskedStepper(self.predictor, batch, cond)
            columns = columns[self.predictor.order.argsort()]
        else:
            stepper = CausalStepper(self.predictor, batch, steps, *cond)
        values = []
        log_slopes = []
        for t, column in enumerate(columns.unbind(0)):
            parameters = stepper.parameters(t)
            x, log_slope = self.affine_inverse(
                column, self.split(parameters) if self.of_vectors else self.split(*parameters)
            )
            stepper.feed(t, x)
            values.append(x)
            log_slopes.append(log_slope)
        results = torch.stack(values, dim=1), torch.stack(log_slopes, dim=1)
        return tuple(one[:, self.predictor.order] for one in results) if self.of_vectors else results

    def forward_chunk(self, x: Tensor, cond: Condition, state: CausalState | None) -> tuple[LocScale, CausalState]:
        """loc and scale of one chunk (batch, samples) of a long signal, and the state for the next. Waveforms only."""
        parameters, shift, state = self.predictor.forward_chunk(x, cond.features, cond.source, state)
        return self.split(parameters, shift), state


def _exp(x: Tensor) -> Tensor:
    """e^x by way of 2^x, which for few elements does not wake the CPU's other threads, and is faster for many."""
    return torch.exp2(x * LOG2_E)


def _shape(value: Tensor | None) -> str:
    return "none" if value is None else str(tuple(value.shape))
