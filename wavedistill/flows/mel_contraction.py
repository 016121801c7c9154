"""A bijection that brings waveforms towards a given mel spectrogram.

    latent -> data:   x <- x + damping * strength * (P(x) - x), several times    (wavedistill.dsp.mel_contraction)

P weighs a waveform's spectrum by the ratio of the wanted mel to its own. Recordings with their own mel are fixed
points; other waveforms are drawn to that mel, the level of a tile (a band of a frame) by a factor of
(1 - damping)^steps at most. As the last layer of a generator, the steps correct what is heard, and its density is
known.

A step with damping d is strongly monotone, and so a bijection of R^n, where the symmetric part of (1 - d) I + d P' is
positive definite. This is measured, not proved. The least eigenvalue of the symmetric part of P' was between -0.06 and
0 on speech, on samples of teachers and students, on noise, tones and pulses; looked for by gradient descent on the
waveform and the mel together, -0.3, which is enough up to a damping of 0.76. The eigenvalues of P' itself, on which it
depends whether a step is a bijection near a waveform, had real parts of 0 or more even then, which is enough for all.

References:
    Nonlinear Elliptic Boundary Value Problems (Browder, 1963); Monotone Nonlinear Operators in Hilbert Space (Minty,
        1962): strongly monotone maps are bijections
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from wavedistill.audio.mel import MelConfig
from wavedistill.dsp.mel_contraction import MelSteps, Stream
from wavedistill.errors import WavedistillError
from wavedistill.flows.solvers.krylov import krylov_log_det
from wavedistill.flows.solvers.log_det import draw_noise, exact_log_det
from wavedistill.flows.solvers.monotone import invert_monotone
from wavedistill.flows.transform import Transform
from wavedistill.numerics import full_precision

LONGEST_EXACT = 4096
"""Samples up to which the log-determinant is that of the whole Jacobian."""
PRODUCTS = 8
"""With the Jacobian for every probe of a step: to 1e-6 nats a sample (measured)."""
TOLERANCES = {torch.float32: 1e-8, torch.float64: 1e-12}
"""Relative residual of each step backwards, by the precision of the wave."""


class LogDetEstimate(NamedTuple):
    """A log-determinant (batch,) in nats and the standard error (batch,) of the estimate, in float64."""

    value: Tensor
    standard_error: Tensor


class MelContraction(Transform):
    """latent -> data: steps of a waveform towards the mel spectrogram that is its condition; data -> latent: back.

    The inverse steps are solved for numerically. The log-determinant is exact and differentiable for up to 4,096
    samples. Beyond, it is an estimate from random probes, the same at every call, without gradient: those of the two
    directions cancel.

    Args:
        mel: settings of the spectrogram.
        steps: more come nearer to the mel, and amplify more on the way back.
        damping: share of the way that a step goes at most, in (0, 1).
        probes: of the estimate; its standard error falls with their square root.

    Shapes: (batch, 1, frames * hop_length); cond, the log-mel, (batch, n_mels, frames).

    Raises:
        WavedistillError: for an argument out of range, another number of frames, and where the inverse does not settle.

    Example:
        >>> import torch
        >>> from wavedistill.audio.mel import LogMelSpectrogram, MelConfig
        >>> from wavedistill.flows import MelContraction
        >>> mel = MelConfig(sample_rate=8000, n_fft=64, win_length=64, hop_length=16, n_mels=8, f_max=4000.0)
        >>> x = 0.1 * torch.randn(1, 1, 160)
        >>> own = LogMelSpectrogram(mel)(x[:, 0])
        >>> contraction = MelContraction(mel, steps=4)
        >>> torch.allclose(contraction.forward(x, own).value, x, atol=1e-4)  # a fixed point
        True
        >>> y = contraction.inverse(x, own + 0.5).value
        >>> bool((LogMelSpectrogram(mel)(y[:, 0]) - own).mean() > 0.4)
        True
    """

    dim = 1
    ranks = (3,)

    def __init__(self, mel: MelConfig, steps: int, damping: float = 0.75, probes: int = 4) -> None:
        super().__init__()
        if probes < 2:
            raise WavedistillError(f"MelContraction needs 2 probes or more, got {probes}.")
        self.steps = MelSteps(mel, steps, damping)
        self.cond_dim = mel.n_mels
        self.probes = probes

    def contract(self, wave: Tensor, log_mel: Tensor) -> Tensor:
        """Latent -> data without log-determinant; differentiable. Shapes as in `inverse`."""
        with torch.autocast(wave.device.type, enabled=False):
            return self.steps(wave[:, 0], log_mel).unsqueeze(1)

    def expand(self, wave: Tensor, log_mel: Tensor) -> Tensor:
        """Data -> latent without log-determinant; differentiable. Shapes as in `forward`."""
        with torch.autocast(wave.device.type, enabled=False):
            return self._latents(wave[:, 0], log_mel)[-1].unsqueeze(1).to(wave)

    def look_ahead(self, low_latency: bool = False) -> int:
        """Samples of the latent after a whole frame that the frame of the data depends on."""
        return self.steps.look_ahead(low_latency)

    def stream_state(self, low_latency: bool = False) -> Stream:
        """What a stream of `contract_chunk` remembers, before its first chunk."""
        return self.steps.stream_state(low_latency)

    def contract_chunk(self, wave: Tensor, log_mel: Tensor, state: Stream, last: bool) -> Tensor:
        """`contract` of a signal in chunks: the samples that a further one makes final, `look_ahead` before its end.

        Joined, they equal the whole; in low latency nearly. The last chunk gives all that is left, and may be empty.

        Shapes: wave (batch, 1, samples), log_mel (batch, n_mels, frames); the one may be ahead of the other.
        """
        return self.steps.stream_step(wave[:, 0], log_mel, state, last).unsqueeze(1)

    def estimate_log_det(self, wave: Tensor, log_mel: Tensor) -> LogDetEstimate:
        """Log-determinant of latent -> data at a latent waveform, from probes whatever its length.

        Shapes: as in `inverse`.
        """
        return self._estimate(self._path(wave[:, 0], log_mel)[:-1], log_mel)

    def _forward(self, x: Tensor, cond: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            wave, log_mel = self._prepared(x, cond)
            path = self._latents(wave, log_mel)
            return path[-1].unsqueeze(1).to(x), -self._log_det(path[:0:-1], log_mel).to(wave)

    def _inverse(self, y: Tensor, cond: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(y.device.type, enabled=False):
            wave, log_mel = self._prepared(y, cond)
            path = self._path(wave, log_mel)
            return path[-1].unsqueeze(1).to(y), self._log_det(path[:-1], log_mel).to(wave)

    def _prepared(self, x: Tensor, cond: Tensor) -> tuple[Tensor, Tensor]:
        hop = self.steps.mel.hop_length
        if cond.shape[-1] * hop != x.shape[-1]:
            raise WavedistillError(
                f"MelContraction needs a condition with a frame for every {hop} samples: shape "
                f"({x.shape[0]}, {self.cond_dim}, {x.shape[-1] / hop:g}), got {tuple(cond.shape)}."
            )
        wave = full_precision(x)[:, 0]
        return wave, cond.to(wave)

    def _path(self, wave: Tensor, log_mel: Tensor) -> list[Tensor]:
        """The latent wave and it after each step, the last of which is the data."""
        step = self.steps.step(log_mel)
        path = [wave]
        for _ in range(self.steps.steps):
            path.append(step(path[-1]))
        return path

    def _latents(self, wave: Tensor, log_mel: Tensor) -> list[Tensor]:
        """`_path` from the data backwards, in float64: the way back amplifies rounding."""
        step = self.steps.step(log_mel.double())
        path = [wave.double()]
        for _ in range(self.steps.steps):
            path.append(invert_monotone(step, path[-1], TOLERANCES[wave.dtype]))
        return path

    def _log_det(self, waves: list[Tensor], log_mel: Tensor) -> Tensor:
        """Sum over the steps from these waves, the first step first."""
        if waves[0].shape[1] > LONGEST_EXACT:
            return self._estimate(waves, log_mel).value
        step = self.steps.step(log_mel.double())
        return sum(exact_log_det(lambda x: step(x) - x, wave.double())[1] for wave in waves)

    @torch.no_grad()
    def _estimate(self, waves: list[Tensor], log_mel: Tensor) -> LogDetEstimate:
        step = self.steps.step(log_mel.to(waves[0]))
        generator = torch.Generator().manual_seed(0)
        like = waves[0].new_empty(self.probes, waves[0].shape[1])
        total = sum(
            krylov_log_det(step, wave, draw_noise("rademacher", like, generator), PRODUCTS) for wave in waves
        )  # (probes, batch)
        error = total.std(0) / self.probes**0.5
        return LogDetEstimate(total.mean(0), error)
