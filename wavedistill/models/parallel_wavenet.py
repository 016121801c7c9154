"""The student: a stack of inverse autoregressive flows that makes a whole waveform in one pass.

    noise z -> IAF_1 -> ... -> IAF_n -> excitation u -> front's inverse -> waveform x (-> projections onto the mel)

Every map is triangular in time, without time reversal between them, so that each sample given the noise before it is a
Gaussian, u_t | z_<t ~ N(loc_t, exp(log_scale_t)^2): the divergence from a Gaussian teacher has a closed form.

References:
    Parallel WaveNet: Fast High-Fidelity Speech Synthesis (van den Oord et al., 2017), https://arxiv.org/abs/1711.10433
    ClariNet (Ping et al., 2018), https://arxiv.org/abs/1807.07281
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wavedistill.audio.mel import MelConfig
from wavedistill.distributions import noise_generators
from wavedistill.dsp.harmonic_source import HarmonicSource, Pitch
from wavedistill.dsp.mel_projection import MelProjection
from wavedistill.errors import WavedistillError
from wavedistill.flows.autoregressive import AutoregressiveFlow, Condition, LocScale
from wavedistill.flows.linear_prediction import LPC
from wavedistill.models.front import FrontConfig
from wavedistill.models.wavenet import GRID_HOP, WaveformModel, check_common
from wavedistill.nn.causal_network import CausalNetwork, CausalState
from wavedistill.nn.mel_encoder import extended
from wavedistill.nn.pitch_predictor import PitchPredictor
from wavedistill.nn.wavenet_stack import StackConfig

CACHED_VALUES = 2**18
"""Values of one layer, over the batch, that fit a CPU core's cache."""


@dataclass
class ParallelWaveNetConfig:
    """A student.

    Attributes:
        mel, sample_rate, speakers, cond_channels, cond_upsample, front: as in `WaveNetConfig`; mel and front must be
            the teacher's.
        num_flows: inverse autoregressive flows.
        stack: size of the stack inside each flow.
        patch_size: samples that a step of a flow's stack stands for (1: full rate); must divide the samples of a block
            of the condition.
        linear_order: taps of each flow's linear path from the noise before (0: off).
        source_order: taps of each flow's linear path from a harmonic source, whose pitch is predicted from the mel (0:
            no source).
        source_iterations: projections that fit the source's spectrum to the mel.
        mel_projections: projections of the finished waveform onto those with the given mel (0: none); the density is
            that of the waveform before.
        log_scale_min: floor of each flow's log-scale.
        initial_log_scale: log-scale of the whole stack before training.
    """

    mel: MelConfig | None = field(default_factory=MelConfig)
    sample_rate: int = 16000
    speakers: list[str] = field(default_factory=list)
    num_flows: int = 2
    stack: StackConfig = field(default_factory=lambda: StackConfig(8, 1, 3, 32, 32))
    patch_size: int = 1
    cond_channels: int = 128
    cond_upsample: int = 4
    linear_order: int = 32
    source_order: int = 32
    source_iterations: int = 3
    mel_projections: int = 0
    log_scale_min: float = -7.0
    initial_log_scale: float = -0.7
    front: FrontConfig = field(default_factory=FrontConfig)

    def __post_init__(self) -> None:
        check_common(self)
        block = (self.mel.hop_length if self.mel else GRID_HOP) // self.cond_upsample
        if self.patch_size < 1 or block % self.patch_size:
            raise WavedistillError(
                f"patch_size must divide the {block} samples of a block of the condition (hop_length / "
                f"cond_upsample), got {self.patch_size}."
            )
        if self.num_flows < 1:
            raise WavedistillError(f"num_flows must be at least 1, got {self.num_flows}.")
        if self.source_order and self.mel is None:
            raise WavedistillError(
                "source_order needs a mel to read the pitch from; set it to 0 for a model without mel."
            )
        if self.mel_projections < 0 or (self.mel_projections and self.mel is None):
            raise WavedistillError(
                f"mel_projections must be at least 0, and 0 for a model without mel, got {self.mel_projections}."
            )


class StudentOutput(NamedTuple):
    """One pass of the student.

    audio (batch, 1, samples), the flows' own; refined, the same after the projections onto the mel (the very same where
    there are none), what `sample` returns; excitation, loc, log_scale (batch, samples): u = loc + exp(log_scale) *
    noise, the front's signal before its inverse; predictor: the front's condition; pitch_logits (batch, frames, bins)
    or None.
    """

    audio: Tensor
    refined: Tensor
    excitation: Tensor
    loc: Tensor
    log_scale: Tensor
    predictor: LPC | None
    pitch_logits: Tensor | None


class StreamState(NamedTuple):
    """What a stream remembers between chunks."""

    flows: list[CausalState | None]
    phase: Tensor | None
    past: Tensor | None


class ParallelWaveNet(WaveformModel):
    """Waveforms from noise in one parallel pass, with exact log-probability of its own samples.

    Attributes:
        receptive_field: samples of noise before it that one sample depends on.
    """

    def __init__(self, config: ParallelWaveNetConfig) -> None:
        super().__init__(config)
        self.flows = nn.ModuleList(
            AutoregressiveFlow(
                CausalNetwork(
                    2, config.stack, self.cond_channels, config.linear_order, config.source_order, config.patch_size
                ),
                standardize=False,
                log_scale_min=config.log_scale_min,
            )
            for _ in range(config.num_flows)
        )
        self.pitch = PitchPredictor(config.mel.n_mels) if config.source_order else None
        self.source = HarmonicSource(config.mel, config.source_iterations) if config.source_order else None
        self.projection = MelProjection(config.mel, config.mel_projections) if config.mel_projections else None
        self.receptive_field: int = sum(flow.predictor.reach for flow in self.flows)
        with torch.no_grad():
            for flow in self.flows:
                flow.predictor.stack.output.bias[1::2] = config.initial_log_scale / config.num_flows
            if config.source_order:  # a pulse train beside the noise is a better start than noise alone
                self.flows[0].predictor.taps.bias[config.linear_order] = 0.9

    def compute_in(self, dtype: torch.dtype) -> ParallelWaveNet:
        """Let the stacks compute in ``dtype``, for use without gradient (bfloat16: 1.4 to 1.6 times as fast, measured
        on a CPU that has it).

        Locations, log-scales, filters, pitch and conditioning stay in float32, so that the density of a sample is exact
        as ever: it is that of the rounded network. Chunks of a stream then equal the whole to about 1e-3, not 1e-5.
        """
        for flow in self.flows:
            flow.predictor.stack.compute_in(dtype)
        return self

    def rsample(self, noise: Tensor, mel: Tensor | None = None, speaker: Tensor | None = None) -> StudentOutput:
        """Reparametrised pass with everything a distillation loss needs.

        Shapes: noise (batch, 1, samples) standard normal, samples = frames * hop_length where there is a mel.
        """
        output, _ = self._run(noise[:, 0], self._in_context(mel), speaker, None)
        if self.projection is None:
            return output
        with torch.autocast(noise.device.type, enabled=False):
            return output._replace(refined=self.projection(output.audio[:, 0], mel).unsqueeze(1))

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

        Args:
            mel: (batch, n_mels, frames), or None with ``num_samples`` (and ``batch_size``) for a model without mel.
            seed: item b of the batch uses seed + b, or the b-th of a list; None: a fresh one.
            temperature: factor on the noise.
            noise: (batch, 1, samples) standard normal in place of a seed.
            speaker: (batch,) indices.

        Returns:
            audio (batch, 1, samples), not clipped. The same mel, seed and temperature give the same audio, whatever the
                batch.
        """
        batch, samples = self.check_condition(mel, speaker, num_samples, batch_size)
        if noise is None:
            generators = noise_generators(seed, batch)
            noise = self._draw(generators, -(-samples // self.hop_length))[..., :samples]
        device = next(self.parameters()).device
        return self.rsample(noise.to(device) * temperature, mel, speaker).refined

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

        Shapes: mel (1, n_mels, frames) -> chunks (1, 1, frames_per_chunk * hop_length), the last one shorter.
        """
        self.check_condition(mel, speaker, None, 1)
        if frames_per_chunk < 1:
            raise WavedistillError(f"a chunk must hold at least one frame, got {frames_per_chunk}.")
        chunks = self._stream(mel, frames_per_chunk, seed, temperature, speaker)
        yield from chunks if self.projection is None else self.projection.stream(chunks, mel, frames_per_chunk)

    def _stream(
        self, mel: Tensor, frames_per_chunk: int, seed: int | None, temperature: float, speaker: Tensor | None
    ) -> Iterator[Tensor]:
        """The flows' own audio in chunks."""
        generators = noise_generators(seed, mel.shape[0])
        device = next(self.parameters()).device
        frames = mel.shape[-1]
        state = None
        window = self._in_context(mel)
        for start in range(0, frames, frames_per_chunk):
            end = min(start + frames_per_chunk, frames)
            noise = self._draw(generators, end - start)[:, 0].to(device) * temperature
            part = window[..., start : end + 2 * self.context_frames]
            output, state = self._run(noise, part, speaker, state)
            yield output.audio

    def condition(self, mel: Tensor | None, speaker: Tensor | None = None) -> tuple[Condition, LPC | None]:
        """What the flows and the front are given in a pass over the whole of ``mel`` (batch, n_mels, frames)."""
        return self._conditions(self._in_context(mel), speaker, None)[:2]

    @property
    def context_frames(self) -> int:
        """Mel frames on either side of a chunk that its samples depend on."""
        source = PitchPredictor.context_frames + 2 + self.source.context_frames if self.source else 1
        return max(source, self.conditioning.context_frames)

    def _in_context(self, mel: Tensor | None) -> Tensor | None:
        return None if mel is None else extended(mel, self.context_frames)

    def log_prob(self, output: StudentOutput) -> Tensor:
        """Exact log-density of the student's own sample, (batch, samples) nats, from the pass that made it."""
        z = (output.excitation - output.loc) * torch.exp(-output.log_scale)
        slope = self.front.log_slope(z, output.predictor)
        return -0.5 * (z.square() + 1.8378770664093453) - output.log_scale + slope

    def _draw(self, generators: list[torch.Generator], frames: int) -> Tensor:
        """Noise (batch, 1, frames * hop_length), drawn frame by frame so that any chunking sees the same."""
        items = [torch.cat([torch.randn(self.hop_length, generator=one) for _ in range(frames)]) for one in generators]
        return torch.stack(items).unsqueeze(1)

    def _run(
        self, noise: Tensor, mel: Tensor | None, speaker: Tensor | None, state: StreamState | None
    ) -> tuple[StudentOutput, StreamState]:
        """The pass over noise (batch, samples), continued from ``state``; the mel has `context_frames` more frames on
        either side.

        The state returned serves the next chunk of a stream; a pass with gradient cannot be continued.
        """
        condition, predictor, phase, logits = self._conditions(mel, speaker, state)
        u = noise
        loc = torch.zeros_like(noise)
        log_scale = torch.zeros_like(noise)
        states = []
        for index, flow in enumerate(self.flows):
            if torch.is_grad_enabled():
                step = flow.loc_scale(u, condition)
            else:
                step, flow_state = self._in_pieces(flow, u, condition, state.flows[index] if state else None)
                states.append(flow_state)
            scale = torch.exp(step.log_scale)
            u = step.loc + scale * u
            loc = step.loc + scale * loc
            log_scale = log_scale + step.log_scale
        with torch.autocast(u.device.type, enabled=False):
            audio, past = self.front.synthesize(u, predictor, state.past if state else None)
        audio = audio.unsqueeze(1)
        output = StudentOutput(audio, audio, u, loc, log_scale, predictor, logits)
        return output, StreamState(states, phase, past)

    def _conditions(
        self, mel: Tensor | None, speaker: Tensor | None, state: StreamState | None
    ) -> tuple[Condition, LPC | None, Tensor | None, Tensor | None]:
        """Condition of flows and front, the source's phase where the next chunk begins, the pitch logits."""
        features = self._inner(self.features(mel, speaker), mel)
        window_predictor = self.front.condition(mel)
        predictor = None
        if window_predictor is not None:
            predictor = LPC(*(self._inner(part, mel) for part in window_predictor))
        source, phase, logits = self._harmonics(mel, window_predictor, state)
        return Condition(features, source), predictor, phase, logits

    def _in_pieces(
        self, flow: AutoregressiveFlow, u: Tensor, condition: Condition, state: CausalState | None
    ) -> tuple[LocScale, CausalState]:
        """`AutoregressiveFlow.forward_chunk` over pieces whose activations stay in a CPU core's cache.

        All at once, every layer would write and read the whole signal in main memory. A GPU does take it all at once.
        """
        fitting = CACHED_VALUES * self.config.patch_size // (self.config.stack.channels * u.shape[0])
        size = u.shape[1] if u.is_cuda else max(1, fitting // self.hop_length) * self.hop_length
        pieces = []
        for start in range(0, u.shape[1], size):
            end = min(start + size, u.shape[1])
            features, source = condition
            if features is not None and features.shape[1] > 1:
                per_frame = self.config.cond_upsample
                features = features[:, start // self.hop_length * per_frame : end // self.hop_length * per_frame]
            part = Condition(features, None if source is None else source[:, start:end])
            piece, state = flow.forward_chunk(u[:, start:end], part, state)
            pieces.append(piece)
        return LocScale(*(torch.cat(parts, dim=1) for parts in zip(*pieces, strict=True))), state

    def _inner(self, blocks: Tensor | None, mel: Tensor | None, frames: int | None = None) -> Tensor | None:
        """Blocks (batch, blocks, ...) without those of the ``frames`` (default `context_frames`) outer mel frames."""
        if blocks is None or mel is None:
            return blocks
        edge = (self.context_frames if frames is None else frames) * self.config.cond_upsample
        return blocks[:, edge : blocks.shape[1] - edge]

    def _harmonics(
        self, mel: Tensor | None, predictor: LPC | None, state: StreamState | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Harmonic source in the front's domain, its phase where the next chunk's begins, and the pitch logits."""
        if self.source is None:
            return None, None, None
        with torch.autocast(mel.device.type, enabled=False):
            logits = self.pitch(mel)
            edge = PitchPredictor.context_frames  # pitch nearer to the window's end than this is not final
            frames = mel.shape[-1]
            pitch = Pitch(*(part[:, edge : frames - edge] for part in self.pitch.decode(logits)))
            outer = edge + 1
            wave, phases = self.source(pitch, mel[..., outer : frames - outer], state.phase if state else None)
            if predictor is not None:
                predictor = LPC(*(self._inner(part, mel, outer) for part in predictor))
            whitened = self.front.forward(wave.unsqueeze(1), predictor).value[:, 0]
        context = self.context_frames
        start = (context - outer) * self.hop_length
        samples = (frames - 2 * context) * self.hop_length
        return whitened[:, start : start + samples], phases[:, samples - 1], logits[:, context : frames - context]
