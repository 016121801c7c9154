"""Every inverse finds the same x; the iterations stop where they should; check of conditioning tells good from bad."""

import copy
import warnings

import pytest
import torch
from flows.cases.autoregressive import vectors, waveform
from helpers.flow_case import shake

from wavedistill.errors import WavedistillError
from wavedistill.flows import AutoregressiveFlow, Condition, IllConditionedWarning, check_conditioning, invert
from wavedistill.nn.causal_network import CausalNetwork
from wavedistill.nn.wavenet_stack import StackConfig

F64 = torch.float64
STEPS = 24


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def made(kind):
    """(flow, y, cond)"""
    torch.manual_seed(0)
    y = draw(3, STEPS, seed=1)
    cond = Condition(draw(3, 4, 5, seed=2), draw(3, STEPS, seed=3))
    return {
        "maf": lambda: (vectors(STEPS, "reverse", cond_dim=2).double(), y, draw(3, 2, seed=2)),
        "iaf": lambda: (vectors(STEPS, standardize=False).double(), y, None),
        "maf-waveform": lambda: (waveform(source=3).double(), y.unsqueeze(1), cond),
        "iaf-waveform": lambda: (waveform(False, cond=0).double(), y.unsqueeze(1), None),
        "maf-waveform in steps": lambda: (waveform(source=2, step=3).double(), y.unsqueeze(1), cond),
        "iaf-waveform in steps": lambda: (waveform(False, cond=0, step=2).double(), y.unsqueeze(1), None),
    }[kind]()


WAVEFORMS = ("maf-waveform", "iaf-waveform", "maf-waveform in steps", "iaf-waveform in steps")
KINDS = ("maf", "iaf", *WAVEFORMS)
METHODS = {
    "naive": dict(method="naive"),
    "jacobi": dict(method="jacobi", tolerance=1e-14),
    "gauss_seidel": dict(method="gauss_seidel", tolerance=1e-14),
    "gauss_seidel, blocks across the condition's": dict(method="gauss_seidel", tolerance=1e-14, block_size=7),
    "gauss_seidel, one block": dict(method="gauss_seidel", tolerance=1e-14, block_size=100),
    "quasi_newton": dict(method="quasi_newton", tolerance=1e-14),
}


@pytest.mark.parametrize("options", METHODS.values(), ids=list(METHODS))
@pytest.mark.parametrize("kind", KINDS)
def test_methods_agree(kind, options):
    flow, y, cond = made(kind)
    if options["method"] == "quasi_newton" and kind not in WAVEFORMS:
        with pytest.raises(WavedistillError, match="for flows of waveforms; for vectors use"):
            invert(flow, y, cond, **options)
        return
    expected = flow.inverse(y, cond)
    found = invert(flow, y, cond, **options)
    torch.testing.assert_close(found.value, expected.value, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(found.log_det, expected.log_det, atol=1e-11, rtol=1e-11)
    assert float(found.residual.max()) < 1e-12 and not found.value.requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_work_is_counted(kind):
    flow, y, cond = made(kind)
    calls = []
    network = flow.predictor
    handle = network.register_forward_hook(lambda *_: calls.append(1))
    naive = invert(flow, y, cond, "naive")
    handle.remove()
    assert naive.network_evaluations == len(calls) == STEPS + 1 and naive.sweeps.tolist() == [STEPS] * 3
    assert invert(flow, y, cond).network_evaluations == 2
    jacobi = invert(flow, y, cond, "jacobi")
    assert jacobi.network_evaluations == pytest.approx(float(jacobi.sweeps.double().mean()) + 1)
    assert 1 < int(jacobi.sweeps.max()) < STEPS  # fewer dependent steps than stepping through
    blocks = invert(flow, y, cond, "gauss_seidel", block_size=6)
    assert blocks.network_evaluations == pytest.approx(float(blocks.sweeps.double().mean()) / 4 + 3 / 4 + 1)


@pytest.mark.parametrize("kind", KINDS)
def test_first_elements_are_exact_after_as_many_sweeps(kind):
    """Finite termination: n sweeps are enough without any convergence, whatever the draft."""
    flow, y, cond = made(kind)
    found = invert(flow, y, cond, "jacobi", tolerance=-1.0, draft=100 * torch.ones_like(y))
    assert found.sweeps.tolist() == [STEPS] * 3
    torch.testing.assert_close(found.value, flow.inverse(y, cond).value, atol=1e-11, rtol=1e-11)


METHODS_AND_KINDS = [(method, kind) for method in ("jacobi", "gauss_seidel") for kind in KINDS] + [
    ("quasi_newton", kind) for kind in WAVEFORMS
]


@pytest.mark.parametrize("method, kind", METHODS_AND_KINDS)
def test_a_draft_saves_sweeps(kind, method):
    flow, y, cond = made(kind)
    options = dict(method=method, **({"block_size": 12} if method == "gauss_seidel" else {}))
    cold = invert(flow, y, cond, **options)
    warm = invert(flow, y, cond, **options, draft=cold.value + 1e-5 * draw(*y.shape, seed=9))
    done = invert(flow, y, cond, **options, draft=cold.value)
    assert (warm.sweeps < cold.sweeps).all() and (done.sweeps < warm.sweeps).all()
    torch.testing.assert_close(warm.value, cold.value, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method, kind", METHODS_AND_KINDS)
def test_each_example_stops_by_itself(kind, method):
    flow, y, cond = made(kind)
    draft = torch.zeros_like(y)
    draft[1] = flow.inverse(y, cond).value[1].detach()
    together = invert(flow, y, cond, method, draft=draft)
    assert together.sweeps[1] < together.sweeps[0]
    for item in range(3):
        part = type(cond)(*(one[item : item + 1] for one in cond)) if isinstance(cond, Condition) else cond
        part = part[item : item + 1] if isinstance(part, torch.Tensor) else part
        alone = invert(flow, y[item : item + 1], part, method, draft=draft[item : item + 1])
        assert alone.sweeps[0] == together.sweeps[item]
        torch.testing.assert_close(alone.value[0], together.value[item], atol=1e-13, rtol=1e-13)


@pytest.mark.parametrize("method", ["jacobi", "gauss_seidel", "quasi_newton"])
def test_looser_tolerance_saves_sweeps_and_shows_in_the_residual(method):
    flow, y, cond = made("maf-waveform")
    loose, tight = (invert(flow, y, cond, method, tolerance=tolerance) for tolerance in (1e-2, 1e-12))
    assert (loose.sweeps < tight.sweeps).all()
    assert 1e-7 < float(loose.residual.max()) < 0.1 and float(tight.residual.max()) < 1e-11


def test_no_convergence_is_an_error_that_says_what_to_do():
    flow, y, cond = made("maf")
    with pytest.raises(
        WavedistillError, match=r"after 2 sweeps 3 of 3 examples .* Raise max_sweeps \(24 are always enough\)"
    ):
        invert(flow, y, cond, "jacobi", max_sweeps=2)
    with pytest.raises(WavedistillError, match="after 0 sweeps"):
        invert(flow, y, cond, "jacobi", max_sweeps=0)


@pytest.mark.parametrize(
    "method, kind", METHODS_AND_KINDS + [(method, kind) for method in ("incremental", "naive") for kind in KINDS]
)
def test_nan_stays_in_its_example_and_stops(kind, method):
    flow, y, cond = made(kind)
    expected = invert(flow, y, cond, method).value
    broken = y.clone()
    broken[0, ..., 5] = torch.nan
    found = invert(flow, broken, cond, method)
    assert found.value[0].isnan().any() and found.residual[0].isnan() and not found.residual[1:].isnan().any()
    torch.testing.assert_close(found.value[1:], expected[1:])


@pytest.mark.parametrize("method", ["incremental", "naive", "jacobi", "gauss_seidel", "quasi_newton"])
@pytest.mark.parametrize("shape", [(0, 1, 8), (2, 1, 0), (2, 1, 1)])
def test_empty_and_short(method, shape):
    flow = waveform(cond=0).double()
    found = invert(flow, draw(*shape), method=method)
    assert found.value.shape == shape and found.log_det.shape == found.residual.shape == found.sweeps.shape == shape[:1]


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(method="newton"), "one of incremental, naive, jacobi, gauss_seidel, quasi_newton"),
        (dict(method="naive", draft=torch.zeros(3, STEPS)), "draft and max_sweeps are for"),
        (dict(max_sweeps=3), "draft and max_sweeps are for"),
        (dict(method="jacobi", block_size=3), "block_size is for 'gauss_seidel' and 'quasi_newton'"),
        (dict(method="gauss_seidel", block_size=0), "at least 1"),
        (dict(method="jacobi", draft=torch.zeros(3, 2)), "shape of y"),
    ],
)
def test_wrong_options_are_refused(options, message):
    flow, y, cond = made("maf")
    with pytest.raises(WavedistillError, match=message):
        invert(flow, y, cond, **options)


def test_only_autoregressive_flows_and_their_shapes():
    flow, y, cond = made("maf")
    with pytest.raises(WavedistillError, match="run forward"):
        invert(flow.inv, y, cond)
    with pytest.raises(WavedistillError, match="needs values of shape"):
        invert(flow, y[:, 1:], cond, "jacobi")
    with pytest.raises(WavedistillError, match="condition"):
        invert(flow, y, None, "jacobi")


def long_flow(standardize=True, step=1, samples=240):
    """A waveform flow over several windows, whose linear path resonates."""
    torch.manual_seed(1)
    network = CausalNetwork(2, StackConfig(3, 1, 2, 8, 8), 5, 3, 2, step)
    flow = shake(AutoregressiveFlow(network, standardize), 0.1).double()
    with torch.no_grad():
        flow.predictor.taps.weight /= step  # larger matrices of random numbers would grow
        lags = flow.predictor.taps.bias.view(-1, step, step)[:2]
        lags += (torch.tensor([1.2, -0.7]) if standardize else torch.tensor([0.3, 0.1]))[:, None, None] * torch.eye(
            step
        )
    flow.requires_grad_(False)
    return flow, draw(3, 1, samples, seed=1), Condition(draw(3, samples // 6, 5, seed=2), draw(3, samples, seed=3))


@pytest.mark.parametrize("standardize, step", [(True, 1), (False, 1), (True, 3), (False, 2)])
def test_windows_of_any_length_find_the_same(standardize, step):
    flow, y, cond = long_flow(standardize, step)
    expected = flow.inverse(y, cond).value
    for window in (1, 70, 1000):
        found = invert(flow, y, cond, "quasi_newton", tolerance=1e-12, block_size=window)
        torch.testing.assert_close(found.value, expected, atol=1e-9, rtol=1e-9)
        assert int(found.sweeps.max()) < 240 / 2
    torch.testing.assert_close(
        invert(flow, y, cond, "gauss_seidel", tolerance=1e-12).value, expected, atol=1e-9, rtol=1e-9
    )


@pytest.mark.parametrize("step", [1, 3])
def test_the_linear_path_is_solved_inside_a_sweep(step):
    """A flow that is nothing but its linear path takes one step of Newton in each window, however long it rings."""
    flow, y, cond = long_flow(step=step)
    with torch.no_grad():
        flow.predictor.stack.output.weight.zero_()
    found = invert(flow, y, cond, "quasi_newton", tolerance=1e-10, block_size=1000)
    assert found.sweeps.tolist() == [2] * 3  # the second sees that the first was right
    assert int(invert(flow, y, cond, "jacobi", tolerance=1e-10).sweeps.min()) > 10
    torch.testing.assert_close(found.value, flow.inverse(y, cond).value, atol=1e-9, rtol=1e-9)


def test_a_linear_path_longer_than_the_band_or_the_signal():
    torch.manual_seed(1)
    flow = shake(AutoregressiveFlow(CausalNetwork(2, StackConfig(2, 1, 2, 4, 4), 0, 40)), 0.05).double()
    for samples in (1, 30, 130):
        y = draw(2, 1, samples)
        found = invert(flow, y, method="quasi_newton", tolerance=1e-12)
        torch.testing.assert_close(found.value, flow.inverse(y).value.detach(), atol=1e-10, rtol=1e-10)


def test_quasi_newton_counts_evaluated_samples():
    flow, y, cond = long_flow()
    counted = []
    forward_chunk = flow.predictor.forward_chunk
    flow.predictor.forward_chunk = lambda x, *rest: counted.append(x.numel()) or forward_chunk(x, *rest)
    found = invert(flow, y, cond, "quasi_newton")
    assert found.network_evaluations == pytest.approx(sum(counted) / y.numel() + 1)


@pytest.mark.parametrize("draft", [1e30, torch.nan, torch.inf])
def test_a_wild_draft_does_not_poison(draft):
    flow, y, cond = long_flow()
    found = invert(flow, y, cond, "quasi_newton", tolerance=1e-10, draft=torch.full_like(y, draft))
    torch.testing.assert_close(found.value, flow.inverse(y, cond).value, atol=1e-7, rtol=1e-7)


def test_an_iteration_that_settles_nowhere_still_ends_with_the_samples_of_stepping():
    """tolerance -1: nothing is ever accepted but the first sample of each sweep, which is exact."""
    flow, y, cond = long_flow(samples=150)
    found = invert(flow, y, cond, "quasi_newton", tolerance=-1.0)
    assert found.sweeps.tolist() == [150] * 3
    torch.testing.assert_close(found.value, flow.inverse(y, cond).value, atol=1e-10, rtol=1e-10)
    with pytest.raises(
        WavedistillError,
        match=r"after 9 sweeps 3 of 3 examples are not found .* Raise max_sweeps \(150 are always enough\)",
    ):
        invert(flow, y, cond, "quasi_newton", tolerance=-1.0, max_sweeps=9)


def chaotic(steps, dtype=torch.float32):
    """A flow whose samples stay bounded while neighbouring ones part at every step."""
    torch.manual_seed(0)
    flow = shake(AutoregressiveFlow(CausalNetwork(2, StackConfig(2, 1, 2, 8, 8), 0, 0)), 0.7)
    with torch.no_grad():
        flow.predictor.stack.output.weight[1] = 0.0
        flow.predictor.stack.output.bias.zero_()
    return flow.to(dtype), draw(4, 1, steps).to(dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_good_inverse_is_trusted(kind, dtype):
    flow, y, cond = made(kind)
    cond = Condition(*(None if one is None else one.to(dtype) for one in cond)) if isinstance(cond, Condition) else cond
    cond = cond.to(dtype) if isinstance(cond, torch.Tensor) else cond
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = check_conditioning(flow.to(dtype), y.to(dtype), cond)
    assert report.trusted and report.forward_error.shape == report.amplification.shape == (3,)
    assert float(report.forward_error.max()) < 100 * torch.finfo(dtype).eps
    assert 0.1 < float(report.amplification.min()) <= float(report.amplification.max()) < 100


def test_amplification_is_that_of_the_inverse_jacobian():
    """A noise on y grows to at most the largest row sum of |dx/dy|, and does not stay below a hundredth of it."""
    flow, y, _ = made("iaf-waveform")
    y = y[:1]
    report = check_conditioning(flow, y)
    jacobian = torch.autograd.functional.jacobian(lambda v: flow.inverse(v).value, y).reshape(STEPS, STEPS)
    most = float((jacobian.abs() * y.flatten().abs().clamp_min(1.0)).sum(1).max())
    assert most / 100 < float(report.amplification) <= 1.5 * most


def test_an_ill_conditioned_inverse_warns_though_its_round_trip_is_good():
    flow, y = chaotic(120)
    with pytest.warns(IllConditionedWarning, match=r"ill-conditioned for 4 of 4 examples.*Invert in float64"):
        report = check_conditioning(flow, y)
    with torch.no_grad():
        x = flow.inverse(y).value
        exact = copy.deepcopy(flow).double().inverse(y.double()).value
    assert not report.trusted and float((x - exact).abs().max()) > 1.0
    torch.testing.assert_close(
        report.forward_error, ((x - exact).abs() / exact.abs().clamp_min(1.0)).flatten(1).amax(1)
    )
    assert float(report.forward_error.min()) > 0.1 and float(report.amplification.min()) > 1e4
    torch.testing.assert_close(flow.forward(x).value, y, atol=1e-5, rtol=1e-5)
    assert float(report.backward_error.max()) < 1e-5


def test_float64_can_be_ill_conditioned_too():
    flow, y = chaotic(40, F64)
    assert check_conditioning(flow, y).trusted
    flow, y = chaotic(400, F64)
    with pytest.warns(IllConditionedWarning):
        assert float(check_conditioning(flow, y).backward_error.max()) < 1e-13


def test_checking_changes_neither_flow_nor_generator():
    flow, y = chaotic(6)
    state = torch.get_rng_state()
    before = {name: value.clone() for name, value in flow.state_dict().items()}
    check_conditioning(flow, y)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(
        torch.equal(value, before[name]) and value.dtype == torch.float32 for name, value in flow.state_dict().items()
    )
