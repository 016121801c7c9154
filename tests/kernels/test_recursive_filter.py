"""Compiled loops agree with the tensor code they stand for."""

from __future__ import annotations

import pytest
import torch

from wavedistill.audio.mel import MelConfig, mel_filter_bank
from wavedistill.dsp.filters import slide_by_products
from wavedistill.dsp.mel_inversion import MelInversion
from wavedistill.kernels.block_filter import block_fir


@pytest.mark.parametrize("batch, blocks, size, order", [(2, 3, 16, 5), (1, 1, 7, 1), (3, 4, 2, 9)])
def test_block_filter_equals_products_over_all_windows(batch, blocks, size, order):
    generator = torch.Generator().manual_seed(0)
    padded = torch.randn(batch, order - 1 + blocks * size, dtype=torch.float64, generator=generator).requires_grad_()
    taps = torch.randn(batch, blocks, order, dtype=torch.float64, generator=generator).requires_grad_()
    products = slide_by_products(padded.unsqueeze(-1), taps[..., None, None]).squeeze(-1)
    torch.testing.assert_close(block_fir(padded, taps), products)
    assert torch.autograd.gradcheck(block_fir, (padded, taps))


def test_block_filter_keeps_what_is_not_a_number():
    padded = torch.zeros(2, 12)
    taps = torch.ones(2, 2, 3)
    padded[0, 4] = torch.nan
    y = block_fir(padded, taps)
    assert y[0].isnan().nonzero().flatten().tolist() == [2, 3, 4] and not y[1].isnan().any()


def test_block_filter_maps_over_a_new_axis():
    padded = torch.randn(4, 2, 12)
    taps = torch.randn(4, 2, 2, 3)
    expected = torch.stack([block_fir(*pair) for pair in zip(padded, taps, strict=True)])
    torch.testing.assert_close(torch.vmap(block_fir)(padded, taps), expected)


@pytest.mark.parametrize("config", [MelConfig(), MelConfig(f_min=60.0, f_max=7600.0, n_mels=40)])
def test_mel_inversion_without_the_zeros_equals_the_dense_one(config, monkeypatch):
    inversion = MelInversion(mel_filter_bank(config))
    generator = torch.Generator().manual_seed(0)
    mel, shape = (torch.rand(2, 70, size, generator=generator) for size in (config.n_mels, config.n_fft // 2 + 1))
    compiled = inversion(mel, shape)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(compiled, inversion(mel, shape), rtol=1e-4, atol=1e-7)


def test_mel_inversion_finds_magnitudes_with_the_wanted_mel():
    filters = mel_filter_bank(MelConfig())
    magnitudes = torch.rand(1, 5, 513, generator=torch.Generator().manual_seed(0)) + 0.1
    found = MelInversion(filters)(magnitudes @ filters, torch.ones_like(magnitudes))
    difference = (found @ filters - magnitudes @ filters).abs().mean() / (magnitudes @ filters).abs().mean()
    assert difference < 0.02
