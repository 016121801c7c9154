"""What is wrong with a mel spectrogram, if it does not come from the settings that a model was trained with.

`check_mel` refuses what cannot have come from them; `mel_suspicion` names what hardly has, by how the values of speech
are spread. A vocoder makes noise at full level of either.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from wavedistill.audio.mel import MEL_PRESETS, MelConfig, mel_filter_bank
from wavedistill.errors import WavedistillError

LN10 = math.log(10.0)
SUSPICIOUS_SPREAD = 0.12
"""Standard deviation of natural logarithms of speech at least, as a share of |log floor|; base-10 logarithms are below.

Measured on 60 clips of held-out speech at three levels and under all presets: at least 0.13, so that base-10 logarithms
of all but a few have less.
"""
FEWEST_TILES = 1600
"""Tiles (a band of a frame) from which the spread of values says something: 20 frames of 80 bands."""


def check_mel(mel: Tensor, config: MelConfig) -> Tensor:
    """Return ``mel`` ((n_mels, frames) or (batch, n_mels, frames)) if it can have come from ``config``'s front end.

    Raises:
        WavedistillError: wrong rank or band count, transposed, not finite, in decibels, base-10 or linear units, or
            louder than any waveform in [-1, 1].
    """
    check_block(mel, config)
    low = float(mel.min())
    high = float(mel.max())
    natural_floor = math.log(config.floor)
    found = f"mel ranges from {low:.1f} to {high:.1f}"
    advice = (
        f"Needed is the natural logarithm (floor {natural_floor:.1f}): make it with LogMelSpectrogram(model.config.mel)"
    )
    if low < natural_floor - 3.0:
        raise WavedistillError(f"{found}: it looks like decibels. {advice}, or pass mel_db * 0.1151.")
    if high > 12.0:
        raise WavedistillError(f"{found}: it looks like linear values or decibels. {advice}.")
    if low >= 0.0:
        raise WavedistillError(f"{found}: it looks like linear values, not logarithms. {advice}, or pass mel.log().")
    if abs(low - natural_floor / LN10) < 1e-3:
        raise WavedistillError(
            f"mel's floor is {low:.2f}: it looks like a base-10 logarithm. {advice}, or pass mel * 2.3026."
        )
    if high > _loudest(tuple(vars(config).items())) + 0.1:
        like = mel_suspicion(mel, config) or "like one of int16 samples, of another norm or of power, not magnitude"
        raise WavedistillError(f"{found}, louder than any waveform in [-1, 1]. It looks {like}. {advice}.")
    return mel


def check_block(mel: Tensor, config: MelConfig) -> Tensor:
    """Return some frames of a mel, shaped as in `check_mel`, if they have the right bands and are finite.

    A few frames do not tell in which units they are.
    """
    _check_shape(mel, config)
    if not torch.isfinite(mel).all():
        raise WavedistillError("mel holds NaN or infinite values.")
    return mel


def mel_suspicion(mel: Tensor, config: MelConfig) -> str | None:
    """What a mel that passed `check_mel` looks like instead, with the line that converts it; None: nothing is odd.

    Judged by how the values of speech are spread, so that other sounds can look odd and be right.

    Example:
        >>> import torch
        >>> from wavedistill.audio.mel import LogMelSpectrogram, MelConfig
        >>> from wavedistill.audio.mel_check import mel_suspicion
        >>> mel = 3.0 * torch.randn(80, 50, generator=torch.Generator().manual_seed(0)) - 6.0
        >>> mel_suspicion(mel, MelConfig()) is None
        True
        >>> mel_suspicion((mel - mel.mean()) / mel.std(), MelConfig())
        'normalised to mean 0 and variance 1: pass mel * std + mean, with the mean and std of its training data'
    """
    if mel.numel() < FEWEST_TILES:
        return None
    natural_floor = math.log(config.floor)
    low = float(mel.min())
    high = float(mel.max())
    mean = float(mel.mean())
    spread = float(mel.std())
    if low >= -4.0 - 1e-4 and high <= 4.0 + 1e-4 and float((mel <= -4.0 + 1e-4).float().mean()) > 1e-3:
        return (
            "clipped to [-4, 4]: pass ((mel + 4) / 8 * 100 - 100 + ref_level_db) * 0.1151, with the ref_level_db "
            "(often 20) of the program that made it"
        )
    if abs(mean) < 0.6 and 0.6 < spread < 1.6:
        return "normalised to mean 0 and variance 1: pass mel * std + mean, with the mean and std of its training data"
    if low > natural_floor / LN10 - 1e-3 and high < 2.0 and 0.05 < spread / -natural_floor < SUSPICIOUS_SPREAD:
        return "like a base-10 logarithm: pass mel * 2.3026"
    at_floor = float((mel < low + 1e-4).float().mean())
    if at_floor > 0.01 and abs(low - natural_floor) > 0.1:
        return _other_floor(low)
    return None


def _other_floor(low: float) -> str:
    named = [name for name, config in MEL_PRESETS.items() if abs(math.log(config.floor) - low) < 0.05]
    of = f", that of the preset {' and '.join(named)}" if named else ""
    return (
        f"made with other settings: its floor is {low:.2f}{of}. Take a voice with these settings, or make the mel of "
        "its audio with LogMelSpectrogram(model.config.mel)"
    )


def _check_shape(mel: Tensor, config: MelConfig) -> None:
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
            f"mel has {mel.shape[-2]} bands (shape {shape}), this model needs {n_mels}{_presets_of(mel.shape[-2])}. "
            "Make it with LogMelSpectrogram(model.config.mel)."
        )
    if mel.shape[-1] == 0:
        raise WavedistillError(f"mel has no frames (shape {shape}).")


def _presets_of(n_mels: int) -> str:
    named = [name for name, config in MEL_PRESETS.items() if config.n_mels == n_mels]
    return f" ({n_mels} have: {', '.join(named)})" if named else ""


@functools.cache
def _loudest(settings: tuple[tuple[str, object], ...]) -> float:
    """A bound on the log-mel of waveforms in [-1, 1] (Cauchy-Schwarz and Parseval over the bins of a frame)."""
    config = MelConfig(**dict(settings))
    window = torch.hann_window(config.win_length)
    energy = config.n_fft * float(window.square().sum())
    filters = mel_filter_bank(config)
    if config.power >= 2.0:
        return math.log(float(filters.max())) + 0.5 * config.power * math.log(energy)
    largest = float(filters.pow(2.0 / (2.0 - config.power)).sum(0).max()) ** (1.0 - 0.5 * config.power)
    return math.log(largest) + 0.5 * config.power * math.log(energy)
