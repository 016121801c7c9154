"""What a log-mel spectrogram of one setting says about that of another."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wavedistill.audio.mel import MelConfig, mel_filter_bank


def mel_between(given: MelConfig, wanted: MelConfig) -> tuple[Tensor, Tensor]:
    """Estimate the log mels of one setting from those of another, band by band: ``wanted = matrix @ given + offset``.

    A band of the mel is the spectrum's magnitude around its centre times the filter's area in Hz. So the level per Hz
    is read at the given bands' centres, drawn as straight lines between them (flat beyond the last ones), and
    multiplied by the wanted areas. Right for noise that is flat in each band; where partials stand apart it is as
    coarse as the given bands are. Frames are taken to stand at the same instants.

    Args:
        given: settings of the mel at hand.
        wanted: settings to estimate; with the same ``power``.

    Returns:
        matrix (wanted.n_mels, given.n_mels), each row's sum 1, and offset (wanted.n_mels,) in nats.

    Raises:
        ValueError: one is of magnitudes, the other of powers.
    """
    if given.power != wanted.power:
        raise ValueError(f"power {given.power} and {wanted.power}: only mels of the same power are compared.")
    here, area_here = _centres_and_areas(given)
    there, area_there = _centres_and_areas(wanted)
    above = torch.searchsorted(here, there).clamp(1, len(here) - 1)
    share = ((there - here[above - 1]) / (here[above] - here[above - 1])).clamp(0.0, 1.0)
    rows = torch.arange(wanted.n_mels)
    matrix = torch.zeros(wanted.n_mels, given.n_mels)
    matrix[rows, above - 1] = 1.0 - share
    matrix[rows, above] = share
    level = _noise_level(wanted) - _noise_level(given)
    return matrix, area_there.log() - matrix @ area_here.log() + level


def _noise_level(config: MelConfig) -> float:
    """Natural log of the sum over one Hz of |DFT|^power of noise, up to a constant of all settings."""
    half = config.power / 2
    return math.log(config.n_fft / config.sample_rate) + half * math.log(config.win_length * config.sample_rate)


def _centres_and_areas(config: MelConfig) -> tuple[Tensor, Tensor]:
    """Of each filter, both in Hz (the area times the filter's height)."""
    filters = mel_filter_bank(config)
    frequencies = torch.linspace(0.0, config.sample_rate / 2, len(filters))
    # narrow filters between two bins hold neither
    areas = (filters.sum(0) * frequencies[1]).clamp_min(1e-9)
    return (frequencies @ filters) * frequencies[1] / areas, areas
