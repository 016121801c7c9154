"""The numerical contract of the flow toolbox: every layer of ``cases/`` through the same checks."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers.fake_gpu import CUDA, LAZY, FakeGpu
from helpers.flow_case import all_cases, tensors
from torch.func import functional_call, grad, jacrev, vmap

from wavedistill.flows import Compose, Flow, Inverse, Transform

CASES = all_cases()
F64 = torch.float64


def check_of(function):
    return function.__name__.removeprefix("test_")


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        check = check_of(metafunc.function)
        marks = {name: [pytest.mark.slow] if check in case.slow else [] for name, case in CASES.items()}
        metafunc.parametrize("case", [pytest.param(name, marks=marks[name]) for name in CASES], indirect=True)


@pytest.fixture
def case(request):
    case = CASES[request.param]
    check = check_of(request.function)
    for name, reason in case.exempt.items():
        if name == check:
            pytest.skip(reason)
    return case


def error(got, expected):
    return float(((got - expected).abs() / expected.abs().clamp_min(1.0)).max()) if expected.numel() else 0.0


def jacobian(function, x):
    """(D, D) of the event of x (1, *event)."""
    matrix = torch.autograd.functional.jacobian(function, x)
    return matrix.reshape(x.numel(), x.numel())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_round_trip(case, dtype):
    transform = case.build(dtype)
    cond = case.condition(3, dtype)
    tolerance = case.tolerance32 if dtype is torch.float32 else case.tolerance64
    x = case.data(3, dtype)
    y = case.latent(3, dtype)
    with torch.no_grad():
        there, log_det = transform.forward(x, cond)
        back, log_det_back = transform.inverse(there, cond)
        assert error(back, x) < tolerance
        assert error(transform.forward(transform.inverse(y, cond).value, cond).value, y) < tolerance
    assert there.dtype == back.dtype == log_det.dtype == log_det_back.dtype == dtype
    assert log_det.shape == log_det_back.shape == (3,)
    assert error(-log_det_back, log_det) < tolerance * max(1, x[0].numel())


def test_log_det(case):
    transform = case.build(F64)
    cond = case.condition(1, F64)
    for direction, value in ((transform.forward, case.data(1, F64)), (transform.inverse, case.latent(1, F64))):
        if direction == transform.inverse and "inverse" in case.exempt:
            continue
        matrix = jacobian(lambda v, f=direction: f(v, cond).value, value)
        expected = torch.linalg.slogdet(matrix).logabsdet
        assert abs(float(direction(value, cond).log_det[0].detach() - expected)) < case.log_det_tolerance


def test_triangular(case):
    """Zeros, not tolerances."""
    if case.triangular is None:
        pytest.skip("not autoregressive")
    transform = case.build(F64)
    cond = case.condition(1, F64)
    x = case.data(1, F64)
    matrix = jacobian(lambda v: transform.forward(v, cond).value, x)
    if isinstance(case.triangular, list):
        order = torch.argsort(torch.tensor(case.triangular))
        matrix = matrix[order][:, order]
    elif len(case.event) == 2:  # causal over samples, whatever the channels do
        channels, samples = case.event
        blocks = matrix.reshape(channels, samples, channels, samples).permute(0, 2, 1, 3)
        assert torch.equal(blocks.triu(1), torch.zeros_like(blocks))
        return
    assert torch.equal(matrix.triu(1), torch.zeros_like(matrix))
    assert (matrix.diagonal() != 0).all() and (matrix.tril(-1) != 0).any()


def directions(case, transform):
    """(name, module whose call is the direction, prefix of its parameters, input)"""
    yield "forward", transform, "", case.data(2, F64)
    if "inverse" not in case.exempt:
        inverse = transform.inv
        prefix = "transform." if isinstance(inverse, Inverse) else ""
        yield "inverse", inverse, prefix, case.latent(2, F64)


def test_gradients(case):
    """gradcheck of the value and the log-determinant by input and by every parameter, in both directions."""
    transform = case.build(F64)
    cond = case.condition(2, F64)
    names = [name for name, p in transform.named_parameters() if p.requires_grad]
    values = [dict(transform.named_parameters())[name].detach().clone().requires_grad_() for name in names]
    for _, module, prefix, x in directions(case, transform):
        if isinstance(transform, Inverse):
            prefix = "" if module is not transform.transform else None
        keys = [name.removeprefix("transform.") if prefix is None else prefix + name for name in names]

        def run(x, *values, module=module, keys=keys):
            return tuple(functional_call(module, dict(zip(keys, values, strict=True)), (x, cond)))

        assert torch.autograd.gradcheck(run, (x.requires_grad_(), *values), fast_mode=True, atol=1e-5, rtol=1e-3)


def test_every_parameter(case):
    """Each parameter receives a gradient through either direction."""
    transform = case.build(F64)
    cond = case.condition(2, F64)
    if not any(p.requires_grad for p in transform.parameters()):
        pytest.skip("no parameters")
    for name, module, _, x in directions(case, transform):
        transform.zero_grad()
        value, log_det = module(x, cond)
        weights = torch.randn(value.shape, dtype=F64, generator=torch.Generator().manual_seed(3))
        (value * weights).sum().add(log_det.sum()).backward()
        without = [
            n
            for n, p in transform.named_parameters()
            if p.requires_grad and (p.grad is None or not p.grad.abs().sum() > 0)
        ]
        assert not without, name


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.density])
def test_density_integrates_to_one(name, dim):
    torch.manual_seed(0)
    flow = Flow(CASES[name].density(dim).double())
    reach, count = (60.0, 24001) if dim == 1 else (24.0, 801)
    grid = torch.linspace(-reach, reach, count, dtype=F64)
    points = torch.cartesian_prod(*[grid] * dim).reshape(-1, dim)
    with torch.no_grad():
        density = torch.cat([flow.log_prob(part).exp() for part in points.split(100_000)]).reshape([count] * dim)
    for _ in range(dim):
        density = torch.trapezoid(density, grid, dim=-1)
    assert float(density) == pytest.approx(1.0, abs=2e-3)


def test_edges(case):
    """One sample, an odd number of samples, fewer than the receptive field."""
    transform = case.build(F64)
    for event in case.events:
        cond = shortened(case.condition(2, F64), event[-1], case.event[-1])
        x = case.data(2, F64, event)
        with torch.no_grad():
            y, log_det = transform.forward(x, cond)
            back, log_det_back = transform.inverse(y, cond)
        assert error(back, x) < case.tolerance64 and error(-log_det_back, log_det) < 1e-10, event


def shortened(cond, samples, full):
    """The condition for fewer samples: one that has as many frames as samples is cut, others keep one frame."""
    return tensors(cond, lambda c: c if c.dim() < 3 else c[..., :samples] if c.shape[-1] == full else c[..., :1])


def test_empty(case):
    transform = case.build()
    cond = case.condition(2)
    x = case.data(2)
    empty = tensors(cond, lambda c: c[:0])
    y, log_det = transform.forward(x[:0], empty)
    assert y.shape[1:] == transform.forward(x, cond).value.shape[1:] and log_det.shape == (0,)
    assert transform.inverse(y, empty).value.shape == x[:0].shape


def test_expanded(case):
    """Non-contiguous and expanded inputs give what contiguous ones give, and are left as they were."""
    transform = case.build(F64)
    cond = case.condition(2, F64)
    x = case.data(2, F64)
    strided = x.transpose(0, -1).contiguous().transpose(0, -1)
    before = strided.clone()
    expected = transform.forward(x, cond)
    for got, want in zip(transform.forward(strided, cond), expected, strict=True):
        torch.testing.assert_close(got, want, atol=1e-12, rtol=1e-12)
    assert torch.equal(strided, before)
    cond = tensors(cond, lambda c: c[:1].expand(c.shape))
    expanded = transform.forward(x[:1].expand(x.shape), cond)
    torch.testing.assert_close(expanded.value, transform.forward(x[:1].repeat(2, *[1] * len(case.event)), cond).value)
    back = transform.inverse(expanded.value[:1].expand(expanded.value.shape), cond).value
    torch.testing.assert_close(back, x[:1].expand(x.shape), atol=1e-9, rtol=1e-9)


def test_long(case):
    """The log-determinant of 240,000 samples under float16 and bfloat16 autocast is a finite float32."""
    if len(case.event) != 2:
        pytest.skip("for waveforms")
    transform = case.build()
    x = case.data(1, event=(case.event[0], 240_000))
    cond = tensors(
        case.condition(1), lambda c: c if c.dim() < 3 or c.shape[-1] == 1 else c[..., :1].expand(*c.shape[:2], 240_000)
    )
    with torch.no_grad():
        expected = transform.forward(x, cond).log_det
        for dtype in (torch.bfloat16, torch.float16):
            with torch.autocast("cpu", dtype):
                log_det = transform.forward(x, cond).log_det
            assert log_det.dtype == torch.float32 and torch.isfinite(log_det).all()
            assert float((log_det - expected).abs().max()) / 240_000 < 0.01  # a sample; terms may cancel in the sum


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_autocast(case, dtype):
    transform = case.build()
    cond = case.condition(2)
    x = case.data(2)
    value, log_det = transform.forward(x, cond)
    with torch.no_grad(), torch.autocast("cpu", dtype):
        cast, cast_log_det = transform.forward(x, cond)
    assert cast_log_det.dtype == torch.float32 and torch.isfinite(cast_log_det).all()
    assert error(cast.float(), value.detach()) < 0.15 and error(cast_log_det, log_det.detach()) < 0.25


def test_state(case):
    """A differently seeded layer with the state of the first equals it; so does a copy, and a trained flag."""
    transform = case.build()
    cond = case.condition(2)
    x = case.data(2)
    transform.forward(x, cond)
    transform.eval()
    expected = transform.forward(x, cond)
    other = case.build(seed=7)
    other.load_state_dict(copy.deepcopy(transform.state_dict()))
    for twin in (other.eval(), copy.deepcopy(transform)):
        assert all(torch.equal(got, want) for got, want in zip(twin.forward(x, cond), expected, strict=True))


@pytest.mark.slow
def test_compile(case):
    transform = case.build().eval()
    cond = case.condition(2)
    for direction, value in (("forward", case.data(2)), ("inverse", case.latent(2))):
        torch.compiler.reset()
        expected = getattr(transform, direction)(value, cond)
        compiled = torch.compile(getattr(transform, direction), fullgraph=True, backend="aot_eager")(value, cond)
        for got, want in zip(compiled, expected, strict=True):
            torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


def frozen(case):
    """(direction, a function of the value alone, one value) of the layer in float64."""
    transform = case.build(F64).eval().requires_grad_(False)
    cond = case.condition(1, F64)
    for direction, value in (("forward", case.data(1, F64)), ("inverse", case.latent(1, F64))):
        run = getattr(transform, direction)
        yield direction, lambda v, run=run: run(v, cond), value


def test_torch_func(case):
    """The Jacobian by `torch.func` is that by autograd."""
    for direction, function, x in frozen(case):
        with case.refusal("torch_func", direction):
            found = jacrev(lambda v, f=function: f(v).value)(x)
            expected = jacobian(lambda v, f=function: f(v).value, x)
            torch.testing.assert_close(found.reshape(expected.shape), expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(
    "by_torch_func", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["autograd", "torch.func"]
)
def test_second_derivatives(case, by_torch_func):
    """The derivative of the gradient along a direction, against a difference of gradients."""
    for direction, function, x in frozen(case):
        weights, along = (
            torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(4))
            for shape in (function(x).value.shape, x.shape)
        )

        def loss(v, function=function, weights=weights):
            value, log_det = function(v)
            return (value * weights).sum().sin() + log_det.sum().sin()

        def gradient(v, loss=loss):
            v = v.detach().requires_grad_()
            return torch.autograd.grad(loss(v), v)[0]

        step = 1e-5 * along
        expected = (gradient(x + step) - gradient(x - step)) / 2e-5
        if by_torch_func:
            with case.refusal("second_derivatives_by_torch_func", direction):
                found = grad(lambda v, a=along, f=loss: (grad(f)(v) * a).sum())(x)
                assert error(found, expected) < 1e-4, direction
        else:
            with case.refusal("second_derivatives", direction):
                v = x.detach().requires_grad_()
                (first,) = torch.autograd.grad(loss(v), v, create_graph=True)
                assert error(torch.autograd.grad((first * along).sum(), v)[0], expected) < 1e-4, direction


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)], ids=["bfloat16", "float16"]
)
def test_half_precision(case, dtype):
    """A layer in half precision is that of its rounded weights in float32, its value rounded once; a chain rounds after
    each of its layers.
    """
    transform = case.build().to(dtype).eval()
    exact = copy.deepcopy(transform).float()
    cond = case.condition(2, dtype)
    wide = case.condition(2, dtype)
    wide = tensors(wide, lambda c: c.float() if c.is_floating_point() else c)
    eps = torch.finfo(dtype).eps
    chain = sum(isinstance(part, Transform) and not isinstance(part, Inverse) for part in transform.modules()) > 1
    near = {"atol": 16 * eps, "rtol": 16 * eps} if chain else {"atol": 1e-5, "rtol": eps}
    for direction, x in (("forward", case.data(2)), ("inverse", case.latent(2))):
        x = x.to(dtype).requires_grad_()
        value, log_det = getattr(transform, direction)(x, cond)
        expected, expected_log_det = getattr(exact, direction)(x.detach().float(), wide)
        assert value.dtype == dtype and log_det.dtype == torch.float32
        torch.testing.assert_close(value, expected.to(dtype), **near)
        torch.testing.assert_close(log_det, expected_log_det, **(near if chain else {"atol": 1e-5, "rtol": 1e-5}))
        (value.float().sum() + log_det.sum()).backward()
        assert x.grad.isfinite().all() and x.grad.abs().sum() > 0


def test_types_do_not_mix(case):
    """Values or a condition of another type than the weights: one line that names both, or nothing lost."""
    transform = case.build().eval()
    has_weights = any(p.is_floating_point() for p in transform.parameters())
    for direction, x in (("forward", case.data(2)), ("inverse", case.latent(2))):
        run = getattr(transform, direction)
        for dtype in (torch.float64, torch.bfloat16, torch.float16):
            cond = tensors(case.condition(2), lambda c, t=dtype: c.to(t) if c.is_floating_point() else c)
            if has_weights:
                with pytest.raises(ValueError, match=f"torch.float32.*{dtype}"):
                    run(x.to(dtype), cond)
            else:
                assert run(x.to(dtype), cond).value.dtype == dtype
            if cond is not None:
                with pytest.raises(ValueError, match=f"condition.*torch.float32.*{dtype}"):
                    run(x, cond)
        if isinstance(cond, torch.Tensor):
            with pytest.raises(ValueError, match="condition.*torch.float32.*torch.int64"):
                run(x, cond.long())


@pytest.mark.parametrize("device", [LAZY, pytest.param(CUDA, marks=pytest.mark.slow)], ids=["lazy", "cuda"])
def test_gpu(case, device):
    """No operation of either direction meets a tensor that stayed on the CPU; nor of its gradient, where torch can."""
    if device == CUDA and "cuda" in case.exempt:
        pytest.skip(case.exempt["cuda"])
    gpu = FakeGpu(device)
    values = (("forward", case.data(2)), ("inverse", case.latent(2)))
    transform = gpu.adopt(case.build().eval())
    cond = gpu.move(case.condition(2))
    for direction, x in values:
        if f"{direction} gpu" in case.exempt:
            continue
        x = gpu.move(x).requires_grad_()
        with gpu.running():
            value, log_det = getattr(transform, direction)(x, cond)
            assert gpu.holds((value, log_det))
            if device == LAZY:
                (value.sum() + log_det.sum()).backward()
                assert gpu.holds([x.grad, *(p.grad for p in transform.parameters() if p.grad is not None)])


def test_vmap(case):
    transform = case.build(F64).eval()
    cond = case.condition(3, F64)
    x = case.data(3, F64)

    def one(x, *cond_parts):
        parts = iter(cond_parts)
        cond_one = tensors(cond, lambda _: next(parts).unsqueeze(0))
        value, log_det = transform.forward(x.unsqueeze(0), cond_one)
        return value[0], log_det[0]

    parts = []
    tensors(cond, lambda c: parts.append(c) or c)
    with case.refusal("vmap", "forward"):
        mapped = vmap(one)(x, *parts)
        for got, want in zip(mapped, transform.forward(x, cond), strict=True):
            torch.testing.assert_close(got, want, atol=1e-10, rtol=1e-10)


def test_nan(case):
    """A NaN in one example stays there, and shows."""
    transform = case.build(F64).eval()
    cond = case.condition(2, F64)
    for direction, value in ((transform.forward, case.data(2, F64)), (transform.inverse, case.latent(2, F64))):
        with torch.no_grad():
            expected = direction(value, cond)
            value = value.clone()
            value[0] = torch.nan
            broken = direction(value, cond)
        assert broken.value[0].isnan().any()
        torch.testing.assert_close(broken.value[1], expected.value[1])
        torch.testing.assert_close(broken.log_det[1], expected.log_det[1])


def test_inv_is_an_involution(case):
    transform = case.build(F64).eval()
    cond = case.condition(2, F64)
    x = case.data(2, F64)
    assert isinstance(transform, Inverse) or transform.inv.inv is transform
    with torch.no_grad():
        torch.testing.assert_close(transform.inv.inverse(x, cond).value, transform.forward(x, cond).value)
        twice = Compose(transform, transform.inv).forward(x, cond)
    assert error(twice.value, x) < 1e-8 and float(twice.log_det.abs().max()) < 1e-8


def test_what_it_cannot_take_is_a_value_error(case):
    transform = case.build().eval()
    cond = case.condition(2)
    x = case.data(2)
    with pytest.raises(ValueError, match=r"\(2,\)|shape"):
        transform.forward(x.reshape(2, -1)[:, 0], cond)
    with pytest.raises(ValueError, match="floating"):
        transform.forward(x.long(), cond)
    for given in (x.numpy(), x.tolist(), 1.0):
        with pytest.raises(ValueError, match=f"torch.Tensor, got {type(given).__name__}"):
            transform.forward(given, cond)
    if isinstance(cond, torch.Tensor):
        with pytest.raises(ValueError, match="condition"):
            transform.forward(x)
        with pytest.raises(ValueError, match="condition"):
            transform.forward(x, torch.cat([cond, cond], dim=1))
        changed = transform.forward(x, cond + 1.0)
        assert not torch.allclose(changed.value, transform.forward(x, cond).value)
        same = cond[:1].expand(cond.shape)
        one = cond[0] if cond.dim() == 2 else cond[:1]
        torch.testing.assert_close(transform.forward(x, one).value, transform.forward(x, same).value)


def test_per_step_adds_up(case):
    transform = case.build(F64).eval()
    cond = case.condition(2, F64)
    x = case.data(2, F64)
    total = transform.forward(x, cond).log_det
    try:
        steps = transform.forward(x, cond, per_step=True).log_det
    except ValueError as refused:
        assert "step by step" in str(refused)
        return
    assert steps.shape == (2, x.shape[-1])
    torch.testing.assert_close(steps.sum(1), total)
