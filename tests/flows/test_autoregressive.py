"""Autoregressive flows against other libraries' masked autoregressive transforms, and more than the contract covers."""

import copy
from types import SimpleNamespace

import pytest
import torch
from flows.cases.autoregressive import ORDER, vectors, waveform

from wavedistill.errors import WavedistillError
from wavedistill.flows import MADE, AutoregressiveFlow, Condition, Flow
from wavedistill.flows.autoregressive import LocScale
from wavedistill.flows.solvers import stepping as stepping_module
from wavedistill.nn.causal_network import CausalNetwork
from wavedistill.nn.wavenet_stack import StackConfig

DIM = 5
HIDDEN = 12
F64 = torch.float64


def draw(*shape, seed=0, dtype=F64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class WithScale(AutoregressiveFlow):
    """y = loc + s x with another library's s = scale(network output)."""

    def __init__(self, network, scale):
        super().__init__(network, standardize=False)
        self.scale = scale

    def split(self, parameters, shift=None):
        return LocScale(parameters[..., 0], self.scale(parameters[..., 1]).log())


def copied(network, linears, shift_first):
    """Another library's masked layers into ours: hidden units sorted by degree, (dim, 2) outputs to (2, dim)."""
    degrees = 1 + torch.arange(HIDDEN) % (DIM - 1)
    by_degree = degrees.argsort(stable=True)
    assert degrees[by_degree].tolist() == network.degrees
    per_feature = torch.arange(2 * DIM).reshape(DIM, 2).t()
    outputs = (per_feature if shift_first else per_feature.flip(0)).flatten()
    rows = [by_degree] * (len(linears) - 1) + [outputs]
    columns = [torch.arange(DIM)] + [by_degree] * (len(linears) - 1)
    with torch.no_grad():
        for layer, other, row, column in zip(network.layers, linears, rows, columns, strict=True):
            layer.weight.copy_(other.weight[row][:, column])
            layer.bias.copy_(other.bias[row])
            assert torch.equal(layer.mask.bool(), other.mask.bool()[row][:, column])
    return network


def from_zuko(order):
    zuko = pytest.importorskip("zuko")
    torch.distributions.Distribution.set_default_validate_args(True)  # zuko switches it off for the whole process
    theirs = zuko.flows.MaskedAutoregressiveTransform(DIM, order=order, hidden_features=(HIDDEN, HIDDEN)).double()
    network = MADE(DIM, HIDDEN, 2, "natural" if order is None else order).double()
    linears = [layer for layer in theirs.hyper if isinstance(layer, torch.nn.Linear)]
    bound = torch.tensor(1e-3, dtype=F64).log()
    ours = WithScale(copied(network, linears, shift_first=True), lambda a: (a / (1 + (a / bound).abs())).exp())

    def inverse(y):
        x = theirs().inv(y)
        return x, -theirs().log_abs_det_jacobian(x, y)

    return ours, lambda x: theirs().call_and_ladj(x), inverse


def from_nflows():
    module = pytest.importorskip("nflows.transforms")
    theirs = module.MaskedAffineAutoregressiveTransform(DIM, HIDDEN, num_blocks=1, use_residual_blocks=False).double()
    return with_made(theirs, theirs.autoregressive_net.initial_layer, lambda a: torch.nn.functional.softplus(a) + 1e-3)


def from_normflows():
    """Its first layer has no rectifier: the first two of three are one linear map."""
    module = pytest.importorskip("normflows.flows.affine.autoregressive")
    theirs = module.MaskedAffineAutoregressive(DIM, HIDDEN, num_blocks=2, use_residual_blocks=False).double()
    initial = theirs.autoregressive_net.initial_layer
    first = theirs.autoregressive_net.blocks[0].linear
    weight = first.weight * first.mask
    merged = SimpleNamespace(
        weight=weight @ (initial.weight * initial.mask), bias=first.bias + weight @ initial.bias, mask=initial.mask
    )
    return with_made(theirs, merged, lambda a: torch.sigmoid(a + 2.0) + 1e-3)


def with_made(theirs, first, scale):
    made = theirs.autoregressive_net
    linears = [first, made.blocks[-1].linear, made.final_layer]
    ours = WithScale(copied(MADE(DIM, HIDDEN, 2).double(), linears, shift_first=False), scale)
    return ours, theirs.forward, theirs.inverse


ORACLES = {
    "zuko": lambda: from_zuko(None),
    "zuko-any-order": lambda: from_zuko(ORDER),
    "nflows": from_nflows,
    "normflows": from_normflows,
}


@pytest.mark.parametrize("name", ORACLES)
def test_copied_weights_give_another_librarys_density_and_samples(name):
    torch.manual_seed(0)
    ours, forward, inverse = ORACLES[name]()
    x = draw(7, DIM)
    for got, expected in ((ours.forward(x), forward(x)), (ours.inverse(x), inverse(x))):
        for one, other in zip(got, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("cond_dim", [0, 2])
def test_one_feature_depends_on_the_condition_alone(cond_dim):
    torch.manual_seed(0)
    flow = vectors(1, cond_dim=cond_dim).double()
    x = draw(4, 1)
    cond = draw(4, cond_dim, seed=1) if cond_dim else None
    y, log_det = flow.forward(x, cond)
    torch.testing.assert_close(flow.inverse(y, cond).value, x)
    slope = torch.autograd.functional.jacobian(lambda x: flow.forward(x, cond).value.sum(0), x)[0, :, 0]
    torch.testing.assert_close(slope.log(), log_det.detach())
    assert bool((log_det == log_det[0]).all()) == (cond_dim == 0)


def test_conditions_reach_every_feature():
    torch.manual_seed(0)
    flow = vectors(4, cond_dim=2).double()
    x = draw(1, 4)
    jacobian = torch.autograd.functional.jacobian(lambda c: flow.forward(x, c).value[0], draw(1, 2, seed=1))
    assert (jacobian != 0).all()


@pytest.mark.parametrize("hidden", [3, 7, 40])
@pytest.mark.parametrize("dim", [2, 9])
def test_degrees_are_spread_over_all_features(dim, hidden):
    degrees = MADE(dim, hidden).degrees
    assert degrees == sorted(degrees) and (degrees[0], degrees[-1]) == (1, dim - 1)
    if hidden >= dim - 1:
        counts = torch.tensor(degrees).bincount(minlength=dim)[1:]
        assert counts.max() - counts.min() <= 1


def test_order_is_part_of_the_state():
    torch.manual_seed(0)
    flow = vectors(5, ORDER)
    other = vectors(5, "natural")
    other.load_state_dict(copy.deepcopy(flow.state_dict()))
    x = draw(3, 5, dtype=torch.float32)
    assert torch.equal(other.forward(x).value, flow.forward(x).value)
    torch.testing.assert_close(other.inverse(flow.forward(x).value).value, x)


@pytest.mark.parametrize("block", [1, 4, 64])
def test_stepping_does_not_depend_on_its_block(block, monkeypatch):
    torch.manual_seed(0)
    flow = vectors(11, "reverse", cond_dim=2).double()
    y = draw(3, 11)
    cond = draw(3, 2, seed=1)
    expected = flow.inverse(y, cond)
    monkeypatch.setattr(stepping_module, "BLOCK", block)
    torch.testing.assert_close(flow.inverse(y, cond), expected, atol=1e-13, rtol=1e-12)


def test_autocast_does_not_part_the_two_directions_of_vectors():
    torch.manual_seed(0)
    flow = vectors(6)
    x = draw(4, 6, dtype=torch.float32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(flow.inverse(flow.forward(x).value).value, x, atol=1e-5, rtol=1e-5)


def test_log_scale_stays_within_its_limits():
    flow = AutoregressiveFlow(MADE(3), log_scale_min=-1.0, log_scale_max=2.0)
    with torch.no_grad():
        flow.predictor.layers[-1].bias[3:] = torch.tensor([-50.0, 0.5, 50.0])
    log_scale = flow.loc_scale(torch.zeros(1, 3)).log_scale
    assert log_scale.tolist() == [[-1.0, 0.5, 2.0]]


def test_waveform_condition_as_tensor_or_tuple():
    torch.manual_seed(0)
    flow = waveform().double()
    x = draw(2, 1, 12)
    frames = draw(2, 5, 3, seed=1)
    expected = flow.forward(x, Condition(frames.transpose(1, 2)))
    torch.testing.assert_close(flow.forward(x, frames), expected)
    torch.testing.assert_close(flow.inverse(expected.value, frames).value, x)
    torch.testing.assert_close(flow.forward(x, frames[..., :1]), flow.forward(x, frames[..., 0]))


@pytest.mark.parametrize(
    "cond, message",
    [
        (None, "condition of shape"),
        (Condition(None, torch.zeros(2, 12)), "features of shape"),
        (Condition(torch.zeros(2, 5, 5), torch.zeros(2, 12)), "blocks dividing 12"),
        (Condition(torch.zeros(2, 3, 4), torch.zeros(2, 12)), r"\(2, blocks, 5\)"),
        (torch.zeros(2, 5, 3), "a source of shape"),
        (Condition(torch.zeros(2, 3, 5), torch.zeros(2, 11)), r"source of shape \(2, 12\)"),
    ],
)
def test_wrong_waveform_conditions_are_refused(cond, message):
    flow = waveform(source=3)
    for direction in (flow.forward, flow.inverse):
        with pytest.raises(WavedistillError, match=message):
            direction(torch.zeros(2, 1, 12), cond)


def test_samples_must_fill_steps_and_steps_the_blocks_of_the_condition():
    flow = waveform(step=3)
    for direction in (flow.forward, flow.inverse):
        with pytest.raises(WavedistillError, match="whole steps of 3 samples, got shape"):
            direction(torch.zeros(2, 1, 8), torch.zeros(2, 5))
        with pytest.raises(WavedistillError, match="blocks dividing 4 steps"):
            direction(torch.zeros(2, 1, 12), torch.zeros(2, 5, 6))


def test_values_of_a_step_do_not_depend_on_each_other():
    torch.manual_seed(0)
    flow = waveform(cond=0, step=3).double()
    jacobian = torch.autograd.functional.jacobian(lambda x: flow.forward(x).value[0, 0], draw(1, 1, 12))[:, 0, 0]
    step = torch.arange(12) // 3
    same = step[:, None] == step
    assert torch.equal(jacobian[same] != 0, torch.eye(12, dtype=torch.bool)[same])
    assert jacobian[step[:, None] > step].any() and not jacobian[step[:, None] < step].any()


def test_impossible_constructions_are_refused():
    with pytest.raises(WavedistillError, match="got Linear"):
        AutoregressiveFlow(torch.nn.Linear(2, 2))
    with pytest.raises(WavedistillError, match="log_scale_min must be below"):
        AutoregressiveFlow(MADE(2), log_scale_min=1.0, log_scale_max=0.0)
    with pytest.raises(WavedistillError, match="at least 1"):
        MADE(0)
    for order in ("sideways", [0, 0, 1], [1, 2]):
        with pytest.raises(WavedistillError, match="permutation"):
            MADE(3, order=order)


def test_no_samples():
    x = torch.zeros(2, 1, 0)
    value, log_det = waveform(cond=0).inverse(x)
    assert value.shape == x.shape and log_det.tolist() == [0.0, 0.0]


def test_density_of_one_sample_integrates_to_one():
    torch.manual_seed(0)
    flow = Flow(waveform().double())
    grid = torch.linspace(-40, 40, 8001, dtype=F64)
    log_prob = flow.log_prob(grid[:, None, None], torch.zeros(5, dtype=F64))
    assert float(torch.trapezoid(log_prob.detach().exp(), grid)) == pytest.approx(1.0, abs=1e-8)


def test_second_derivatives_through_the_sequential_direction():
    torch.manual_seed(0)
    flow = AutoregressiveFlow(CausalNetwork(2, StackConfig(2, 1, 2, 4, 4), 0, 2)).double()
    with torch.no_grad():
        flow.predictor.stack.output.weight.normal_()
    assert torch.autograd.gradgradcheck(lambda y: flow.inverse(y).value, draw(1, 1, 4).requires_grad_())
