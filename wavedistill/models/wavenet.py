"""The teacher: an autoregressive WaveNet with exact likelihood.

With a Gaussian output the model is a masked autoregressive flow: waveform -> noise in one parallel pass (`encode`),
noise -> waveform sample by sample (`sample`).

References:
    WaveNet: A Generative Model for Raw Audio (van den Oord et al., 2016), https://arxiv.org/abs/1609.03499
    ClariNet: Parallel Wave Generation in End-to-End Text-to-Speech (Ping et al., 2018),
        https://arxiv.org/abs/1807.07281
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from wavedistill.audio.mel import MelConfig, check_mel
from wavedistill.distributions import Gaussian, MixtureOfLogistics, MuLawCategorical, noise_generators
from wavedistill.errors import WavedistillError
from wavedistill.flows.solvers.stepping import CausalStepper
from wavedistill.kernels.wavenet_step import CATEGORICAL, GAUSSIAN, MIXTURE, Draw
from wavedistill.models.front import Front, FrontConfig
from wavedistill.models.sequential_sampling import can_compile, fill
from wavedistill.nn.causal_network import CausalNetwork
from wavedistill.nn.mel_encoder import MelEncoder
from wavedistill.nn.wavenet_stack import StackConfig
from wavedistill.numerics import full_precision

GRID_HOP = 256
"""Block of samples that a model without a mel works in."""


@dataclass
class WaveNetConfig:
    """A teacher.

    Attributes:
        mel: settings of the log-mel condition; None for a model without one.
        sample_rate: Hz; must be the mel's where there is one.
        speakers: names of known speakers; empty for a model without speaker condition.
        distribution: "gaussian", "mol" (mixture of logistics) or "mulaw" (categorical over mu-law cells).
        num_mixtures: components of "mol".
        num_classes: cells of "mulaw".
        log_scale_min: floor of log-scales (in the network's domain, after the front).
        stack: size of the causal stack.
        cond_channels: width of the conditioning network.
        cond_upsample: blocks per mel frame at which the condition changes.
        linear_order: taps of the learned linear-prediction path, set block by block from the condition (0: off; not
            with "mulaw").
        front: invertible pre-processing.
    """

    mel: MelConfig | None = field(default_factory=MelConfig)
    sample_rate: int = 16000
    speakers: list[str] = field(default_factory=list)
    distribution: Literal["gaussian", "mol", "mulaw"] = "gaussian"
    num_mixtures: int = 10
    num_classes: int = 256
    log_scale_min: float = -9.0
    stack: StackConfig = field(default_factory=StackConfig)
    cond_channels: int = 128
    cond_upsample: int = 4
    linear_order: int = 32
    front: FrontConfig = field(default_factory=FrontConfig)

    def __post_init__(self) -> None:
        check_common(self)
        if self.distribution == "mulaw" and (self.linear_order or self.front != FrontConfig()):
            raise WavedistillError(
                "distribution 'mulaw' models the waveform itself: set linear_order: 0 and leave front at its defaults."
            )


def check_common(config) -> None:
    """Checks shared by teacher and student configurations."""
    stack = config.stack
    if stack.num_layers < 1 or stack.num_cycles < 1 or stack.num_layers % stack.num_cycles:
        raise WavedistillError(
            f"stack: num_layers ({stack.num_layers}) must be a positive multiple of num_cycles ({stack.num_cycles})."
        )
    if stack.kernel_size < 2:
        raise WavedistillError(f"stack: kernel_size must be at least 2, got {stack.kernel_size}.")
    if config.mel is not None and config.mel.sample_rate != config.sample_rate:
        raise WavedistillError(
            f"sample_rate is {config.sample_rate} Hz but mel.sample_rate is {config.mel.sample_rate} Hz: make "
            "them equal."
        )
    if config.mel is not None and config.mel.hop_length % config.cond_upsample:
        raise WavedistillError(
            f"mel.hop_length ({config.mel.hop_length}) must be a multiple of cond_upsample ({config.cond_upsample})."
        )
    if config.front.mel_prediction_order and config.mel is None:
        raise WavedistillError("front.mel_prediction_order needs a mel; set it to 0 for a model without mel.")


class WaveformModel(nn.Module):
    """What teacher and student share: front, conditioning network, shapes and checks."""

    def __init__(self, config) -> None:
        super().__init__()
        self.config = config
        self.sample_rate: int = config.sample_rate
        self.hop_length: int = config.mel.hop_length if config.mel else GRID_HOP
        self.front = Front(config.front, config.mel, config.cond_upsample)
        n_mels = config.mel.n_mels if config.mel else 0
        self.cond_channels = config.cond_channels if (n_mels or config.speakers) else 0
        self.conditioning = (
            MelEncoder(n_mels, len(config.speakers), config.cond_channels, config.cond_upsample)
            if self.cond_channels
            else None
        )

    def features(self, mel: Tensor | None, speaker: Tensor | None) -> Tensor | None:
        """Condition of every layer, (batch, blocks, cond_channels)."""
        return self.conditioning(mel, speaker) if self.conditioning is not None else None

    def check_condition(
        self, mel: Tensor | None, speaker: Tensor | None, num_samples: int | None, batch: int
    ) -> tuple[int, int]:
        """Check the arguments of sampling; returns (batch, samples)."""
        if (mel is None) != (self.config.mel is None):
            raise WavedistillError(
                "this model needs a mel: pass mel (batch, n_mels, frames)."
                if mel is None
                else "this model takes no mel: pass num_samples instead."
            )
        if bool(self.config.speakers) != (speaker is not None):
            known = ", ".join(self.config.speakers)
            raise WavedistillError(
                f"this model needs a speaker index (0..{len(self.config.speakers) - 1}: {known})."
                if known
                else "this model has no speakers: leave speaker out."
            )
        if mel is not None:
            check_mel(mel, self.config.mel)
            batch = mel.shape[0]
            num_samples = mel.shape[-1] * self.hop_length
        if speaker is not None:
            batch = speaker.shape[0] if mel is None else batch
            if speaker.shape != (batch,) or not bool(((speaker >= 0) & (speaker < len(self.config.speakers))).all()):
                raise WavedistillError(
                    f"speaker must be {batch} indices in 0..{len(self.config.speakers) - 1}, got {speaker.tolist()}."
                )
        if not num_samples or num_samples < 0:
            raise WavedistillError(f"num_samples must be above 0, got {num_samples}.")
        return batch, num_samples


class WaveNet(WaveformModel):
    """Autoregressive density over waveforms in [-1, 1).

    Attributes:
        receptive_field: samples of its own past that one sample depends on.
    """

    def __init__(self, config: WaveNetConfig) -> None:
        super().__init__(config)
        self.distribution = {
            "gaussian": lambda: Gaussian(config.log_scale_min),
            "mol": lambda: MixtureOfLogistics(config.num_mixtures, config.log_scale_min),
            "mulaw": lambda: MuLawCategorical(config.num_classes),
        }[config.distribution]()
        self.predictor = CausalNetwork(
            self.distribution.num_parameters, config.stack, self.cond_channels, config.linear_order
        )
        self.receptive_field: int = max(config.stack.receptive_field, config.linear_order)

    def log_prob(
        self,
        audio: Tensor,
        mel: Tensor | None = None,
        speaker: Tensor | None = None,
        *,
        dequantize: bool = True,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """log p(x_t | x_<t, condition) in nats per sample, from one parallel pass.

        With ``dequantize`` the audio is put on the 16-bit grid and uniform noise of one step is added, so that
        15 - log_prob / ln 2 is an upper bound, in bits per sample, on the code length of the 16-bit samples, comparable
        with a lossless codec's rate.

        Shapes:
            audio (batch, 1, samples), samples = frames * hop_length where there is a mel; mel (batch, n_mels, frames);
            speaker (batch,) -> (batch, samples).
        """
        if dequantize:
            audio = dequantized(audio, generator)
        predictor = self.front.condition(mel)
        u = self.front.forward(audio, predictor).value[:, 0]
        parameters, shift = self.predict(u, mel, speaker)
        return self.distribution.log_prob(parameters, shift, u) + self.front.log_slope(u, predictor)

    def predict(self, u: Tensor, mel: Tensor | None, speaker: Tensor | None) -> tuple[Tensor, Tensor]:
        """Distribution parameters (batch, samples, p) and linear path (batch, samples) of the front's signal u (batch,
        samples).
        """
        return self.predictor(u, self.features(mel, speaker))

    def encode(self, audio: Tensor, mel: Tensor | None = None, speaker: Tensor | None = None) -> Tensor:
        """The noise from which `sample` makes this audio, (batch, 1, samples): the MAF's density direction. Gaussian
        only.
        """
        self.need_gaussian("encode")
        u = self.front.forward(audio, self.front.condition(mel)).value[:, 0]
        loc, log_scale = self.distribution.loc_scale(*self.predict(u, mel, speaker))
        return ((u - loc) * torch.exp(-log_scale)).unsqueeze(1)

    @torch.inference_mode()
    def sample(
        self,
        mel: Tensor | None = None,
        num_samples: int | None = None,
        batch_size: int = 1,
        seed: int | list[int] | None = None,
        temperature: float = 1.0,
        noise: Tensor | None = None,
        prime: Tensor | None = None,
        speaker: Tensor | None = None,
        progress: bool = False,
    ) -> Tensor:
        """Draw waveforms one sample at a time, O(layers) work per sample.

        In float32 on a CPU this runs in compiled code, the batch on as many threads as torch may use; elsewhere step by
        step in torch. Both draw the same samples up to float rounding.

        Args:
            mel: (batch, n_mels, frames), or None with ``num_samples`` (and ``batch_size``) for a model without mel.
            seed: item b of the batch uses seed + b, or the b-th of a list; None: a fresh one.
            temperature: factor on the noise (on the logits for "mulaw"); 0 gives the most likely path.
            noise: (batch, 1, samples) standard normal in place of a seed (Gaussian only).
            prime: (batch, 1, samples) audio that the result begins with (no longer than the result).
            speaker: (batch,) indices.
            progress: show a progress bar on stderr.

        Returns:
            audio (batch, 1, samples), not clipped. The same call gives the same audio bit for bit; an item's noise
            depends on its seed alone, so that other company in the batch or another number of threads changes float
            rounding only (which, fed back sample by sample, can grow; with "mol" and "mulaw" it can tip a draw that
            lies on the edge between two components or cells).
        """
        batch, samples = self.check_condition(mel, speaker, num_samples, batch_size)
        if noise is None:
            noise = self.draw_noise(batch, samples, seed)
        else:
            self.need_gaussian("sample(noise=...)")
            noise = noise.transpose(1, 2)
        condition = self.front.condition(mel)
        weight = next(self.parameters())
        u = full_precision(weight.new_zeros(batch, samples))
        known = 0
        if prime is not None:
            known = min(prime.shape[-1], samples)
            padded = nn.functional.pad(prime[..., :known], (0, samples - known))
            u[:, :known] = self.front.forward(padded, condition).value[:, 0, :known]
        self._fill(u, known, noise.to(u), self.features(mel, speaker), temperature, progress)
        return self.front.inverse(u.unsqueeze(1), condition).value

    def _fill(
        self, u: Tensor, known: int, noise: Tensor, features: Tensor | None, temperature: float, progress: bool
    ) -> None:
        """Draw u (batch, samples) in place from sample ``known`` on: compiled where that is possible, else step by
        step.
        """
        from tqdm import tqdm

        if can_compile(self.predictor):
            drawn = fill(self.predictor, u, known, noise, features, self._draw(temperature))
        else:
            drawn = self._steps(u, known, noise, features, temperature)
        with tqdm(total=u.shape[1], desc="sampling", unit="sample", disable=not progress, leave=False) as bar:
            for count in drawn:
                bar.update(count)

    def _steps(
        self, u: Tensor, known: int, noise: Tensor, features: Tensor | None, temperature: float
    ) -> Iterator[int]:
        stepper = CausalStepper(self.predictor, *u.shape, features, None)
        for t in range(u.shape[1]):
            parameters, shift = stepper.parameters(t)
            if t >= known:
                u[:, t] = self.distribution.sample(parameters, shift, noise[:, t], temperature)
            stepper.feed(t, u[:, t])
            yield 1

    def _draw(self, temperature: float) -> Draw:
        kind = {"gaussian": GAUSSIAN, "mol": MIXTURE, "mulaw": CATEGORICAL}[self.config.distribution]
        table = {MIXTURE: "spread", CATEGORICAL: "edges"}.get(kind)
        values = getattr(self.distribution, table).numpy() if table else np.zeros(0, np.float32)
        return Draw(kind, float(self.config.log_scale_min), values, float(temperature))

    def draw_noise(self, batch: int, samples: int, seed: int | list[int] | None) -> Tensor:
        """The noise that `sample` draws for a seed, (batch, samples, n): n numbers a sample as the distribution needs
        them, 1 for "gaussian".
        """
        return torch.stack([self.distribution.draw_noise((samples,), one) for one in noise_generators(seed, batch)])

    def need_gaussian(self, what: str) -> None:
        """Refuse ``what`` for another distribution."""
        if self.config.distribution != "gaussian":
            raise WavedistillError(
                f"{what} needs a teacher with distribution 'gaussian', this one has '{self.config.distribution}'."
            )


def dequantized(audio: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Audio on the 16-bit grid plus uniform noise of one step; without a generator the noise is always the same."""
    generator = generator or torch.Generator().manual_seed(0)
    noise = torch.rand(audio.shape, generator=generator).to(audio)
    return (torch.round(audio * 32768.0) + noise) / 32768.0
