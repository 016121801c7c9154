"""Log-mel spectrograms: one front end, its settings stored in every checkpoint.

The same settings must be used in training and in synthesis: a vocoder fed another program's mel makes noise. So the
settings travel with the model, the common ones have names (`MEL_PRESETS`), and `wavedistill.audio.mel_check` recognises
the usual mistakes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from wavedistill.errors import WavedistillError


@dataclass
class MelConfig:
    """Settings of a log-mel spectrogram.

    Attributes:
        sample_rate: Hz.
        n_fft, win_length, hop_length: samples; the window is a periodic Hann.
        n_mels: number of mel bands between ``f_min`` and ``f_max`` (Hz).
        power: exponent of the magnitude before the mel sum (1: magnitude, 2: power).
        epsilon: added to the squared magnitude before its root.
        norm: "slaney" gives every band unit area, None unit height.
        mel_scale: "slaney" (librosa's default) or "htk".
        floor: smallest mel value before the natural logarithm.
        centered: True puts frame i's centre on sample i * hop_length (librosa's ``center=True``, frames =
            samples // hop_length + 1); False puts frame i over samples [i * hop_length, (i + 1) * hop_length)
            (HiFi-GAN's convention, frames = ceil(samples / hop_length)).
    """

    sample_rate: int = 16000
    n_fft: int = 1024
    win_length: int = 1024
    hop_length: int = 256
    n_mels: int = 80
    f_min: float = 0.0
    f_max: float = 8000.0
    power: float = 1.0
    epsilon: float = 0.0
    norm: Literal["slaney"] | None = "slaney"
    mel_scale: Literal["slaney", "htk"] = "slaney"
    floor: float = 1e-5
    centered: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.hop_length <= self.win_length <= self.n_fft:
            raise WavedistillError(
                f"mel settings need 0 < hop_length <= win_length <= n_fft, got {self.hop_length}, {self.win_length}, "
                f"{self.n_fft}."
            )
        if not 0 <= self.f_min < self.f_max <= self.sample_rate / 2:
            raise WavedistillError(
                f"mel settings need 0 <= f_min < f_max <= sample_rate / 2, got {self.f_min}, {self.f_max} at "
                f"{self.sample_rate} Hz."
            )
        spacing = self.sample_rate / self.n_fft
        if (self.f_min // spacing + 1) * spacing >= self.f_max:
            raise WavedistillError(
                f"mel settings need a bin of the spectrum between f_min and f_max: there is one every {spacing:g} Hz "
                f"(sample_rate / n_fft), and none between {self.f_min:g} and {self.f_max:g}."
            )

    @staticmethod
    def preset(name: str) -> MelConfig:
        """The settings known as ``name`` (see `MEL_PRESETS`)."""
        if name not in MEL_PRESETS:
            raise WavedistillError(f"unknown mel preset '{name}'. Known presets: {', '.join(MEL_PRESETS)}.")
        return MelConfig(**vars(MEL_PRESETS[name]))


MEL_PRESETS: dict[str, MelConfig] = {
    "wavedistill-16khz": MelConfig(),
    "ljspeech-hifigan": MelConfig(sample_rate=22050, f_max=8000.0, epsilon=1e-9),
    "tacotron2": MelConfig(sample_rate=22050, f_max=8000.0, centered=True),
    "vocos-24khz": MelConfig(
        sample_rate=24000, n_mels=100, f_max=12000.0, norm=None, mel_scale="htk", floor=1e-7, centered=True
    ),
}
"""Settings by name: ours, and those of widely used text-to-mel models and vocoders.

ljspeech-hifigan: HiFi-GAN's ``meldataset.mel_spectrogram`` with its config_v1 (also Matcha-TTS and most models of
LJSpeech). tacotron2: NVIDIA's ``TacotronSTFT``. vocos-24khz: ``MelSpectrogramFeatures`` of Vocos (also F5-TTS). Each is
equal to its origin to 2e-5 on waveforms of whole frames; the origins drop what is left over at the end of others.
"""


def whole_frames(seconds: float, sample_rate: int, hop_length: int) -> int:
    """Frames nearest to ``seconds`` of audio, at least one."""
    return max(1, round(seconds * sample_rate / hop_length))


def mel_filter_bank(config: MelConfig) -> Tensor:
    """The triangular filters, shape (n_fft // 2 + 1, n_mels)."""
    from torchaudio.functional import melscale_fbanks

    return melscale_fbanks(
        config.n_fft // 2 + 1,
        config.f_min,
        config.f_max,
        config.n_mels,
        config.sample_rate,
        norm=config.norm,
        mel_scale=config.mel_scale,
    )


class LogMelSpectrogram(nn.Module):
    """Natural logarithm of a mel spectrogram; equal to librosa's to 1e-5.

    Shapes:
        audio (..., samples) -> (..., n_mels, frames), with frames as `MelConfig.centered` says.
    """

    def __init__(self, config: MelConfig | None = None) -> None:
        super().__init__()
        self.config = config or MelConfig()
        self.register_buffer("window", torch.hann_window(self.config.win_length), persistent=False)
        self.register_buffer("filters", mel_filter_bank(self.config), persistent=False)

    def num_frames(self, num_samples: int) -> int:
        """Frames of a waveform of ``num_samples``."""
        hop = self.config.hop_length
        return num_samples // hop + 1 if self.config.centered else -(-num_samples // hop)

    def forward(self, audio: Tensor) -> Tensor:
        config = self.config
        if audio.shape[-1] == 0:
            raise WavedistillError("cannot take the mel spectrogram of an empty waveform.")
        waves = audio.reshape(-1, audio.shape[-1])
        if config.centered:
            left = right = config.n_fft // 2
        else:
            waves = nn.functional.pad(waves, (0, -waves.shape[-1] % config.hop_length))
            left = (config.n_fft - config.hop_length) // 2
            right = config.n_fft - config.hop_length - left
        waves = _pad_reflect(waves, left, right)
        spectrum = torch.stft(
            waves, config.n_fft, config.hop_length, config.win_length, self.window, center=False, return_complex=True
        )
        magnitude = spectrum.abs()
        if config.epsilon:
            magnitude = magnitude.square().add(config.epsilon).sqrt()
        if config.power != 1.0:
            magnitude = magnitude.pow(config.power)
        mel = torch.einsum("bft,fm->bmt", magnitude, self.filters)
        log_mel = mel.clamp_min(config.floor).log()
        return log_mel.reshape(*audio.shape[:-1], config.n_mels, -1)


def _pad_reflect(waves: Tensor, left: int, right: int) -> Tensor:
    """Reflection that also serves waveforms shorter than the padding (by zeros where there is nothing to reflect)."""
    longest = waves.shape[-1] - 1
    reflected = nn.functional.pad(waves, (min(left, longest), min(right, longest)), mode="reflect")
    return nn.functional.pad(reflected, (max(left - longest, 0), max(right - longest, 0)))
