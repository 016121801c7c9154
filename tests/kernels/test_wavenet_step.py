"""The compiled sampler draws what the stepwise one draws."""

import pytest
import torch
from helpers.tiny_models import FRONTS, TEACHER_KINDS, speech_batch, teacher_inputs, tiny_teacher

from wavedistill.kernels.wavenet_step import kernel
from wavedistill.models import sequential_sampling
from wavedistill.models.front import FrontConfig
from wavedistill.nn.wavenet_stack import StackConfig

SIZES = {
    "kernel of 2": StackConfig(3, 1, 2, 8, 8),
    "kernel of 4, odd widths": StackConfig(4, 2, 4, 6, 10),
    "dilations beyond the steps ahead": StackConfig(7, 1, 3, 8, 16),
    "one layer a cycle": StackConfig(3, 3, 3, 8, 24),
    "narrower skip": StackConfig(2, 1, 3, 16, 3),
}


@pytest.fixture
def stepwise(monkeypatch):
    """Sample with the reference."""

    def sample(model, *args, **options):
        with monkeypatch.context() as patch:
            patch.setattr(sequential_sampling, "can_compile", lambda predictor: False)
            return model.sample(*args, **options)

    return sample


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("kind", TEACHER_KINDS)
def test_same_samples_for_every_kind_of_teacher(kind, batch, stepwise):
    model = tiny_teacher(**TEACHER_KINDS[kind], shake=0.15)
    _, mel, speaker = teacher_inputs(model, frames=4, batch=batch)
    options = (
        dict(mel=mel, speaker=speaker) if mel is not None else dict(num_samples=256, speaker=speaker, batch_size=batch)
    )
    for temperature in (0.0, 0.7):
        found = model.sample(**options, seed=1, temperature=temperature)
        torch.testing.assert_close(
            found, stepwise(model, **options, seed=1, temperature=temperature), atol=1e-4, rtol=0
        )
    assert float(found.std()) > 1e-3


@pytest.mark.parametrize("batch, bands", [(1, 1), (6, 1), (3, 2), (1, 16)])
@pytest.mark.parametrize("size", SIZES)
def test_same_samples_for_every_size(size, batch, bands, stepwise):
    model = tiny_teacher(stack=SIZES[size], linear_order=3, front=FrontConfig(bands=bands), shake=0.15)
    mel = speech_batch(batch, 6)[1]
    found = model.sample(mel, seed=0)
    expected = stepwise(model, mel, seed=0)
    largest = max(1.0, float(expected.abs().max()))  # shaken matrices of 16 bands make samples that grow
    torch.testing.assert_close(found, expected, atol=1e-4 * largest, rtol=0)


@pytest.mark.parametrize("bands", [1, 4])
def test_compiled_sampling_agrees_with_float64(bands):
    model = tiny_teacher(mel=None, front=FrontConfig(bands=bands), shake=0.15)
    found = model.sample(num_samples=300, seed=0)
    exact = model.double().sample(num_samples=300, seed=0)
    assert exact.dtype is torch.float64 and not sequential_sampling.can_compile(model.predictor)
    torch.testing.assert_close(found.double(), exact, atol=2e-5, rtol=0)


@pytest.mark.parametrize("front", ["none", "sub-bands"])
def test_encode_finds_the_noise_of_a_compiled_sample(front):
    """Across stretches and many turns of every ring: the parallel pass knows nothing of either."""
    model = tiny_teacher(front=FRONTS[front])
    mel = speech_batch(1, 3 * sequential_sampling.STRETCH // model.hop_length)[1]
    noise = torch.randn(1, 1, mel.shape[-1] * model.hop_length, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model.encode(model.sample(mel, noise=noise), mel), noise, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "kind", ["gaussian, front pre-emphasis", "gaussian, front sub-bands", "speaker", "no mel, sub-bands"]
)
def test_stretches_and_threads_change_rounding_only(kind, monkeypatch):
    model = tiny_teacher(**TEACHER_KINDS[kind])
    mel = teacher_inputs(model, frames=5, batch=3)[1]
    options = dict(mel=mel, seed=0) if mel is not None else dict(num_samples=304, batch_size=3, seed=0)
    if model.config.speakers:
        options["speaker"] = torch.tensor([0, 1, 0])
    whole = model.sample(**options)
    monkeypatch.setattr(sequential_sampling, "STRETCH", 70)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 8):
            torch.set_num_threads(threads)
            torch.testing.assert_close(model.sample(**options), whole, atol=1e-5, rtol=0)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("front", ["mel-prediction", "sub-bands"])
def test_a_stepwise_stream_is_the_compiled_one(front, frames, monkeypatch):
    model = tiny_teacher(front=FRONTS[front], linear_order=3, shake=0.15)
    mel = speech_batch(1, 7)[1]
    compiled = list(model.stream(mel, frames, seed=0))
    monkeypatch.setattr(sequential_sampling, "can_compile", lambda predictor: False)
    stepwise = list(model.stream(mel, frames, seed=0))
    torch.testing.assert_close(stepwise, compiled, atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.cat(stepwise, dim=-1), model.sample(mel, seed=0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("front", ["mel-prediction", "sub-bands"])
def test_prime_is_taken_as_it_is_and_shapes_what_follows(front, stepwise):
    model = tiny_teacher(front=FRONTS[front])
    audio, mel = speech_batch(2, 5)
    for length in (0, 1, 100, 320):
        prime = audio[..., :length]
        found = model.sample(mel, prime=prime, seed=0)
        torch.testing.assert_close(found, stepwise(model, mel, prime=prime, seed=0), atol=1e-4, rtol=0)
        kept = length // model.step_size * model.step_size
        torch.testing.assert_close(found[..., :kept], prime[..., :kept], atol=1e-4, rtol=0)


@pytest.mark.parametrize("bands", [1, 4])
def test_clicks_are_clamped_alike(bands, stepwise):
    model = tiny_teacher(mel=None, front=FrontConfig(bands=bands))
    noise = torch.randn(1, 1, 200, generator=torch.Generator().manual_seed(0))
    noise[..., 50] = 1e4
    found = model.sample(num_samples=200, noise=noise)
    assert float(found.abs().max()) > 100
    torch.testing.assert_close(found, stepwise(model, num_samples=200, noise=noise), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("where", ["input.bias", "convs.1.bias", "hidden.bias", "output.bias"])
def test_broken_weights_are_seen(where):
    model = tiny_teacher(mel=None)
    with torch.no_grad():
        model.predictor.stack.get_parameter(where)[0] = float("nan")
    assert model.sample(num_samples=20, seed=0).isnan().all()


def test_progress_counts_every_sample(capsys, monkeypatch):
    counted = []
    model = tiny_teacher(mel=None)
    original = sequential_sampling.CompiledSampler.fill
    monkeypatch.setattr(
        sequential_sampling.CompiledSampler, "fill", lambda *args: (counted.append(n) or n for n in original(*args))
    )
    model.sample(num_samples=2500, seed=0, progress=True)
    assert "sampling" in capsys.readouterr().err and sum(counted) == 2500 and len(counted) > 1
    model.sample(num_samples=100, seed=0)
    assert not capsys.readouterr().err


def test_one_machine_code_serves_every_teacher():
    """Compiling takes seconds: no setting may need it again."""
    _, mel = speech_batch(2, 1)
    noise = torch.randn(2, 1, 64, generator=torch.Generator().manual_seed(0))
    for options in (
        dict(log_scale_min=-7),
        dict(distribution="mol"),
        dict(distribution="mulaw", linear_order=0),
        dict(stack=SIZES["narrower skip"]),
        dict(front=FRONTS["sub-bands"]),
    ):
        tiny_teacher(**options).sample(mel, seed=0)
    tiny_teacher().sample(mel, noise=noise.double(), temperature=1)
    tiny_teacher().sample(mel[:1], prime=noise[:1, :, :20])
    assert len(kernel().signatures) == 1
