"""The one-stage flow: WaveGlow's stack of invertible 1x1 convolutions and couplings, trained by maximum likelihood
without a teacher.

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
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wavedistill.audio.mel import MelConfig
from wavedistill.distributions import noise_generators
from wavedistill.errors import WavedistillError
from wavedistill.flows.coupling import AffineCoupling
from wavedistill.flows.flow import StandardNormal
from wavedistill.flows.linear import InvertibleConv1x1
from wavedistill.flows.linear_prediction import LPC
from wavedistill.flows.long_term_prediction import LTP, LongTermPredictionFlow, pitch_predictor
from wavedistill.flows.reshape import Split, Squeeze
from wavedistill.flows.reversible import ReversibleSequence
from wavedistill.flows.transform import Compose, Transform
from wavedistill.models.front import FrontConfig
from wavedistill.models.wavenet import GRID_HOP, WaveformModel, check_common, dequantized
from wavedistill.nn.centred_stack import CentredStack
from wavedistill.nn.mel_encoder import extended
from wavedistill.nn.pitch_predictor import F0_MIN, PitchPredictor
from wavedistill.nn.wavenet_stack import StackConfig
from wavedistill.numerics import full_precision


@dataclass
class WaveformFlowConfig:
    """A one-stage flow.

    Attributes:
        mel, sample_rate, speakers, cond_channels, cond_upsample, front: as in `WaveNetConfig`.
        squeeze: samples that become the channels of one step; must divide a block (hop_length / cond_upsample).
        num_flows: pairs of an invertible 1x1 convolution and a coupling.
        split_every: after so many flows ``split_channels`` channels go to the noise as they are (0: never).
        split_channels: channels that leave at each split.
        stack: size of the centred stack inside each coupling; its kernel_size must be odd.
        long_term_order: taps of the long-term predictor, an odd number, whose lag is a pitch period predicted from the
            mel (0: none).
        reversible: compute activations again in the backward pass instead of keeping them: memory that does not grow
            with num_flows.
    """

    mel: MelConfig | None = field(default_factory=MelConfig)
    sample_rate: int = 16000
    speakers: list[str] = field(default_factory=list)
    squeeze: int = 8
    num_flows: int = 12
    split_every: int = 4
    split_channels: int = 2
    stack: StackConfig = field(default_factory=lambda: StackConfig(4, 1, 3, 96, 96))
    cond_channels: int = 128
    cond_upsample: int = 4
    long_term_order: int = 17
    reversible: bool = False
    front: FrontConfig = field(default_factory=FrontConfig)

    def __post_init__(self) -> None:
        check_common(self)
        block = (self.mel.hop_length if self.mel else GRID_HOP) // self.cond_upsample
        if self.squeeze < 2 or block % self.squeeze:
            raise WavedistillError(
                f"squeeze must be at least 2 and divide a block of {block} samples, got {self.squeeze}."
            )
        if self.num_flows < 1:
            raise WavedistillError(f"num_flows must be at least 1, got {self.num_flows}.")
        splits = (self.num_flows - 1) // self.split_every if self.split_every else 0
        if self.squeeze - splits * self.split_channels < 2 or self.split_every < 0 or self.split_channels < 1:
            raise WavedistillError(
                f"{splits} splits of {self.split_channels} of {self.squeeze} channels leave fewer than the 2 that "
                "a coupling needs: "
                "raise split_every or squeeze, or lower split_channels."
            )
        if self.stack.kernel_size % 2 == 0:
            raise WavedistillError(f"stack: kernel_size must be odd for a centred stack, got {self.stack.kernel_size}.")
        if self.long_term_order and (self.mel is None or self.long_term_order % 2 == 0):
            raise WavedistillError(
                f"long_term_order is {self.long_term_order}; it must be odd, or 0 for none (a model without mel "
                "has no pitch to go by)."
            )


class FlowOutput(NamedTuple):
    """One pass in either direction.

    audio, noise (batch, 1, samples); log_prob (batch,): nats of the audio; pitch_logits (batch, frames, bins) or None.
    """

    audio: Tensor
    noise: Tensor
    log_prob: Tensor
    pitch_logits: Tensor | None


class Context(NamedTuple):
    """What a mel and a speaker say: conditions of the couplings (batch, channels, blocks), of the front and of
    long-term prediction; pitch logits.
    """

    flow: Tensor | None
    front: LPC | None
    long_term: LTP | None
    pitch_logits: Tensor | None


class StreamState(NamedTuple):
    """What a stream remembers between chunks: noise of the frames that the next one sees again, and the two predictors'
    past.
    """

    noise: Tensor
    long_term_past: Tensor | None
    front_past: Tensor | None


class WaveformFlow(WaveformModel):
    """Exact density over waveforms, and waveforms from noise, each in one parallel pass.

    Attributes:
        reach: samples to either side that one sample of the excitation depends on.
    """

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
        """log p(x | condition) of the whole waveform in nats, from one parallel pass.

        A coupling's density does not fall apart into one factor a sample; 15 - log_prob / samples / ln 2 is an upper
        bound, in bits per 16-bit sample, comparable with `WaveNet.log_prob`'s. ``dequantize`` as there.

        Shapes:
            audio (batch, 1, samples), samples = frames * hop_length where there is a mel; mel (batch, n_mels, frames);
            speaker (batch,) -> (batch,).
        """
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
            past_frames: frames at the start that only lend the predictors their past: a crop from the middle of a
                recording begins with samples that its condition cannot foretell. Noise and log-probability are those of
                the rest.
        """
        context = self._context(self._extended(mel, self._context_frames), speaker)
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
        context = self._context(self._extended(mel, self._context_frames), speaker)
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
            return self.decode(noise.to(self._device) * temperature, mel, speaker).audio
        frames = -(-samples // self.hop_length)
        drawn = self._draw(noise_generators(seed, batch), frames + 2 * self.reach_frames) * temperature
        audio, _ = self._run(drawn, self._extended(mel, self.reach_frames + self._context_frames), speaker, None)
        return audio[..., :samples]

    @torch.inference_mode()
    def stream(
        self,
        mel: Tensor,
        frames_per_chunk: int,
        seed: int | None = None,
        temperature: float = 1.0,
        speaker: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """The waveform of `sample`, chunk after chunk, in memory that does not grow with its length.

        Every chunk computes `reach` on either side anew: long chunks cost less.

        Shapes: mel (1, n_mels, frames) -> chunks (1, 1, frames_per_chunk * hop_length), the last one shorter.
        """
        self.check_condition(mel, speaker, None, 1)
        if frames_per_chunk < 1:
            raise WavedistillError(f"a chunk must hold at least one frame, got {frames_per_chunk}.")
        edge = self.reach_frames + self._context_frames
        generators = noise_generators(seed, mel.shape[0])
        frames = mel.shape[-1]
        window = self._extended(mel, edge)
        state = StreamState(self._draw(generators, 2 * self.reach_frames) * temperature, None, None)
        for start in range(0, frames, frames_per_chunk):
            end = min(start + frames_per_chunk, frames)
            noise = torch.cat([state.noise, self._draw(generators, end - start) * temperature], dim=-1)
            audio, state = self._run(noise, window[..., start : end + 2 * edge], speaker, state)
            yield audio

    def _run(
        self, noise: Tensor, mel: Tensor | None, speaker: Tensor | None, state: StreamState | None
    ) -> tuple[Tensor, StreamState]:
        """Audio from noise (batch, 1, samples) with `reach_frames` more on either side, and a mel with the context's
        beside.
        """
        edge = self.reach_frames * self.hop_length
        context = self._context(mel, speaker)
        u = self.squeeze.inverse(self.flow.inverse(self.squeeze.forward(noise).value, context.flow).value).value
        u = u[:, 0, edge : u.shape[-1] - edge]
        blocks = edge // self.block
        of_long_term = None
        of_front = None
        if context.long_term is not None:
            predictor = LTP(*(_inner(part, blocks) for part in context.long_term))
            u, of_long_term = self.long_term.synthesize(u, predictor, state.long_term_past if state else None)
        predictor = None if context.front is None else LPC(*(_inner(part, blocks) for part in context.front))
        audio, of_front = self.front.synthesize(u, predictor, state.front_past if state else None)
        return audio.unsqueeze(1), StreamState(noise[..., noise.shape[-1] - 2 * edge :], of_long_term, of_front)

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def _context_frames(self) -> int:
        """Mel frames on either side that the condition of a frame depends on."""
        pitch = PitchPredictor.context_frames + 1 if self.pitch else 1
        return max(pitch, self.conditioning.context_frames if self.conditioning else 0)

    @staticmethod
    def _extended(mel: Tensor | None, frames: int) -> Tensor | None:
        return None if mel is None else extended(mel, frames)

    def _context(self, mel: Tensor | None, speaker: Tensor | None) -> Context:
        """The conditions over all frames of the mel but the `_context_frames` outer ones on either side."""
        features = self.features(mel, speaker)
        predictor = self.front.condition(mel)
        if mel is None:
            return Context(None if features is None else features.transpose(1, 2), None, None, None)
        edge = self._context_frames * self.config.cond_upsample
        features = _inner(features, edge)
        if predictor is not None:
            predictor = LPC(*(_inner(part, edge) for part in predictor))
        if self.pitch is None:
            return Context(features.transpose(1, 2), predictor, None, None)
        with torch.autocast(mel.device.type, enabled=False):
            logits = self.pitch(mel)
            pitch = self.pitch.decode(_inner(logits, self._context_frames - 1))
            long_term = pitch_predictor(pitch, self.taps(full_precision(features)), self.sample_rate, self.block)
        return Context(features.transpose(1, 2), predictor, long_term, _inner(logits, self._context_frames))

    def _base_log_prob(self, noise: Tensor) -> Tensor:
        return self.base.log_prob(noise).flatten(1).sum(1)

    def _draw(self, generators: list[torch.Generator], frames: int) -> Tensor:
        """Noise (batch, 1, frames * hop_length), drawn frame by frame so that any chunking sees the same."""
        items = [torch.cat([torch.randn(self.hop_length, generator=one) for _ in range(frames)]) for one in generators]
        return torch.stack(items).unsqueeze(1).to(self._device)


def _inner(x: Tensor, edge: int) -> Tensor:
    """x (batch, n, ...) without ``edge`` of axis 1 on either side."""
    return x[:, edge : x.shape[1] - edge]
