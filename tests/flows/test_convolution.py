"""Masked, causal and circular convolutions against written-out matrices, and what each cannot invert."""

from __future__ import annotations

import pytest
import torch

from wavedistill.errors import WavedistillError
from wavedistill.flows import CausalConvolution, CircularConvolution, Compose
from wavedistill.nn.masked_conv import MaskedConv1d

F64 = torch.float64


def jacobian(function, channels, samples):
    """(output sample, output channel, input sample, input channel) of a linear or nonlinear map at a random point."""
    x = torch.randn(1, channels, samples, dtype=F64)
    matrix = torch.autograd.functional.jacobian(function, x)
    return matrix[0, :, :, 0].permute(1, 0, 3, 2)


@pytest.mark.parametrize("mask_type", ["A", "B"])
@pytest.mark.parametrize("num_groups", [1, 2, 4])
def test_a_masked_convolution_sees_what_its_type_allows(mask_type, num_groups):
    """Every entry: exactly zero where the present sample's group or the future is hidden, not zero where it may be
    seen.
    """
    torch.manual_seed(0)
    kernel_size = 3
    dilation = 2
    layer = MaskedConv1d(4, 8, kernel_size, mask_type, dilation, num_groups).double()
    seen = jacobian(layer, 4, 9) != 0
    for t in range(9):
        for out in range(8):
            for s in range(9):
                for channel in range(4):
                    lag = t - s
                    group = channel * num_groups // 4
                    own = out * num_groups // 8
                    past = lag in (2, 4)
                    now = lag == 0 and (group < own or (mask_type == "B" and group == own))
                    assert bool(seen[t, out, s, channel]) == (past or now), (t, out, s, channel)


def test_a_masked_network_is_autoregressive_in_samples_and_channels():
    """PixelCNN's rule: first A, then B."""
    torch.manual_seed(0)
    layers = [MaskedConv1d(2, 6, 3, "A", num_groups=2), torch.nn.Tanh(), MaskedConv1d(6, 2, 3, "B", num_groups=2)]
    matrix = jacobian(torch.nn.Sequential(*layers).double(), 2, 6).reshape(12, 12)
    assert torch.equal(matrix.triu(0), torch.zeros_like(matrix))
    assert (matrix.diagonal(-1) != 0).all()


@pytest.mark.parametrize(
    "arguments, message",
    [((2, 2, 3, "C"), "'A' or 'B', got 'C'"), ((3, 4, 3, "A", 1, 2), "divide into 2 groups, got 3 and 4")],
)
def test_masks_that_there_are_not(arguments, message):
    with pytest.raises(WavedistillError, match=message):
        MaskedConv1d(*arguments)


def shaken(layer, amount=0.2):
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(amount * torch.randn_like(parameter))
    return layer.double()


@pytest.mark.parametrize("anticausal", [False, True])
def test_causal_convolution_is_triangular_in_samples_and_channels(anticausal):
    torch.manual_seed(0)
    layer = shaken(CausalConvolution(3, 3, anticausal=anticausal))
    matrix = jacobian(lambda x: layer.forward(x).value, 3, 5)
    if anticausal:
        matrix = matrix.flip(0, 2)
    matrix = matrix.reshape(15, 15)
    assert torch.equal(matrix.triu(1), torch.zeros_like(matrix)) and (matrix.diagonal() > 0).all()
    log_det = layer.forward(torch.zeros(1, 3, 5, dtype=F64)).log_det
    torch.testing.assert_close(log_det[0], matrix.diagonal().log().sum(), atol=1e-13, rtol=0.0)


@pytest.mark.parametrize(
    "samples, dilation, kernel_size",
    [(1, 1, 3), (63, 1, 3), (64, 1, 3), (65, 1, 3), (200, 3, 5), (150, 1, 100), (40, 7, 1)],
)
def test_blocks_solve_what_sample_by_sample_recursion_solves(samples, dilation, kernel_size):
    torch.manual_seed(0)
    layer = shaken(CausalConvolution(2, kernel_size, dilation), 0.05)
    y = torch.randn(2, 2, samples, dtype=F64)
    kernel, log_scale = (value.detach() for value in layer._kernel())
    expected = torch.zeros_like(y)
    for t in range(samples):
        for channel in range(2):
            value = y[:, channel, t] / log_scale[channel].exp()
            for lag in range(kernel_size):
                if t - lag * dilation >= 0:
                    value = value - expected[:, :, t - lag * dilation] @ kernel[channel, :, kernel_size - 1 - lag]
            expected[:, channel, t] = value
    torch.testing.assert_close(layer.inverse(y).value, expected, atol=1e-12, rtol=1e-12)


def test_a_bounded_gain_keeps_the_inverse_bounded():
    """Kernels far from minimum-phase: the inverse without a bound grows to infinity, with it it stays below the bound's
    promise.
    """
    torch.manual_seed(0)
    y = torch.randn(1, 2, 2000)
    wild = CausalConvolution(2, 4)
    held = CausalConvolution(2, 4, max_gain=0.9)
    with torch.no_grad():
        for layer in (wild, held):
            torch.manual_seed(1)
            layer.mixing.weight.normal_(0.0, 3.0)
        assert not torch.isfinite(wild.inverse(y).value).all()
        x, _ = held.inverse(y)
        assert float(x.abs().max()) <= float(y.abs().max()) / (1.0 - 0.9)
        torch.testing.assert_close(held.forward(x).value, y, atol=1e-4, rtol=1e-4)
    with pytest.raises(WavedistillError, match="between 0 and 1, got 1.5"):
        CausalConvolution(2, 4, max_gain=1.5)


def test_emerging_convolution_reaches_both_ways():
    torch.manual_seed(0)
    layer = Compose(shaken(CausalConvolution(2, 3)), shaken(CausalConvolution(2, 3, anticausal=True)))
    matrix = jacobian(lambda x: layer.forward(x).value, 2, 9)
    reached = (matrix[4] != 0).any(0).any(-1)
    assert reached.tolist() == [False, False, True, True, True, True, True, False, False]


@pytest.mark.parametrize("samples", [1, 2, 3, 4, 7, 12])
def test_circular_convolution_is_its_written_out_sum(samples):
    """Five taps: on fewer samples they meet themselves."""
    torch.manual_seed(0)
    layer = CircularConvolution(2, 5).double()
    x = torch.randn(3, 2, samples, dtype=F64)
    expected = sum(torch.einsum("ij,bjt->bit", layer.weight[..., k], x.roll(k, -1)) for k in range(5))
    y, log_det = layer.forward(x)
    torch.testing.assert_close(y, expected, atol=1e-13, rtol=1e-13)
    matrix = jacobian(lambda v: layer.forward(v).value, 2, samples).reshape(2 * samples, 2 * samples)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(matrix).logabsdet.expand(3), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(layer.inverse(y).value, x, atol=1e-12, rtol=1e-12)


def test_a_circular_filter_that_is_not_minimum_phase_has_a_stable_inverse():
    layer = CircularConvolution(1, 2).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[1.0, -3.0]]]))
    x = torch.randn(1, 1, 500, dtype=F64)
    torch.testing.assert_close(layer.inverse(layer.forward(x).value).value, x, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=["float32", "float64"])
def test_a_zero_at_a_frequency_is_an_error_that_names_the_layer(dtype):
    layer = CircularConvolution(2, 2).to(dtype)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[..., 0], layer.weight[..., 1] = (
            torch.tensor([[2.0, 1.0], [1.0, 1.0]]),
            torch.tensor([[2.0, 1.0], [1.0, 1.0]]),
        )
    for samples, frequency in ((8, 4), (6, 3)):  # 1 + exp(-i pi) = 0
        for direction in (layer.forward, layer.inverse):
            with pytest.raises(
                WavedistillError, match=f"CircularConvolution.dim=2.*{samples} samples.*frequency {frequency}/{samples}"
            ):
                direction(torch.randn(1, 2, samples, dtype=dtype))
    assert torch.isfinite(layer.forward(torch.randn(1, 2, 7, dtype=dtype)).log_det).all()
    with torch.no_grad():
        layer.weight.zero_()
    with pytest.raises(WavedistillError, match="no inverse"):
        layer.forward(torch.randn(1, 2, 7, dtype=dtype))


def test_float64_keeps_its_precision():
    for layer in (CausalConvolution(1, 3).double(), CircularConvolution(1, 3).double()):
        x = torch.randn(1, 1, 20, dtype=F64)
        y = layer.forward(x).value
        assert y.dtype == F64
        assert float((layer.inverse(y).value - x).detach().abs().max()) < 1e-12
