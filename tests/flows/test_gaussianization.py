"""Mixture distribution functions far out, and Gaussianization fitted with and without gradient."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch

from wavedistill.errors import WavedistillError
from wavedistill.flows import Flow, GaussianizationFlow, MixtureCDF, Orthogonal, fit_rbig
from wavedistill.flows.gaussianization import LOGISTIC_DEVIATION
from wavedistill.numerics import log_mills_ratio, normal_quantile_of_tail

F64 = torch.float64
mpmath.mp.dps = 50


def upper_tail(z):
    return mpmath.erfc(mpmath.mpf(z) / mpmath.sqrt(2)) / 2


def density(z):
    return mpmath.exp(-(mpmath.mpf(z) ** 2) / 2) / mpmath.sqrt(2 * mpmath.pi)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 3e-7), (F64, 1e-14)], ids=["float32", "float64"])
def test_log_mills_ratio(dtype, tolerance):
    t = torch.tensor(
        [-30.0, -5.0, -1.0, 0.0, 0.5, 1.0, 1.5, 3.0, 7.0, 12.0, 19.99, 20.0, 25.0, 100.0, 1000.0],
        dtype=dtype,
        requires_grad=True,
    )
    got = log_mills_ratio(t)
    got.sum().backward()
    for value, slope, at in zip(got.tolist(), t.grad.tolist(), t.tolist(), strict=True):
        ratio = upper_tail(at) / density(at)
        assert value == pytest.approx(float(mpmath.log(ratio)), abs=tolerance, rel=tolerance)
        # the erfcx of torch loses some digits of the derivative between 1 and 20
        assert slope == pytest.approx(float(at - 1 / ratio), rel=100 * tolerance)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 3e-7), (F64, 1e-15)], ids=["float32", "float64"])
def test_normal_quantile_of_tail(dtype, tolerance):
    sizes = [0.0, 1e-3, 0.1, 1.0, 5.0, 8.0, 40.0, 1000.0, 1e6]
    log_tail = torch.tensor([float(mpmath.log(upper_tail(z))) for z in sizes], dtype=dtype, requires_grad=True)
    z = normal_quantile_of_tail(log_tail)
    z.sum().backward()
    for got, slope, want in zip(z.tolist(), log_tail.grad.tolist(), sizes, strict=True):
        assert got == pytest.approx(want, abs=tolerance, rel=tolerance)
        assert slope == pytest.approx(float(-upper_tail(want) / density(want)), rel=1e-6)


def exact(layer, x):
    """y and log dy/dx of one feature, with 50 digits."""
    loc, log_scale, log_weight = (p.detach().double()[0].tolist() for p in layer._mixture(x))
    x = mpmath.mpf(x.item())
    above = mpmath.mpf(0)
    slope = mpmath.mpf(0)
    mpmath.mp.dps = 50
    total = sum(mpmath.exp(w) for w in log_weight)
    below = mpmath.mpf(0)
    for m, s, w in zip(loc, log_scale, log_weight, strict=True):
        t = (x - m) / mpmath.exp(s)
        w = mpmath.exp(w) / total
        if layer.kind == "logistic":
            parts = 1 / (1 + mpmath.exp(t)), 1 / (1 + mpmath.exp(-t))
            slope += w * parts[0] * parts[1] / mpmath.exp(s)
        else:
            parts = upper_tail(t), upper_tail(-t)
            slope += w * density(t) / mpmath.exp(s)
        above = above + w * parts[0]
        below = below + w * parts[1]
    tail, sign = (above, 1) if above < below else (below, -1)
    z = mpmath.sqrt(-2 * mpmath.log(tail))
    for _ in range(60):
        z += (mpmath.log(upper_tail(z)) - mpmath.log(tail)) * upper_tail(z) / density(z)
    return sign * float(z), float(mpmath.log(slope) - mpmath.log(density(z)))


@pytest.mark.parametrize("kind", ["logistic", "gaussian"])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 3e-6), (F64, 1e-13)], ids=["float32", "float64"])
def test_a_thousand_standard_deviations_out(kind, dtype, tolerance):
    torch.manual_seed(0)
    layer = MixtureCDF(1, 3, kind)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    layer = layer.to(dtype)
    x = torch.tensor([-1000.0, -30.0, -1.0, 0.0, 0.3, 8.0, 100.0, 1000.0], dtype=dtype)[:, None].requires_grad_()
    y, log_det = layer.forward(x)
    for at, value, slope in zip(x, y.tolist(), log_det.tolist(), strict=True):
        want, want_slope = exact(layer, at)
        assert value[0] == pytest.approx(want, abs=tolerance, rel=tolerance)
        assert slope == pytest.approx(want_slope, abs=10 * tolerance)
    back, log_det_back = layer.inverse(y)
    assert float(((back - x).detach() / x.detach().abs().clamp_min(1.0)).abs().max()) < 3 * tolerance
    torch.testing.assert_close(log_det_back, -log_det, atol=10 * tolerance, rtol=0.0)
    (y.sum() + log_det.sum() + back.sum() + log_det_back.sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in (x, *layer.parameters()))


def test_a_mixture_starts_close_to_the_identity():
    x = torch.linspace(-3, 3, 61)[:, None]
    torch.testing.assert_close(MixtureCDF(1, 1, "gaussian").forward(x).value, x)
    for kind in ("logistic", "gaussian"):
        y = MixtureCDF(1, 8, kind).forward(x).value
        error = (y - x).abs().detach()
        assert float(error[20:41].max()) < 0.1 and float(error[10:51].max()) < 0.25  # within 1 and within 2


@pytest.mark.parametrize("kind", ["logistic", "gaussian"])
def test_modes_far_apart(kind):
    """Between the modes F is flat to the last digit: the inverse must stay in the bracket, and finite with its
    gradient.
    """
    layer = MixtureCDF(1, 2, kind).double()
    layer.set_mixture(torch.tensor([-50.0, 50.0]), torch.tensor([0.1, 0.1]), torch.zeros(2))
    y = torch.tensor([-3.0, -1e-3, -1e-17, 0.0, 1e-17, 1e-3, 3.0], dtype=F64)[:, None].requires_grad_()
    x, log_det = layer.inverse(y)
    assert float((layer.forward(x).value - y).detach().abs().max()) < 1e-12
    assert (x.detach().diff(dim=0) >= 0).all() and float(x.detach().abs().max()) < 51.0
    outside = x[[0, 1, 5, 6]].sum() + log_det[[0, 1, 5, 6]].sum()
    assert torch.isfinite(torch.autograd.grad(outside, y)[0]).all()


def test_logistic_scale_is_its_deviation():
    layer = MixtureCDF(1, 1)
    layer.set_mixture(torch.tensor(1.0), torch.tensor(2.0), torch.tensor(0.0))
    _, log_scale, _ = layer._mixture(torch.zeros(1, 1))
    assert float(log_scale.detach()) == pytest.approx(math.log(2.0 / LOGISTIC_DEVIATION))


def test_what_a_mixture_cannot_be():
    with pytest.raises(WavedistillError, match="logistic.*gaussian.*got 'cauchy'"):
        MixtureCDF(2, kind="cauchy")
    with pytest.raises(WavedistillError, match="num_components, a whole number of at least 1, got num_components=0"):
        MixtureCDF(2, num_components=0)


def moons(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    angle = math.pi * torch.rand(count, generator=generator)
    upper = torch.rand(count, generator=generator) < 0.5
    across = torch.where(upper, torch.cos(angle), 1.0 - torch.cos(angle))
    up = torch.where(upper, torch.sin(angle), 0.5 - torch.sin(angle))
    return torch.stack([across, up], dim=1) + 0.1 * torch.randn(count, 2, generator=generator)


def nats_after_each_layer(transform, x):
    """Mean log-density when the flow is cut after each `MixtureCDF`."""
    latent = x
    total = 0.0
    found = []
    with torch.no_grad():
        for layer in transform.transforms:
            latent, log_det = layer.forward(latent)
            total = total + log_det
            if isinstance(layer, MixtureCDF):
                found.append(float((total - 0.5 * latent.square().sum(1)).mean()) - math.log(2.0 * math.pi))
    return found, latent


def distance_from_normal(latent):
    """The largest Kolmogorov-Smirnov statistic of the features."""
    levels = torch.special.ndtr(latent.sort(dim=0).values)
    return float((levels - torch.linspace(0, 1, len(latent))[:, None]).abs().max())


@pytest.fixture(scope="module")
def rbig():
    return fit_rbig(moons(3000, 0), num_layers=10, generator=torch.Generator().manual_seed(0))


def test_rbig_brings_data_closer_to_normal_layer_by_layer(rbig):
    held_out = moons(2000, 1)
    nats, latent = nats_after_each_layer(rbig, held_out)
    assert all(later > earlier - 0.01 for earlier, later in zip(nats, nats[1:], strict=False)), nats
    assert nats[5] > nats[0] + 0.4 and nats[-1] > nats[0] + 0.5
    # 1.63 / sqrt(n) is the 1% level of the statistic for one feature; a rotation of normal data is normal in every
    # direction
    assert distance_from_normal(latent) < 1.63 / math.sqrt(len(latent)) < distance_from_normal(held_out)
    turned = latent @ torch.tensor([[0.6, 0.8], [-0.8, 0.6]])
    assert distance_from_normal(turned) < 0.1
    fourth = (latent**4).mean(0) / latent.square().mean(0).square()
    assert float((fourth - 3.0).abs().max()) < 0.5
    torch.testing.assert_close(rbig.inverse(latent).value, held_out, atol=1e-3, rtol=1e-3)


def test_rbig_can_be_trained_on_by_gradient():
    x = moons(1500, 0)
    held_out = moons(1000, 1)
    flow = Flow(fit_rbig(x, num_layers=4, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        before = float(flow.log_prob(held_out).mean())
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        (-flow.log_prob(x).mean()).backward()
        optimizer.step()
    with torch.no_grad():
        assert float(flow.log_prob(held_out).mean()) > before + 0.04


def test_rbig_with_principal_axes():
    """Correlated normal data need one rotation."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.tensor([[1.0, 0.0, 0.0], [2.0, 1.0, 0.0], [0.5, -1.0, 0.3]])
    x = torch.randn(4000, 3, generator=generator) @ mixing.T + 5.0
    transform = fit_rbig(x[:3000], 2, rotation="pca")
    covariance = torch.cov(transform.forward(x[3000:]).value.detach().T)
    assert float((covariance - torch.eye(3)).abs().max()) < 0.15
    assert isinstance(transform[1], Orthogonal)


def test_rbig_of_waveforms_is_that_of_their_samples():
    x = moons(600, 0)
    waveforms = x.reshape(3, 200, 2).transpose(1, 2)
    ours, theirs = (fit_rbig(data, 2, 8, generator=torch.Generator().manual_seed(1)) for data in (waveforms, x))
    for got, want in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(got, want)
    assert ours.forward(waveforms).value.shape == waveforms.shape


@pytest.mark.parametrize(
    "x, rotation, message",
    [
        (torch.zeros(10), "random", r"\(count, dim\).*\(10,\)"),
        (torch.zeros(10, 2), "random", "32 points for 16 components, got 10"),
        (torch.zeros(100, 2), "ica", "random.*pca.*ica"),
    ],
)
def test_what_rbig_cannot_fit(x, rotation, message):
    with pytest.raises(WavedistillError, match=message):
        fit_rbig(x, 2, rotation=rotation)


def test_training_by_gradient_alone():
    torch.manual_seed(0)
    flow = Flow(GaussianizationFlow(2, 3))
    x = moons(1000, 0)
    with torch.no_grad():
        before = float(flow.log_prob(x).mean())
    optimizer = torch.optim.Adam(flow.parameters(), lr=0.05)
    for _ in range(40):
        optimizer.zero_grad()
        loss = -flow.log_prob(x).mean()
        loss.backward()
        optimizer.step()
    assert -float(loss.detach()) > before + 0.5
