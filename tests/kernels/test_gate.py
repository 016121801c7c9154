"""The compiled gate agrees with torch's in float32, within the rounding of bfloat16."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from wavedistill.kernels.gate import MAX_THREADS, bfloat16_gate
from wavedistill.nn.wavenet_stack import StackConfig, WaveNetStack, gated_unit

ROUNDING = {"rtol": 2.0**-8, "atol": 1e-6}  # half a step of bfloat16, and the error of the rational tanh


@pytest.fixture(autouse=True)
def few_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_gates(*shape: int, scale: float = 3.0) -> Tensor:
    return (scale * torch.randn(*shape, generator=torch.Generator().manual_seed(0))).bfloat16()


def exact(gates: Tensor) -> Tensor:
    filters, openings = gates.double().chunk(2, dim=-1)
    return torch.tanh(filters) * torch.sigmoid(openings)


def every_number() -> Tensor:
    """All 65,536 bit patterns of bfloat16, in a column."""
    return torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.bfloat16)[:, None]


class Operations(TorchDispatchMode):
    """Lists what torch runs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen.append(function)
        return function(*args, **(kwargs or {}))


def uses_kernel(gates: Tensor) -> bool:
    with Operations() as operations:
        gated_unit(gates)
    return torch.ops.wavedistill.bfloat16_gate.default in operations.seen


@pytest.mark.parametrize("shape", [(2, 9, 2), (1, 33, 26), (3, 5, 128), (2, 2, 3, 14), (7, 6)])
@pytest.mark.parametrize("scale", [0.05, 3.0, 40.0])
def test_gate_and_gradient_agree_with_torch(shape, scale):
    gates = random_gates(*shape, scale=scale).requires_grad_()
    reference = gates.detach().double().requires_grad_()
    gated = bfloat16_gate(gates)
    expected = exact(reference)
    assert gated.dtype is torch.bfloat16
    torch.testing.assert_close(gated.double(), expected, **ROUNDING)
    weights = random_gates(*expected.shape, scale=1.0).clamp(-1.0, 1.0)
    gated.backward(weights)
    expected.backward(weights.double())
    torch.testing.assert_close(gates.grad.double(), reference.grad, **ROUNDING)


@pytest.mark.parametrize("half", [0, 1])
def test_every_number_in_either_half(half):
    """NaN stays NaN, whatever its payload, and infinities give their limits."""
    gates = torch.full((2**16, 2), 0.7, dtype=torch.bfloat16)
    gates[:, half] = every_number()[:, 0]
    gates.requires_grad_()
    reference = gates.detach().double().requires_grad_()
    gated = bfloat16_gate(gates)
    expected = exact(reference)
    assert expected.isnan().sum() > 200 and expected.isfinite().all(-1).sum() > 65_000
    torch.testing.assert_close(gated.double(), expected, equal_nan=True, **ROUNDING)
    gated.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(gates.grad.double(), reference.grad, equal_nan=True, **ROUNDING)


def test_every_gradient():
    gates = torch.tensor([[0.3, -0.4]], dtype=torch.bfloat16).expand(2**16, 2).contiguous().requires_grad_()
    reference = gates.detach().double().requires_grad_()
    gradient = every_number()
    bfloat16_gate(gates).backward(gradient)
    exact(reference).backward(gradient.double())
    torch.testing.assert_close(gates.grad.double(), reference.grad, equal_nan=True, rtol=2.0**-8, atol=1e-37)


def test_an_infinite_gate_has_its_limit():
    infinity = torch.inf
    gates = torch.tensor(
        [[infinity, infinity], [-infinity, infinity], [1.0, -infinity], [infinity, 0.0]], dtype=torch.bfloat16
    )
    torch.testing.assert_close(
        bfloat16_gate(gates).float(), torch.tensor([[1.0], [-1.0], [0.0], [0.5]]), rtol=0, atol=1e-6
    )


def test_rounding_is_to_the_nearest():
    gates = random_gates(1, 4000, 2, scale=1.0)
    nearest = exact(gates).bfloat16()
    assert (bfloat16_gate(gates) == nearest).double().mean() > 0.995  # the others lie next to the middle of a step


def test_strided_gates_and_gradients():
    whole = random_gates(2, 12, 10)
    for gates in (whole.transpose(1, 2), whole[:, ::2], whole[:, :, 3:9], whole[:1].expand(4, 12, 10)):
        gated = bfloat16_gate(gates)
        assert gated.is_contiguous()
        torch.testing.assert_close(gated, bfloat16_gate(gates.contiguous()), rtol=0, atol=0)
    gates = whole.clone().requires_grad_()
    bfloat16_gate(gates).sum().backward()  # the gradient is one number, expanded
    torch.testing.assert_close(
        gates.grad.double(), torch.func.grad(lambda x: exact(x).sum())(whole.double()), **ROUNDING
    )


@pytest.mark.parametrize("shape", [(0, 5, 8), (2, 0, 8), (2, 5, 0)])
def test_nothing_to_do(shape):
    gates = torch.zeros(*shape, dtype=torch.bfloat16, requires_grad=True)
    gated = bfloat16_gate(gates)
    assert gated.shape == (*shape[:-1], shape[-1] // 2)
    gated.sum().backward()
    assert gates.grad.shape == shape


def test_gates_are_not_overwritten():
    gates = random_gates(2, 9, 8)
    before = gates.clone()
    with torch.no_grad():
        gated_unit(gates)
    assert torch.equal(gates, before)


def test_gate_and_gradient_map_over_a_new_axis():
    gates = random_gates(4, 2, 7, 6)
    weights = random_gates(4, 2, 7, 3)
    one_rounding = {"rtol": 2.0**-7, "atol": 1e-6}
    torch.testing.assert_close(torch.vmap(gated_unit)(gates), bfloat16_gate(gates), **one_rounding)
    torch.testing.assert_close(
        torch.vmap(gated_unit, in_dims=1, out_dims=1)(gates), bfloat16_gate(gates), **one_rounding
    )
    leaf = gates[0].clone().requires_grad_()
    gated = gated_unit(leaf)
    expected = torch.stack([torch.autograd.grad(gated, leaf, one, retain_graph=True)[0] for one in weights])
    batched = torch.autograd.grad(gated, leaf, weights, is_grads_batched=True)[0]
    torch.testing.assert_close(batched, expected, **one_rounding)


def test_second_derivatives_of_the_gate():
    gates = random_gates(2, 5, 8).requires_grad_()
    reference = gates.detach().float().requires_grad_()
    found = []
    for leaf, function in ((gates, gated_unit), (reference, exact)):
        (first,) = torch.autograd.grad(function(leaf).float().square().sum(), leaf, create_graph=True)
        found.append(torch.autograd.grad(first.float().square().sum(), leaf)[0].float())
    torch.testing.assert_close(*found, rtol=0.05, atol=0.02)


def test_operators_keep_the_rules_of_torch():
    gates = random_gates(2, 7, 6).requires_grad_()
    torch.library.opcheck(bfloat16_gate.overload, (gates,))
    torch.library.opcheck(bfloat16_gate.overload, (gates.detach().transpose(0, 1),))


@pytest.mark.parametrize("gate", [bfloat16_gate, gated_unit])
def test_compiles_as_one_graph(gate):
    gates = random_gates(2, 7, 6)

    def gradient(f) -> Tensor:
        leaf = gates.clone().requires_grad_()
        f(leaf).square().sum().backward()
        return leaf.grad

    compiled = torch.compile(gate, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(gates), gate(gates))
    torch.testing.assert_close(
        gradient(compiled), gradient(gate), rtol=0, atol=0.02
    )  # torch rounds tanh before 1 - tanh^2


def test_stack_uses_it_where_it_is_faster():
    gates = random_gates(1, 4, 6)
    assert uses_kernel(gates)
    assert not uses_kernel(gates.float()) and not uses_kernel(gates.half())
    torch.set_num_threads(MAX_THREADS + 1)
    assert not uses_kernel(gates)
    torch.testing.assert_close(gated_unit(gates), bfloat16_gate(gates), rtol=2.0**-6, atol=1e-5)


def test_gradients_of_a_stack_under_autocast_agree_with_full_precision():
    torch.manual_seed(0)
    stack = WaveNetStack(1, 2, StackConfig(num_layers=4, num_cycles=2, channels=16, skip_channels=16), cond_channels=3)
    torch.nn.init.normal_(stack.output.weight)
    x = torch.randn(2, 40, 1)
    cond = torch.randn(2, 5, 3)

    def gradients(enabled: bool) -> Tensor:
        stack.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            stack(x, cond).square().mean().backward()
        return torch.cat([p.grad.flatten() for p in stack.parameters()])

    full = gradients(False)
    half = gradients(True)
    assert (half - full).norm() < 0.03 * full.norm()


def test_float32_gate_is_the_same_with_and_without_gradient():
    generator = torch.Generator().manual_seed(0)
    gates = 3.0 * torch.randn(2, 33, 26, generator=generator)
    with torch.no_grad():
        plain = gated_unit(gates.clone())
    leaf = gates.clone().requires_grad_()
    gated = gated_unit(leaf)
    assert torch.equal(gated, plain) and torch.equal(leaf, gates)
    weights = torch.randn(2, 33, 13, generator=generator)
    reference = gates.double().requires_grad_()
    (exact(reference) * weights).sum().backward()
    (gated * weights).sum().backward()
    torch.testing.assert_close(gated, exact(gates).float(), rtol=0, atol=5e-7)
    torch.testing.assert_close(leaf.grad, reference.grad.float(), rtol=0, atol=5e-6)
    torch.testing.assert_close(torch.vmap(gated_unit)(gates), plain, rtol=0, atol=5e-7)
