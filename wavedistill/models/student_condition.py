"""What a student's flows and front are given: features, linear prediction and harmonic source of a mel spectrogram."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from wavedistill.dsp.harmonic_source import HarmonicSource
from wavedistill.dsp.memory import Queue
from wavedistill.flows.autoregressive import Condition
from wavedistill.flows.linear_prediction import LPC
from wavedistill.models.front import Front
from wavedistill.nn.mel_encoder import MelEncoder
from wavedistill.nn.pitch_predictor import PROMPT_FRAMES, PitchPredictor


class StudentCondition(NamedTuple):
    """The conditions that a mel and a speaker give to the flows and the front.

    Attributes:
        flows: features (batch, blocks, channels) and the harmonic source in the front's domain (batch, samples).
        lpc: of the front.
        pitch_logits: (batch, frames, bins).
    """

    flows: Condition
    lpc: LPC | None = None
    pitch_logits: Tensor | None = None


class ConditionStream:
    """The condition of a mel that comes in pieces; each stage keeps what it needs of the past.

    A whole mel is one piece. In low latency the stages with the longest look-ahead do with less (see
    `wavedistill.dsp.prompt_spectra` and `PitchPredictor.prompt_step`); the condition is then nearly the same.

    Attributes:
        look_ahead: samples after a frame by which its parts wait for the mel.
        before, after: copies of the first and the last frame by which the mel is to be continued.
    """

    def __init__(
        self,
        encoder: MelEncoder,
        front: Front,
        pitch: PitchPredictor | None,
        source: HarmonicSource | None,
        hop: int,
        low_latency: bool,
    ) -> None:
        self.encoder = encoder
        self.front = front
        self.pitch = pitch
        self.source = source
        self.hop = hop
        self.low_latency = low_latency
        self.look_ahead = {"mel encoder": encoder.context_frames * hop}
        self.encoding = encoder.stream_state()
        self.features = Queue()
        self.before = max(1, encoder.context_frames)
        if front.predictor is not None:
            self.look_ahead["linear prediction"] = hop
            self.predicting = front.predictor.stream_state()
            self.coefficients = Queue()
            self.log_gain = Queue()
        if source is not None:
            pitch_frames = PROMPT_FRAMES if low_latency else pitch.context_frames
            of_source = source.look_ahead(low_latency)
            self.look_ahead["pitch and harmonic source"] = (pitch_frames + 1) * hop + of_source
            whitening = max(1, -(-front.history // hop))
            self.outer = pitch.context_frames + 1  # the source needs one more frame of pitch on either side
            self.before = max(self.before, self.outer + source.context_frames + whitening)
            self.listening = pitch.prompt_state() if low_latency else pitch.stream_state()
            self.sounding = source.stream_state(low_latency)
            self.logits = Queue()
            self.wave = Queue()
            self.past: Tensor | None = None  # of the wave
        self.after = -(-max(self.look_ahead.values()) // hop)
        self.fresh = True

    def push(self, mel: Tensor, speaker: Tensor | None, last: bool) -> StudentCondition:
        """The condition of the frames that a further piece (batch, n_mels, frames) makes final: as many as it has.

        The first makes `before` and `after` fewer, and must have more.
        """
        frames = mel.shape[-1] - (self.before + self.after if self.fresh else 0)
        of_encoder = self._part(mel, self.encoder.context_frames, self.encoder.context_frames, last)
        self.features.put(self.encoder.step(of_encoder, speaker, self.encoding))
        if self.front.predictor is not None:
            lpc = self.front.predictor.step(self._part(mel, 1, 1, last), self.predicting)
            self.coefficients.put(lpc.coefficients)
            self.log_gain.put(lpc.log_gain)
        if self.source is not None:
            with torch.autocast(mel.device.type, enabled=False):
                self._sound(mel)
        self.fresh = False
        return self._take(frames, frames * self.encoder.upsample)

    def _sound(self, mel: Tensor) -> None:
        """Further pitch, and the samples of the source that it makes final."""
        listen = self.pitch.prompt_step if self.low_latency else self.pitch.step
        logits = listen(mel, self.listening)
        self.logits.put(logits)
        of_source = mel[..., self.outer :] if self.fresh else mel
        self.wave.put(self.source.step(self.pitch.decode(logits), of_source, self.sounding))
        if self.fresh:
            self.logits.take(self.before - self.pitch.context_frames)
            self.wave.take((self.before - self.outer) * self.hop - self.front.history)
            self.past = self.wave.take(self.front.history)

    def _take(self, frames: int, blocks: int) -> StudentCondition:
        lpc = source = logits = None
        if self.front.predictor is not None:
            lpc = LPC(self.coefficients.take(blocks), self.log_gain.take(blocks))
        if self.source is not None:
            logits = self.logits.take(frames)
            with torch.autocast(logits.device.type, enabled=False):
                source, self.past = self.front.analyze(self.wave.take(frames * self.hop), lpc, self.past)
        return StudentCondition(Condition(self.features.take(blocks), source), lpc, logits)

    def _part(self, mel: Tensor, before: int, after: int, last: bool) -> Tensor:
        """The piece for a stage that needs fewer frames before the first and after the last."""
        start = self.before - before if self.fresh else 0
        return mel[..., start : mel.shape[-1] - (self.after - after if last else 0)]
