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

import torch
from torch import Tensor, nn

from wavedistill.distributions import Gaussian, MixtureOfLogistics, MuLawCategorical
from wavedistill.dsp.window import Window, trim_parts
from wavedistill.errors import WavedistillError
from wavedistill.models.base import WaveformModel, dequantized
from wavedistill.models.configs import WaveNetConfig
from wavedistill.models.sequential_sampling import cached_sampler
from wavedistill.models.streaming import StreamRequest
from wavedistill.nn.causal_network import CausalNetwork
from wavedistill.numerics import full_precision


class WaveNet(WaveformModel):
    """Autoregressive density over waveforms in [-1, 1).

    Attributes:
        receptive_field: samples of its own past that one sample depends on.
    """

    model_type = "wavenet"
    architecture = "WaveNet"
    role = "teacher"
    role_name = "teacher"

    def __init__(self, config: WaveNetConfig) -> None:
        super().__init__(config)
        if config.distribution == "gaussian":
            self.distribution = Gaussian(config.log_scale_min)
        elif config.distribution == "mol":
            self.distribution = MixtureOfLogistics(config.num_mixtures, config.log_scale_min)
        else:
            self.distribution = MuLawCategorical(config.num_classes)
        self.predictor = CausalNetwork(
            self.distribution.num_parameters,
            config.stack,
            self.cond_channels,
            config.linear_order,
            step_size=config.front.bands,
        )
        self.step_size = config.front.bands
        self.receptive_field: int = self.predictor.reach

    def log_prob(
        self,
        audio: Tensor,
        mel: Tensor | None = None,
        speaker: Tensor | None = None,
        *,
        dequantize: bool = True,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        if dequantize:
            audio = dequantized(audio, generator)
        log_det = 0.0
        if self.contraction is not None:
            audio, log_det = self.contraction.forward(audio, mel)
        return self.log_prob_per_sample(audio, mel, speaker, dequantize=False).double().sum(1) + log_det

    def log_prob_per_sample(
        self,
        audio: Tensor,
        mel: Tensor | None = None,
        speaker: Tensor | None = None,
        *,
        dequantize: bool = True,
        generator: torch.Generator | None = None,
        history_noise: float = 0.0,
    ) -> Tensor:
        """The terms of `log_prob`: log p(x_t | x_<t, mel, speaker) in nats, (batch, samples); arguments as there.

        The contraction towards the mel, where the model has one, is left out: these are terms of the density of the
        waveform before it. A recording with its own mel is a fixed point of the contraction, so that training needs no
        more than this.

        Args:
            history_noise: for training: standard deviation, in the front's domain, of white noise from the global
                generator on the past that the network reads; what is scored stays as it is.
        """
        if dequantize:
            audio = dequantized(audio, generator)
        lpc = self.front.condition(mel)
        u = self.front.forward(audio, lpc).value[:, 0]
        past = u + history_noise * torch.randn_like(u) if history_noise else u
        parameters, shift = self.predict(past, mel, speaker)
        return self.distribution.log_prob(parameters, shift, u) + self.front.log_slope(u, lpc)

    def predict(self, u: Tensor, mel: Tensor | None, speaker: Tensor | None) -> tuple[Tensor, Tensor]:
        """Distribution parameters (batch, samples, p) and linear path (batch, samples) of the front's signal.

        Shapes: u (batch, samples), mel and speaker as in `log_prob`.
        """
        return self.predictor(u, self.features(mel, speaker))

    def encode(self, audio: Tensor, mel: Tensor | None = None, speaker: Tensor | None = None) -> Tensor:
        """The noise from which `sample` makes this audio, (batch, 1, samples): one parallel pass. Gaussian only.

        The contraction towards the mel, where the model has one, is undone first.
        """
        if self.contraction is not None:
            audio = self.contraction.expand(audio, mel)
        return self.encode_before_contraction(audio, mel, speaker)

    def encode_before_contraction(
        self, audio: Tensor, mel: Tensor | None = None, speaker: Tensor | None = None
    ) -> Tensor:
        """`encode` of a waveform before the contraction, or of a recording with its own mel, its fixed point."""
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
            prime: (batch, 1, samples) audio that the result begins with (no longer than the result); with
                ``front.bands`` M the whole blocks of M samples in it count. A contraction towards the mel moves
                it where it has another mel.
            speaker: (batch,) indices.
            progress: show a progress bar on stderr.

        Returns:
            audio (batch, 1, samples), not clipped. The same call gives the same audio bit for bit; an item's noise
            depends on its seed alone, so that other company in the batch or another number of threads changes float
            rounding only (which, fed back sample by sample, can grow; with "mol" and "mulaw" it can tip a draw that
            lies on the edge between two components or cells).
        """
        from tqdm import tqdm

        batch, samples = self.check_condition(mel, speaker, num_samples, batch_size)
        if noise is None:
            noise = self.draw_noise(batch, samples, seed)
        else:
            self.need_gaussian("sample(noise=...)")
        condition = self.front.condition(mel)
        weight = next(self.parameters())
        u = full_precision(weight.new_zeros(batch, samples))
        known = 0
        if prime is not None:
            known = min(prime.shape[-1], samples) // self.step_size * self.step_size
            padded = nn.functional.pad(prime[..., :known], (0, samples - known))
            u[:, :known] = self.front.forward(padded, condition).value[:, 0, :known]
        sampler = cached_sampler(self.predictor, self.distribution, batch, temperature)
        drawn = sampler.fill(u, known, noise.transpose(1, 2).to(u), self.features(mel, speaker))
        with tqdm(total=samples, desc="sampling", unit="sample", disable=not progress, leave=False) as bar:
            for count in drawn:
                bar.update(count)
        return self.contracted(self.front.inverse(u.unsqueeze(1), condition).value, mel)

    def _look_ahead(self, low_latency: bool) -> dict[str, int]:
        return {"mel encoder": self.conditioning.context_frames * self.hop_length}

    def _chunks(self, asked: StreamRequest) -> Iterator[Tensor]:
        context = self.conditioning.context_frames
        blocks = context * self.config.cond_upsample
        sampler = cached_sampler(self.predictor, self.distribution, 1, asked.temperature)
        past = None
        for part in asked.windows(context):
            features = Window(self.features(part.value, asked.speaker), blocks).trim()
            lpc = self.front.condition(part.value)
            if lpc is not None:
                lpc = trim_parts(lpc, blocks)
            noise = asked.draw(part.value.shape[-1] - 2 * part.margin).transpose(1, 2)
            u = full_precision(features.new_zeros(noise.shape[:2]))
            for _ in sampler.fill(u, 0, noise.to(u), features):
                pass
            audio, past = self.front.synthesize(u, lpc, past)
            yield audio.unsqueeze(1)

    def _draw_frame(self, generator: torch.Generator) -> Tensor:
        """As in `WaveformModel`; for "mol" and "mulaw" uniform, (2, hop_length)."""
        return self.distribution.draw_noise((self.hop_length,), generator).t()

    def need_gaussian(self, what: str) -> None:
        """Refuse ``what`` for another distribution."""
        if self.config.distribution != "gaussian":
            raise WavedistillError(
                f"{what} needs a teacher with distribution 'gaussian', this one has '{self.config.distribution}'."
            )
