"""Time folded into channels, and channels that leave early."""

import pytest
import torch

from wavedistill.errors import WavedistillError
from wavedistill.flows import (
    AffineCoupling,
    Compose,
    InvertibleConv1x1,
    NetworkConfig,
    PreEmphasis,
    Rescale,
    Scale,
    Split,
    Squeeze,
)


def test_squeeze_groups_samples_as_waveglow_does():
    audio = torch.randn(2, 24)
    groups = audio.unfold(1, 8, 8).permute(0, 2, 1)  # WaveGlow's own line
    assert torch.equal(Squeeze(8).forward(audio.unsqueeze(1)).value, groups)


def test_squeeze_channel_order_and_exact_return():
    x = torch.arange(24.0).reshape(1, 2, 12)
    y = Squeeze(3).forward(x).value
    assert y.shape == (1, 6, 4)
    for c in range(2):
        for j in range(3):
            assert torch.equal(y[0, c * 3 + j], x[0, c, j::3])
    assert torch.equal(Squeeze(3).inverse(y).value, x)


def test_squeeze_of_one_is_the_identity():
    x = torch.randn(2, 3, 5)
    assert torch.equal(Squeeze(1).forward(x).value, x)


def test_squeeze_names_what_does_not_fit():
    with pytest.raises(WavedistillError, match=r"samples that is a multiple of 4, got shape \(2, 1, 10\)"):
        Squeeze(4).forward(torch.zeros(2, 1, 10))
    with pytest.raises(WavedistillError, match=r"channels that is a multiple of 4, got shape \(2, 6, 10\)"):
        Squeeze(4).inverse(torch.zeros(2, 6, 10))
    with pytest.raises(WavedistillError, match="at least 1"):
        Squeeze(0)


def test_squeeze_has_no_terms_step_by_step():
    there_and_back = Compose(Squeeze(2), Scale(2.0), Squeeze(2).inv)
    for transform in (Squeeze(2), Compose(Squeeze(2), Scale(2.0)), there_and_back):
        with pytest.raises(WavedistillError, match="step by step"):
            transform.forward(torch.zeros(1, 1, 8), per_step=True)
    assert there_and_back.forward(torch.zeros(1, 1, 8)).log_det.shape == (1,)


def test_split_maps_the_first_channels_and_keeps_the_last():
    torch.manual_seed(0)
    layer = Rescale(3)
    x = torch.randn(2, 5, 6)
    torch.nn.init.normal_(layer.log_scale)
    split = Split(layer, keep=2)
    y, log_det = split.forward(x)
    expected, expected_log_det = layer.forward(x[:, :3])
    assert torch.equal(y, torch.cat([expected, x[:, 3:]], dim=1)) and torch.equal(log_det, expected_log_det)
    assert split.dim == 5


def test_split_terms_step_by_step():
    split = Split(Scale(2.0), keep=1)
    log2 = torch.log(torch.tensor(2.0))
    vector = split.forward(torch.zeros(1, 3), per_step=True).log_det
    torch.testing.assert_close(vector, torch.stack([log2, log2, torch.tensor(0.0)]).unsqueeze(0))
    samples = split.inverse(torch.zeros(1, 3, 4), per_step=True).log_det
    torch.testing.assert_close(samples, (-2 * log2).expand(1, 4))


def test_split_hands_the_condition_on():
    torch.manual_seed(0)
    coupling = AffineCoupling(4, network=NetworkConfig(8), cond_dim=2)
    for parameter in coupling.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 5, 6)
    cond = torch.randn(2, 2)
    expected = coupling.forward(x[:, :4], cond)
    got = Split(coupling, keep=1).forward(x, cond)
    assert torch.equal(got.value[:, :4], expected.value) and torch.equal(got.log_det, expected.log_det)
    with pytest.raises(WavedistillError, match="condition"):
        Split(coupling, keep=1).forward(x)


@pytest.mark.parametrize("keep", [0, -1])
def test_split_keeps_something(keep):
    with pytest.raises(WavedistillError, match="keep, a whole number of at least 1, got keep="):
        Split(Scale(2.0), keep=keep)


def test_split_leaves_something_and_keeps_the_shape():
    with pytest.raises(WavedistillError, match=r"more than 3 channels, got shape \(1, 3, 8\)"):
        Split(Scale(2.0), keep=3).forward(torch.zeros(1, 3, 8))
    with pytest.raises(WavedistillError, match=r"\(1, 2, 8\), but it made \(1, 4, 4\)"):
        Split(Squeeze(2), keep=1).forward(torch.zeros(1, 3, 8))
    with pytest.raises(WavedistillError, match=r"Split needs values of shape \(batch, 4\) or"):
        Split(InvertibleConv1x1(3), keep=1).forward(torch.zeros(1, 5, 8))
    with pytest.raises(WavedistillError, match=r"Split needs values of shape \(batch, channels, samples\)"):
        Split(PreEmphasis(0.5), keep=1).forward(torch.zeros(1, 3))


def test_early_outputs_are_latents_the_later_layers_never_touch():
    """Two channels leave after the first layer: perturbing the second layer's weights does not move them."""
    torch.manual_seed(0)
    first = InvertibleConv1x1(4)
    second = InvertibleConv1x1(2)
    flow = Compose(Squeeze(4), first, Split(second, keep=2))
    x = torch.randn(2, 1, 16)
    before = flow.forward(x).value
    with torch.no_grad():
        second.matrix.weight.mul_(2.0)
    after = flow.forward(x).value
    finished = first.forward(Squeeze(4).forward(x).value).value[:, 2:]
    assert torch.equal(after[:, 2:], before[:, 2:]) and torch.equal(after[:, 2:], finished)
    torch.testing.assert_close(after[:, :2], 2.0 * before[:, :2])
    torch.testing.assert_close(flow.inverse(after).value, x, atol=1e-5, rtol=1e-5)
