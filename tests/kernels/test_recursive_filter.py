"""Compiled loops agree with the tensor code they stand for."""

from __future__ import annotations

import pytest
import torch

from wavedistill.audio.mel import MelConfig, mel_filter_bank
from wavedistill.dsp.mel_inversion import MelInversion
from wavedistill.kernels.block_filter import block_fir, block_fir_backward, slide_by_products
from wavedistill.kernels.levinson import levinson_recursion
from wavedistill.kernels.recursive_filter import recursive_filter, recursive_filter_adjoint

F64 = torch.float64


def normal(*shape, seed=0):
    return torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


OPERATORS = {
    block_fir: (normal(2, 10), normal(2, 2, 5, seed=1)),
    block_fir_backward: (normal(2, 6), normal(2, 10, seed=1), normal(2, 2, 5, seed=2)),
    recursive_filter: (normal(2, 3, 4), 0.2 * normal(2, 3, 6, seed=1), normal(2, 6, seed=2)),
    recursive_filter_adjoint: (normal(2, 12), 0.2 * normal(2, 3, 6, seed=1)),
    levinson_recursion: (torch.tensor([[1.0, 0.5, 0.2, 0.1], [2.0, 0.1, 0.3, 0.0]], dtype=F64),),
}


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.__name__)
def test_loops_equal_their_plain_versions_which_map_over_a_new_axis(operator):
    given = OPERATORS[operator]
    expected = operator(*given)
    torch.testing.assert_close(operator.plain(*given), expected)
    mapped = torch.vmap(operator)(*(value.unsqueeze(1) for value in given))
    for got, want in zip(*(x if isinstance(x, tuple) else (x,) for x in (mapped, expected)), strict=True):
        torch.testing.assert_close(got.squeeze(1), want)


def test_filters_are_differentiable_twice_and_by_torch_func():
    padded, taps = (value.clone().requires_grad_() for value in OPERATORS[block_fir])
    assert torch.autograd.gradgradcheck(lambda p, c: block_fir(p, c).sin(), (padded, taps))
    excitation, coefficients, past = (value.clone() for value in OPERATORS[recursive_filter])
    excitation.requires_grad_()
    assert torch.autograd.gradgradcheck(lambda e: recursive_filter(e, coefficients, past).sin(), (excitation,))
    for function, x in (
        (lambda e: recursive_filter(e, coefficients, past), excitation),
        (lambda p: block_fir(p, taps), padded),
    ):
        expected = torch.autograd.functional.jacobian(function, x)
        torch.testing.assert_close(torch.func.jacrev(function)(x), expected)
        torch.testing.assert_close(torch.autograd.functional.jacobian(function, x, vectorize=True), expected)


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
