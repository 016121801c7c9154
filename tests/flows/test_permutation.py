"""Orders: validation, other libraries, and an order learned by its straight-through gradient."""

import itertools

import pytest
import torch

from wavedistill.errors import WavedistillError
from wavedistill.flows import LearnedPermutation, Permutation, Reverse


@pytest.mark.parametrize("wrong", [[0, 2], [1, 1, 0], [0, -1], [], [[0, 1]], [0.0, 1.0]])
def test_what_is_no_permutation(wrong):
    with pytest.raises(WavedistillError, match="0 .. dim - 1 once"):
        Permutation(wrong)


@pytest.mark.parametrize("make", [Reverse, Permutation.random, LearnedPermutation])
def test_needs_a_feature(make):
    with pytest.raises(WavedistillError):
        make(0)


def test_random_orders_come_from_the_generator_and_reach_all():
    def draw(seed):
        return Permutation.random(3, torch.Generator().manual_seed(seed)).permutation

    state = torch.get_rng_state()
    assert torch.equal(draw(5), draw(5)) and torch.equal(torch.get_rng_state(), state)
    assert {tuple(draw(seed).tolist()) for seed in range(60)} == set(itertools.permutations(range(3)))


def test_does_not_share_memory_with_the_order_it_was_given():
    order = torch.tensor([1, 0])
    layer = Permutation(order)
    order.zero_()
    assert layer.permutation.tolist() == [1, 0]


def test_is_the_permutation_of_nflows():
    theirs = pytest.importorskip("nflows.transforms.permutations")
    order = torch.tensor([2, 0, 3, 1])
    x = torch.randn(5, 4)
    pairs = [(Permutation(order), theirs.Permutation(order)), (Reverse(4), theirs.ReversePermutation(4))]
    for ours, other in pairs:
        for mine, reference in ((ours.forward, other.forward), (ours.inverse, other.inverse)):
            for got, want in zip(mine(x), reference(x), strict=True):
                assert torch.equal(got, want)


def test_a_learned_order_begins_at_the_identity_and_ties_are_still_an_order():
    layer = LearnedPermutation(4)
    x = torch.randn(2, 4)
    assert torch.equal(layer.forward(x).value, x)
    torch.nn.init.zeros_(layer.scores)
    assert torch.equal(layer.forward(x).value, x)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("event", [(5,), (5, 3)])
def test_straight_through_gradient(direction, event):
    """The scores' gradient is that of the relaxation, written out here; the input's is that of the hard permutation;
    the value is exact.
    """
    torch.manual_seed(0)
    layer = LearnedPermutation(5, temperature=0.7).double()
    torch.nn.init.normal_(layer.scores)
    x = torch.randn(2, *event, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, *event, dtype=torch.float64)
    value = getattr(layer, direction)(x).value
    (value * weights).sum().backward()

    scores = layer.scores.detach().clone().requires_grad_()
    soft = torch.zeros(5, 5, dtype=torch.float64)
    ordered = scores.sort().values
    soft = torch.stack([torch.softmax(-(ordered[i] - scores).abs() / 0.7, dim=0) for i in range(5)])
    hard = torch.eye(5, dtype=torch.float64)[layer.permutation]
    if direction == "inverse":
        soft = soft.T
        hard = hard.T
    relaxed = torch.tensordot(x.detach(), soft, dims=([1], [1]))  # the features come last
    (relaxed.movedim(-1, 1) * weights).sum().backward()
    torch.testing.assert_close(layer.scores.grad, scores.grad)
    torch.testing.assert_close(x.grad, torch.tensordot(weights, hard, dims=([1], [0])).movedim(-1, 1))
    with torch.no_grad():
        assert torch.equal(getattr(layer, direction)(x).value, value)


def test_the_relaxation_sharpens_to_the_map():
    """At a low temperature SoftSort is the permutation: the scores' gradient vanishes."""
    layer = LearnedPermutation(4, temperature=1e-3)
    layer.forward(torch.randn(3, 4)).value.square().sum().backward()
    assert float(layer.scores.grad.abs().max()) < 1e-6


def test_learns_an_order():
    torch.manual_seed(0)
    target = torch.tensor([3, 1, 4, 0, 2])
    x = torch.randn(256, 5)
    layer = LearnedPermutation(5)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        (layer.forward(x).value - x[:, target]).square().mean().backward()
        optimizer.step()
    assert torch.equal(layer.permutation, target)


def test_temperature_must_be_positive():
    with pytest.raises(WavedistillError, match="temperature above 0"):
        LearnedPermutation(3, temperature=0.0)
