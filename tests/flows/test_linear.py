"""Rotations and the invertible 1x1 convolution: against other libraries, after updates, at singular matrices."""

import copy

import pytest
import torch

from wavedistill.errors import WavedistillError
from wavedistill.flows import InvertibleConv1x1, Orthogonal

F64 = torch.float64


def close(got, want, tolerance=1e-10):
    torch.testing.assert_close(got, want, atol=tolerance, rtol=tolerance)


def test_vectors_and_samples_get_the_same_matrix():
    torch.manual_seed(0)
    for layer in (InvertibleConv1x1(3), InvertibleConv1x1(3, lu=True), Orthogonal(3)):
        x = torch.randn(2, 3, 7)
        y, log_det = layer.forward(x)
        for t in range(7):
            close(layer.forward(x[..., t]).value, y[..., t], 1e-5)
        close(7 * layer.forward(x[..., 0]).log_det, log_det, 1e-5)


@pytest.mark.parametrize("lu", [False, True])
def test_begins_at_a_rotation_and_the_seed_decides(lu):
    def matrix(seed):
        torch.manual_seed(seed)
        return InvertibleConv1x1(5, lu=lu).matrix()[0].detach()

    close(matrix(0).T @ matrix(0), torch.eye(5), 1e-5)
    assert float(torch.linalg.det(matrix(0))) == pytest.approx(1.0, abs=1e-5)
    assert torch.equal(matrix(0), matrix(0)) and not torch.allclose(matrix(0), matrix(1), atol=0.1)


@pytest.mark.parametrize("lu", [False, True])
def test_the_inverse_follows_every_update(lu):
    """No stale inverse: not after an optimiser step, a write past autograd, a loaded state, nor between eval calls."""
    torch.manual_seed(0)
    layer = InvertibleConv1x1(4, lu=lu).double()
    x = torch.randn(2, 4, 6, dtype=F64)

    def there_and_back():
        with torch.no_grad():
            y, log_det = layer.forward(x)
            back, log_det_back = layer.inverse(y)
        close(back, x)
        close(log_det_back, -log_det)
        return y

    layer.eval()
    before = there_and_back()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.05)
    layer.forward(x).value.square().sum().backward()
    optimizer.step()
    after = there_and_back()
    for parameter in layer.parameters():
        parameter.data.mul_(1.1)
    past_autograd = there_and_back()
    layer.load_state_dict(InvertibleConv1x1(4, lu=lu).state_dict())
    loaded = there_and_back()
    values = [before, after, past_autograd, loaded]
    assert all(not torch.allclose(a, b, atol=1e-3) for a, b in zip(values, values[1:], strict=False))


def test_a_singular_matrix_is_named():
    torch.manual_seed(0)
    layer = InvertibleConv1x1(3)
    x = torch.randn(2, 3, 5)
    weight = layer.matrix.weight
    with torch.no_grad():
        weight[2] = weight[0] + weight[1]  # no exact zero among the pivots, but rounding
    for direction in (layer.forward, layer.inverse):
        with pytest.raises(WavedistillError, match=r"InvertibleConv1x1\(dim=3\) has no inverse"):
            direction(x)
    torch.nn.init.zeros_(layer.matrix.weight)
    with pytest.raises(WavedistillError, match="singular"):
        layer.forward(x)


def test_a_small_or_ill_conditioned_matrix_is_not_called_singular():
    layer = InvertibleConv1x1(3).double()
    x = torch.randn(2, 3, 5, dtype=F64)
    with torch.no_grad():
        layer.matrix.weight.copy_(torch.diag(torch.tensor([1e-20, 1e-22, 1e-25])))
    y, log_det = layer.forward(x)
    close(layer.inverse(y).value, x)
    assert float(log_det[0].detach()) == pytest.approx(5 * -67 * 2.302585092994046)


def test_lu_keeps_its_sign_and_volume_under_any_update():
    torch.manual_seed(1)
    layer = InvertibleConv1x1(4, lu=True).double()
    sign = torch.linalg.slogdet(layer.matrix()[0]).sign
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(3.0 * torch.randn_like(parameter))
    matrix, log_abs_det = layer.matrix()
    expected = torch.linalg.slogdet(matrix)
    close(log_abs_det, expected.logabsdet)
    assert torch.equal(expected.sign, sign)


def test_plain_is_the_matrix_of_nflows():
    linear = pytest.importorskip("nflows.transforms.linear")
    torch.manual_seed(0)
    theirs = linear.NaiveLinear(4, orthogonal_initialization=False).double()
    ours = InvertibleConv1x1(4).double()
    torch.nn.init.zeros_(theirs.bias)
    with torch.no_grad():
        ours.matrix.weight.copy_(theirs._weight)
    x = torch.randn(5, 4, dtype=F64)
    for got, want in zip(ours.forward(x), theirs.forward(x), strict=True):
        close(got, want)
    # its own inverse calls what torch no longer has
    close(ours.inverse(x).value, x @ theirs.weight_inverse().T)


def test_lu_is_the_factorisation_of_nflows():
    lu = pytest.importorskip("nflows.transforms.lu")
    torch.manual_seed(0)
    theirs = lu.LULinear(4, identity_init=False).double()
    ours = InvertibleConv1x1(4, lu=True).double()
    lower, upper = theirs._create_lower_upper()
    with torch.no_grad():
        ours.matrix.permutation.copy_(torch.arange(4))
        ours.matrix.sign.fill_(1.0)
        ours.matrix.lower.copy_(lower)
        ours.matrix.upper.copy_(upper)
        ours.matrix.log_diagonal.copy_(theirs.upper_diag.log())
    x = torch.randn(5, 4, dtype=F64)
    for got, want in zip(ours.forward(x), theirs.forward(x), strict=True):
        close(got, want)


@pytest.mark.filterwarnings("ignore:torch.lu is deprecated")
@pytest.mark.parametrize("lu", [False, True])
def test_is_the_convolution_of_normflows(lu):
    """Whose sampling direction (latent -> data) convolves with the inverse; its `inverse` is our `forward`."""
    normflows = pytest.importorskip("normflows")
    torch.manual_seed(0)
    theirs = normflows.flows.Invertible1x1Conv(3, use_lu=lu).double()
    ours = InvertibleConv1x1(3, lu=lu).double()
    with torch.no_grad():
        if lu:
            ours.matrix.permutation.copy_(theirs.P.argmax(1))
            ours.matrix.sign.copy_(theirs.sign_S)
            for name, parameter in (("lower", theirs.L), ("upper", theirs.U), ("log_diagonal", theirs.log_S)):
                getattr(ours.matrix, name).copy_(parameter + 0.1 * torch.randn_like(parameter))
                parameter.copy_(getattr(ours.matrix, name))
        else:
            ours.matrix.weight.add_(0.1 * torch.randn(3, 3))
            theirs.W.copy_(ours.matrix.weight)
    x = torch.randn(2, 3, 6, dtype=F64)
    for mine, other in ((ours.forward, theirs.inverse), (ours.inverse, theirs.forward)):
        value, log_det = mine(x)
        expected, expected_log_det = other(x.unsqueeze(-1))
        close(value, expected.squeeze(-1))
        close(log_det, expected_log_det.expand(2))


def test_orthogonal_stays_orthogonal_wherever_the_parameters_go():
    torch.manual_seed(0)
    layer = Orthogonal(6).double()
    for _ in range(3):
        matrix = layer.matrix()
        close(matrix.T @ matrix, torch.eye(6, dtype=F64), 1e-12)
        assert float(torch.linalg.det(matrix).detach()) == pytest.approx(1.0)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.add_(5.0 * torch.randn_like(parameter))


def test_a_large_rotation_is_orthogonal_in_float32():
    """The exponential alone is off by 5e-6."""
    torch.manual_seed(0)
    matrix = Orthogonal(64).matrix()
    close(matrix.T @ matrix, torch.eye(64), 1e-6)


def test_orthogonal_begins_at_the_rotation_it_drew():
    """The logarithm it stores gives back the Haar-distributed rotation: the same random numbers as `InvertibleConv1x1`
    in float64.
    """
    from wavedistill.flows.linear import _random_rotation

    for dim in (1, 2, 5, 8):
        torch.manual_seed(dim)
        rotation = _random_rotation(dim, F64)
        torch.manual_seed(dim)
        close(Orthogonal(dim).matrix().double(), rotation, 1e-5)


def test_orthogonal_learns_a_given_rotation():
    torch.manual_seed(0)
    target = Orthogonal(4).matrix().detach()
    layer = Orthogonal(4)
    x = torch.randn(64, 4)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        loss = (layer.forward(x).value - x @ target.T).square().mean()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 1e-3
    close(copy.deepcopy(layer).forward(x).value, layer.forward(x).value, 0.0)


@pytest.mark.parametrize("layer", [InvertibleConv1x1, Orthogonal])
def test_needs_a_feature(layer):
    with pytest.raises(WavedistillError, match="dim=0"):
        layer(0)


@pytest.mark.parametrize("lu", [False, True])
def test_many_channels(lu):
    """A determinant as the product of the pivots underflows from about 350 channels on."""
    torch.manual_seed(0)
    layer = InvertibleConv1x1(512, lu=lu)
    x = torch.randn(2, 512)
    with torch.no_grad():
        y, log_det = layer.forward(x)
        torch.testing.assert_close(layer.inverse(y).value, x, atol=1e-4, rtol=0)
    torch.testing.assert_close(log_det, torch.zeros(2), atol=1e-3, rtol=0)
    assert torch.linalg.slogdet(layer.matrix()[0]).sign > 0
