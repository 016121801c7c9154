"""Every waveform transform through one contract: round trip, log-determinant, causality, gradients."""

import copy
import math

import pytest
import torch
from tiny_models import MEL, shake, speech_batch

from wavedistill.flows import (
    AutoregressiveFlow,
    Compose,
    Condition,
    Flow,
    Inverse,
    LinearPredictionFlow,
    MelLinearPredictor,
    PreEmphasis,
    Scale,
)
from wavedistill.nn.filters import _all_pole_by_blocks, all_pole, levinson_durbin, moving_average, predict
from wavedistill.nn.wavenet_stack import StackConfig

SAMPLES = 24


def _autoregressive(standardize, source=0):
    torch.manual_seed(0)
    flow = AutoregressiveFlow(StackConfig(3, 1, 2, 6, 6), 5, linear_order=3, source_order=source, standardize=standardize)
    return shake(flow.double(), 0.1)


def _condition():
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
    return Condition(features, torch.randn(2, SAMPLES, generator=generator, dtype=torch.float64))


def _predictor():
    _, mel = speech_batch(2, 2)
    return MelLinearPredictor(MEL, order=8, upsample=2, white_noise=1e-3)(mel.double())


CASES = {
    "scale": (lambda: Scale(3.0), lambda: None),
    "pre-emphasis": (lambda: PreEmphasis(0.9), lambda: None),
    "linear-prediction": (LinearPredictionFlow, lambda: _shrunk(_predictor())),
    "maf": (lambda: _autoregressive(True), _condition),
    "iaf": (lambda: _autoregressive(False), _condition),
    "maf-with-source": (lambda: _autoregressive(True, source=3), _condition),
    "iaf-read-backwards": (lambda: _autoregressive(False).inv, _condition),
    "composed": (lambda: Compose(Scale(2.0), PreEmphasis(0.5), _autoregressive(True)), _condition),
}


def _shrunk(predictor):
    """The predictor's first blocks, for SAMPLES samples."""
    return type(predictor)(predictor.coefficients[:, :3], predictor.log_gain[:, :3])


@pytest.fixture(params=CASES)
def case(request):
    make, condition = CASES[request.param]
    x = torch.randn(2, 1, SAMPLES, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return make(), x, condition()


def test_round_trip_from_both_sides(case):
    transform, x, condition = case
    y, log_det = transform.forward(x, condition)
    back, log_det_back = transform.inverse(y, condition)
    torch.testing.assert_close(back, x, atol=1e-11, rtol=0)
    torch.testing.assert_close(log_det + log_det_back, torch.zeros_like(log_det), atol=1e-11, rtol=0)
    torch.testing.assert_close(transform.forward(transform.inverse(x, condition).value, condition).value, x, atol=1e-11, rtol=0)
    assert log_det.shape == (2,)


def test_log_determinant_is_the_jacobians_and_the_map_is_causal(case):
    transform, x, condition = case
    if isinstance(transform, Inverse):
        pytest.skip("the sequential direction has no gradient; the round trip ties it to the parallel one")
    jacobian = torch.autograd.functional.jacobian(lambda value: transform.forward(value, condition).value, x)
    log_det = transform.forward(x, condition).log_det
    for item in range(2):
        matrix = jacobian[item, 0, :, item, 0]
        torch.testing.assert_close(torch.linalg.slogdet(matrix).logabsdet, log_det[item], atol=1e-10, rtol=0)
        assert torch.equal(matrix.triu(1), torch.zeros_like(matrix))
        assert (matrix.diagonal() > 0).all()


@pytest.mark.parametrize("name", ["maf", "iaf", "maf-with-source", "composed"])
def test_every_parameter_has_a_gradient(name):
    make, condition = CASES[name]
    transform, condition = make(), condition()
    x = torch.randn(2, 1, SAMPLES, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    y, log_det = transform.forward(x, condition)
    (y.square().sum() + log_det.sum()).backward()
    without = [name for name, p in transform.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without


def test_inv_is_an_involution_and_copies_are_equal(case):
    transform, x, condition = case
    twice = transform.inv.inv
    assert twice is transform or twice.transform is transform.transform
    torch.testing.assert_close(transform.inv.inverse(x, condition).value, transform.forward(x, condition).value)
    torch.testing.assert_close(copy.deepcopy(transform).forward(x, condition).value, transform.forward(x, condition).value)


def test_flow_samples_have_the_log_probability_it_states():
    flow = Flow(_autoregressive(True))
    features = torch.zeros(3, 1, 5, dtype=torch.float64)
    torch.set_default_dtype(torch.float64)
    try:
        x, log_prob = flow.rsample_and_log_prob((3, 1, 12), Condition(features), torch.Generator().manual_seed(0))
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(flow.log_prob(x, Condition(features)), log_prob)
    torch.testing.assert_close(flow.from_latent(flow.to_latent(x, Condition(features)), Condition(features)), x)


def test_density_of_one_sample_integrates_to_one():
    flow = Flow(_autoregressive(True))
    grid = torch.linspace(-40, 40, 8001, dtype=torch.float64)
    log_prob = flow.log_prob(grid[:, None, None], Condition(torch.zeros(1, 1, 5, dtype=torch.float64).expand(8001, 1, 5)))
    assert float(torch.trapezoid(log_prob.detach().exp(), grid)) == pytest.approx(1.0, abs=1e-8)


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
    from wavedistill.audio.mel import LogMelSpectrogram

    mel = LogMelSpectrogram(MEL)(audio)
    predictor = MelLinearPredictor(MEL, 16, 2, 1e-6)(mel)
    u = LinearPredictionFlow().forward(audio.unsqueeze(1), predictor).value[0, 0, 500:]
    correlation = float((u[1:] * u[:-1]).mean() / u.square().mean())
    assert 0.7 < float(u.std()) < 1.3 and abs(correlation) < 0.15
    assert float((audio[0, 1:] * audio[0, :-1]).mean() / audio.square().mean()) > 0.7


@pytest.mark.parametrize("filtering", [predict, moving_average])
def test_filters_continue_across_chunks(filtering):
    generator = torch.Generator().manual_seed(0)
    x, taps = torch.randn(2, 24, generator=generator), torch.randn(2, 6, 5, generator=generator)
    whole = filtering(x, taps)
    past = x[:, 7:12] if filtering is predict else x[:, 8:12]
    torch.testing.assert_close(filtering(x[:, 12:], taps[:, 3:], past), whole[:, 12:])
    expected = sum(taps[1, 20 // 4, k] * x[1, 20 - k - (filtering is predict)] for k in range(5))
    torch.testing.assert_close(whole[1, 20], expected)


def test_all_pole_gradient_and_continuation():
    generator = torch.Generator().manual_seed(0)
    e = torch.randn(1, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    a = 0.2 * torch.randn(1, 3, 6, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda value: all_pole(value, a)[0], e)
    whole, _ = all_pole(e, a)
    torch.testing.assert_close(_all_pole_by_blocks(e, a, torch.zeros(1, 6, dtype=torch.float64))[0], all_pole(e, a)[0])
    first, past = all_pole(e[:, :1], a[:, :1])
    rest, _ = all_pole(e[:, 1:], a[:, 1:], past)
    torch.testing.assert_close(torch.cat([first, rest], dim=1), whole)
