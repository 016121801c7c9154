"""The student: a stack of inverse autoregressive flows that makes a whole waveform in one pass.

    noise z -> IAF_1 -> ... -> IAF_n -> excitation u -> front's inverse -> waveform (-> contraction to the mel)

Every map is triangular in time, without time reversal between them, so that each sample given the noise before it is a
Gaussian, u_t | z_<t ~ N(loc_t, exp(log_scale_t)^2): the divergence from a Gaussian teacher has a closed form.

References:
    Parallel WaveNet: Fast High-Fidelity Speech Synthesis (van den Oord et al., 2017), https://arxiv.org/abs/1711.10433
    ClariNet (Ping et al., 2018), https://arxiv.org/abs/1807.07281
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wavedistill.dsp.harmonic_source import HarmonicSource
from wavedistill.errors import WavedistillError
from wavedistill.flows.autoregressive import AutoregressiveFlow, Condition, LocScale
from wavedistill.flows.linear_prediction import LPC
from wavedistill.models.base import WaveformModel
from wavedistill.models.configs import ParallelWaveNetConfig
from wavedistill.models.streaming import ContinuedMel, StreamRequest
from wavedistill.models.student_condition import ConditionStream, StudentCondition
from wavedistill.nn.causal_network import CausalNetwork, CausalState
from wavedistill.nn.pitch_predictor import PitchPredictor
from wavedistill.numerics import LOG_2PI

CACHED_VALUES = 2**18
"""Values of one layer, over the batch, that fit a CPU core's cache."""


class StudentOutput(NamedTuple):
    """One pass of the student.

    Attributes:
        audio: (batch, 1, samples), before the contraction towards the mel (`contracted` of it is what is heard).
        excitation, loc, log_scale: (batch, samples), u = loc + exp(log_scale) * noise: the front's signal before its
            inverse.
        lpc: the front's condition.
        pitch_logits: (batch, frames, bins) or None.
    """

    audio: Tensor
    excitation: Tensor
    loc: Tensor
    log_scale: Tensor
    lpc: LPC | None
    pitch_logits: Tensor | None


class StreamState(NamedTuple):
    """What a stream remembers between chunks."""

    flows: list[CausalState | None]
    past: Tensor | None


class ParallelWaveNet(WaveformModel):
    """Waveforms from noise in one parallel pass, with exact log-probability of its own samples.

    Attributes:
        receptive_field: samples of noise before it that one sample depends on.
    """

    one_pass = True
    model_type = "parallel_wavenet"
    architecture = "Parallel WaveNet"
    role = "student"
    role_name = "student"

    def __init__(self, config: ParallelWaveNetConfig) -> None:
        super().__init__(config)
        self.flows = nn.ModuleList(
            AutoregressiveFlow(
                CausalNetwork(
                    2, config.stack, self.cond_channels, config.linear_order, config.source_order, config.step_size
                ),
                standardize=False,
                log_scale_min=config.log_scale_min,
            )
            for _ in range(config.num_flows)
        )
        self.pitch = PitchPredictor(config.mel.n_mels) if config.source_order else None
        self.source = HarmonicSource(config.mel, config.source_iterations) if config.source_order else None
        self.step_size = config.step_size
        self.receptive_field: int = sum(flow.predictor.reach for flow in self.flows)
        with torch.no_grad():
            for flow in self.flows:
                flow.predictor.stack.output.bias[1::2] = config.initial_log_scale / config.num_flows
        if config.source_order:  # a pulse train beside the noise is a better start than noise alone
            self.flows[0].predictor.pass_source(0.9)

    def compute_in(self, dtype: torch.dtype) -> ParallelWaveNet:
        """Let the stacks compute in ``dtype``, for use without gradient.

        bfloat16 is 1.1 to 1.4 times as fast, measured on a CPU that has instructions for it (docs/benchmark.md).

        Locations, log-scales, filters, pitch and condition stay in float32, so that the density of a sample is exact
        as ever: it is that of the rounded network. Chunks of a stream then equal the whole to about 1e-3, not 1e-5.
        """
        for flow in self.flows:
            flow.predictor.stack.compute_in(dtype)
        return self

    def rsample(
        self, noise: Tensor, mel: Tensor | None = None, speaker: Tensor | None = None, *, in_pieces: bool = False
    ) -> StudentOutput:
        """Reparametrised pass with everything a distillation loss needs.

        Args:
            in_pieces: let each flow work through the signal in pieces whose activations stay in a CPU core's cache. The
                same values up to rounding, faster on a CPU where no gradient is asked for.

        Shapes: noise (batch, 1, samples) standard normal, samples = frames * hop_length where there is a mel.
        """
        return self._run(noise[:, 0], self._condition(mel, speaker), None, in_pieces)[0]

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
            noise = self.draw_noise(batch, samples, seed)
        output = self.rsample(noise.to(self.device) * temperature, mel, speaker, in_pieces=True)
        return self.contracted(output.audio, mel)

    def _chunks(self, asked: StreamRequest) -> Iterator[Tensor]:
        stream = StudentStream(self, asked.low_latency)
        for mel, last in asked.pieces:
            condition = stream.condition(mel, asked.speaker, last)
            noise = asked.draw(stream.frames(condition))[:, 0] * asked.temperature
            yield stream.audio(noise, condition)

    def condition(self, mel: Tensor | None, speaker: Tensor | None = None) -> tuple[Condition, LPC | None]:
        """What the flows and the front are given in a pass over the whole of ``mel`` (batch, n_mels, frames)."""
        condition = self._condition(mel, speaker)
        return condition.flows, condition.lpc

    def log_prob(
        self,
        audio: Tensor,
        mel: Tensor | None = None,
        speaker: Tensor | None = None,
        *,
        dequantize: bool = True,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        raise WavedistillError(
            "a student gives a recording no density in one pass: it would have to find the noise sample by sample. Use "
            "wavedistill.evaluation.student_likelihood.student_likelihood(student, audio, mel), which does that, or "
            "student.own_log_prob(output) for a sample of its own."
        )

    def own_log_prob(self, output: StudentOutput) -> Tensor:
        """Exact log-density of the student's own sample, (batch, samples) in nats, from the pass that made it.

        Of ``output.audio``; `sample_log_prob` has that of what is heard.
        """
        z = (output.excitation - output.loc) * torch.exp(-output.log_scale)
        slope = self.front.log_slope(z, output.lpc)
        return -0.5 * (z.square() + LOG_2PI) - output.log_scale + slope

    def sample_log_prob(self, output: StudentOutput, mel: Tensor | None) -> Tensor:
        """Log-density (batch,) in nats of the waveform that is heard, ``contracted(output.audio, mel)``.

        The contraction's log-determinant is exact for short waveforms and estimated for long ones, see
        `wavedistill.flows.MelContraction`; all else is exact.
        """
        log_prob = self.own_log_prob(output).double().sum(1)
        if self.contraction is None:
            return log_prob
        return log_prob - self.contraction.inverse(output.audio, mel).log_det

    def _look_ahead(self, low_latency: bool) -> dict[str, int]:
        return self._condition_stream(low_latency).look_ahead

    def _run(
        self, noise: Tensor, condition: StudentCondition, state: StreamState | None, in_pieces: bool
    ) -> tuple[StudentOutput, StreamState]:
        """The pass over noise (batch, samples), continued from ``state``.

        The state returned serves the next chunk of a stream; only a pass in pieces can be continued.
        """
        u = noise
        loc = torch.zeros_like(noise)
        log_scale = torch.zeros_like(noise)
        states = []
        for index, flow in enumerate(self.flows):
            if in_pieces:
                step, flow_state = self._in_pieces(flow, u, condition.flows, state.flows[index] if state else None)
                states.append(flow_state)
            else:
                step = flow.loc_scale(u, condition.flows)
            scale = torch.exp(step.log_scale)
            u = step.loc + scale * u
            loc = step.loc + scale * loc
            log_scale = log_scale + step.log_scale
        with torch.autocast(u.device.type, enabled=False):
            audio, past = self.front.synthesize(u, condition.lpc, state.past if state else None)
        audio = audio.unsqueeze(1)
        output = StudentOutput(audio, u, loc, log_scale, condition.lpc, condition.pitch_logits)
        return output, StreamState(states, past)

    def _in_pieces(
        self, flow: AutoregressiveFlow, u: Tensor, condition: Condition, state: CausalState | None
    ) -> tuple[LocScale, CausalState]:
        """`AutoregressiveFlow.forward_chunk` over pieces whose activations stay in a CPU core's cache.

        All at once, every layer would write and read the whole signal in main memory. A GPU does take it all at once.
        """
        if torch.compiler.is_compiling():
            return flow.forward_chunk(u, condition, state)
        fitting = CACHED_VALUES * self.config.step_size // (self.config.stack.channels * u.shape[0])
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

    def _condition(self, mel: Tensor | None, speaker: Tensor | None) -> StudentCondition:
        """The condition of a whole mel."""
        if mel is None:
            return StudentCondition(Condition(self.features(None, speaker)))
        stream = self._condition_stream()
        continued = nn.functional.pad(mel, (stream.before, stream.after), mode="replicate")
        return stream.push(continued, speaker, last=True)

    def _condition_stream(self, low_latency: bool = False) -> ConditionStream:
        return ConditionStream(self.conditioning, self.front, self.pitch, self.source, self.hop_length, low_latency)


class StudentStream:
    """A student's pass over a mel that comes in pieces, and all that it remembers between them.

    Each piece is a call of `condition` and, with the noise of the frames that it makes final, one of `audio`: the
    waveform before the contraction towards the mel.
    """

    def __init__(self, model: ParallelWaveNet, low_latency: bool) -> None:
        self.model = model
        self.conditions = model._condition_stream(low_latency)
        self.mel = ContinuedMel(self.conditions.before, self.conditions.after)
        self.state: StreamState | None = None

    def condition(self, mel: Tensor, speaker: Tensor | None, last: bool) -> StudentCondition:
        """What a further piece (1, n_mels, frames) of the mel makes final."""
        return self.conditions.push(self.mel.push(mel, last), speaker, last)

    def frames(self, condition: StudentCondition) -> int:
        """How many frames that are."""
        return condition.flows.features.shape[1] // self.model.config.cond_upsample

    def audio(self, noise: Tensor, condition: StudentCondition) -> Tensor:
        """(1, 1, samples) from the noise (1, samples) of these frames."""
        output, self.state = self.model._run(noise, condition, self.state, in_pieces=True)
        return output.audio
