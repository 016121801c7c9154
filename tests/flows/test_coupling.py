"""Coupling layers and their splines against other libraries, and what the contract test does not see."""

import math

import pytest
import torch
from helpers.flow_case import shake
from torch import nn

from wavedistill.errors import WavedistillError
from wavedistill.flows import AdditiveCoupling, AffineCoupling, Compose, Flow, NetworkConfig, SplineCoupling
from wavedistill.flows.masks import checkerboard, halved_condition, merge, split
from wavedistill.flows.spline import MIN_DERIVATIVE, rational_quadratic_spline, spline_knots
from wavedistill.nn.coupling_net import CouplingNet

F64 = torch.float64
LAYERS = [AdditiveCoupling, AffineCoupling, SplineCoupling]
DERIVATIVE_OFFSET = math.log(math.expm1(1.0 - MIN_DERIVATIVE))


class Same(nn.Module):
    """A network with its parameters arranged as another library wants them."""

    def __init__(self, network, arrange=lambda parameters: parameters):
        super().__init__()
        self.network = network
        self.arrange = arrange

    def forward(self, kept, context=None):
        return self.arrange(self.network(kept, context))


def made(layer, dim, kernel_size=1, **options):
    torch.manual_seed(0)
    network = NetworkConfig(8, kernel_size=kernel_size)
    return shake(layer(dim, network=network, **options), 0.3).double()


def draw(*shape, seed=1, scale=1.0):
    return scale * torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def agree(ours, theirs):
    for got, want in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, want, atol=1e-10, rtol=1e-10)


# --- other libraries --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inverse", [False, True])
def test_spline_is_nflows_spline(inverse):
    oracle = pytest.importorskip("nflows.transforms.splines.rational_quadratic")
    x = draw(400, scale=3.0)
    parameters = draw(400, 14, seed=2, scale=2.0)
    widths, heights, derivatives = parameters.split([5, 5, 4], dim=-1)
    theirs = oracle.unconstrained_rational_quadratic_spline(
        x, widths, heights, derivatives + DERIVATIVE_OFFSET, inverse=inverse, tail_bound=4.0
    )
    assert (x.abs() > 4.0).any()
    agree(rational_quadratic_spline(x, parameters, 4.0, inverse), theirs)


def test_spline_is_zukos_spline():
    pytest.importorskip("zuko")
    from zuko.transforms import MonotonicRQSTransform

    torch.distributions.Distribution.set_default_validate_args(True)  # zuko switches it off for the whole process
    x = draw(100, scale=2.0)
    parameters = draw(100, 11, seed=2)
    oracle = MonotonicRQSTransform(*parameters.split([4, 4, 3], dim=-1), bound=3.0)
    oracle.horizontal, oracle.vertical, oracle.derivatives = spline_knots(parameters, 3.0)
    agree(rational_quadratic_spline(x, parameters, 3.0), oracle.call_and_ladj(x))
    torch.testing.assert_close(rational_quadratic_spline(x, parameters, 3.0, inverse=True)[0], oracle.inv(x))


def nflows_mask(mask, dim, swap):
    _, moved = split(torch.arange(dim).unsqueeze(0), mask)
    moves = torch.isin(torch.arange(dim), moved[0])
    return torch.where(moves != swap, 1, -1)


@pytest.mark.parametrize(("mask", "swap"), [("half", False), ("alternate", True)])
def test_additive_coupling_is_nflows(mask, swap):
    oracle = pytest.importorskip("nflows.transforms.coupling")
    layer = made(AdditiveCoupling, 5, mask=mask, swap=swap, cond_dim=2)
    x = draw(6, 5)
    cond = draw(6, 2, seed=3)
    theirs = oracle.AdditiveCouplingTransform(nflows_mask(mask, 5, swap), lambda i, o: Same(layer.network))
    agree(layer.forward(x, cond), theirs(x, cond))
    agree(layer.inverse(x, cond), theirs.inverse(x, cond))


def test_affine_coupling_is_nflows():
    oracle = pytest.importorskip("nflows.transforms.coupling")
    layer = made(AffineCoupling, 5, log_scale_bound=2.0)
    x = draw(6, 5)
    with torch.no_grad():
        layer.network.output.bias[2:] -= 3.0  # nflows' scale is sigmoid(. + 2) + 0.001: below 1.001

    def arrange(parameters):
        loc, raw = parameters.chunk(2, dim=1)
        return torch.cat([loc, torch.logit((2.0 * torch.tanh(raw / 2.0)).exp() - 1e-3) - 2.0], dim=1)

    theirs = oracle.AffineCouplingTransform(nflows_mask("half", 5, False), lambda i, o: Same(layer.network, arrange))
    agree(layer.forward(x), theirs(x))
    agree(layer.inverse(x), theirs.inverse(x))


def test_affine_coupling_is_normflows():
    normflows = pytest.importorskip("normflows")
    layer = made(AffineCoupling, 4, log_scale_bound=1e7)
    x = draw(6, 4)

    def arrange(parameters):
        return torch.stack(parameters.chunk(2, dim=1), dim=2).flatten(1)

    theirs = normflows.flows.AffineCouplingBlock(Same(layer.network, arrange))
    agree(layer.forward(x), theirs(x))
    agree(layer.inverse(x), theirs.inverse(x))


def test_spline_coupling_is_nflows():
    oracle = pytest.importorskip("nflows.transforms.coupling")
    layer = made(SplineCoupling, 4, bins=6, bound=2.0)
    x = draw(20, 4)

    def arrange(parameters):
        by_feature = parameters.unflatten(1, (17, 2)).transpose(1, 2)
        return (by_feature + torch.tensor([0.0] * 12 + [DERIVATIVE_OFFSET] * 5, dtype=F64)).flatten(1)

    theirs = oracle.PiecewiseRationalQuadraticCouplingTransform(
        nflows_mask("half", 4, False),
        lambda i, o: Same(layer.network, arrange),
        num_bins=6,
        tails="linear",
        tail_bound=2.0,
    )
    with pytest.warns(UserWarning, match="softmax"):
        agree(layer.forward(x), theirs(x))
        agree(layer.inverse(x), theirs.inverse(x))


# --- the layers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", LAYERS[1:])
def test_density_in_two_dimensions_integrates_to_one(layer):
    flow = Flow(Compose(*(made(layer, 2, swap=swap) for swap in (False, True))))
    grid = torch.linspace(-16, 16, 401, dtype=F64)
    with torch.no_grad():
        density = flow.log_prob(torch.cartesian_prod(grid, grid)).exp().reshape(401, 401)
    assert float(torch.trapezoid(torch.trapezoid(density, grid), grid)) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("samples", [1, 2])
def test_density_of_a_waveform_of_one_or_two_samples_integrates_to_one(samples):
    flow = Flow(Compose(made(SplineCoupling, 1, mask="time"), made(AffineCoupling, 1, mask="time", swap=True)))
    grid = torch.linspace(-16, 16, 201, dtype=F64)
    with torch.no_grad():
        points = torch.cartesian_prod(*[grid] * samples).reshape(-1, 1, samples)
        density = flow.log_prob(points).exp().reshape([201] * samples)
    for _ in range(samples):
        density = torch.trapezoid(density, grid)
    assert float(density) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 4)])
def test_additive_coupling_keeps_volume_exactly(shape):
    layer = made(AdditiveCoupling, 5)
    assert torch.equal(layer.forward(draw(*shape)).log_det, torch.zeros(3, dtype=F64))
    assert torch.equal(layer.inverse(draw(*shape)).log_det, torch.zeros(3, dtype=F64))


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize(
    ("mask", "kept"),
    [
        ("half", [[1] * 5] * 2 + [[0] * 5]),
        ("alternate", [[1] * 5, [0] * 5, [1] * 5]),
        ("time", [[1, 0, 1, 0, 1]] * 3),
        ("checkerboard", [[1, 0, 1, 0, 1], [0, 1, 0, 1, 0], [1, 0, 1, 0, 1]]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_kept_and_what_is_moved(mask, kept, swap):
    layer = made(AffineCoupling, 3, mask=mask, swap=swap, kernel_size=3)
    x = draw(1, 3, 5)
    kept = torch.tensor(kept).bool() != swap
    for direction in (layer.forward, layer.inverse):
        assert torch.equal(direction(x).value[0] == x[0], kept)
        matrix = torch.autograd.functional.jacobian(lambda v, f=direction: f(v).value, x).reshape(15, 15)
        flat = kept.flatten()
        moved_by_moved = matrix[~flat][:, ~flat]
        assert torch.equal(moved_by_moved, torch.diag(moved_by_moved.diagonal()))
        assert (matrix[~flat][:, flat] != 0).any(1).all()


@pytest.mark.parametrize("shape", [(2, 5), (2, 4), (2, 3, 5), (2, 3, 1), (2, 1, 4)])
@pytest.mark.parametrize("mask", ["half", "alternate", "time"])
def test_merge_puts_back_what_split_parts(mask, shape):
    x = draw(*shape)
    assert torch.equal(merge(*split(x, mask), mask), x)


def test_checkerboard_alternates_along_both_axes():
    board = checkerboard(torch.zeros(1, 4, 7))
    assert board[0, 0] and (board[1:] != board[:-1]).all() and (board[:, 1:] != board[:, :-1]).all()


@pytest.mark.parametrize("layer", LAYERS)
def test_one_evaluation_of_the_network_in_each_direction(layer):
    calls = []
    coupling = made(layer, 4)
    coupling.network.register_forward_hook(lambda *_: calls.append(1))
    coupling.inverse(coupling.forward(draw(2, 4)).value)
    assert len(calls) == 2


def test_terms_step_by_step_belong_to_the_samples_that_move():
    layer = made(AffineCoupling, 2, mask="time", swap=True)
    steps = layer.forward(draw(2, 2, 5), per_step=True).log_det
    assert torch.equal(steps[:, 1::2], torch.zeros(2, 2, dtype=F64)) and (steps[:, 0::2] != 0).all()


def test_log_scale_stays_within_its_bound():
    layer = AffineCoupling(2, log_scale_bound=3.0)
    for extreme in (1e4, -1e4):
        nn.init.constant_(layer.network.output.bias, extreme)
        log_det = layer.forward(torch.ones(1, 2)).log_det
        torch.testing.assert_close(log_det.detach(), torch.tensor([math.copysign(3.0, extreme)]))
        assert layer.inverse(torch.full((1, 2), 1e4)).value.isfinite().all()


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("swap", [False, True])
def test_a_new_layer_is_the_identity(layer, swap):
    x = draw(4, 3, seed=5, scale=3.0).float()
    value, log_det = layer(3, swap=swap).forward(x)
    torch.testing.assert_close(value, x, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(log_det, torch.zeros(4), atol=1e-5, rtol=0)


class Recorder(nn.Module):
    def __init__(self, out_channels):
        super().__init__()
        self.out_channels = out_channels

    def forward(self, kept, cond):
        self.kept = kept
        self.cond = cond
        return kept.new_zeros(kept.shape[0], self.out_channels, *kept.shape[2:])


@pytest.mark.parametrize(
    ("mask", "swap", "samples", "seen", "moved"),
    [
        ("half", False, 6, (2, 2, 6), 1),
        ("half", True, 6, (2, 1, 6), 2),
        ("alternate", True, 5, (2, 1, 5), 2),
        ("time", False, 5, (2, 3, 3), 3),
        ("time", True, 5, (2, 3, 3), 3),
        ("checkerboard", False, 6, (2, 3, 6), 3),
    ],
)
def test_a_network_of_ones_own_sees_the_kept_part(mask, swap, samples, seen, moved):
    network = Recorder(2 * moved)
    layer = AffineCoupling(3, mask=mask, swap=swap, cond_dim=1, network=network)
    x = draw(2, 3, samples)
    value = layer.forward(x, torch.ones(2, 1, dtype=F64)).value
    assert torch.equal(value, x) and network.kept.shape == seen and network.cond.shape == (2, 1, 1)
    if mask == "half":
        assert torch.equal(network.kept, x[:, 2:] if swap else x[:, :2])


def test_a_network_of_ones_own_gets_any_condition_when_the_layer_checks_none():
    network = Recorder(1)
    AdditiveCoupling(2, network=network).forward(torch.ones(1, 2), {"speaker": 3})
    assert network.cond == {"speaker": 3}


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize(("samples", "frames"), [(12, 3), (12, 4), (12, 12), (9, 3), (9, 9), (9, 1), (1, 1)])
def test_time_mask_hands_on_the_condition_of_the_samples_that_move(samples, frames, swap):
    cond = torch.arange(float(frames)).reshape(1, 1, frames)
    at_samples = cond.repeat_interleave(samples // frames, dim=-1)
    moved = at_samples[..., 0::2] if swap else at_samples[..., 1::2]
    half = halved_condition(cond, samples, 0 if swap else 1)
    count = (samples + 1) // 2
    assert count % half.shape[-1] == 0
    torch.testing.assert_close(half.repeat_interleave(count // half.shape[-1], dim=-1)[..., : moved.shape[-1]], moved)


@pytest.mark.parametrize("layer", LAYERS)
def test_one_feature_cannot_be_parted(layer):
    for mask in ("half", "alternate"):
        with pytest.raises(WavedistillError, match=rf"{layer.__name__}.*D = 1"):
            layer(1, mask=mask)
    layer(1, mask="time")


def test_errors_say_what_is_needed():
    with pytest.raises(WavedistillError, match="half, alternate, time, checkerboard, got 'odd'"):
        AffineCoupling(4, mask="odd")
    with pytest.raises(
        WavedistillError, match=r"AffineCoupling needs values of shape \(batch, 2, samples\), got \(3, 2\)"
    ):
        AffineCoupling(2, mask="time").forward(torch.ones(3, 2))
    with pytest.raises(WavedistillError, match=r"needs values of shape \(batch, 2, samples\)"):
        AffineCoupling(2, network=NetworkConfig(kernel_size=3)).forward(torch.ones(3, 2))
    with pytest.raises(WavedistillError, match=r"must make \(3, 4\) of \(3, 2\), got \(3, 3\)"):
        AffineCoupling(4, network=Recorder(3)).forward(torch.ones(3, 4))
    with pytest.raises(WavedistillError, match="log_scale_bound above 0, got 0.0"):
        AffineCoupling(4, log_scale_bound=0.0)
    with pytest.raises(WavedistillError, match="2 bins or more and a bound above 0, got 1 and 5.0"):
        SplineCoupling(4, bins=1)
    with pytest.raises(WavedistillError, match="odd kernel_size, got 2"):
        AffineCoupling(4, network=NetworkConfig(kernel_size=2))


# --- the spline -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_spline_inverts_itself_in_steep_and_flat_bins(dtype):
    parameters = draw(5000, 23, seed=2, scale=4.0).to(dtype)
    x = draw(5000, seed=3, scale=3.0).to(dtype).requires_grad_()
    y, log_det = rational_quadratic_spline(x, parameters)
    back, log_det_back = rational_quadratic_spline(y.detach(), parameters, inverse=True)
    eps = torch.finfo(dtype).eps
    resolution = 100 * eps * (1.0 + torch.exp(-log_det.detach()))  # one rounding of y moves x by eps dx/dy
    assert ((back - x.detach()).abs() < resolution).all()
    assert log_det.isfinite().all() and log_det_back.isfinite().all()
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(log_det.detach(), slope.log(), atol=1e4 * eps, rtol=1e4 * eps)


def test_spline_is_the_identity_outside_and_joins_smoothly():
    parameters = draw(1, 14, seed=2, scale=2.0)
    x = torch.tensor([-100.0, -3.0, 3.0, 7.0, torch.inf, -torch.inf], dtype=F64)
    for inverse in (False, True):
        y, log_det = rational_quadratic_spline(x, parameters.expand(6, 14), 3.0, inverse)
        torch.testing.assert_close(y, x)
        torch.testing.assert_close(log_det, torch.zeros(6, dtype=F64), atol=1e-12, rtol=0)
    edge = torch.tensor([3.0 - 1e-9], dtype=F64)
    y, log_det = rational_quadratic_spline(edge, parameters, 3.0)
    assert abs(float(y - edge)) < 1e-7 and abs(float(log_det)) < 1e-5


def test_spline_at_its_knots():
    parameters = draw(1, 14, seed=2)
    x_knots, y_knots, derivatives = (knots[0] for knots in spline_knots(parameters, 3.0))
    parameters = parameters.expand(6, 14)
    y, log_det = rational_quadratic_spline(x_knots, parameters, 3.0)
    x, log_det_back = rational_quadratic_spline(y_knots, parameters, 3.0, inverse=True)
    agree((y, x, log_det, -log_det_back), (y_knots, x_knots, derivatives.log(), derivatives.log()))
    assert (x_knots.diff() > 0).all() and x_knots[0] == -3.0 and x_knots[-1] == 3.0


def test_spline_refuses_what_it_cannot_use():
    for shape, what in (
        ((4, 6), "3 bins - 1"),
        ((4, 2), "3 bins - 1"),
        ((3, 5), r"\(\*\(4,\)"),
        ((4, 2999), "1000 bins"),
    ):
        with pytest.raises(WavedistillError, match=what):
            rational_quadratic_spline(torch.zeros(4), torch.zeros(shape))
    with pytest.raises(WavedistillError, match="bound above 0, got 0"):
        rational_quadratic_spline(torch.zeros(4), torch.zeros(4, 5), bound=0)


# --- the network ------------------------------------------------------------------------------------------------------


def test_a_condition_at_the_frame_rate_equals_one_at_the_sample_rate():
    network = shake(CouplingNet(2, 3, NetworkConfig(8, kernel_size=3), cond_dim=4)).double()
    x = draw(2, 2, 12)
    cond = draw(2, 4, 3, seed=2)
    agree([network(x, cond)], [network(x, cond.repeat_interleave(4, dim=-1))])
    agree([network(x, cond[..., 0])], [network(x, cond[..., :1].expand(2, 4, 12))])


def test_vectors_and_single_samples_are_the_same():
    network = shake(CouplingNet(2, 3, NetworkConfig(8), cond_dim=4)).double()
    x = draw(5, 2)
    cond = draw(5, 4, seed=2)
    agree([network(x, cond)], [network(x.unsqueeze(-1), cond)[..., 0]])


def test_receptive_field_of_the_dilated_layers():
    network = shake(CouplingNet(1, 1, NetworkConfig(4, 3, 3))).double()
    matrix = torch.autograd.functional.jacobian(lambda x: network(x.reshape(1, 1, 31))[0, 0], draw(31))
    assert torch.equal(matrix[15].nonzero().flatten(), torch.arange(15 - 7, 15 + 8))


def test_a_wide_kernel_refuses_vectors():
    with pytest.raises(WavedistillError, match=r"kernel_size 3 needs \(batch, channels, samples\), got \(2, 3\)"):
        CouplingNet(3, 3, NetworkConfig(kernel_size=3))(torch.ones(2, 3))
    with pytest.raises(WavedistillError, match="of 1 or more"):
        CouplingNet(0, 3)
