"""The invertible front of teacher and student: waveform <-> the near-white signal their networks work on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from wavedistill.audio.mel import MelConfig
from wavedistill.dsp.filters import all_pole
from wavedistill.errors import WavedistillError
from wavedistill.flows.elementwise import PreEmphasis, Scale
from wavedistill.flows.lapped import LappedTransform
from wavedistill.flows.linear_prediction import LPC, LinearPredictionFlow, MelLPC
from wavedistill.flows.transform import Compose, Mapped, Transform


@dataclass
class FrontConfig:
    """What stands between the waveform in [-1, 1) and the network. All of it is invertible: likelihoods stay exact.

    Attributes:
        pre_emphasis: coefficient of y_t = x_t - c x_{t-1} (0: off); unit Jacobian.
        scale: factor that brings the signal to about unit variance (1: off).
        mel_prediction_order: coefficients of linear prediction derived from the mel, with its gain (0: off). It takes
            the place of the two above.
        white_noise: white noise in the predictor's spectrum, relative to the mean.
        lag_window: Hz by which the predictor's spectrum is smoothed, see `wavedistill.flows.MelLPC`. 10 with an order
            of 256 makes it follow the pitch harmonics that the mel shows.
        bands: values of a step: the network's signal is the orthogonal DCT-II of each block of so many samples, lowest
            band first, one block after another (1: the samples themselves).
        mel_contraction: steps of `wavedistill.flows.MelContraction` that the finished waveform takes towards those with
            the given mel (0: none). A teacher and its student share them, so that the divergence between the two is
            that of what is heard.
    """

    pre_emphasis: float = 0.0
    scale: float = 1.0
    mel_prediction_order: int = 0
    white_noise: float = 1e-7
    lag_window: float = 30.0
    bands: int = 1
    mel_contraction: int = 0

    def __post_init__(self) -> None:
        if self.mel_prediction_order and (self.pre_emphasis or self.scale != 1.0):
            raise WavedistillError(
                "front: mel_prediction_order already whitens and scales the signal; set pre_emphasis: 0 and scale: 1, "
                "or mel_prediction_order: 0."
            )
        if self.mel_contraction < 0:
            raise WavedistillError(f"front: mel_contraction must be at least 0, got {self.mel_contraction}.")
        if self.bands != 1 and (self.bands % 2 or not 2 <= self.bands <= 64):
            raise WavedistillError(f"front: bands must be 1 or an even number from 2 to 64, got {self.bands}.")


class Front(Transform):
    """Waveform x (batch, 1, samples) -> network signal u (batch, 1, samples), given the log-mel spectrogram.

    `condition(mel)` makes what forward and inverse need, once per mel. With ``bands`` M, u holds the M coefficients of
    the first block of M samples, then those of the second, and so on; samples must be a multiple of M. No value of u
    depends on samples after its block.

    Attributes:
        history: samples before its own that a value of u depends on.
    """

    def __init__(self, config: FrontConfig, mel: MelConfig | None, upsample: int) -> None:
        super().__init__()
        if config.mel_prediction_order and mel is None:
            raise WavedistillError(
                "front: mel_prediction_order needs a mel-conditioned model; set it to 0 or give a mel."
            )
        self.config = config
        self.history = max(1, config.mel_prediction_order)
        self.block = math.gcd(mel.hop_length, 64) if mel is not None else 64
        if config.mel_prediction_order:
            self.predictor = MelLPC(mel, config.mel_prediction_order, upsample, config.white_noise, config.lag_window)
            self.transform = LinearPredictionFlow()
        else:
            self.predictor = None
            self.transform = Compose(PreEmphasis(config.pre_emphasis), Scale(config.scale))
        self.split = LappedTransform(config.bands, overlap=0) if config.bands > 1 else None

    def condition(self, mel: Tensor | None) -> LPC | None:
        return self.predictor(mel) if self.predictor is not None else None

    def forward(self, x: Tensor, cond: LPC | None = None, per_step: bool = False) -> Mapped:
        mapped = self.transform.forward(x, cond, per_step)
        return mapped._replace(value=self._split(mapped.value))

    def inverse(self, y: Tensor, cond: LPC | None = None, per_step: bool = False) -> Mapped:
        return self.transform.inverse(self._joined(y), cond, per_step)

    def _split(self, u: Tensor) -> Tensor:
        """Bands of (batch, 1, samples), block after block."""
        if self.split is None:
            return u
        return self.split.forward(u).value.transpose(1, 2).reshape(u.shape)

    def _joined(self, u: Tensor) -> Tensor:
        """The split undone, (batch, 1, samples)."""
        if self.split is None:
            return u
        return self.split.inverse(u.reshape(u.shape[0], -1, self.config.bands).transpose(1, 2)).value

    def analyze(self, x: Tensor, cond: LPC | None, past: Tensor) -> tuple[Tensor, Tensor]:
        """`forward` with memory: x (batch, samples) and the last `history` samples before it -> u and those of x.

        No log-determinant is computed.
        """
        following = torch.cat([past, x], dim=1)
        if cond is None:
            u = self.config.scale * (x - self.config.pre_emphasis * following[:, :-1])
        else:
            u = self.transform.analyze(x, cond, past)
        return self._split(u.unsqueeze(1))[:, 0], following[:, x.shape[1] :].clone()

    def synthesize(self, u: Tensor, cond: LPC | None, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """`inverse` with memory: u (batch, samples) and the waveform's last samples -> waveform and its last samples.

        No log-determinant is computed.
        """
        u = self._joined(u.unsqueeze(1))[:, 0]
        if cond is None:
            block = self.block if u.shape[1] % self.block == 0 else math.gcd(u.shape[1], self.block)
            excitation = (u / self.config.scale).reshape(u.shape[0], -1, block)
            return all_pole(excitation, u.new_full((*excitation.shape[:2], 1), self.config.pre_emphasis), past)
        return self.transform.synthesize(u, cond, past)

    def log_slope(self, u: Tensor, cond: LPC | None) -> Tensor:
        """log du_t / dx_t at every sample of u (batch, samples), in its dtype: (batch or 1, samples)."""
        if cond is None:
            return u.new_full((1, u.shape[1]), math.log(self.config.scale))
        return -cond.log_gain.repeat_interleave(u.shape[1] // cond.log_gain.shape[1], dim=1)
