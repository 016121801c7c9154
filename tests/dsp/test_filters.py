"""Time-varying linear filters and the predictors that set them."""

import math

import pytest
import torch
from helpers.tiny_models import MEL

from wavedistill.audio.mel import LogMelSpectrogram
from wavedistill.dsp.filters import (
    all_pole,
    average_steps,
    levinson_durbin,
    predict,
    predict_steps,
)
from wavedistill.errors import WavedistillError
from wavedistill.flows import LPC, LinearPredictionFlow, MelLPC
from wavedistill.kernels.block_filter import block_fir


def test_levinson_durbin_solves_the_normal_equations():
    x = torch.randn(3, 400, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    r = torch.stack([(x[:, : 400 - lag] * x[:, lag:]).sum(-1) for lag in range(7)], dim=-1)
    coefficients, error = levinson_durbin(r)
    index = (torch.arange(6)[:, None] - torch.arange(6)[None]).abs()
    expected = torch.linalg.solve(r[:, index], r[:, 1:].unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(coefficients, expected)
    torch.testing.assert_close(error, r[:, 0] - (expected * r[:, 1:]).sum(-1))


def test_mel_predictor_whitens_a_resonance():
    """White noise through a two-pole resonance comes out of the analysis filter nearly white, at unit variance."""
    noise = 0.01 * torch.randn(1, 1, 16000, generator=torch.Generator().manual_seed(0))
    a = torch.tensor([2 * 0.97 * math.cos(0.6), -(0.97**2)]).expand(1, 250, 2)
    audio, _ = all_pole(noise.reshape(1, 250, 64), a)
    mel = LogMelSpectrogram(MEL)(audio)
    predictor = MelLPC(MEL, 16, 2, 1e-6)(mel)
    u = LinearPredictionFlow().forward(audio.unsqueeze(1), predictor).value[0, 0, 500:]
    correlation = float((u[1:] * u[:-1]).mean() / u.square().mean())
    assert 0.7 < float(u.std()) < 1.3 and abs(correlation) < 0.15
    assert float((audio[0, 1:] * audio[0, :-1]).mean() / audio.square().mean()) > 0.7


def moving_average(x, taps, past=None):
    """y_t = sum_{k >= 0} b_k x_{t-k} of numbers, by the compiled filter."""
    past = x.new_zeros(x.shape[0], taps.shape[-1] - 1) if past is None else past
    return block_fir(torch.cat([past, x], dim=1), taps)


@pytest.mark.parametrize("filtering", [predict, moving_average])
def test_filters_continue_across_chunks(filtering):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 24, generator=generator)
    taps = torch.randn(2, 6, 5, generator=generator)
    whole = filtering(x, taps)
    past = x[:, 7:12] if filtering is predict else x[:, 8:12]
    torch.testing.assert_close(filtering(x[:, 12:], taps[:, 3:], past), whole[:, 12:])
    expected = sum(taps[1, 20 // 4, k] * x[1, 20 - k - (filtering is predict)] for k in range(5))
    torch.testing.assert_close(whole[1, 20], expected)


MATRIX_FILTERS = {predict_steps: 1, average_steps: 0}
"""With the lag of their first matrix."""


@pytest.mark.parametrize("filtering", MATRIX_FILTERS)
@pytest.mark.parametrize("size, order, blocks", [(1, 5, 4), (3, 4, 2), (3, 1, 12), (8, 15, 3)])
def test_matrix_filters_are_the_sum_over_steps_and_continue_across_chunks(filtering, size, order, blocks):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 12, size, generator=generator, dtype=torch.float64)
    matrices = torch.randn(2, blocks, order, size, size, generator=generator, dtype=torch.float64)
    first = MATRIX_FILTERS[filtering]
    expected = torch.zeros_like(x)
    for item in range(2):
        for t in range(12):
            for k in range(order):
                if t - k - first >= 0:
                    expected[item, t] += x[item, t - k - first] @ matrices[item, t * blocks // 12, k]
    torch.testing.assert_close(filtering(x, matrices), expected)
    past = torch.cat([x.new_zeros(2, order, size), x[:, :6]], dim=1)
    past = past[:, past.shape[1] - (order - 1 + first) :]
    second_half = matrices[:, blocks // 2 :] if blocks % 2 == 0 else matrices.repeat_interleave(2, 1)[:, blocks:]
    torch.testing.assert_close(filtering(x[:, 6:], second_half, past), expected[:, 6:])


@pytest.mark.parametrize("filtering, scalar", [(predict_steps, predict), (average_steps, moving_average)])
def test_matrices_of_one_number_are_the_scalar_filters(filtering, scalar):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 24, generator=generator)
    taps = torch.randn(2, 6, 5, generator=generator)
    past = torch.randn(2, 5 if scalar is predict else 4, generator=generator)
    found = filtering(x[..., None], taps[..., None, None], past[..., None])[..., 0]
    torch.testing.assert_close(found, scalar(x, taps, past))


@pytest.mark.parametrize("filtering", MATRIX_FILTERS)
@pytest.mark.parametrize("size", [1, 2])
def test_matrix_filters_have_gradients(filtering, size):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, size, generator=generator, dtype=torch.float64, requires_grad=True)
    matrices = torch.randn(1, 2, 3, size, size, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(filtering, (x, matrices))


def test_all_pole_gradient_and_continuation():
    generator = torch.Generator().manual_seed(0)
    e = torch.randn(1, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    a = 0.2 * torch.randn(1, 3, 6, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda value: all_pole(value, a)[0], e)
    whole, _ = all_pole(e, a)
    torch.testing.assert_close(all_pole(e, a, differentiable=True)[0], all_pole(e, a)[0])
    first, past = all_pole(e[:, :1], a[:, :1])
    rest, _ = all_pole(e[:, 1:], a[:, 1:], past.detach())
    again, _ = all_pole(e[:, 1:], a[:, 1:], past, differentiable=True)
    torch.testing.assert_close(torch.cat([first, rest], dim=1), whole)
    torch.testing.assert_close(again, rest)


def test_gradients_in_the_filter_are_asked_for_by_name():
    generator = torch.Generator().manual_seed(0)
    e = torch.randn(1, 2, 4, generator=generator, dtype=torch.float64)
    a = (0.2 * torch.randn(1, 2, 3, generator=generator, dtype=torch.float64)).requires_grad_()
    past = torch.randn(1, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *given: all_pole(e, *given, differentiable=True), (a, past))
    r = torch.tensor([[2.0, 1.0, 0.4]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda value: levinson_durbin(value, differentiable=True), r)
    cond = LPC(a, torch.zeros(1, 2, dtype=torch.float64))
    x = LinearPredictionFlow(differentiable=True).inverse(e.reshape(1, 1, 8), cond).value
    assert torch.autograd.grad(x.sum(), a)[0].abs().min() > 0
    refused = (lambda: all_pole(e, a), lambda: levinson_durbin(r), lambda: LinearPredictionFlow().inverse(x, cond))
    for call in refused:
        with pytest.raises(WavedistillError, match="differentiable=True"):
            call()
    with torch.no_grad():
        torch.testing.assert_close(all_pole(e, a)[0], all_pole(e, a, differentiable=True)[0])
        torch.testing.assert_close(levinson_durbin(r), levinson_durbin(r, differentiable=True))
