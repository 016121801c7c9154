"""Planar and radial flows: other libraries' layers, extreme weights, conditions by frames, and the root finder behind
them.
"""

from __future__ import annotations

import copy

import pytest
import torch

from wavedistill.flows import Planar, Radial
from wavedistill.numerics import attach_gradient, increasing_root, positive, raw_of_log

F64 = torch.float64


def with_weights(layer, **weights):
    with torch.no_grad():
        for name, value in weights.items():
            getattr(layer, name).copy_(value)
    return layer


def log_det_of(function, x):
    """log |det| of a map of single values, from its autograd Jacobian."""
    rows = [
        torch.linalg.slogdet(torch.autograd.functional.jacobian(lambda v: function(v[None])[0], value)).logabsdet
        for value in x
    ]
    return torch.stack(rows)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_planar_is_the_map_of_normflows(sign):
    """The same constrained direction, reached by another parametrisation. normflows' own log-determinant takes the
    unconstrained u (version 1.7), so ours is held against the Jacobian of its map.
    """
    normflows = pytest.importorskip("normflows")
    torch.manual_seed(0)
    theirs = normflows.flows.Planar((3,)).double()
    u = theirs.u.detach()[0]
    w = theirs.w.detach()[0]
    b = theirs.b.detach()
    with torch.no_grad():
        theirs.u.mul_(sign)
        u = theirs.u[0]
        along = w @ u
        constrained = torch.log1p(along.exp()) - 1.0  # their w.u'
        u = u + (constrained - along) * w / w.square().sum()
        ours_along = (
            constrained if constrained >= 0 else constrained / (1.0 + constrained)
        )  # m(s) = s / (1 - s) solved for s
        ours_u = u + (ours_along - constrained) * w / w.square().sum()
    ours = with_weights(Planar(3).double(), u=ours_u, w=w, b=b)
    x = torch.randn(5, 3, dtype=F64)
    y, log_det = ours.forward(x)
    torch.testing.assert_close(y, theirs(x)[0], atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(log_det, log_det_of(lambda v: theirs(v)[0], x), atol=1e-10, rtol=1e-10)


def test_radial_is_the_map_of_normflows():
    normflows = pytest.importorskip("normflows")
    torch.manual_seed(0)
    theirs = normflows.flows.Radial((3,)).double()
    alpha = theirs.alpha.detach().abs()
    gamma = torch.nn.functional.softplus(theirs.beta.detach())
    ours = with_weights(
        Radial(3).double(),
        center=theirs.z_0.detach()[0],
        raw_alpha=raw_of_log(alpha.log()),
        raw_gamma=raw_of_log(gamma.log()),
    )
    x = 2.0 * torch.randn(6, 3, dtype=F64)
    for got, expected in zip(ours.forward(x), theirs(x), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("size_u", [1e4, 1.0, 1e-6])
@pytest.mark.parametrize("size_w", [1e4, 1.0, 1e-6])
@pytest.mark.parametrize("side", ["along", "against", "across"])
def test_planar_at_extreme_weights(size_u, size_w, side):
    direction = torch.tensor([0.6, 0.0, -0.8], dtype=F64)
    u = {"along": direction, "against": -direction, "across": torch.tensor([0.8, 1.0, 0.6], dtype=F64)}[side]
    layer = with_weights(Planar(3).double(), u=size_u * u, w=size_w * direction, b=torch.tensor(0.3))
    x = (
        torch.randn(50, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
        * torch.logspace(-6, 1, 50, dtype=F64)[:, None]
    )
    with torch.no_grad():
        y, log_det = layer.forward(x)
        back, log_det_back = layer.inverse(y)
        assert torch.isfinite(log_det).all()
        # what was lost when y was rounded cannot come back: the smallest singular value of the map says how much that
        # is
        lost = torch.finfo(F64).eps * max(1.0, size_u * size_w) * max(1.0, size_u)
        assert float((back - x).abs().max()) < 1e-12 + 20 * lost
        if size_u * size_w <= 1.0:
            assert float((log_det + log_det_back).abs().max()) < 1e-10
    torch.testing.assert_close(log_det[-3:], log_det_of(lambda v: layer.forward(v).value, x[-3:]), atol=1e-7, rtol=1e-9)
    single = layer.float()
    single.zero_grad()
    for value, log_det in (single.forward(x.float()), single.inverse(y.float())):
        assert torch.isfinite(value).all() and torch.isfinite(log_det).all()
        value.sum().add(log_det.sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in single.parameters())


def test_planar_stays_invertible_for_any_weights():
    torch.manual_seed(0)
    x = torch.randn(1, 4, dtype=F64)
    for scale in (0.1, 1.0, 10.0, 100.0):
        for _ in range(20):
            layer = with_weights(Planar(4).double(), u=scale * torch.randn(4), w=scale * torch.randn(4))
            u, w, _, slope_at_zero = layer._constrained(x, None)
            assert bool(slope_at_zero > 0)
            torch.testing.assert_close(1.0 + (w * u).sum(), slope_at_zero[0, 0], atol=1e-10 * scale**2, rtol=1e-10)


@pytest.mark.parametrize("gain", [1e3, 1e4, 1e6])
@pytest.mark.parametrize("kind", ["along w", "across w, too"])
def test_planar_inverts_large_gains_up_to_rounding(gain, kind):
    """Backward error of float32 at w.u = gain, the map taken in float64: the x found, moved along w by a millionth of
    its size at most, is mapped within a millionth of y. Its part along w, which the map magnifies, is right itself; of
    the part across w, y = x + u tanh(a) keeps no more digits than fit beside u.
    """
    torch.manual_seed(0)
    planar = Planar(4)
    direction = planar.w.detach() if kind == "along w" else torch.randn(4)
    planar = with_weights(planar, u=gain * direction / (planar.w.detach() @ direction), b=torch.tensor(0.3))
    exact = copy.deepcopy(planar).double()
    w = exact.w.detach()
    start = torch.randn(500, 4)
    with torch.no_grad():
        y = exact.forward(start.double()).value.float()
        x = planar.inverse(y).value.double()
        missing = (exact.inverse(y.double()).value - x) @ w
        moved = x + torch.outer(missing / w.square().sum(), w)
        left = exact.forward(moved).value - y
    assert float(((moved - x).norm(dim=1) / x.norm(dim=1)).max()) < 1e-6
    assert float((left.norm(dim=1) / y.double().norm(dim=1)).max()) < 1e-6
    assert float((((x - start) @ w).abs() / (w.norm() * start.norm(dim=1))).max()) < 1e-5


def test_planar_without_a_direction_is_a_shift():
    layer = with_weights(Planar(2), w=torch.zeros(2), b=torch.ones(1))
    y, log_det = layer.forward(torch.zeros(1, 2))
    torch.testing.assert_close(y[0], layer.u * torch.tanh(torch.ones(1)))
    assert float(log_det.detach()) == 0.0
    y.sum().backward()
    assert torch.isfinite(layer.w.grad).all()


@pytest.mark.parametrize("raw_alpha", [1e4, 0.0, -1e4])
@pytest.mark.parametrize("raw_gamma", [1e4, 0.0, -1e4])
def test_radial_at_extreme_weights(raw_alpha, raw_gamma):
    """Around the origin, where no digits go into the distance to the center."""
    torch.manual_seed(0)
    raw = {"raw_alpha": torch.tensor(raw_alpha), "raw_gamma": torch.tensor(raw_gamma)}
    layer = with_weights(Radial(3).double(), center=torch.zeros(3), **raw)
    x = torch.randn(40, 3, dtype=F64) * torch.logspace(-6, 4, 40, dtype=F64)[:, None]
    with torch.no_grad():
        y, log_det = layer.forward(x)
        back, log_det_back = layer.inverse(y)
    assert float(((back - x).norm(dim=1) / x.norm(dim=1)).max()) < 1e-11
    torch.testing.assert_close(log_det_back, -log_det, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(log_det[-3:], log_det_of(lambda v: layer.forward(v).value, x[-3:]), atol=1e-8, rtol=1e-8)
    assert all(torch.isfinite(value).all() for value in layer.float().forward(x.float()))


def test_radial_at_its_center():
    layer = with_weights(Radial(3), raw_gamma=torch.tensor([1.5]))
    y, log_det = layer.forward(layer.center.detach()[None])
    torch.testing.assert_close(y[0], layer.center)
    torch.testing.assert_close(log_det[0], 3.0 * positive(layer.raw_gamma).log()[0])
    log_det.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())


@pytest.mark.parametrize("kind", [Planar, Radial])
def test_frames_of_a_condition_are_stretched(kind):
    torch.manual_seed(0)
    layer = kind(2, cond_dim=3)
    with torch.no_grad():
        layer.from_cond.normal_()
    x = torch.randn(2, 2, 12)
    cond = torch.randn(2, 3, 4)
    y, terms = layer.forward(x, cond, per_step=True)
    for frame in range(4):
        part = slice(3 * frame, 3 * frame + 3)
        alone = layer.forward(x[..., part], cond[..., frame], per_step=True)
        torch.testing.assert_close(y[..., part], alone.value)
        torch.testing.assert_close(terms[:, part], alone.log_det)
    torch.testing.assert_close(layer.inverse(y, cond).value, x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "function, root",
    [
        (lambda x: (x**3 - 8.0, 3.0 * x.square()), 2.0),
        (lambda x: (torch.exp(5.0 * x) - 1.0, 5.0 * torch.exp(5.0 * x)), 0.0),
        (lambda x: (torch.atan(100.0 * (x - 3.0)), 100.0 / (1.0 + (100.0 * (x - 3.0)).square())), 3.0),
        (lambda x: ((x + 4.0).sign() * (x + 4.0).abs().sqrt(), 0.5 / (x + 4.0).abs().sqrt()), -4.0),
    ],
    ids=["cubic", "exponential", "arctangent", "root"],
)
def test_increasing_root(function, root):
    """Functions for which Newton's method alone diverges or crawls from the middle of the bracket."""
    ends = torch.full((2,), 10.0, dtype=F64)
    found = increasing_root(function, -ends, ends + torch.tensor([0.0, 3.0]), iterations=60)
    torch.testing.assert_close(found, torch.full_like(found, root), atol=1e-12, rtol=0.0)


def test_gradient_of_a_root():
    c = torch.tensor([2.0, 5.0], dtype=F64, requires_grad=True)  # x^2 = c
    x = c.detach().sqrt()
    x = attach_gradient(x, lambda x: x.square() - c, 2.0 * x)
    (first,) = torch.autograd.grad(x.sum(), c, create_graph=True)
    torch.testing.assert_close(first, 0.5 / c.sqrt())
    (second,) = torch.autograd.grad(first.sum(), c)
    torch.testing.assert_close(second, -0.25 / c.detach().pow(1.5))
