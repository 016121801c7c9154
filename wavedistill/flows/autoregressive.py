"""Masked and inverse autoregressive flows over waveforms: one triangular affine map, read in two directions.

    standardize (MAF, the Gaussian teacher):   z_t = (x_t - m(x_<t)) / s(x_<t)      x -> z one pass, z -> x sample by sample
    scale and shift (IAF, the student):        x_t = m(z_<t) + s(z_<t) z_t          z -> x one pass, x -> z sample by sample

The second is the first with data and noise exchanged: both are y_t = affine(x_t; x_<t), fast forward and sequential backward.
A MAF uses the fast direction for densities, an IAF (`transform.inv`) for samples.

References:
    Masked Autoregressive Flow for Density Estimation (Papamakarios et al., 2017), https://arxiv.org/abs/1705.07057
    Improved Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016), https://arxiv.org/abs/1606.04934
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from wavedistill.flows.inversion import StepwisePredictor
from wavedistill.flows.transform import Transform
from wavedistill.nn.predictor import CausalPredictor, PredictorState
from wavedistill.nn.wavenet_stack import StackConfig


class Condition(NamedTuple):
    """Condition of a waveform flow: features (batch, blocks, channels) or None, source (batch, samples) or None."""

    features: Tensor | None = None
    source: Tensor | None = None


class LocScale(NamedTuple):
    """Location and log-scale of each sample, (batch, samples), float32."""

    loc: Tensor
    log_scale: Tensor


class AutoregressiveFlow(Transform):
    """Causal affine map of a waveform; see the module's text for the two readings.

    Args:
        stack: size of the WaveNet stack.
        cond_channels: width of the condition's features (0: none).
        linear_order: taps of the linear path from the past (0: none).
        source_order: taps of the linear path from the source (0: no source).
        standardize: True for (x - m) / s, False for m + s x.
        log_scale_min: lower bound of log s.

    Shapes:
        x (batch, 1, samples) -> (batch, 1, samples), log_det (batch,). forward is one parallel pass, inverse
        sequential and without gradient.
    """

    def __init__(
        self,
        stack: StackConfig,
        cond_channels: int = 0,
        linear_order: int = 0,
        source_order: int = 0,
        standardize: bool = True,
        log_scale_min: float = -9.0,
    ) -> None:
        super().__init__()
        self.predictor = CausalPredictor(2, stack, cond_channels, linear_order, source_order)
        self.standardize, self.log_scale_min = standardize, log_scale_min

    def loc_scale(self, x: Tensor, cond: Condition) -> LocScale:
        """Parameters at every sample of x (batch, samples) from the samples before it."""
        return self.split(*self.predictor(x, cond.features, cond.source))

    def split(self, parameters: Tensor, shift: Tensor) -> LocScale:
        """Network output (..., 2) and linear path (...) -> loc and floored log-scale."""
        return LocScale(parameters[..., 0] + shift, parameters[..., 1].clamp_min(self.log_scale_min))

    def _forward(self, x: Tensor, cond: Condition | None) -> tuple[Tensor, Tensor]:
        loc, log_scale = self.loc_scale(x[:, 0], cond or Condition())
        if self.standardize:
            return ((x[:, 0] - loc) * torch.exp(-log_scale)).unsqueeze(1), -log_scale
        return (loc + x[:, 0] * torch.exp(log_scale)).unsqueeze(1), log_scale

    def forward_chunk(self, x: Tensor, cond: Condition, state: PredictorState | None) -> tuple[LocScale, PredictorState]:
        """loc and scale of one chunk (batch, samples) of a long signal, and the state for the next."""
        parameters, shift, state = self.predictor.forward_chunk(x, cond.features, cond.source, state)
        return self.split(parameters, shift), state

    def _inverse(self, y: Tensor, cond: Condition | None) -> tuple[Tensor, Tensor]:
        cond = cond or Condition()
        stepper = StepwisePredictor(self.predictor, y.shape[0], y.shape[-1], cond.features, cond.source)
        outputs, log_scales = [], []
        for t in range(y.shape[-1]):
            loc, log_scale = self.split(*stepper.parameters(t))
            if self.standardize:
                x = loc + y[:, 0, t] * torch.exp(log_scale)
            else:
                x, log_scale = (y[:, 0, t] - loc) * torch.exp(-log_scale), -log_scale
            stepper.feed(t, x)
            outputs.append(x)
            log_scales.append(log_scale)
        if not outputs:
            return y, y[:, 0]
        return torch.stack(outputs, dim=1).unsqueeze(1), torch.stack(log_scales, dim=1)
