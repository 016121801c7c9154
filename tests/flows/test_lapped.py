"""Lapped transforms: orthogonal to the ends, known values, and bands that leak less with more overlap."""

from __future__ import annotations

import math

import pytest
import torch

from wavedistill.errors import WavedistillError
from wavedistill.flows import LappedTransform

F64 = torch.float64


def matrix(split: LappedTransform, blocks: int) -> torch.Tensor:
    """(samples, samples): row by row the coefficients, step after step, of a signal of so many blocks."""
    samples = blocks * split.bands
    y = split.forward(torch.eye(samples, dtype=F64).unsqueeze(1)).value  # (samples, bands, blocks)
    return y.transpose(1, 2).reshape(samples, samples).T


@pytest.mark.parametrize("overlap", [0, 1, 2])
@pytest.mark.parametrize("bands", [2, 4, 6, 16, 64])
@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 7])
def test_orthogonal_at_any_length(bands, overlap, blocks):
    split = LappedTransform(bands, overlap)
    rows = matrix(split, blocks)
    eye = torch.eye(blocks * bands, dtype=F64)
    torch.testing.assert_close(rows @ rows.T, eye, atol=1e-14, rtol=0)
    back = split.inverse(split.forward(eye.unsqueeze(1)).value).value
    torch.testing.assert_close(back[:, 0], eye, atol=1e-14, rtol=0)


@pytest.mark.parametrize("overlap", [0, 1, 2])
def test_round_trip_in_single_precision(overlap):
    split = LappedTransform(16, overlap)
    x = torch.randn(4, 1, 16 * 500, generator=torch.Generator().manual_seed(0))
    y, log_det = split.forward(x)
    back = split.inverse(y).value
    assert y.dtype == back.dtype == torch.float32
    assert float((back - x).abs().max()) < 5e-6
    assert torch.equal(log_det, torch.zeros(4))


@pytest.mark.parametrize("bands", [2, 8, 10, 64])
def test_block_transform_is_scipy_s(bands):
    from scipy.fft import dct

    x = torch.randn(2, 1, 5 * bands, dtype=F64, generator=torch.Generator().manual_seed(1))
    expected = dct(x.reshape(2, 5, bands).numpy(), type=4, norm="ortho").transpose(0, 2, 1)
    torch.testing.assert_close(LappedTransform(bands, 0).forward(x).value, torch.from_numpy(expected.copy()))


@pytest.mark.parametrize("bands", [2, 8, 12])
def test_modulated_transform_is_the_mdct(bands):
    """By its definition: a sine window of two blocks, and cosines whose phase cancels the aliases; same signs."""
    x = torch.randn(1, 1, 6 * bands, dtype=F64, generator=torch.Generator().manual_seed(2))
    time = torch.arange(2 * bands, dtype=F64)
    window = torch.sin(math.pi / (2 * bands) * (time + 0.5))
    phase = time - bands / 2 + 0.5  # counted from the block's first sample
    frequency = torch.arange(bands, dtype=F64) + 0.5
    filters = math.sqrt(2 / bands) * window * torch.cos(math.pi / bands * frequency.unsqueeze(1) * phase)
    frames = x[0, 0, bands // 2 : -bands // 2].unfold(0, 2 * bands, bands)
    y = LappedTransform(bands).forward(x).value[0]
    torch.testing.assert_close(y[:, 1:-1], filters @ frames.T)


@pytest.mark.parametrize("bands", [2, 8, 12])
def test_extended_transform_is_modulated(bands):
    """One symmetric window of four blocks and the same cosines: cosine modulation, whatever the angles are."""
    support = 4 * bands
    row = matrix(LappedTransform(bands, 2), 5).reshape(5, bands, 5 * bands)[2, :, bands // 2 : -bands // 2]
    phase = torch.arange(support, dtype=F64) - 1.5 * bands + 0.5
    frequency = torch.arange(bands, dtype=F64) + 0.5
    cosines = math.sqrt(2 / bands) * torch.cos(math.pi / bands * frequency.unsqueeze(1) * phase)
    window = (row * cosines).sum(0) / cosines.square().sum(0)
    torch.testing.assert_close(window, window.flip(0))
    torch.testing.assert_close(row, window * cosines)
    assert (window[bands // 2 : -bands // 2] > 0).all() and (window[: bands // 2] < 0).all()


@pytest.mark.parametrize("overlap", [0, 1, 2])
def test_slow_sinusoids_stay_slow(overlap):
    """Every band turns by the sinusoid's own phase advance: y_{n+1} + y_{n-1} = 2 cos(frequency M) y_n, no flips."""
    bands = 8
    frequency = 0.02
    x = torch.cos(frequency * torch.arange(bands * 40, dtype=F64) + 1.0).reshape(1, 1, -1)
    y = LappedTransform(bands, overlap).forward(x).value[0, :, 3:-3]
    torch.testing.assert_close(y[:, 2:] + y[:, :-2], 2 * math.cos(frequency * bands) * y[:, 1:-1])


def test_jacobian_through_torch_func():
    split = LappedTransform(4, 2)
    x = torch.randn(1, 1, 16, dtype=F64, generator=torch.Generator().manual_seed(3))
    jacobian = torch.func.jacrev(lambda v: split.forward(v).value.transpose(1, 2).reshape(-1))(x).reshape(16, 16)
    torch.testing.assert_close(jacobian, matrix(split, 4))
    batched = torch.func.vmap(torch.func.jacfwd(lambda v: split.inverse(v[None]).value[0, 0]))(
        torch.randn(3, 4, 4, dtype=F64)
    )
    inverse = batched.transpose(-1, -2).reshape(3, 16, 16)
    torch.testing.assert_close(inverse, matrix(split, 4).T.expand(3, 16, 16))


def test_the_module_s_precision_does_not_matter():
    split = LappedTransform(8, 2)
    x = torch.randn(1, 1, 64, dtype=F64, generator=torch.Generator().manual_seed(4))
    expected = split.forward(x).value
    assert torch.equal(split.half().forward(x).value, expected)
    assert not split.state_dict()


def test_errors_say_what_is_needed():
    for bands in (0, 1, 3, 66, -2):
        with pytest.raises(WavedistillError, match=f"even number of bands from 2 to 64, got {bands}"):
            LappedTransform(bands)
    for overlap in (-1, 3):
        with pytest.raises(WavedistillError, match=f"overlap from 0 to 2, got {overlap}"):
            LappedTransform(4, overlap)
    with pytest.raises(WavedistillError, match=r"multiple of 4, got shape \(2, 1, 10\)"):
        LappedTransform(4).forward(torch.zeros(2, 1, 10))
    with pytest.raises(WavedistillError, match=r"\(batch, 1, samples\).*got shape \(2, 3, 8\)"):
        LappedTransform(4).forward(torch.zeros(2, 3, 8))
    with pytest.raises(WavedistillError, match=r"\(batch, 4, steps\), got shape \(2, 3, 8\)"):
        LappedTransform(4).inverse(torch.zeros(2, 3, 8))
