"""ActNorm's first batch and batch normalisation in training; the contract test sees both when they are fixed
bijections.
"""

import copy

import pytest
import torch
from torch import nn

from wavedistill.errors import WavedistillError
from wavedistill.flows import ActNorm, Compose, Inverse, InvertibleBatchNorm

F64 = torch.float64


def batch(*shape, seed=0, dtype=torch.float32):
    """Features with means and scales of their own."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    feature = torch.arange(1, shape[1] + 1, dtype=dtype).reshape(-1, *(1,) * (len(shape) - 2))
    return 3.0 * feature * x + 10.0 * feature


def assert_normal(y):
    dims = (0,) if y.dim() == 2 else (0, 2)
    torch.testing.assert_close(y.mean(dims), torch.zeros(y.shape[1], dtype=y.dtype), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std(dims, correction=0), torch.ones(y.shape[1], dtype=y.dtype), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(50, 3), (4, 3, 20), (1, 2, 30)])
def test_the_first_training_batch_leaves_normalised(shape):
    layer = ActNorm(shape[1])
    x = batch(*shape)
    y, log_det = layer.forward(x)
    assert_normal(y)
    expected = -x.std((0,) if x.dim() == 2 else (0, 2), correction=0).log().sum() * x[0, 0].numel()
    torch.testing.assert_close(log_det, expected.expand(shape[0]), atol=1e-4, rtol=1e-5)
    second = batch(*shape, seed=1) * 5.0
    loc = layer.loc.clone()
    layer.forward(second)
    assert torch.equal(layer.loc, loc)  # once


def test_actnorm_is_the_identity_until_it_has_seen_training_data():
    layer = ActNorm(3)
    x = batch(20, 3)
    unseen = [layer.eval().forward(x), layer.inverse(x), layer.train().inverse(x), layer.forward(x[:0])]
    for fresh in unseen:
        assert torch.equal(fresh.value, x[: len(fresh.value)]) and not fresh.log_det.any()
    assert not layer.initialized
    assert_normal(layer.train().forward(x).value)
    assert layer.initialized


def test_actnorm_read_backwards_initialises_in_its_inverse():
    transform = Compose(ActNorm(3).inv)
    assert isinstance(transform[0], Inverse)
    noise = batch(40, 3)
    transform.forward(noise)
    assert_normal(transform.inverse(noise).value)


@pytest.mark.parametrize("restore", ["state", "deepcopy"])
def test_the_flag_travels_with_the_weights(restore):
    trained = ActNorm(3)
    x = batch(20, 3)
    trained.forward(x)
    twin = ActNorm(3)
    twin.load_state_dict(trained.state_dict())
    twin = twin if restore == "state" else copy.deepcopy(trained)
    second = batch(20, 3, seed=1)
    assert torch.equal(twin.train().forward(second).value, trained.forward(second).value)
    trained.load_state_dict(ActNorm(3).state_dict())  # and the fresh layer's lack of one, too
    assert_normal(trained.train().forward(batch(20, 3, seed=2)).value)


def test_the_flag_is_saved_as_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    layer = ActNorm(3)
    second = batch(9, 3)
    layer.forward(batch(20, 3))
    safetensors.save_file(layer.state_dict(), tmp_path / "layer.safetensors")
    twin = ActNorm(3)
    twin.load_state_dict(safetensors.load_file(tmp_path / "layer.safetensors"))
    assert twin.initialized and torch.equal(twin.train().forward(second).value, layer.forward(second).value)


@pytest.mark.parametrize("value", [0.1, 0.0, -1e6])
@pytest.mark.parametrize("shape", [(1, 2), (30, 2), (3, 2, 7)])
def test_a_constant_first_batch_is_only_centred(shape, value):
    x = torch.full(shape, value)
    y, log_det = ActNorm(2).forward(x)
    assert float(y.detach().abs().max()) <= 1e-6 * float(x.abs().max())
    assert not log_det.any()


def test_a_small_scale_far_from_zero_is_normalised():
    """Where x exp(-log_scale) - shift would cancel."""
    x = 1000.0 + 0.1 * torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    y = ActNorm(2).forward(x).value.detach().double()
    torch.testing.assert_close(y.mean(0), torch.zeros(2, dtype=F64), atol=5e-3, rtol=0)
    torch.testing.assert_close(y.std(0), torch.ones(2, dtype=F64), atol=5e-3, rtol=0)


def test_a_broken_first_batch_is_left_to_the_next():
    layer = ActNorm(3)
    x = batch(20, 3)
    broken = x.clone()
    broken[4, 1] = torch.nan
    layer.forward(broken)
    assert not layer.initialized and layer.loc.isfinite().all()
    assert_normal(layer.forward(x).value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_values_initialise_in_float32(dtype):
    """The sum of 4000 squares of 100 would overflow float16."""
    layer = ActNorm(2)
    x = (100.0 * torch.randn(4000, 2)).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        y, log_det = layer.forward(x)
    assert y.dtype == log_det.dtype == torch.float32
    assert_normal(y)


def test_actnorm_compiles_in_training_mode():
    """Whole, before and after the initialisation, which happens in compiled code too."""
    x = batch(20, 3)
    second = batch(20, 3, seed=1)
    for first_is_compiled in (True, False):
        torch.compiler.reset()
        layer = ActNorm(3)
        twin = ActNorm(3)
        compiled = torch.compile(layer.forward, fullgraph=True, backend="aot_eager")
        (compiled if first_is_compiled else layer.forward)(x)
        twin.forward(x)
        for got, want in zip(compiled(second), twin.forward(second), strict=True):
            torch.testing.assert_close(got, want)
        assert layer.initialized


def test_actnorm_is_the_layer_of_nflows():
    theirs = pytest.importorskip("nflows.transforms.normalization").ActNorm(3).double()
    ours = ActNorm(3).double()
    x = batch(20, 3, dtype=F64)
    ours.forward(x)
    with torch.no_grad():
        theirs.log_scale.copy_(-ours.log_scale)
        theirs.shift.copy_(-ours.loc * torch.exp(-ours.log_scale))
    for mine, other in ((ours.forward, theirs.eval().forward), (ours.inverse, theirs.inverse)):
        for got, want in zip(mine(x), other(x), strict=True):
            torch.testing.assert_close(got, want)


@pytest.mark.parametrize("shape", [(16, 3), (4, 3, 9)])
def test_batchnorm_trains_as_torch_does(shape):
    """Value, gradient through the statistics, running statistics, and eval mode after three batches."""
    ours = InvertibleBatchNorm(3).double()
    theirs = nn.BatchNorm1d(3).double()
    with torch.no_grad():
        ours.log_gain.copy_(torch.tensor([0.5, -0.2, 0.1]))
        ours.bias.copy_(torch.tensor([1.0, 0.0, -1.0]))
        theirs.weight.copy_(ours.log_gain.exp())
        theirs.bias.copy_(ours.bias)
    for seed in range(3):
        x = batch(*shape, seed=seed, dtype=F64).requires_grad_()
        weights = torch.randn(shape, dtype=F64)
        got = ours.forward(x).value
        want = theirs(x)
        torch.testing.assert_close(got, want)
        got_grad, want_grad = (torch.autograd.grad((y * weights).sum(), x)[0] for y in (got, want))
        torch.testing.assert_close(got_grad, want_grad)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    torch.testing.assert_close(ours.eval().forward(x).value, theirs.eval()(x))


def test_batchnorm_log_det_in_training():
    """That of an example's own map with the batch's statistics held; its gradient flows through them."""
    layer = InvertibleBatchNorm(3).double()
    nn.init.normal_(layer.log_gain)
    x = batch(8, 3, 5, dtype=F64).requires_grad_()
    log_det = layer.forward(x).log_det
    variance, mean = torch.var_mean(x, (0, 2), correction=0)

    def held(one):
        scale = layer.log_gain.exp() / (variance.detach() + layer.eps).sqrt()
        return (one - mean.detach()[:, None]) * scale[:, None]

    matrix = torch.autograd.functional.jacobian(held, x[0].detach()).reshape(15, 15)
    torch.testing.assert_close(log_det[0], torch.linalg.slogdet(matrix).logabsdet)
    torch.testing.assert_close(log_det, log_det[:1].expand(8))
    got = torch.autograd.grad(log_det.sum(), x)[0]
    # d/dx of -1/2 log(v + eps) is -(x - m) / (n (v + eps)) with n = 40 values; 8 examples of 5 samples add it up
    torch.testing.assert_close(got, -8 * 5 / 40 * (x - mean[:, None]) / (variance + layer.eps)[:, None])


def test_batchnorm_inverse_takes_the_running_statistics():
    layer = InvertibleBatchNorm(3).double()
    x = batch(16, 3, dtype=F64)
    layer.forward(x)
    in_training = layer.inverse(x)
    before = copy.deepcopy(layer.state_dict())
    for got, want in zip(in_training, layer.eval().inverse(x), strict=True):
        assert torch.equal(got, want)
    layer.forward(x)
    layer.inverse(x)
    for name, value in before.items():  # eval mode moves nothing
        assert torch.equal(layer.state_dict()[name], value)


@pytest.mark.parametrize("shape", [(1, 3), (0, 3), (1, 3, 1)])
def test_batchnorm_needs_two_values_in_training(shape):
    layer = InvertibleBatchNorm(3)
    with pytest.raises(WavedistillError, match="two values"):
        layer.forward(torch.zeros(shape))
    layer.eval().forward(torch.zeros(shape))


def test_batchnorm_of_half_values_is_float32():
    x = (100.0 * torch.randn(4000, 2)).half()
    with torch.autocast("cpu", torch.bfloat16):
        y, log_det = InvertibleBatchNorm(2).forward(x)
    assert y.dtype == log_det.dtype == torch.float32
    assert_normal(y)


def test_batchnorm_compiles_in_training_mode():
    torch.compiler.reset()
    layer = InvertibleBatchNorm(3)
    twin = InvertibleBatchNorm(3)
    compiled = torch.compile(layer.forward, fullgraph=True, backend="aot_eager")
    for x in (batch(9, 3), batch(9, 3, seed=1)):
        for got, want in zip(compiled(x), twin.forward(x), strict=True):
            torch.testing.assert_close(got, want)
    torch.testing.assert_close(layer.running_var, twin.running_var)


def test_batchnorm_is_the_layer_of_nflows_in_eval_mode():
    theirs = pytest.importorskip("nflows.transforms.normalization").BatchNorm(3).double().eval()
    ours = InvertibleBatchNorm(3).double()
    x = batch(20, 3, dtype=F64)
    ours.forward(x)
    ours.eval()
    with torch.no_grad():
        theirs.running_mean.copy_(ours.running_mean)
        theirs.running_var.copy_(ours.running_var)
        theirs.unconstrained_weight.add_(0.3)
        theirs.bias.add_(0.7)
        ours.log_gain.copy_(theirs.weight.log())
        ours.bias.copy_(theirs.bias)
    for mine, other in ((ours.forward, theirs.forward), (ours.inverse, theirs.inverse)):
        for got, want in zip(mine(x), other(x), strict=True):
            torch.testing.assert_close(got, want)


def test_options_that_cannot_be():
    for wrong in (dict(momentum=0.0), dict(momentum=1.5), dict(eps=0.0)):
        with pytest.raises(WavedistillError, match="momentum"):
            InvertibleBatchNorm(3, **wrong)
    for layer in (ActNorm, InvertibleBatchNorm):
        with pytest.raises(WavedistillError, match="dim=0"):
            layer(0)
