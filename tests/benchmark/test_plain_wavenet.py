"""The plain implementations agree with the model they are made from."""

import pytest
import torch
from helpers.tiny_models import TEACHER_KINDS, speech_batch, teacher_inputs, tiny_teacher

from wavedistill.benchmark.plain_wavenet import PlainSampler, PlainStack, PlainWaveNet
from wavedistill.nn.wavenet_stack import StackConfig, WaveNetStack


@pytest.mark.parametrize("kind", TEACHER_KINDS)
def test_plain_network_has_the_same_likelihood(kind):
    model = tiny_teacher(**TEACHER_KINDS[kind])
    audio, mel, speaker = teacher_inputs(model)
    with torch.no_grad():
        expected = model.log_prob_per_sample(audio, mel, speaker, dequantize=False)
        found = PlainWaveNet(model).log_prob_per_sample(audio, mel, speaker, dequantize=False)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_plain_network_learns_the_same():
    """One loss, one gradient: weight by weight, whatever its layout."""
    model = tiny_teacher()
    plain = PlainWaveNet(model)
    audio, mel = speech_batch(2, 8)
    for one in (model, plain):
        one.log_prob_per_sample(audio, mel).mean().backward()
    ours = model.predictor.stack
    theirs = plain.model.predictor.stack
    torch.testing.assert_close(theirs.input.weight.grad[:, :, 0], ours.input.weight.grad, atol=1e-5, rtol=1e-3)
    width = 2 * ours.config.channels
    for index, layer in enumerate(theirs.layers):
        torch.testing.assert_close(layer.conv.weight.grad, ours.convs[index].weight.grad[:, :, 0], atol=1e-5, rtol=1e-3)
        torch.testing.assert_close(layer.skip.weight.grad[:, :, 0].t(), ours.skip[index].grad, atol=1e-5, rtol=1e-3)
        rows = ours.cond.weight.grad[width * index : width * (index + 1)]
        torch.testing.assert_close(layer.cond.weight.grad[:, :, 0], rows, atol=1e-5, rtol=1e-3)
    assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in model.parameters())


def test_plain_network_is_a_copy():
    model = tiny_teacher(mel=None)
    plain = PlainWaveNet(model)
    audio = torch.randn(1, 1, model.hop_length, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = plain.log_prob_per_sample(audio)
        for parameter in model.parameters():
            parameter.add_(1.0)
        assert torch.equal(plain.log_prob_per_sample(audio), before)


@pytest.mark.parametrize("kind", TEACHER_KINDS)
def test_plain_sampler_draws_the_same_samples(kind):
    model = tiny_teacher(**TEACHER_KINDS[kind])
    _, mel, speaker = teacher_inputs(model, frames=3)
    options = (
        dict(mel=mel, speaker=speaker) if mel is not None else dict(num_samples=192, speaker=speaker, batch_size=2)
    )
    found = PlainSampler(model).sample(**options, seed=3, temperature=0.8)
    torch.testing.assert_close(found, model.sample(**options, seed=3, temperature=0.8), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kernel_size, cycles", [(2, 1), (3, 2), (4, 4)])
def test_plain_stack_of_any_size(kernel_size, cycles):
    stack = WaveNetStack(1, 5, StackConfig(4, cycles, kernel_size, 6, 10), cond_channels=3)
    torch.nn.init.normal_(stack.output.weight)
    x = torch.randn(2, 40, 1)
    cond = torch.randn(2, 4, 3)
    with torch.no_grad():
        torch.testing.assert_close(PlainStack(stack)(x, cond), stack(x, cond), atol=1e-5, rtol=1e-4)
