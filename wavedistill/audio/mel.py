"""Log-mel spectrograms: one front end, its settings stored in every checkpoint.

The same settings must be used in training and in synthesis: a vocoder fed another program's mel makes noise. So the
settings travel with the model, the common ones have names (`MEL_PRESETS`), and `check_mel` recognises the usual
mistakes (transposed, decibels, base-10 logarithm, wrong number of bands).
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

    @staticmethod
    def preset(name: str) -> MelConfig:
        """The settings known as ``name`` (see `MEL_PRESETS`)."""
        if name not in MEL_PRESETS:
            raise WavedistillError(f"unknown mel preset '{name}'. Known presets: {', '.join(MEL_PRESETS)}.")
        return MelConfig(**vars(MEL_PRESETS[name]))


MEL_PRESETS: dict[str, MelConfig] = {
    "wavedistill-16khz": MelConfig(),
    "ljspeech-hifigan": MelConfig(sample_rate=22050, f_max=8000.0),
    "tacotron2": MelConfig(sample_rate=22050, f_max=8000.0, centered=True),
    "vocos-24khz": MelConfig(
        sample_rate=24000, n_mels=100, f_max=12000.0, norm=None, mel_scale="htk", floor=1e-7, centered=True
    ),
}
"""Settings by name: ours, and those of widely used text-to-mel models and vocoders."""


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
        magnitude = spectrum.abs() if config.power == 1.0 else spectrum.abs().pow(config.power)
        mel = torch.einsum("bft,fm->bmt", magnitude, self.filters)
        log_mel = mel.clamp_min(config.floor).log()
        return log_mel.reshape(*audio.shape[:-1], config.n_mels, -1)


def _pad_reflect(waves: Tensor, left: int, right: int) -> Tensor:
    """Reflection that also serves waveforms shorter than the padding (by zeros where there is nothing to reflect)."""
    longest = waves.shape[-1] - 1
    reflected = nn.functional.pad(waves, (min(left, longest), min(right, longest)), mode="reflect")
    return nn.functional.pad(reflected, (max(left - longest, 0), max(right - longest, 0)))


def check_mel(mel: Tensor, config: MelConfig) -> Tensor:
    """Return ``mel`` ((n_mels, frames) or (batch, n_mels, frames)) if it can have come from ``config``'s front end.

    Raises:
        WavedistillError: wrong rank or band count, transposed, not finite, or in decibels, base-10 or linear units.
    """
    shape = tuple(mel.shape)
    n_mels = config.n_mels
    if mel.ndim not in (2, 3):
        raise WavedistillError(
            f"mel has shape {shape}; needed is (n_mels={n_mels}, frames), with an optional batch in front."
        )
    if mel.shape[-2] != n_mels:
        if mel.shape[-1] == n_mels:
            raise WavedistillError(
                f"mel has shape {shape}: it looks transposed. Needed is (n_mels={n_mels}, frames): pass "
                "mel.swapaxes(-1, -2)."
            )
        raise WavedistillError(
            f"mel has {mel.shape[-2]} bands (shape {shape}), this model needs {n_mels}. Make it with "
            "LogMelSpectrogram(model.config.mel)."
        )
    if mel.shape[-1] == 0:
        raise WavedistillError(f"mel has no frames (shape {shape}).")
    if not torch.isfinite(mel).all():
        raise WavedistillError("mel holds NaN or infinite values.")
    low = float(mel.min())
    high = float(mel.max())
    natural_floor = torch.tensor(config.floor).log().item()
    advice = (
        f"Needed is the natural logarithm (floor {natural_floor:.1f}): make it with LogMelSpectrogram(model.config.mel)"
    )
    if low < natural_floor - 3.0:
        raise WavedistillError(
            f"mel ranges from {low:.1f} to {high:.1f}: it looks like decibels. {advice}, or pass mel_db * 0.1151."
        )
    if high > 12.0:
        raise WavedistillError(
            f"mel ranges from {low:.1f} to {high:.1f}: it looks like linear values or decibels. {advice}."
        )
    if low >= 0.0:
        raise WavedistillError(
            f"mel ranges from {low:.1f} to {high:.1f}: it looks like linear values, not logarithms. {advice}."
        )
    log10_floor = natural_floor / 2.302585
    if abs(low - log10_floor) < 1e-3:
        raise WavedistillError(
            f"mel's floor is {low:.2f}: it looks like a base-10 logarithm. {advice}, or pass mel * 2.3026."
        )
    return mel
