"""Systems of known quality to compare with: Griffin-Lim, WORLD and 8-bit mu-law."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wavedistill.audio.mel import MelConfig, mel_filter_bank
from wavedistill.audio.mel_check import check_mel
from wavedistill.metrics.packages import need_package


def griffin_lim(mel: Tensor, config: MelConfig, *, iterations: int = 60, seed: int = 0) -> Tensor:
    """Waveform of a log-mel spectrogram without any model (librosa's fast Griffin-Lim).

    The magnitudes are the non-negative spectrum whose mel is closest to the given one (least squares).

    Shapes: mel (n_mels, frames) -> (frames * hop_length,), for centred mels (frames - 1) * hop_length.
    """
    import librosa

    mel = check_mel(mel, config)
    filters = mel_filter_bank(config).T.double().numpy()
    magnitude = librosa.util.nnls(filters, mel.double().exp().numpy()) ** (1 / config.power)
    audio = librosa.griffinlim(
        magnitude,
        n_iter=iterations,
        hop_length=config.hop_length,
        win_length=config.win_length,
        n_fft=config.n_fft,
        random_state=seed,
    )
    if not config.centered:  # librosa's frame i is centred on i * hop, ours half a hop later
        audio = np.pad(audio, (config.hop_length // 2, config.hop_length - config.hop_length // 2))
    return torch.from_numpy(audio).float()


def world(audio: Tensor, sample_rate: int) -> Tensor:
    """WORLD analysis and synthesis (Morise et al., 2016; Harvest, CheapTrick, D4C): (samples,) -> (samples,)."""
    pyworld = need_package("pyworld")
    signal = np.asarray(audio, dtype=np.float64)
    f0, times = pyworld.harvest(signal, sample_rate)
    envelope = pyworld.cheaptrick(signal, f0, times, sample_rate)
    aperiodicity = pyworld.d4c(signal, f0, times, sample_rate)
    made = pyworld.synthesize(f0, envelope, aperiodicity, sample_rate)[: len(signal)]
    return torch.from_numpy(np.pad(made, (0, len(signal) - len(made)))).float()


def mulaw8(audio: Tensor) -> Tensor:
    """The waveform through 8-bit mu-law, of telephony and of the first WaveNets: (samples,) -> (samples,)."""
    compressed = torch.sign(audio) * torch.log1p(255 * audio.abs().clamp_max(1)) / np.log(256)
    quantised = torch.round((compressed + 1) / 2 * 255) / 255 * 2 - 1
    return torch.sign(quantised) * (torch.pow(256, quantised.abs()) - 1) / 255
