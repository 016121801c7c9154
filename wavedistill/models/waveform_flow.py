"""The one-stage flow: invertible 1x1 convolutions and couplings, trained without a teacher.

    waveform x -> front -> long-term prediction -> squeeze -> [1x1 convolution -> coupling -> (split)] * n -> noise z

Both directions take one pass and the density is exact in both. The couplings' networks see the past and the future.
Front and long-term prediction are the two classical predictors of speech coding, set by the mel: the one gives noise
the spectrum of speech, the other its pitch, so that the couplings start where these end.

References:
    WaveGlow: A Flow-based Generative Network for Speech Synthesis (Prenger et al., 2018),
        https://arxiv.org/abs/1811.00002
    FloWaveNet: A Generative Flow for Raw Audio (Kim et al., 2018), https://arxiv.org/abs/1811.02155
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wavedistill.distributions import noise_generators
from wavedistill.dsp.window import Window, trim_parts
from wavedistill.flows.coupling import AffineCoupling
from wavedistill.flows.flow import StandardNormal
from wavedistill.flows.linear import InvertibleConv1x1
from wavedistill.flows.linear_prediction import LPC
from wavedistill.flows.long_term_prediction import LTP, LongTermPredictionFlow, ltp_from_pitch
from wavedistill.flows.reshape import Split, Squeeze
from wavedistill.flows.reversible import ReversibleSequence
from wavedistill.flows.transform import Compose, Transform
from wavedistill.models.base import WaveformModel, dequantized
from wavedistill.models.configs import WaveformFlowConfig
from wavedistill.models.streaming import StreamRequest
from wavedistill.nn.centred_stack import CentredStack
from wavedistill.nn.pitch_predictor import F0_MIN, PitchPredictor
from wavedistill.numerics import full_precision


class FlowOutput(NamedTuple):
    """One pass in either direction.

    Attributes:
        audio, noise: (batch, 1, samples).
        log_prob: (batch,), nats of the whole audio.
        pitch_logits: (batch, frames, bins) or None.
    """

    audio: Tensor
    noise: Tensor
    log_prob: Tensor
    pitch_logits: Tensor | None


class Context(NamedTuple):
    """The conditions that a mel and a speaker give to couplings, front and long-term prediction, and the pitch.

    Attributes:
        flow: (batch, channels, blocks), of the couplings.
        front, long_term: of the two predictors.
        pitch_logits: (batch, frames, bins).
    """

    flow: Tensor | None
    front: LPC | None
    long_term: LTP | None
    pitch_logits: Tensor | None


class StreamState(NamedTuple):
    """What a stream remembers between chunks: the noise that the next one sees again, and the predictors' past."""

    noise: Tensor
    long_term_past: Tensor | None
    front_past: Tensor | None


class WaveformFlow(WaveformModel):
    """Exact density over waveforms, and waveforms from noise, each in one parallel pass.

    A coupling's density does not fall apart into one factor a sample: `log_prob` is that of the whole waveform.

    `stream` computes `reach` on either side of every chunk anew: long chunks cost less.

    Attributes:
        reach: samples to either side that one sample of the excitation depends on.
    """

    one_pass = True
    model_type = "waveform_flow"
    architecture = "Waveform flow"
    role = "flow"
    role_name = "one-stage flow"

    def __init__(self, config: WaveformFlowConfig) -> None:
        super().__init__(config)
        self.block = self.hop_length // config.cond_upsample
        self.pitch = None
        if config.long_term_order:
            self.pitch = PitchPredictor(config.mel.n_mels)
            self.taps = nn.Linear(config.cond_channels, config.long_term_order)
            shortest = self.block + config.long_term_order // 2
            self.long_term = LongTermPredictionFlow(max(round(config.sample_rate / F0_MIN), 2 * shortest))
        self.squeeze = Squeeze(config.squeeze)
        self.flow = self._level(config.squeeze, 0)
        self.base = StandardNormal()
        self.reach = config.num_flows * (config.stack.receptive_field // 2) * config.squeeze
        self.reach_frames = -(-self.reach // self.hop_length)

    def _level(self, channels: int, index: int) -> Transform:
        """Flow number ``index`` and those after it, on what the splits before have left."""
        config = self.config
        steps = []
        end = min(index + config.split_every, config.num_flows) if config.split_every else config.num_flows
        for _ in range(index, end):
            kept = (channels + 1) // 2
            network = CentredStack(kept, 2 * (channels - kept), config.stack, self.cond_channels)
            steps += [
                InvertibleConv1x1(channels),
                AffineCoupling(channels, network=network, cond_dim=self.cond_channels),
            ]
        level = ReversibleSequence(*steps) if config.reversible else Compose(*steps)
        if end == config.num_flows:
            return level
        return Compose(level, Split(self._level(channels - config.split_channels, end), keep=config.split_channels))

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
        return self.density(audio, mel, speaker).log_prob

    def encode(self, audio: Tensor, mel: Tensor | None = None, speaker: Tensor | None = None) -> Tensor:
        """The noise from which `decode` makes this audio, (batch, 1, samples)."""
        return self.density(audio, mel, speaker).noise

    def density(
        self, audio: Tensor, mel: Tensor | None = None, speaker: Tensor | None = None, past_frames: int = 0
    ) -> FlowOutput:
        """Audio -> noise with everything a likelihood loss needs.

        Args:
            past_frames: frames at the start that only give the predictors their past: a crop from the middle of a
                recording begins with samples that its condition cannot predict. Noise and log-probability are those of
                the rest.
        """
        context = self._context(self._in_context(mel, self._context_frames), speaker)
        past = past_frames * self.hop_length
        with torch.autocast(audio.device.type, enabled=False):
            u = self.front.forward(audio, context.front).value
            slope = self.front.log_slope(u[:, 0], context.front).expand(*u[:, 0].shape)
            if context.long_term is not None:
                u = self.long_term.forward(u, context.long_term).value
        cond = context.flow
        if cond is not None and cond.shape[-1] > 1:
            cond = cond[..., past // self.block :]
        z, log_det = self.flow.forward(self.squeeze.forward(u[..., past:]).value, cond)
        noise = self.squeeze.inverse(z).value
        log_prob = self._base_log_prob(noise) + log_det + slope[:, past:].sum(1)
        return FlowOutput(audio, noise, log_prob, context.pitch_logits)

    def decode(self, noise: Tensor, mel: Tensor | None = None, speaker: Tensor | None = None) -> FlowOutput:
        """Noise -> audio, with gradient and with the exact log-probability of what it makes: `encode` read backwards.

        Shapes: noise (batch, 1, samples) standard normal, samples = frames * hop_length where there is a mel.
        """
        context = self._context(self._in_context(mel, self._context_frames), speaker)
        u, log_det = self.flow.inverse(self.squeeze.forward(noise).value, context.flow)
        u = self.squeeze.inverse(u).value
        with torch.autocast(noise.device.type, enabled=False):
            if context.long_term is not None:
                u = self.long_term.inverse(u, context.long_term).value
            audio = self.front.inverse(u, context.front).value
            slope = self.front.log_slope(u[:, 0], context.front).expand(*u[:, 0].shape)
        log_prob = self._base_log_prob(noise) - log_det + slope.sum(1)
        return FlowOutput(audio, noise, log_prob, context.pitch_logits)

    @torch.inference_mode()
    def sample(
        self,
        mel: Tensor | None = None,
        num_samples: int | None = None,
        batch_size: int = 1,
        seed: int | list[int] | None = None,
        temperature: float = 1.0,
        noise: Tensor | None = None,
        speaker: Tensor | None = None,
    ) -> Tensor:
        """A whole waveform in one pass.

        With a seed, the waveform is cut out of one that is `reach` longer on either side, over a mel continued by its
        edge frames: so its ends do not depend on what it is padded with, and `stream` gives the same.

        Args:
            mel: (batch, n_mels, frames), or None with ``num_samples`` (and ``batch_size``) for a model without mel.
            seed: item b of the batch uses seed + b, or the b-th of a list; None: a fresh one.
            temperature: factor on the noise.
            noise: (batch, 1, samples) standard normal in place of a seed: the audio that `encode` maps to it.
            speaker: (batch,) indices.

        Returns:
            audio (batch, 1, samples), not clipped. The same mel, seed and temperature give the same audio, whatever the
                batch.
        """
        batch, samples = self.check_condition(mel, speaker, num_samples, batch_size)
        if noise is not None:
            return self.decode(noise.to(self.device) * temperature, mel, speaker).audio
        frames = -(-samples // self.hop_length) + 2 * self.reach_frames
        drawn = self._draw(noise_generators(seed, batch), frames).to(self.device) * temperature
        window = self._in_context(mel, self.reach_frames + self._context_frames)
        audio, _ = self._run(drawn, window, speaker, None)
        return audio[..., :samples]

    def _look_ahead(self, low_latency: bool) -> dict[str, int]:
        return {"couplings and their condition": (self.reach_frames + self._context_frames) * self.hop_length}

    def _chunks(self, asked: StreamRequest) -> Iterator[Tensor]:
        state = StreamState(asked.draw(2 * self.reach_frames) * asked.temperature, None, None)
        for part in asked.windows(self.reach_frames + self._context_frames):
            drawn = asked.draw(part.value.shape[-1] - 2 * part.margin)
            noise = torch.cat([state.noise, drawn * asked.temperature], dim=-1)
            audio, state = self._run(noise, part, asked.speaker, state)
            yield audio

    def _run(
        self, noise: Tensor, mel: Window | None, speaker: Tensor | None, state: StreamState | None
    ) -> tuple[Tensor, StreamState]:
        """Audio from noise (batch, 1, samples) with `reach_frames` more on either side.

        The mel's margin is `reach_frames` and the context's frames.
        """
        reach = self.reach_frames * self.hop_length
        blocks = reach // self.block
        context = self._context(mel, speaker)
        u = self.squeeze.inverse(self.flow.inverse(self.squeeze.forward(noise).value, context.flow).value).value
        u = Window(u[:, 0], reach).trim()
        long_term_past = None
        if context.long_term is not None:
            ltp = trim_parts(context.long_term, blocks)
            u, long_term_past = self.long_term.synthesize(u, ltp, state.long_term_past if state else None)
        lpc = None if context.front is None else trim_parts(context.front, blocks)
        audio, front_past = self.front.synthesize(u, lpc, state.front_past if state else None)
        return audio.unsqueeze(1), StreamState(noise[..., noise.shape[-1] - 2 * reach :], long_term_past, front_past)

    @property
    def _context_frames(self) -> int:
        """Mel frames on either side that the condition of a frame depends on."""
        pitch = PitchPredictor.context_frames + 1 if self.pitch else 1
        return max(pitch, self.conditioning.context_frames if self.conditioning else 0)

    def _context(self, mel: Window | None, speaker: Tensor | None) -> Context:
        """The conditions over all frames of the mel but the `_context_frames` outer ones on either side."""
        if mel is None:
            features = self.features(None, speaker)
            return Context(None if features is None else features.transpose(1, 2), None, None, None)
        frames = self._context_frames
        blocks = frames * self.config.cond_upsample
        features = Window(self.features(mel.value, speaker), blocks).trim()
        lpc = self.front.condition(mel.value)
        if lpc is not None:
            lpc = trim_parts(lpc, blocks)
        if self.pitch is None:
            return Context(features.transpose(1, 2), lpc, None, None)
        with torch.autocast(features.device.type, enabled=False):
            logits = self.pitch(mel.value)
            pitch = self.pitch.decode(Window(logits, frames - 1).trim())
            long_term = ltp_from_pitch(pitch, self.taps(full_precision(features)), self.sample_rate, self.block)
        return Context(features.transpose(1, 2), lpc, long_term, Window(logits, frames).trim())

    def _base_log_prob(self, noise: Tensor) -> Tensor:
        return self.base.log_prob(noise).flatten(1).sum(1)
