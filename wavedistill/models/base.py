"""What teacher, student and one-stage flow are: distributions over waveforms, given a mel spectrogram and a speaker."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from wavedistill.audio.mel_check import check_block, check_mel
from wavedistill.distributions import noise_generators
from wavedistill.dsp.window import Window
from wavedistill.errors import WavedistillError
from wavedistill.flows.mel_contraction import MelContraction
from wavedistill.models.configs import GRID_HOP, ModelConfig
from wavedistill.models.front import Front
from wavedistill.models.streaming import MelPiece, StreamRequest, in_chunks, mel_pieces
from wavedistill.nn.mel_encoder import MelEncoder, extended


class WaveformModel(nn.Module):
    """p(waveform | mel, speaker): what the three models share, and the contract that they keep.

    | | teacher | student | flow |
    |---|---|---|---|
    | `sample`, noise -> audio | one sample after another | one pass | one pass |
    | `log_prob` of a recording | one pass | not in one pass: refused | one pass |
    | `stream` | yes | yes | yes |

    Attributes:
        model_type: the name in a checkpoint's config.json.
        architecture: the name for people.
        role: what the model is for: "teacher", "student" or "flow".
        role_name: the same in a sentence.
        one_pass: whether `sample` makes all samples at once; where not, it shows its progress on request.
        sample_rate: Hz.
        hop_length: samples that a mel frame stands for; without a mel the block that noise is drawn in.
        step_size: samples that are made together; without a mel a waveform is a whole number of steps.
    """

    model_type: ClassVar[str]
    architecture: ClassVar[str]
    role: ClassVar[Literal["teacher", "student", "flow"]]
    role_name: ClassVar[str]
    one_pass: ClassVar[bool] = False
    step_size: int = 1

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.sample_rate: int = config.sample_rate
        self.hop_length: int = config.mel.hop_length if config.mel else GRID_HOP
        self.front = Front(config.front, config.mel, config.cond_upsample)
        steps = config.front.mel_contraction
        self.contraction = MelContraction(config.mel, steps) if steps else None
        n_mels = config.mel.n_mels if config.mel else 0
        self.cond_channels = config.cond_channels if (n_mels or config.speakers) else 0
        self.conditioning = None
        if self.cond_channels:
            self.conditioning = MelEncoder(n_mels, len(config.speakers), config.cond_channels, config.cond_upsample)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def log_prob(
        self,
        audio: Tensor,
        mel: Tensor | None = None,
        speaker: Tensor | None = None,
        *,
        dequantize: bool = True,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """log p(audio | mel, speaker) of each whole waveform in nats: exact, from one parallel pass.

        With ``dequantize`` the audio is put on the 16-bit grid and uniform noise of one step is added, so that
        15 - log_prob / samples / ln 2 is an upper bound, in bits per sample, on the code length of the 16-bit samples,
        comparable with a lossless codec's rate.

        Args:
            generator: of the noise of ``dequantize``; None: always the same noise.

        Shapes:
            audio (batch, 1, samples) in [-1, 1), samples = frames * hop_length where there is a mel;
            mel (batch, n_mels, frames); speaker (batch,) -> (batch,), float32 or better.

        Raises:
            WavedistillError: a student, which finds the noise of a given waveform sample by sample only.
        """
        raise NotImplementedError

    def sample(
        self,
        mel: Tensor | None = None,
        num_samples: int | None = None,
        batch_size: int = 1,
        seed: int | list[int] | None = None,
        temperature: float = 1.0,
        noise: Tensor | None = None,
        speaker: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """Draw waveforms without gradient.

        Args:
            mel: (batch, n_mels, frames), or None with ``num_samples`` (and ``batch_size``) for a model without mel.
            seed: item b of the batch uses seed + b, or the b-th of a list; None: a fresh one.
            temperature: factor on the noise.
            noise: (batch, 1, samples) standard normal in place of a seed.
            speaker: (batch,) indices.
            options: what one model alone takes.

        Returns:
            audio (batch, 1, samples), not clipped. The same mel, seed and temperature give the same audio, whatever
                the batch.
        """
        raise NotImplementedError

    @torch.inference_mode()
    def stream(
        self,
        mel: Tensor | Iterator[Tensor],
        frames_per_chunk: int,
        seed: int | None = None,
        temperature: float = 1.0,
        speaker: Tensor | None = None,
        *,
        low_latency: bool = False,
    ) -> Iterator[Tensor]:
        """The waveform of `sample`, chunk after chunk, in memory that does not grow with its length.

        Args:
            mel: (1, n_mels, frames), whole, or an iterator of such pieces of any length, of which no more are taken
                than a chunk needs: those up to `look_ahead` after it.
            low_latency: let a student's stages wait for less of the mel than in `sample`: at most 100 ms with the usual
                frames. The waveform is then another, nearly as good one, the same for any chunks.

        Yields (1, 1, frames_per_chunk * hop_length), the last one shorter.
        """
        whole = isinstance(mel, Tensor)
        if self.config.mel is None:
            raise WavedistillError("this model takes no mel, and only mels are streamed: use sample(num_samples=...).")
        if frames_per_chunk < 1:
            raise WavedistillError(f"a chunk must hold at least one frame, got {frames_per_chunk}.")
        blocks = iter([mel]) if whole else self._checked(mel)
        pieces = mel_pieces(blocks, frames_per_chunk + self.frames_ahead(low_latency), frames_per_chunk)
        start = next(pieces)
        self.check_condition(mel if whole else start.frames, speaker, None, 1)
        generators = noise_generators(seed, 1)
        of_model, of_contraction = itertools.tee(itertools.chain([start], pieces))

        def draw(frames: int) -> Tensor:
            return self._draw(generators, frames).to(self.device)

        chunks = self._chunks(StreamRequest(of_model, draw, speaker, temperature, low_latency))
        if self.contraction is not None:
            chunks = self._contracted_chunks(chunks, of_contraction, low_latency)
        yield from in_chunks(chunks, frames_per_chunk * self.hop_length)

    def look_ahead(self, low_latency: bool = False) -> dict[str, float]:
        """Milliseconds of mel after a sample's own frame for which each stage of `stream` waits.

        Stages side by side wait for the longest of them, "contraction" waits after them, and "in all" is by how much a
        stream lags behind its mel, in whole frames. What is not named waits for nothing.
        """
        stages = self._look_ahead(low_latency)
        if self.contraction is not None:
            stages["contraction"] = self.contraction.look_ahead(low_latency)
        stages["in all"] = self.frames_ahead(low_latency) * self.hop_length
        return {name: 1000.0 * samples / self.sample_rate for name, samples in stages.items()}

    def frames_ahead(self, low_latency: bool = False) -> int:
        """Mel frames after a chunk that a stream waits for before it yields the chunk."""
        waits = [max(self._look_ahead(low_latency).values())]
        if self.contraction is not None:
            waits.append(self.contraction.look_ahead(low_latency))
        return sum(-(-samples // self.hop_length) for samples in waits)

    def _look_ahead(self, low_latency: bool) -> dict[str, int]:
        """Samples after its own frame for which each stage before the contraction waits, side by side with others."""
        raise NotImplementedError

    def _checked(self, blocks: Iterator[Tensor]) -> Iterator[Tensor]:
        for block in blocks:
            yield check_block(block, self.config.mel).to(self.device)

    def _contracted_chunks(
        self, chunks: Iterator[Tensor], pieces: Iterator[MelPiece], low_latency: bool
    ) -> Iterator[Tensor]:
        state = self.contraction.stream_state(low_latency)
        for audio, (mel, last) in zip(chunks, pieces, strict=True):
            yield self.contraction.contract_chunk(audio, mel, state, last)

    def _chunks(self, asked: StreamRequest) -> Iterator[Tensor]:
        """For each piece of the mel the samples (1, 1, n) that it makes final, before the contraction."""
        raise NotImplementedError

    def draw_noise(self, batch: int, samples: int, seed: int | list[int] | None) -> Tensor:
        """The noise of a seed, (batch, 1, samples) standard normal, on the CPU; seeds as in `sample`."""
        return self._draw(noise_generators(seed, batch), -(-samples // self.hop_length))[..., :samples]

    def _draw(self, generators: list[torch.Generator], frames: int) -> Tensor:
        """Noise (batch, 1, frames * hop_length), drawn frame by frame so that any chunking sees the same."""
        return torch.stack([torch.cat([self._draw_frame(one) for _ in range(frames)], dim=1) for one in generators])

    def _draw_frame(self, generator: torch.Generator) -> Tensor:
        """Noise of one frame, (1, hop_length)."""
        return torch.randn(1, self.hop_length, generator=generator)

    def _in_context(self, mel: Tensor | None, frames: int) -> Window | None:
        """The mel continued by ``frames`` copies of its first and last frame."""
        return None if mel is None else Window(extended(mel, frames), frames, axis=2)

    def contracted(self, audio: Tensor, mel: Tensor | None) -> Tensor:
        """The finished waveform (batch, 1, samples) after the contraction towards the mel, where the model has one."""
        return audio if self.contraction is None else self.contraction.contract(audio, mel)

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
            self._check_speaker(speaker, batch)
        if not num_samples or num_samples < 0:
            raise WavedistillError(f"num_samples must be above 0, got {num_samples}.")
        if num_samples % self.step_size:
            raise WavedistillError(
                f"num_samples must be a multiple of the {self.step_size} samples that this model makes together, got "
                f"{num_samples}."
            )
        return batch, num_samples

    def _check_speaker(self, speaker: Tensor, batch: int) -> None:
        known = len(self.config.speakers)
        if speaker.is_floating_point():
            if speaker.shape != (batch, known):
                raise WavedistillError(f"speaker must be {batch} x {known} weights, got shape {tuple(speaker.shape)}.")
        elif speaker.shape != (batch,) or not bool(((speaker >= 0) & (speaker < known)).all()):
            raise WavedistillError(f"speaker must be {batch} indices in 0..{known - 1}, got {speaker.tolist()}.")


def dequantized(audio: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Audio on the 16-bit grid plus uniform noise of one step; without a generator the noise is always the same."""
    generator = generator or torch.Generator().manual_seed(0)
    noise = torch.rand(audio.shape, generator=generator).to(audio)
    return (torch.round(audio * 32768.0) + noise) / 32768.0
