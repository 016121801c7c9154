"""Lipschitz bounds, log-determinant estimators, fixed points and residual flows."""

import math

import pytest
import torch
from flows.cases.residual import residual
from helpers.graphs import graph_size
from torch.nn.utils.parametrizations import spectral_norm

from wavedistill.errors import WavedistillError
from wavedistill.flows import NetworkConfig, ResidualFlow
from wavedistill.flows.solvers.fixed_point import invert_residual
from wavedistill.flows.solvers.log_det import (
    draw_noise,
    exact_log_det,
    jacobian,
    roulette_weights,
    series_log_det,
)
from wavedistill.nn.lipschitz import (
    ACTIVATIONS,
    LipschitzConv1d,
    LipschitzLinear,
    LipschitzNetwork,
    convolution_gain,
)

F64 = torch.float64


def true_gain(weight, count=1 << 13):
    """sup over a very fine grid of frequencies."""
    transfer = torch.fft.rfft(weight.double(), n=count).movedim(-1, 0)
    return float(torch.linalg.matrix_norm(transfer, ord=2).max())


# Lipschitz bounds


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 2, 3), (4, 4, 5), (2, 5, 9)])
def test_the_bound_of_a_convolution_holds_and_is_tight(shape):
    for seed in range(5):
        weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)
        gain = true_gain(weight)
        bound = float(convolution_gain(weight))
        assert gain * (1 - 1e-12) <= bound <= 1.006 * gain


def test_the_bound_holds_between_the_frequencies_of_the_grid():
    taps = torch.arange(7, dtype=F64)
    missed = 0
    for frequency in torch.linspace(0.3, 2.9, 40, dtype=F64):
        weight = torch.cos(frequency * taps).reshape(1, 1, -1)
        gain = true_gain(weight)
        missed += gain > float(torch.fft.rfft(weight, n=16 * 6).abs().max()) * (1 + 1e-6)
        assert gain <= float(convolution_gain(weight)) * (1 + 1e-12)
    assert missed > 20  # the grid by itself is no bound


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("samples", [1, 4, 21])
def test_the_bound_holds_for_every_length_dilation_and_zero_padding(samples, dilation):
    torch.manual_seed(0)
    layer = LipschitzConv1d(2, 3, kernel_size=5, dilation=dilation, bound=0.7).double()
    layer.weight.data.mul_(20.0)
    x = torch.zeros(1, 2, samples, dtype=F64)
    matrix = torch.autograd.functional.jacobian(layer, x).reshape(-1, x.numel())
    assert 0 < float(torch.linalg.matrix_norm(matrix, ord=2)) <= 0.7


def test_the_norm_of_the_reshaped_kernel_is_no_bound():
    theirs = torch.nn.Conv1d(1, 1, 3, padding=1, bias=False)
    ours = LipschitzConv1d(1, 1, kernel_size=3, bound=1.0)
    theirs.weight.data.fill_(5.0)
    ours.weight.data.fill_(5.0)
    theirs = spectral_norm(theirs, n_power_iterations=20)
    x = torch.ones(1, 1, 1000)
    assert float(theirs(x).detach().norm() / x.norm()) > 1.7
    assert 0.98 < float(ours(x).detach().norm() / x.norm()) <= 1.0


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_float32_weight_keeps_the_bound_to_the_last_bit(scale):
    for seed in range(10):
        torch.manual_seed(seed)
        layers = [LipschitzLinear(60, 40, bound=0.9), LipschitzConv1d(6, 5, 3, bound=0.9)]
        for layer in layers:
            layer.weight.data.mul_(scale)
        linear, conv = (layer.bounded_weight().detach() for layer in layers)
        assert linear.dtype == torch.float32
        assert float(torch.linalg.matrix_norm(linear.double(), ord=2)) <= 0.9
        assert true_gain(conv) <= 0.9
        if scale < 1:  # a weight within the bound is used as it is
            assert torch.equal(linear, layers[0].weight.detach())


def test_a_weight_of_zero_has_a_finite_gradient():
    layer = LipschitzConv1d(2, 2, 3, bound=0.5)
    torch.nn.init.zeros_(layer.weight)
    layer(torch.ones(1, 2, 8)).sum().backward()
    assert layer.weight.grad.isfinite().all()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_not_steeper_than_one(name):
    for sharpness in (-3.0, 0.5, 4.0):
        activation = ACTIVATIONS[name]().double()
        for parameter in activation.parameters():
            parameter.data.fill_(sharpness)
        x = torch.linspace(-60, 60, 200_001, dtype=F64, requires_grad=True)
        (slope,) = torch.autograd.grad(activation(x).sum(), x)
        assert 0.99 < float(slope.abs().max()) <= 1.0


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_a_network_is_a_contraction_whatever_its_weights_and_condition(activation, kernel_size):
    torch.manual_seed(0)
    g = LipschitzNetwork(
        2, NetworkConfig(8, kernel_size=kernel_size), cond_dim=2, lipschitz=0.8, activation=activation
    ).double()
    norms = []
    for scale in (0.3, 3.0, -50.0):
        for layer in (*g.layers, g.output):  # aligned, so that the bounds multiply
            layer.weight.data.fill_(scale)
            layer.bias.data.fill_(3.0)
        x = torch.randn(4, 2, 24, dtype=F64)
        cond = torch.randn(4, 2, 3, dtype=F64)
        norms.append(torch.linalg.matrix_norm(jacobian(g.bind(x, cond), x)[1], ord=2).max())
    assert 0.6 < float(max(norms).detach()) <= 0.8


def test_a_condition_by_frames_is_stretched_over_their_samples():
    torch.manual_seed(0)
    flow = residual(2, kernel_size=3, cond_dim=3)
    x = torch.randn(2, 2, 8)
    cond = torch.randn(2, 3, 4)
    expected = flow.forward(x, cond.repeat_interleave(2, dim=-1))
    torch.testing.assert_close(flow.forward(x, cond), expected)
    torch.testing.assert_close(flow.inverse(expected.value, cond).value, x, atol=1e-5, rtol=0)


# Estimators


def steep(dim=3, lipschitz=0.7, **options):
    """A flow whose Jacobian is near its bound, so that a missing term shows."""
    torch.manual_seed(3)
    flow = ResidualFlow(dim, network=NetworkConfig(8, 1), lipschitz=lipschitz, **options).double()
    for layer in (flow.network.layers[0], flow.network.output):
        layer.weight.data.mul_(10.0).abs_()
    return flow


def standard_error(draws):
    return float(draws.std() / math.sqrt(len(draws)))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("noise", ["rademacher", "normal"])
def test_roulette_is_unbiased(noise, training):
    generator = torch.Generator().manual_seed(1)
    flow = steep(log_det="roulette", num_terms=1, noise=noise, generator=generator).train(training)
    x = torch.ones(1, 3, dtype=F64)
    with torch.no_grad():
        g = flow.network.bind(x)
        exact = float(exact_log_det(g, x)[1])
        draws = torch.stack([flow.forward(x.expand(32, 3)).log_det.mean() for _ in range(600)])
        error = standard_error(draws)
        assert abs(float(draws.mean()) - exact) < 4 * error
        # sensitive enough: without the weights of the later terms it would miss by more
        assert abs(float(jacobian(g, x)[1][0].trace()) - exact) > 5 * error
        back = torch.stack([flow.inverse(x.expand(32, 3)).log_det.mean() for _ in range(150)])
        at = flow.inverse(x).value
        assert abs(float(back.mean() + exact_log_det(flow.network.bind(at), at)[1])) < 4 * standard_error(back)


def test_roulette_draws_its_length_with_the_stated_probability():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([len(roulette_weights(3, 0.6, generator)) for _ in range(4000)])
    assert int(lengths.min()) == 3
    for extra in (1, 2, 5):
        expected = 0.6**extra
        share = float((lengths >= 3 + extra).double().mean())
        assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / 4000)
    weights = max((roulette_weights(3, 0.6, generator) for _ in range(20)), key=len)
    assert weights == [1.0] * 3 + [pytest.approx(0.6**-j) for j in range(1, len(weights) - 2)]


def all_noise(x):
    """x (batch, dim) repeated for every unit vector, and these as noise: sums of v' A v are traces."""
    batch, dim = x.shape
    return x.repeat_interleave(dim, dim=0), torch.eye(dim, dtype=x.dtype).repeat(batch, 1)


def test_the_power_series_is_within_its_truncation_bound():
    flow = steep(lipschitz=0.7)
    x = torch.randn(2, 3, dtype=F64)
    g = flow.network.bind(x)
    exact = exact_log_det(g, x)[1]
    for terms in range(1, 12):
        log_det = series_log_det(g, *spread(x, terms), memory_efficient=False)[1].reshape(2, 3).sum(1)
        missed = (log_det - exact).abs().max().detach()
        assert 0 < float(missed) <= 3 * 0.7 ** (terms + 1) / ((terms + 1) * (1 - 0.7))


def spread(x, terms):
    repeated, noise = all_noise(x)
    return repeated, [1.0] * terms, noise


def test_the_memory_efficient_gradient_is_right_for_unequal_terms_and_examples():
    """Over all noise directions it equals the derivative of the same weighted series, however examples and terms are
    weighted.
    """
    flow = steep()
    x = torch.randn(4, 3, dtype=F64)
    x.requires_grad_()
    terms = [1.0, 0.3, 2.5, 0.7, 1.9]
    examples = torch.tensor([0.1, -2.0, 3.0, 0.0], dtype=F64)
    gradients = []
    values = []
    for memory_efficient in (True, False):
        repeated, noise = all_noise(x)
        _, log_det = series_log_det(flow.network.bind(repeated), repeated, terms, noise, memory_efficient)
        loss = (examples * log_det.reshape(4, 3).sum(1)).sum()
        gradients.append(torch.autograd.grad(loss, [x, *flow.parameters()], allow_unused=True))
        values.append(log_det.detach())
    torch.testing.assert_close(values[0], values[1], atol=1e-12, rtol=0)
    for got, want in zip(*gradients, strict=True):
        assert (got is None) == (want is None)
        if want is not None:
            torch.testing.assert_close(got, want, atol=1e-11, rtol=1e-9)
    assert float(gradients[0][0][1].abs().max()) > 0.01 and float(gradients[0][0][3].abs().max()) == 0.0


@pytest.mark.parametrize("memory_efficient", [True, False])
def test_the_gradient_of_roulette_is_unbiased(memory_efficient):
    generator = torch.Generator().manual_seed(2)
    flow = steep(lipschitz=0.6, log_det="roulette", num_terms=1, memory_efficient=memory_efficient, generator=generator)
    x = torch.tensor([[0.3, -0.5, 1.0], [1.0, 0.2, -0.4]], dtype=F64)
    weight = flow.network.layers[0].weight
    examples = torch.tensor([1.0, -3.0], dtype=F64)
    exact = torch.autograd.grad((examples * exact_log_det(flow.network.bind(x), x)[1]).sum(), weight)[0]
    draws = []
    for _ in range(500):
        log_det = flow.forward(x.repeat_interleave(16, dim=0)).log_det.reshape(2, 16).mean(1)
        draws.append(torch.autograd.grad((examples * log_det).sum(), weight)[0])
    draws = torch.stack(draws)
    errors = (draws.mean(0) - exact).abs() / (draws.std(0) / math.sqrt(len(draws)))
    assert float(errors.max()) < 4.5  # of 24 elements
    assert float((exact.abs() / (draws.std(0) / math.sqrt(len(draws)))).max()) > 20


def test_the_memory_efficient_gradient_keeps_a_graph_that_does_not_grow_with_the_terms():
    def size(terms, memory_efficient):
        flow = steep(log_det="power_series", num_terms=terms, memory_efficient=memory_efficient)
        return graph_size(flow.forward(torch.ones(2, 3, dtype=F64)).log_det)

    assert size(30, True) == size(5, True)
    assert size(30, False) > 3 * size(5, False)


def test_the_generator_decides_the_estimate():
    x = torch.ones(2, 3)
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(5)
        flow = residual(3, log_det="roulette", generator=torch.Generator().manual_seed(seed))
        draws.append(flow.forward(x).log_det)
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    before = torch.get_rng_state()
    flow.forward(x)
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_has_unit_covariance():
    for kind in ("rademacher", "normal"):
        noise = draw_noise(kind, torch.empty(20_000, 2), torch.Generator().manual_seed(0))
        torch.testing.assert_close(noise.T @ noise / 20_000, torch.eye(2), atol=0.05, rtol=0)
        assert (noise.unique().numel() == 2) == (kind == "rademacher")


def test_a_long_waveform_has_a_finite_log_det_under_autocast():
    torch.manual_seed(0)
    x = torch.randn(1, 1, 240_000)
    log_dets = []
    flow = residual(1, hidden=4, kernel_size=3, log_det="power_series", num_terms=3)
    with torch.no_grad():
        for dtype in (None, torch.bfloat16, torch.float16):
            flow.generator = torch.Generator().manual_seed(0)
            with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
                y, log_det = flow.forward(x)
            log_dets.append(log_det)
        assert log_dets[0].dtype == torch.float32 and log_dets[0].isfinite().all()
        assert torch.equal(log_dets[0], log_dets[1]) and torch.equal(log_dets[0], log_dets[2])
        assert float((flow.inverse(y).value - x).abs().max()) < 1e-5


# The inverse


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_a_layer_near_the_bound_is_inverted(dtype):
    """c = 0.97 reached: -0.97 x takes hundreds of iterations, and the early exit does not cut them short."""
    y = torch.randn(2, 1, 500, dtype=dtype, generator=torch.Generator().manual_seed(0))
    x = invert_residual(lambda x: -0.97 * x, y, lipschitz=0.97)
    torch.testing.assert_close(x, y / 0.03, rtol=500 * torch.finfo(dtype).eps, atol=0)
    flow = steep(dim=4, lipschitz=0.97).to(dtype)
    x = 5 * torch.randn(8, 4, dtype=dtype)
    with torch.no_grad():
        torch.testing.assert_close(
            flow.inverse(flow.forward(x).value).value, x, rtol=0, atol=5e3 * torch.finfo(dtype).eps
        )


def test_an_inverse_that_does_not_settle_is_an_error():
    flow = steep(lipschitz=0.9, max_iterations=3)
    with pytest.raises(WavedistillError, match=r"after 3 iterations.*max_iterations"):
        flow.inverse(torch.ones(1, 3, dtype=F64))
    with pytest.raises(WavedistillError, match="did not settle"):  # no contraction at all
        invert_residual(lambda x: -1.5 * x, torch.ones(1, 2), lipschitz=0.9)


def test_a_wide_tolerance_stops_early():
    calls = []

    def g(x):
        calls.append(1)
        return 0.5 * torch.sin(x)

    counts = []
    for tolerance in (1e-2, 1e-4, None):
        calls.clear()
        invert_residual(g, torch.ones(1, 2), 0.5, tolerance)
        counts.append(len(calls))
    assert counts[0] < counts[1] < counts[2] < 40


@pytest.mark.parametrize("scale", [1.0, 1e-9])
def test_the_gradient_of_the_inverse_is_as_exact_for_small_losses(scale):
    flow = steep(lipschitz=0.9)
    y = torch.randn(2, 3, dtype=F64, requires_grad=True)
    x = flow.inverse(y).value
    (gradient,) = torch.autograd.grad(scale * x.sum(), y)
    forward = jacobian(lambda x: flow.forward(x).value, x.detach())[1]
    expected = torch.linalg.solve(forward.mT, torch.ones(2, 3, dtype=F64))
    torch.testing.assert_close(gradient / scale, expected, atol=1e-12, rtol=1e-12)
    (zero,) = torch.autograd.grad(flow.inverse(y).value[0].sum(), y)
    assert float(zero[1].abs().max()) == 0.0


def test_a_second_derivative_through_the_inverse_is_refused():
    y = torch.ones(1, 3, dtype=F64, requires_grad=True)
    x = steep().inverse(y).value.sum()
    with pytest.raises(WavedistillError, match="first derivatives only"):
        torch.autograd.grad(x, y, create_graph=True)


# The layer


def test_what_it_cannot_be_is_an_error():
    for options in (
        {"lipschitz": 1.0},
        {"lipschitz": 0.0},
        {"survival": 1.0},
        {"log_det": "hutchinson"},
        {"noise": "uniform"},
        {"num_terms": 0},
        {"max_iterations": 0},
        {"activation": "relu"},
    ):
        with pytest.raises(WavedistillError, match=next(iter(options))):
            ResidualFlow(3, **options)
    for size in ({"kernel_size": 2}, {"hidden": 0}):
        with pytest.raises(WavedistillError, match=next(iter(size))):
            ResidualFlow(3, network=NetworkConfig(**size))
    with pytest.raises(WavedistillError, match="samples"):
        ResidualFlow(3, network=NetworkConfig(kernel_size=3)).forward(torch.ones(2, 3))
    with pytest.raises(WavedistillError, match="noise"):
        draw_noise("uniform", torch.ones(1, 1))


def test_a_perceptron_of_samples_is_the_one_of_vectors():
    torch.manual_seed(0)
    flow = residual(2)
    x = torch.randn(3, 2, 5)
    y, log_det = flow.forward(x)
    columns = [flow.forward(x[..., t]) for t in range(5)]
    torch.testing.assert_close(y, torch.stack([column.value for column in columns], dim=-1))
    torch.testing.assert_close(log_det, sum(column.log_det for column in columns))


def test_value_and_log_det_agree_with_normflows():
    theirs = pytest.importorskip("normflows.flows.residual")
    flow = steep(dim=2)
    x = torch.randn(5, 2, dtype=F64)
    g = flow.network.bind(x)
    block = theirs.iResBlock(Module(g), brute_force=True)
    y, log_det = block.forward(x, torch.zeros(5, 1, dtype=F64))
    ours = flow.forward(x)
    torch.testing.assert_close(ours.value, y)
    torch.testing.assert_close(ours.log_det, -log_det[:, 0])
    torch.testing.assert_close(flow.inverse(y).value, block.inverse(y).detach(), atol=5e-3, rtol=0)

    noise = torch.randn(5, 2, dtype=F64)
    weights = [1.0, 0.5, 2.0, 0.25]
    x.requires_grad_()
    series = theirs.basic_logdet_estimator(g(x), x, 4, noise, lambda k: weights[k - 1], True)
    torch.testing.assert_close(series_log_det(g, x, weights, noise)[1], series)
    # their Neumann series weights J^(k-1) as term k - 1, and its value is that of the gradient's series
    neumann = theirs.neumann_logdet_estimator(g(x), x, 3, noise, lambda k: weights[k], True)
    want = torch.autograd.grad(neumann.sum(), x)[0]
    got = torch.autograd.grad(series_log_det(g, x, weights, noise)[1].sum(), x)[0]
    torch.testing.assert_close(got, want)


class Module(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)
