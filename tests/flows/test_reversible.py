"""`ReversibleSequence` against `Compose`: the same numbers and gradients, in memory that does not grow with depth."""

import copy
import weakref
from typing import NamedTuple

import pytest
import torch
from helpers.flow_case import shake
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call, grad, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from wavedistill.errors import WavedistillError
from wavedistill.flows import (
    AffineCoupling,
    Compose,
    InvertibleBatchNorm,
    InvertibleConv1x1,
    NetworkConfig,
    Rescale,
    ReversibleSequence,
    SplineCoupling,
    Squeeze,
)
from wavedistill.flows.transform import Transform

F64 = torch.float64


def layers(depth=4, dim=2, cond_dim=2, kernel_size=1, **options):
    torch.manual_seed(0)
    options |= {"network": NetworkConfig(8, kernel_size=kernel_size), "cond_dim": cond_dim}
    made = [AffineCoupling(dim, swap=bool(i % 2), **options) for i in range(depth)]
    return [shake(layer, 0.15) for layer in made]


def data(*shape, dtype=F64, seed=1):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def gradients(transform, x, cond=None, inverse=False, per_step=False, parameters=None):
    """Value, log-determinant and the gradients of a scalar of both by x, the condition and every parameter."""
    x = x.clone().requires_grad_()
    cond = cond.clone().requires_grad_() if isinstance(cond, torch.Tensor) else cond
    value, log_det = (transform.inverse if inverse else transform.forward)(x, cond, per_step)
    weights = data(*value.shape, seed=7).to(value.dtype)
    loss = (weights * value).sum() + (log_det * log_det).sum()
    by = [
        x,
        *([cond] if isinstance(cond, torch.Tensor) else []),
        *(p for p in transform.parameters() if p.requires_grad),
    ]
    return [value.detach(), log_det.detach(), *torch.autograd.grad(loss, by)]


def same(got, want, tolerance=1e-10):
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        assert one.dtype == other.dtype
        scale = max(1.0, float(other.detach().abs().max()))
        torch.testing.assert_close(one, other, atol=tolerance * scale, rtol=0)


def both(*transforms):
    return ReversibleSequence(*transforms), Compose(*transforms)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("shape", [(3, 2), (3, 2, 6)])
def test_gradients_are_those_of_backpropagation(shape, dtype, inverse):
    reversible, plain = both(*(layer.to(dtype) for layer in layers(6)))
    x = data(*shape, dtype=dtype)
    cond = data(3, 2, *(3,) * (len(shape) - 2), dtype=dtype, seed=2)
    got, want = (gradients(transform, x, cond, inverse) for transform in (reversible, plain))
    same(got, want, 1e-10 if dtype is F64 else 1e-3)
    assert all(float(one.abs().sum()) > 0 for one in want)


def test_gradients_step_by_step():
    reversible, plain = both(*(layer.double() for layer in layers(mask="time", dim=1)))
    x = data(2, 1, 6)
    cond = data(2, 2, 3, seed=2)
    same(*(gradients(transform, x, cond, per_step=True) for transform in (reversible, plain)))


@pytest.mark.parametrize("inverse", [False, True])
def test_layers_that_are_no_couplings(inverse):
    """A change of shape, a matrix, a spline, a layer read backwards, a layer used twice, a stack in the stack, a frozen
    layer.
    """
    couplings = layers(4, dim=4, cond_dim=0)
    mixed = [
        Squeeze(2),
        couplings[0],
        shake(InvertibleConv1x1(4)),
        shake(SplineCoupling(4, network=NetworkConfig(8), bins=3)),
        couplings[1].inv,
        couplings[0],
        ReversibleSequence(couplings[2], shake(Rescale(4))),
        couplings[3].requires_grad_(False),
    ]
    reversible, plain = (transform.double() for transform in both(*mixed))
    x = data(2, 4, 3) if inverse else data(2, 2, 6)
    same(*(gradients(transform, x, inverse=inverse) for transform in (reversible, plain)))


class Cond(NamedTuple):
    features: torch.Tensor
    name: str
    absent: None = None


class Shift(Transform):
    """A layer whose condition is no tensor."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.5))

    def _forward(self, x, cond):
        assert cond.name == "speaker" and cond.absent is None
        return x * self.weight.exp() + cond.features, self.weight.expand_as(x)

    def _inverse(self, y, cond):
        return (y - cond.features) * (-self.weight).exp(), -self.weight.expand_as(y)


def test_a_condition_of_several_parts():
    reversible, plain = (transform.double() for transform in both(Shift(), Shift()))
    found = []
    for transform in (reversible, plain):
        features = data(2, 3).requires_grad_()
        found.append(gradients(transform, data(2, 3, seed=3), Cond(features, "speaker")))
        value = transform.forward(data(2, 3, seed=3), Cond(features, "speaker")).value
        found[-1].extend(torch.autograd.grad(value.square().sum(), [features]))
    same(*found)


@pytest.mark.parametrize("needs", ["value", "condition", "parameter", "nothing", "no_grad"])
def test_whatever_needs_a_gradient(needs):
    found = []
    for transform in both(*(layer.double().requires_grad_(False) for layer in layers())):
        x = data(3, 2)
        cond = data(3, 2, seed=2)
        weight = transform[1].network.output.weight
        wanted = {"value": x, "condition": cond, "parameter": weight, "no_grad": x}.get(needs)
        if wanted is not None:
            wanted.requires_grad_()
        with torch.set_grad_enabled(needs != "no_grad"):
            value, log_det = transform.forward(x, cond)
        assert value.requires_grad == log_det.requires_grad == (needs not in ("nothing", "no_grad"))
        found.append([value.detach(), log_det.detach()])
        if value.requires_grad:
            found[-1].extend(torch.autograd.grad(value.square().sum(), [wanted]))
            assert weight.requires_grad == (needs == "parameter")
        weight.requires_grad_(False)
    same(*found)


@pytest.mark.parametrize("of", ["value", "log_det"])
def test_a_loss_of_one_output(of):
    found = []
    for transform in both(*(layer.double() for layer in layers(cond_dim=0))):
        transform.zero_grad()
        getattr(transform.forward(data(3, 2)), of).square().sum().backward()
        found.append([p.grad for p in transform.parameters()])
    same(*found)


def test_double_use_adds_up():
    """The same stack twice in one graph, forward and inverse."""
    found = []
    for transform in both(*(layer.double() for layer in layers())):
        transform.zero_grad()
        cond = data(3, 2, seed=2).requires_grad_()
        z = transform.forward(data(3, 2), cond).value
        x = transform.inverse(z * z, cond).value
        (transform.forward(x.sin(), cond).log_det.sum() + x.square().sum()).backward()
        found.append([cond.grad, *(p.grad for p in transform.parameters())])
    same(*found)


def test_parameters_put_in_place_get_the_gradient():
    """functional_call: the backward pass runs after the module has its own parameters again."""
    reversible, plain = both(*(layer.double() for layer in layers(cond_dim=0)))
    found = []
    for transform in (reversible, plain):
        own = dict(transform.named_parameters())
        leaf = {name: torch.full_like(value, 0.1).requires_grad_() for name, value in own.items()}
        value, log_det = functional_call(transform, {name: 2.0 * one for name, one in leaf.items()}, (data(3, 2),))
        found.append(list(torch.autograd.grad(value.square().sum() + log_det.sum(), list(leaf.values()))))
        assert all(one.grad is None for one in own.values())
    same(*found)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("backward_inside", [False, True])
def test_autocast_is_repeated(inverse, backward_inside):
    """And leaves no copies of the weights without gradient to layers that run after it, inside the same autocast."""
    found = []
    for transform in both(*layers(cond_dim=0)):
        transform.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            value, log_det = (transform.inverse if inverse else transform.forward)(data(64, 2, dtype=torch.float32))
            loss = value.square().sum() + log_det.sum()
            if backward_inside:
                loss.backward()
                Compose(*transform.transforms).forward(value.detach()).log_det.sum().backward()
        if not backward_inside:
            loss.backward()
        assert log_det.dtype == torch.float32
        found.append([value.detach(), *(p.grad for p in transform.parameters())])
    same(*found, tolerance=1e-4)
    in_full = (transform.inverse if inverse else transform.forward)(data(64, 2, dtype=torch.float32)).value
    assert not torch.equal(in_full, found[0][0])  # so bfloat16 did take part


def test_state_dict_and_copies_are_those_of_compose():
    reversible = ReversibleSequence(*layers())
    plain = Compose(*layers())
    shake(plain)
    reversible.load_state_dict(plain.state_dict())
    x = data(3, 2, dtype=torch.float32)
    cond = data(3, 2, dtype=torch.float32, seed=2)
    for twin in (reversible, copy.deepcopy(reversible)):
        same(gradients(twin, x, cond), gradients(plain, x, cond), 1e-3)
    assert len(reversible) == 4 and reversible[1] is reversible.transforms[1]
    same(ReversibleSequence().forward(x), Compose().forward(x))


def test_torch_func_takes_the_plain_path():
    reversible, plain = both(*(layer.double() for layer in layers(cond_dim=0)))
    found = [
        vmap(grad(lambda x, t=t: t.forward(x.unsqueeze(0)).log_det.sum()))(data(3, 2)) for t in (reversible, plain)
    ]
    same(found[:1], found[1:])


def test_what_it_refuses():
    reversible = ReversibleSequence(*(layer.double() for layer in layers(cond_dim=0)))
    x = data(3, 2).requires_grad_()
    with pytest.raises(WavedistillError, match="first derivatives only"):
        torch.autograd.grad(reversible.forward(x).log_det.sum(), x, create_graph=True)
    log_det = reversible.forward(x).log_det.sum()
    with torch.no_grad():
        next(reversible.parameters()).add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        log_det.backward()


# --- memory -----------------------------------------------------------------------------------------------------------


def saved_bytes(transform, x, cond):
    """Bytes that autograd keeps for the backward pass, parameters and what the caller holds left out."""
    held = {p.untyped_storage().data_ptr() for p in (*transform.parameters(), x, cond)}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # the tensor keeps its address from being used again
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        output = transform.forward(x, cond)
    assert output.log_det.requires_grad
    return sum(size for address, (size, _) in kept.items() if address not in held)


class PeakMemory(TorchDispatchMode):
    """Highest number of bytes alive at once in storages that operations made: counted, not estimated from the graph."""

    def __init__(self):
        super().__init__()
        self.alive = 0
        self.peak = 0
        self.known = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(output):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage() not in self.known:
                storage = tensor.untyped_storage()
                self.known[storage] = None
                self.alive += storage.nbytes()
                self.peak = max(self.peak, self.alive)
                weakref.finalize(storage, self.free, storage.nbytes())
        return output

    def free(self, size):
        self.alive -= size


def peak_bytes(transform, x, cond):
    """Of a forward and a backward pass; the parameters' gradients, which grow with depth for any method, are not asked
    for.
    """
    with PeakMemory() as memory:
        value, log_det = transform.forward(x, cond)
        torch.autograd.grad(value.square().sum() - log_det.sum(), [x, cond])
    return memory.peak


@pytest.mark.parametrize("measure", [saved_bytes, peak_bytes])
def test_memory_does_not_grow_with_depth(measure):
    x = data(2, 2, 4000, dtype=torch.float32).requires_grad_()
    cond = data(2, 2, 40, dtype=torch.float32).requires_grad_()
    measured = {
        (kind, depth): measure(kind(*layers(depth)), x, cond)
        for kind in (Compose, ReversibleSequence)
        for depth in (4, 32)
    }
    assert measured[ReversibleSequence, 32] < 1.02 * measured[ReversibleSequence, 4]
    assert measured[Compose, 32] > 7 * measured[Compose, 4]
    assert measured[ReversibleSequence, 32] < 0.1 * measured[Compose, 32]


class OfVectors(nn.Module):
    """A plain network where a coupling wants one that takes a condition."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, seen, cond):
        return self.inner(seen)


@pytest.mark.parametrize(
    "inside", [nn.Dropout(0.1), nn.BatchNorm1d(8), InvertibleBatchNorm(2)], ids=lambda module: type(module).__name__
)
def test_layers_that_would_not_do_the_same_again_are_refused_by_name(inside):
    if isinstance(inside, InvertibleBatchNorm):
        layers, name = [AffineCoupling(2), inside], r"transforms\.1"
    else:
        network = nn.Sequential(nn.Linear(1, 8), inside, nn.Linear(8, 2))
        layers, name = [AffineCoupling(2, network=OfVectors(network))], r"transforms\.0\.network\.inner\.1"
    flow = ReversibleSequence(*layers)
    x = torch.randn(6, 2, requires_grad=True)
    for pass_through in (flow.forward, flow.inverse):
        with pytest.raises(WavedistillError, match=rf"{name} \({type(inside).__name__}\)"):
            pass_through(x)
    expected = Compose(*layers).eval().forward(x).value
    torch.testing.assert_close(flow.eval().forward(x).value, expected)  # fixed functions all of them
    flow.train()
    with torch.no_grad():
        assert flow.forward(x).value.shape == x.shape  # nothing is run again
