"""Flows as distributions: bases, units, dequantisation, conditions, and the adapter to torch.distributions."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from torch.distributions import Independent, Normal, TransformedDistribution

from wavedistill.errors import WavedistillError
from wavedistill.flows import (
    ActNorm,
    AffineCoupling,
    AutoregressiveFlow,
    CausalConvolution,
    CircularConvolution,
    Compose,
    ContinuousFlow,
    Dequantize,
    Flow,
    InvertibleBatchNorm,
    InvertibleConv1x1,
    LearnedPermutation,
    Logit,
    MixtureCDF,
    Orthogonal,
    Planar,
    Radial,
    Rescale,
    ResidualFlow,
    Reverse,
    Scale,
    SplineCoupling,
    Split,
    Squeeze,
    StandardUniform,
    TorchTransform,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_log_prob_is_that_of_the_normal_distribution():
    x = torch.randn(5, 3, generator=generator())
    expected = Normal(0.0, 2.0).log_prob(x).sum(-1)
    torch.testing.assert_close(Flow(Scale(0.5)).log_prob(x), expected)


def test_samples_carry_their_log_probability_and_can_be_repeated():
    flow = Flow(Compose(Scale(2.0), Rescale(3)))
    x, log_prob = flow.rsample_and_log_prob((4, 3), generator=generator())
    torch.testing.assert_close(flow.log_prob(x), log_prob)
    assert x.requires_grad and not flow.sample((4, 3), generator=generator()).requires_grad
    assert torch.equal(flow.sample((4, 3), generator=generator()), x.detach())
    torch.testing.assert_close(flow.from_latent(flow.to_latent(x)), x)


@pytest.mark.parametrize("transform", [Rescale(3), Scale(2.0)], ids=["parameters", "none"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_samples_have_the_type_that_the_flow_was_converted_to(transform, dtype):
    x, log_prob = Flow(transform).to(dtype).rsample_and_log_prob((2, 3))
    assert x.dtype == dtype and log_prob.dtype == torch.promote_types(dtype, torch.float32)


def conditional_flow():
    torch.manual_seed(0)
    layers = [AffineCoupling(3, swap=swap, cond_dim=2) for swap in (False, True)]
    for layer in layers:
        torch.nn.init.normal_(layer.network.output.weight, std=0.3)
    return Flow(Compose(layers[0], Reverse(3), layers[1]))


def test_a_number_of_samples():
    flow = conditional_flow()
    cond = torch.randn(4, 2, generator=generator())
    for shape in (5, (5,), torch.Size([5])):
        x, log_prob = flow.rsample_and_log_prob(shape, cond, generator())
        assert x.shape == (5, 4, 3) and log_prob.shape == (5, 4)
        for row in range(4):  # each has its own condition
            torch.testing.assert_close(flow.log_prob(x[:, row], cond[row]), log_prob[:, row])
    assert torch.equal(flow.sample(5, cond, generator()), x)
    assert flow.sample(5, cond[0]).shape == flow.sample((5, 3), cond[0]).shape == (5, 3)
    assert Flow(Compose(Scale(2.0), Rescale(3)).inv).sample(100).shape == (100, 3)


@pytest.mark.parametrize("transform", [Scale(2.0), Squeeze(2), Compose(Squeeze(4), InvertibleConv1x1(4))])
def test_a_number_of_samples_needs_a_known_shape(transform):
    with pytest.raises(WavedistillError, match=r"give the full shape, \(100, dim\)"):
        Flow(transform).sample(100)


@pytest.mark.parametrize("shape", [-1, 2.5, (), (2, -3), "ab", None])
def test_shapes_that_are_none(shape):
    with pytest.raises(WavedistillError, match="a shape is a number of samples or whole numbers of at least 0"):
        Flow(Rescale(3)).sample(shape)


def test_a_call_gives_the_log_probability():
    flow = conditional_flow()
    x, cond = torch.randn(4, 3), torch.randn(4, 2)
    assert torch.equal(flow(x, cond), flow.log_prob(x, cond))


SIZED = {
    "Rescale": lambda n: Rescale(n),
    "ActNorm": lambda n: ActNorm(n),
    "InvertibleBatchNorm": lambda n: InvertibleBatchNorm(n),
    "InvertibleConv1x1": lambda n: InvertibleConv1x1(n),
    "Orthogonal": lambda n: Orthogonal(n),
    "LearnedPermutation": lambda n: LearnedPermutation(n),
    "AffineCoupling": lambda n: AffineCoupling(n),
    "SplineCoupling": lambda n: SplineCoupling(3, cond_dim=n),
    "Planar": lambda n: Planar(n),
    "Radial": lambda n: Radial(2, cond_dim=n),
    "MixtureCDF": lambda n: MixtureCDF(2, num_components=n),
    "CausalConvolution": lambda n: CausalConvolution(2, n),
    "CircularConvolution": lambda n: CircularConvolution(n, 3),
    "ContinuousFlow": lambda n: ContinuousFlow(n),
    "ResidualFlow": lambda n: ResidualFlow(2, num_terms=n),
    "Squeeze": lambda n: Squeeze(n),
    "Split": lambda n: Split(Scale(2.0), keep=n),
}


@pytest.mark.parametrize("size", [-2, 2.5, "3", True])
@pytest.mark.parametrize("name", SIZED)
def test_sizes_that_are_none(name, size):
    with pytest.raises(WavedistillError, match=f"{name} needs .*a whole number of at least [01], got .*={size!r}"):
        SIZED[name](size)


@pytest.mark.parametrize("layer", [AffineCoupling, ContinuousFlow, ResidualFlow])
@pytest.mark.parametrize("network", [64, {"hidden": 64}, lambda kept, cond: kept])
def test_networks_that_are_none(layer, network):
    with pytest.raises(WavedistillError, match=f"{layer.__name__} needs network=NetworkConfig"):
        layer(2, network=network)


def test_networks_that_take_no_condition():
    with pytest.raises(WavedistillError, match=r"AffineCoupling calls its network as network\(kept, cond\).*Linear"):
        AffineCoupling(4, network=torch.nn.Linear(2, 4))
    with pytest.raises(WavedistillError, match="AutoregressiveFlow needs a MADE .* got Linear"):
        AutoregressiveFlow(torch.nn.Linear(2, 4))


def test_arrays_and_lists_are_no_tensors():
    flow = conditional_flow()
    x, cond = torch.randn(4, 3), torch.randn(4, 2)
    for given in (x.numpy(), x.tolist(), 1.0):
        for take in (flow, flow.likelihood, flow.to_latent, flow.from_latent):
            with pytest.raises(WavedistillError, match=f"needs a torch.Tensor, got {type(given).__name__}"):
                take(given, cond)
    for given in (cond.numpy(), cond.tolist()):
        with pytest.raises(
            WavedistillError, match=rf"needs a condition of shape \(batch, 2\), got a {type(given).__name__}"
        ):
            flow.log_prob(x, given)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_layers_that_watch_their_batches_do_so_in_half_precision(dtype):
    torch.manual_seed(0)
    x = (3.0 * torch.randn(64, 2) + 1.0).to(dtype)
    whitened, statistics = ActNorm(2).to(dtype), InvertibleBatchNorm(2, momentum=1.0).to(dtype)
    y = whitened.forward(x).value.float()
    assert bool(whitened.initialized) and float(y.mean().abs()) < 0.02 and abs(float(y.std()) - 1.0) < 0.02
    assert torch.equal(whitened.loc, x.float().mean(0).to(dtype)) and whitened.loc.dtype == dtype
    with torch.inference_mode():
        statistics.forward(x)
    assert torch.equal(statistics.running_mean, x.float().mean(0).to(dtype))


def test_dequantisation_needs_more_digits_than_half_precision_has():
    with pytest.raises(
        WavedistillError, match="Dequantize needs values of torch.float32 or torch.float64, got torch.bf"
    ):
        Dequantize(4).forward(torch.zeros(1, 2, dtype=torch.bfloat16))


def test_likelihood_in_three_units():
    x = torch.zeros(1, 2, 5)
    nats, per_dimension, bits = Flow(Scale(1.0)).likelihood(x)
    assert float(nats) == pytest.approx(-5 * math.log(2 * math.pi), rel=1e-6)
    assert float(per_dimension) == pytest.approx(-0.5 * math.log(2 * math.pi), rel=1e-6)
    assert float(bits) == pytest.approx(0.5 * math.log2(2 * math.pi), rel=1e-6)


def test_bits_per_dimension_of_uniform_integers_are_their_bits():
    """A flow that models 5-bit noise perfectly (a uniform base) needs 5 bits a dimension: the volume term is right."""
    x = torch.randint(0, 32, (64, 7), generator=generator()).float()
    bits = Flow(Dequantize(5), StandardUniform()).likelihood(x).bits_per_dimension
    torch.testing.assert_close(bits, torch.full((64,), 5.0))


@pytest.mark.parametrize("bits", [1, 8, 16, 23])
def test_dequantisation_rounds_back_to_the_same_integers(bits):
    x = torch.tensor([[0, 1, 2**bits - 1, 2**bits // 2]]).float()
    dequantize = Dequantize(bits, generator())
    for _ in range(200):
        y, log_det = dequantize.forward(x)
        assert torch.equal(dequantize.inverse(y).value, x)
        assert (y >= 0).all() and (y < 1).all()
    assert float(log_det) == pytest.approx(-4 * bits * math.log(2), rel=1e-6)
    assert not torch.equal(dequantize.forward(x).value, y)


@pytest.mark.parametrize("wrong", [-1.0, 256.0, 0.5, math.nan])
def test_dequantisation_refuses_what_is_no_integer_of_that_many_bits(wrong):
    with pytest.raises(ValueError, match="0 to 255"):
        Dequantize(8).forward(torch.full((1, 2), wrong))
    with pytest.raises(ValueError, match="23"):
        Dequantize(24)


def test_dequantised_bound_is_below_the_true_log_probability():
    """A fixed logistic flow on 3-bit data: the exact probability of an integer is an integral over its bin."""
    flow = Flow(Compose(Dequantize(3, generator()), Logit(), Scale(0.7)))
    edges = torch.linspace(0, 1, 9, dtype=torch.float64)
    exact = Normal(0.0, 1.0).cdf(0.7 * torch.logit(edges)).diff().log()
    for value in range(8):
        log_prob = flow.log_prob(torch.full((20_000, 1), float(value))).double()
        assert log_prob.mean() < exact[value] + 1e-3  # a bound, by Jensen's inequality ...
        assert float(log_prob.exp().mean().log()) == pytest.approx(float(exact[value]), abs=0.02)  # ... of this


def test_uniform_base_has_no_density_outside():
    assert StandardUniform().log_prob(torch.tensor([0.5, -0.1, 1.1])).tolist() == [0.0, -math.inf, -math.inf]


def base(*shape):
    return Independent(Normal(torch.zeros(shape), torch.ones(shape)), len(shape))


def test_adapter_makes_a_torch_distribution():
    transform = Compose(Scale(2.0), Reverse(3))
    flow = Flow(transform)
    adapted = TransformedDistribution(base(3), [TorchTransform(transform.inv)])
    x = torch.randn(6, 3, generator=generator())
    torch.testing.assert_close(adapted.log_prob(x), flow.log_prob(x))
    many = torch.randn(2, 5, 3, generator=generator())
    torch.testing.assert_close(adapted.log_prob(many), flow.log_prob(many.reshape(10, 3)).reshape(2, 5))
    assert adapted.sample((7,)).shape == (7, 3)


def test_adapter_on_waveforms_with_a_cache_and_an_inverse():
    calls = []

    class Counted(Scale):
        def _forward(self, x, cond):
            calls.append(1)
            return super()._forward(x, cond)

    adapter = TorchTransform(Counted(2.0), event_dim=2, cache_size=1)
    x = torch.randn(4, 1, 6, generator=generator())
    y = adapter(x)
    torch.testing.assert_close(adapter.log_abs_det_jacobian(x, y), torch.full((4,), 6 * math.log(2.0)))
    assert len(calls) == 1  # the log-determinant of the pair just made is remembered
    torch.testing.assert_close(adapter.inv(y), x)
    assert adapter.inv.inv is adapter and adapter.domain.event_dim == 2
    assert len(calls) == 1
    adapter.log_abs_det_jacobian(x.clone(), y)
    assert len(calls) == 2


def test_importing_the_toolbox_changes_no_global_state():
    code = """
import torch
def state():
    return (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(),
            torch.random.get_rng_state().tolist(), torch.distributions.Distribution._validate_args,
            torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled(),
            torch.get_float32_matmul_precision(), torch.is_anomaly_enabled())
before = state()
import wavedistill.flows, wavedistill.models.parallel_wavenet, wavedistill.playground
assert state() == before, (state(), before)
import sys
assert not {"zuko", "nflows", "normflows", "torchdiffeq"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
