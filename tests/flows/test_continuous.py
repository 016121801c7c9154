"""Continuous flows: solvers, traces and gradients."""

import math
import sys

import pytest
import torch
from helpers.graphs import graph_size

from wavedistill.errors import WavedistillError
from wavedistill.flows import ContinuousFlow, NetworkConfig

F64 = torch.float64


@pytest.fixture(autouse=True)
def torchdiffeq(request):
    if "without" not in request.node.name:
        pytest.importorskip("torchdiffeq")


def flow(dim=3, dtype=F64, **options):
    from flows.cases.continuous import continuous

    torch.manual_seed(0)
    return continuous(dim, **options).to(dtype)


def data(*shape, dtype=F64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(1))


class Linear(torch.nn.Module):
    """dz/dt = t A z, whose solution is known: z(1) = exp(A / 2) z(0), log|det| = tr(A) / 2."""

    def __init__(self, dim):
        super().__init__()
        self.matrix = torch.nn.Parameter(data(dim, dim))

    def forward(self, x, cond=None):
        return x[:, -1:] * (x[:, :-1] @ self.matrix.T)


@pytest.mark.parametrize("solver", ["dopri5", "dopri8", "rk4", "midpoint", "euler"])
@pytest.mark.parametrize("adjoint", [True, False])
def test_a_linear_field_is_a_matrix_exponential(solver, adjoint):
    accuracy = {"dopri5": 1e-10, "dopri8": 1e-12, "rk4": 1e-6, "midpoint": 5e-3, "euler": 0.2}[solver]
    step = {"rk4": 0.02, "midpoint": 0.02, "euler": 0.02}.get(solver)
    layer = ContinuousFlow(3, solver=solver, step_size=step, adjoint=adjoint).double()
    layer.network = Linear(3)
    x = data(2, 3)
    y, log_det = layer.forward(x)
    assert float((y - x @ torch.matrix_exp(layer.network.matrix / 2).T).abs().max().detach()) < accuracy
    assert float((log_det - layer.network.matrix.trace() / 2).abs().max().detach()) < accuracy
    back, log_det_back = layer.inverse(y)
    assert float((back - x).abs().max().detach()) < 2 * accuracy
    assert float((log_det_back + log_det).abs().max().detach()) < 2 * accuracy
    (log_det.sum() + y.sum()).backward()
    want = layer.network.matrix.detach().clone().requires_grad_()
    (2 * want.trace() / 2 + (x @ torch.matrix_exp(want / 2).T).sum()).backward()
    assert float((layer.network.matrix.grad - want.grad).abs().max()) < 10 * accuracy


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_the_adjoint_gradient_is_the_plain_one(trace, direction):
    gradients = []
    for adjoint in (True, False):
        layer = flow(cond_dim=2, adjoint=adjoint, trace=trace, generator=torch.Generator().manual_seed(0))
        x = data(4, 3).requires_grad_()
        cond = data(4, 2).requires_grad_()
        value, log_det = getattr(layer, direction)(x, cond)
        loss = (value * data(4, 3)).sum() + (log_det * data(4)).sum()
        gradients.append(torch.autograd.grad(loss, [x, cond, *layer.parameters()]))
    for got, want in zip(*gradients, strict=True):
        assert float(want.abs().max()) > 1e-3
        torch.testing.assert_close(got, want, atol=1e-9, rtol=1e-8)


def test_the_adjoint_keeps_a_graph_that_does_not_grow_with_the_steps():
    def size(steps, adjoint):
        return graph_size(flow(2, solver="rk4", step_size=1 / steps, adjoint=adjoint).forward(data(2, 2)).value)

    assert size(40, True) == size(10, True)
    assert size(40, False) > 3 * size(10, False)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("noise", ["rademacher", "normal"])
def test_hutchinsons_trace_is_unbiased(noise, training):
    options = {"solver": "rk4", "step_size": 0.25}
    layer = flow(trace="hutchinson", noise=noise, generator=torch.Generator().manual_seed(0), **options).train(training)
    reference = flow(**options)
    for one in (layer, reference):
        one.network.output.weight.data.mul_(3.0)
    exact = reference.forward(data(1, 3)).log_det
    with torch.no_grad():
        draws = layer.forward(data(1, 3).expand(20_000, 3)).log_det
    error = float(draws.std()) / math.sqrt(len(draws))
    assert 0 < error < 0.05 * float(exact.detach().abs())
    assert abs(float(draws.mean() - exact.detach())) < 4 * error


def test_noise_is_fixed_during_a_solve_and_drawn_anew_for_the_next():
    layer = flow(trace="hutchinson", generator=torch.Generator().manual_seed(0))
    reference = torch.Generator().manual_seed(0)
    x = data(2, 3)
    before = torch.get_rng_state()
    first = layer.forward(x)
    second = layer.forward(x)
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(first.value, second.value, atol=1e-11, rtol=0)  # the steps are chosen for log_det too
    assert float((first.log_det - second.log_det).abs().min().detach()) > 1e-3
    for _ in range(2):
        torch.randint(0, 2, (2, 3), generator=reference)
    assert torch.equal(layer.generator.get_state(), reference.get_state())


def test_tolerances_decide_the_accuracy():
    exact = flow()
    x = data(2, 3)
    errors = []
    for tolerance in (1e-2, 1e-5, 1e-9):
        layer = flow(solver="dopri5", rtol=tolerance, atol=tolerance)
        layer.network.output.weight.data.mul_(5.0)
        exact.network.load_state_dict(layer.network.state_dict())
        errors.append(float((layer.forward(x).value - exact.forward(x).value).abs().max().detach()))
    assert errors[0] > 3 * errors[1] > 9 * errors[2] and errors[2] < 1e-8


def test_an_example_is_solved_as_exactly_in_a_batch_as_alone():
    """The error is that of the worst example, not the mean of the batch, in which a hard example among easy ones would
    be lost.
    """
    torch.manual_seed(0)
    layer = flow(2, solver="dopri5", rtol=1e-6, atol=1e-6)
    layer.network.output.weight.data.mul_(8.0)
    hard = 3 * data(1, 2)
    easy = torch.zeros(2000, 2, dtype=F64)
    with torch.no_grad():
        alone = layer.forward(hard).value
        among = layer.forward(torch.cat([hard, easy])).value[:1]
    torch.testing.assert_close(among, alone, atol=2e-5, rtol=0)


def test_the_field_depends_on_time():
    layer = flow()
    x = data(2, 3)
    y = layer.forward(x).value
    layer.network.layers[0].weight.data[:, -1] = 0.0  # the weights of t
    assert not torch.allclose(layer.forward(x).value, y)


def test_it_starts_as_the_identity():
    x = data(2, 3)
    y, log_det = ContinuousFlow(3).double().forward(x)
    torch.testing.assert_close(y, x, atol=1e-14, rtol=0)
    assert torch.equal(log_det, torch.zeros(2, dtype=F64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_a_long_waveform_under_autocast(dtype):
    layer = flow(1, dtype=torch.float32, kernel_size=3, trace="hutchinson", solver="midpoint", step_size=0.5)
    x = data(1, 1, 240_000, dtype=torch.float32)
    log_dets = []
    for enabled in (False, True):
        layer.generator = torch.Generator().manual_seed(0)
        with torch.no_grad(), torch.autocast("cpu", dtype, enabled=enabled):
            log_dets.append(layer.forward(x).log_det)
    assert log_dets[1].dtype == torch.float32 and log_dets[1].isfinite().all()
    assert torch.equal(*log_dets)


def test_a_condition_that_is_not_finite_stays_in_its_example():
    layer = flow(cond_dim=2)
    x = data(3, 3)
    cond = data(3, 2)
    expected = layer.forward(x, cond)
    cond[1, 0] = torch.inf
    y, log_det = layer.forward(x, cond)
    assert y[1].isnan().all() and log_det[1].isnan()
    torch.testing.assert_close(y[[0, 2]], expected.value[[0, 2]])


def test_a_field_that_is_too_steep_is_an_error():
    layer = flow()
    layer.network.output.weight.data.mul_(1e300)
    with pytest.raises(WavedistillError, match=r"dopri8 gave up.*rtol"):
        layer.forward(data(2, 3))


def test_without_torchdiffeq_the_error_says_what_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(WavedistillError, match=r'pip install "wavedistill\[ode\]"'):
        ContinuousFlow(2).forward(torch.ones(1, 2))


@pytest.mark.parametrize(
    "options, named",
    [
        ({"trace": "full"}, "trace"),
        ({"noise": "uniform"}, "noise"),
        ({"solver": "heun"}, "dopri5"),
        ({"solver": "rk4"}, "step_size"),
        ({"solver": "dopri5", "step_size": 0.1}, "step_size"),
        ({"solver": "rk4", "step_size": 0.1, "rtol": 1e-3}, "rtol"),
        ({"solver": "rk4", "step_size": 2.0}, "step_size"),
    ],
)
def test_what_it_cannot_be_is_an_error(options, named):
    with pytest.raises(WavedistillError, match=named):
        ContinuousFlow(2, **options)


def test_a_convolution_needs_waveforms():
    with pytest.raises(WavedistillError, match="samples"):
        ContinuousFlow(2, network=NetworkConfig(kernel_size=3)).forward(torch.ones(2, 2))
