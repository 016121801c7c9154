"""The front door of synthesis: a model together with the mel front end it was trained with."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from wavedistill.audio.io import check_scale, resample
from wavedistill.audio.mel import LogMelSpectrogram
from wavedistill.audio.mel_check import check_block, check_mel, mel_suspicion
from wavedistill.errors import WavedistillError
from wavedistill.inference.stream import stream
from wavedistill.models.base import WaveformModel
from wavedistill.models.pretrained import (
    CARD_FILE,
    load_pretrained,
    resolve_checkpoint,
    save_pretrained,
)
from wavedistill.numerics import has_bfloat16

logger = logging.getLogger(__name__)

LONG_SECONDS = 20.0
"""A student or a one-stage flow computes longer mels than this chunk by chunk, so that memory does not grow with the
length.
"""


class Vocoder:
    """Mel or audio in, audio out; works with a student, a one-stage flow (one pass) and a teacher (sample by sample,
    slow).

        vocoder = Vocoder.from_pretrained("speech-student")
        audio = vocoder(mel, seed=0)                       # (n_mels, frames) -> (frames * hop_length,)
        audio = vocoder(recording, sample_rate, seed=0)    # (samples,) -> the same length at vocoder.sample_rate

    Args:
        model: a WaveNet, a ParallelWaveNet or a WaveformFlow; it is put in eval mode.
        source: the checkpoint folder it came from, whose card and samples `save_pretrained` carries along.

    Attributes:
        model: the model.
        mel_config: settings of the mel it takes; None for a model without mel conditioning.
    """

    def __init__(self, model: WaveformModel, source: Path | None = None) -> None:
        self.model = model.eval()
        self.source = source
        self.mel_config = model.config.mel
        self._front_end = None if self.mel_config is None else LogMelSpectrogram(self.mel_config).to(self.device)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, device: str | torch.device = "cpu", precision: Literal["fp32", "bf16"] = "fp32"
    ) -> Vocoder:
        """Load a checkpoint folder, a run folder, a bundled name or a hub id (only the last touches the network).

        ``precision`` "bf16" lets a student's networks compute in bfloat16 (`ParallelWaveNet.compute_in`): faster on
        processors with such instructions, slower on others; chunks of a stream then equal the whole to about 1e-3.
        """
        if precision not in ("fp32", "bf16"):
            raise WavedistillError(f"precision must be fp32 or bf16, got {precision!r}")
        folder = resolve_checkpoint(name)
        model = load_pretrained(folder, device)
        if precision == "bf16":
            if model.role != "student":
                raise WavedistillError(
                    f"precision bf16 is for students; {name} is a {model.role_name}: leave it at fp32"
                )
            if not has_bfloat16(model.device):
                logger.warning("%s has no instructions for bfloat16: precision fp32 is faster", model.device)
            model.compute_in(torch.bfloat16)
        return cls(model, folder)

    def save_pretrained(self, folder: str | Path, *, card: str | None = None) -> Path:
        """Write the model as a checkpoint folder: config.json, model.safetensors, README.md, samples/.

        ``card`` is the model card's text; by default the card of the checkpoint it was loaded from, or a short
        generated one. Samples of that checkpoint are copied along.
        """
        folder = Path(folder)
        if card is None and self.source is not None and (self.source / CARD_FILE).is_file():
            card = (self.source / CARD_FILE).read_text(encoding="utf-8")
        save_pretrained(self.model, folder, card=card)
        if self.source is not None and (self.source / "samples").is_dir() and folder.resolve() != self.source.resolve():
            try:
                shutil.copytree(self.source / "samples", folder / "samples", dirs_exist_ok=True)
            except OSError as error:
                raise WavedistillError(f"cannot write the samples to {folder}: {error}") from error
        return folder

    @property
    def sample_rate(self) -> int:
        """Of the audio it makes, Hz."""
        return self.model.sample_rate

    @property
    def hop_length(self) -> int:
        """Samples that a mel frame stands for."""
        return self.model.hop_length

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @torch.no_grad()
    def mel(self, audio: Tensor | np.ndarray, sample_rate: int | None = None) -> Tensor:
        """Log-mel (n_mels, frames) of ``audio`` (samples,), by the settings the model was trained with.

        ``sample_rate`` (Hz) is the audio's, by default the model's; another one is resampled.
        """
        self._need_mel()
        return self._front_end(self._audio(audio, sample_rate))

    def __call__(
        self,
        mel_or_audio: Tensor | np.ndarray,
        sample_rate: int | None = None,
        *,
        seed: int | None = 0,
        temperature: float = 1.0,
        speaker: int | str | None = None,
        progress: bool = False,
    ) -> Tensor:
        """Synthesise. The same input and seed give the same audio.

        Args:
            mel_or_audio: log-mel (n_mels, frames), or mono audio (samples,) or (1, samples) in [-1, 1] (or int16) to
                take the mel of.
            sample_rate: of the audio, Hz; by default the model's. Another one is resampled.
            seed: of the noise; None draws a fresh one.
            temperature: scale of the noise; 0 gives the model's most likely path.
            speaker: index or name, for a model with speakers.
            progress: show a bar while a teacher samples.

        Returns:
            (samples,) float32 at `sample_rate`: ``frames * hop_length`` samples for a mel; for audio as many as it has
            (after resampling).

        Raises:
            WavedistillError: a mel that cannot have come from this model's settings (transposed, decibels, another
                number of bands, NaN), or audio that is empty or not finite.
        """
        tensor = _tensor(mel_or_audio)
        if tensor.ndim == 1 or (tensor.ndim == 2 and len(tensor) == 1):
            self._need_mel()
            audio = self._audio(tensor, sample_rate)
            mel = self._front_end(audio)
            length = len(audio)
        else:
            mel = self._one_mel(tensor)
            length = None
        options = {"temperature": temperature, "speaker": speaker, "progress": progress}
        return self.render(mel.unsqueeze(0), [_fresh_seed() if seed is None else seed], **options)[0, :length]

    def render(
        self,
        mels: Tensor,
        seeds: Sequence[int],
        *,
        temperature: float = 1.0,
        speaker: int | str | None = None,
        progress: bool = False,
    ) -> Tensor:
        """Equally long mels (batch, n_mels, frames), each with a seed of its own -> audio (batch, samples).

        A student and a one-stage flow compute long ones chunk by chunk, so that memory does not grow with their length.
        """
        mels = check_mel(mels, self.mel_config).to(self.device)
        index = self._speaker(speaker)
        if self.model.one_pass and mels.shape[-1] * self.hop_length > LONG_SECONDS * self.sample_rate:
            options = {"temperature": temperature, "speaker": index}
            waves = (
                list(stream(self.model, *pair, LONG_SECONDS / 2, **options)) for pair in zip(mels, seeds, strict=True)
            )
            return torch.stack([torch.cat(wave) for wave in waves])
        options = {} if self.model.one_pass else {"progress": progress}
        speakers = None if index is None else index.expand(len(mels))
        return self.model.sample(mels, seed=list(seeds), temperature=temperature, speaker=speakers, **options)[:, 0]

    def sample(
        self,
        seconds: float,
        *,
        seed: int | None = 0,
        temperature: float = 1.0,
        speaker: int | str | None = None,
        progress: bool = False,
    ) -> Tensor:
        """Audio (samples,) from noise alone, ``round(seconds * sample_rate)`` long; for models without mel
        conditioning.
        """
        if self.mel_config is not None:
            raise WavedistillError("this model speaks what a mel says: use vocoder(mel) or `wavedistill synthesize`")
        num_samples = round(seconds * self.sample_rate)
        if num_samples < 1:
            raise WavedistillError(f"{seconds:g} seconds are no audio: give a positive length")
        options = {} if self.model.one_pass else {"progress": progress}
        audio = self.model.sample(
            num_samples=num_samples + -num_samples % self.model.step_size,
            seed=seed,
            temperature=temperature,
            speaker=self._speaker(speaker),
            **options,
        )
        return audio[0, 0, :num_samples]

    def stream(
        self,
        mel: Tensor | np.ndarray | Iterator[Tensor | np.ndarray],
        chunk_seconds: float = 0.5,
        seed: int = 0,
        *,
        temperature: float = 1.0,
        speaker: int | str | None = None,
        low_latency: bool = False,
    ) -> Iterator[Tensor]:
        """Audio of a mel (n_mels, frames) in chunks (samples,), each computed when it is asked for.

        Joined, the chunks equal ``vocoder(mel, seed=seed)`` for any ``chunk_seconds``, to 1e-4; memory does not grow
        with the length.

        Args:
            mel: whole, or an iterator of blocks (n_mels, any number of frames), as an acoustic model makes them one
                after another. No more are asked for than the next chunk needs, which is its own length and
                ``vocoder.model.look_ahead()["in all"]`` milliseconds.
            low_latency: let a student wait for less of the mel, at most 100 ms with the usual frames. The waveform is
                then another, nearly as good one, the same for any ``chunk_seconds``.
        """
        if isinstance(mel, Iterator):
            self._need_mel()
            mel = (check_block(_tensor(block).float(), self.mel_config).to(self.device) for block in mel)
            mel = (block[0] if block.ndim == 3 else block for block in mel)
        else:
            mel = self._one_mel(_tensor(mel)).to(self.device)
        options = {"temperature": temperature, "speaker": self._speaker(speaker), "low_latency": low_latency}
        return stream(self.model, mel, seed, chunk_seconds, **options)

    def _need_mel(self) -> None:
        if self.mel_config is None:
            raise WavedistillError("this model takes no mel (it is unconditional): use vocoder.sample(seconds=...)")

    def _one_mel(self, mel: Tensor) -> Tensor:
        self._need_mel()
        if mel.ndim == 3 and mel.shape[0] == 1:
            mel = mel[0]
        if mel.ndim != 2:
            raise WavedistillError(
                f"one utterance is needed, a mel (n_mels={self.mel_config.n_mels}, frames) or audio (samples,), "
                f"but the shape is {tuple(mel.shape)}: for many use wavedistill.synthesize"
            )
        if 2 in mel.shape and self.mel_config.n_mels not in mel.shape:
            axis = mel.shape.index(2)
            raise WavedistillError(f"the shape {tuple(mel.shape)} is that of stereo audio: pass audio.mean({axis})")
        mel = check_mel(mel.float(), self.mel_config)
        if suspicion := mel_suspicion(mel, self.mel_config):
            logger.warning("the mel looks %s", suspicion)
        return mel

    def _audio(self, audio: Tensor | np.ndarray, sample_rate: int | None) -> Tensor:
        audio = _tensor(audio)
        if audio.ndim == 2 and audio.shape[0] == 1:
            audio = audio[0]
        if audio.ndim != 1:
            raise WavedistillError(
                f"mono audio (samples,) is needed, not shape {tuple(audio.shape)}: average the channels"
            )
        if not audio.is_floating_point():
            if audio.dtype != torch.int16:
                raise WavedistillError(f"audio is needed as float in [-1, 1] or int16, not {audio.dtype}")
            audio = audio.float() / 32768.0
        if len(audio) == 0:
            raise WavedistillError("the audio is empty")
        if not torch.isfinite(audio).all():
            raise WavedistillError("the audio holds NaN or infinite values")
        check_scale(audio, "the audio")
        return resample(audio.float(), sample_rate or self.sample_rate, self.sample_rate).to(self.device)

    def _speaker(self, speaker: int | str | None) -> Tensor | None:
        """Index (1,) of a speaker; None for a model without."""
        known = self.model.config.speakers
        if not known:
            if speaker is not None:
                raise WavedistillError(f"this model has no speakers, but {speaker!r} was asked for: leave it out")
            return None
        index = known.index(speaker) if speaker in known else speaker
        if not isinstance(index, int) or not 0 <= index < len(known):
            raise WavedistillError(
                f"this model needs one of its {len(known)} speakers, not {speaker!r}: {', '.join(known)} (or 0 to "
                f"{len(known) - 1})"
            )
        return torch.tensor([index], device=self.device)


def _tensor(value: Tensor | np.ndarray) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    try:
        array = np.asarray(value)
        # torch takes neither reversed arrays nor those in another machine's order of bytes
        return torch.as_tensor(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")))
    except (TypeError, ValueError) as error:
        raise WavedistillError(f"a mel or audio array is needed, not {type(value).__name__}") from error


def _fresh_seed() -> int:
    return int(torch.randint(2**62, ()))
