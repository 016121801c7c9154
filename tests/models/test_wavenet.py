import dataclasses
import math

import pytest
import torch
from helpers.tiny_models import FRONTS, MEL, TEACHER_KINDS, shake, speech_batch, teacher_inputs, tiny_teacher

from wavedistill.errors import WavedistillError
from wavedistill.flows.solvers.stepping import CausalStepper
from wavedistill.models.base import dequantized
from wavedistill.models.front import FrontConfig
from wavedistill.models.parallel_sampling import sample_parallel
from wavedistill.models.wavenet import WaveNet, WaveNetConfig
from wavedistill.nn.causal_network import CausalNetwork
from wavedistill.nn.wavenet_stack import StackConfig


@pytest.mark.parametrize("known_at_once", [False, True])
@pytest.mark.parametrize("kind", TEACHER_KINDS)
def test_stepwise_pass_equals_parallel_pass(kind, known_at_once):
    """From the first value on, or after half of them were made known in one pass."""
    model = tiny_teacher(**TEACHER_KINDS[kind])
    audio, mel, speaker = teacher_inputs(model)
    with torch.no_grad():
        u = model.front.forward(audio, model.front.condition(mel)).value[:, 0]
        parameters, shift = model.predict(u, mel, speaker)
        features = model.features(mel, speaker)
        stepper = CausalStepper(model.predictor, *u.shape, features, None)
        start = u.shape[1] // 2 if known_at_once else 0
        if known_at_once:
            stepper.begin_with(u[:, :start], features)
        for t in range(start, u.shape[1]):
            one, shift_one = stepper.parameters(t)
            torch.testing.assert_close(one, parameters[:, t], atol=2e-5, rtol=1e-4)
            torch.testing.assert_close(shift_one.expand(2), shift[:, t], atol=2e-5, rtol=1e-4)
            stepper.feed(t, u[:, t])


def test_stepwise_pass_survives_many_turns_of_its_rings():
    model = tiny_teacher(mel=None)
    u = torch.randn(1, 20 * model.receptive_field, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        parameters, _ = model.predict(u, None, None)
        stepper = CausalStepper(model.predictor, *u.shape, None, None)
        for t in range(u.shape[1]):
            one, _ = stepper.parameters(t)
            torch.testing.assert_close(one, parameters[:, t], atol=2e-5, rtol=1e-4)
            stepper.feed(t, u[:, t])


GAUSSIAN = [kind for kind, options in TEACHER_KINDS.items() if "distribution" not in options]


def contracting_teacher(frames=4):
    """Teacher in sub-bands with a contraction, noise and a mel, in float64."""
    model = tiny_teacher(front=dataclasses.replace(FRONTS["sub-bands"], mel_contraction=2), shake=0.15).double()
    _, mel, _ = teacher_inputs(model, frames=frames, batch=1)
    return model, mel.double()


def test_a_contraction_is_part_of_the_density():
    """log p(x) = log N(encode(x)) + log |det d encode / dx|, for a waveform that is no fixed point."""
    model, mel = contracting_teacher(frames=1)
    audio = model.sample(mel, seed=0).clone()
    jacobian = torch.autograd.functional.jacobian(lambda x: model.encode(x, mel)[0, 0], audio)[:, 0, 0]
    noise = model.encode(audio, mel).detach()
    log_normal = -0.5 * float(noise.square().sum() + noise.numel() * math.log(2 * math.pi))
    expected = log_normal + float(torch.linalg.slogdet(jacobian).logabsdet)
    found = float(model.log_prob(audio, mel, dequantize=False).detach())
    assert found == pytest.approx(expected, abs=1e-5)
    before = float(model.log_prob_per_sample(audio, mel, dequantize=False).sum().detach())
    assert abs(found - before) > 1.0


def test_a_contracted_sample_is_encoded_to_its_noise():
    model, mel = contracting_teacher()
    noise = model.draw_noise(1, 256, 3).double()
    audio = model.sample(mel, noise=noise)
    torch.testing.assert_close(model.encode(audio, mel), noise, atol=1e-6, rtol=0)
    parallel = sample_parallel(model, mel, noise=noise, tolerance=1e-10).audio
    torch.testing.assert_close(parallel, audio, atol=1e-8, rtol=0)


@pytest.mark.parametrize("kind", GAUSSIAN)
def test_log_prob_is_the_change_of_variables(kind):
    """log N(encode(x)) + log |det d encode / dx|, the Jacobian by autograd: triangular, but for the steps on its
    diagonal.
    """
    model = tiny_teacher(**TEACHER_KINDS[kind], shake=0.15).double()
    audio, mel, speaker = teacher_inputs(model, frames=1, batch=1)
    audio = audio[..., :64].double()
    mel = None if mel is None else mel.double()
    jacobian = torch.autograd.functional.jacobian(lambda x: model.encode(x, mel, speaker)[0, 0], audio)[:, 0, 0]
    step = torch.arange(64) // model.config.front.bands
    assert not jacobian[step[:, None] < step].any()
    noise = model.encode(audio, mel, speaker).detach()
    log_normal = -0.5 * float(noise.square().sum() + 64 * math.log(2 * math.pi))
    expected = log_normal + float(torch.linalg.slogdet(jacobian).logabsdet)
    found = model.log_prob(audio, mel, speaker, dequantize=False)
    assert float(found.detach()) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("bands", [1, 4, 8])
def test_values_of_a_step_depend_on_the_steps_before_alone(bands):
    """Parameters and linear path, over the whole reach; and each step reads the condition of its own block."""
    torch.manual_seed(0)
    stack = StackConfig(2, 1, 2, 8, 8)
    network = shake(CausalNetwork(2, stack, cond_channels=3, linear_order=2, step_size=bands), 0.2).double()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 8 * bands, dtype=torch.float64, generator=generator)
    cond = torch.randn(1, 4, 3, dtype=torch.float64, generator=generator)
    step = torch.arange(8 * bands) // bands
    lag = step[:, None] - step
    for output, reach in ((0, stack.receptive_field), (1, 2)):

        def run(x, cond, output=output):
            found = network(x, cond)[output][0]
            return found.reshape(8 * bands, -1)[:, 0]

        of_x, of_cond = (one[:, 0] for one in torch.autograd.functional.jacobian(run, (x, cond)))
        assert set(lag[of_x != 0].tolist()) == set(range(1, reach + 1))
        assert float((of_x[(lag >= 1) & (lag <= reach)] != 0).double().mean()) > 0.75
        of_cond = of_cond.abs().sum(-1)
        block = torch.arange(8 * bands) // (2 * bands)
        assert not of_cond[block[:, None] < torch.arange(4)].any()
        assert of_cond.gather(1, block[:, None])[bands:].all()
    assert network.reach == bands * stack.receptive_field + bands - 1


@pytest.mark.parametrize("front", FRONTS)
def test_teacher_is_a_maf_encode_and_sample_are_inverse(front):
    model = tiny_teacher(front=FRONTS[front])
    audio, mel, _ = teacher_inputs(model)
    noise = model.encode(audio, mel)
    torch.testing.assert_close(model.sample(mel, noise=noise), audio, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", TEACHER_KINDS)
def test_likelihood_sees_only_the_past(kind):
    model = tiny_teacher(**TEACHER_KINDS[kind])
    audio, mel, speaker = teacher_inputs(model)
    changed = audio.clone()
    changed[..., 200:] = changed[..., 200:].flip(-1)  # 200 is a whole number of steps
    with torch.no_grad():
        first = model.log_prob_per_sample(audio, mel, speaker, dequantize=False)
        second = model.log_prob_per_sample(changed, mel, speaker, dequantize=False)
    assert torch.equal(first[:, :200], second[:, :200])
    assert not torch.allclose(first[:, 200:], second[:, 200:])


@pytest.mark.parametrize("kind", ["gaussian, front pre-emphasis", "mixture of logistics", "mu-law"])
def test_density_of_the_next_sample_integrates_to_one(kind):
    model = tiny_teacher(**{**TEACHER_KINDS[kind], "mel": None})
    grid = torch.linspace(-1, 1, 20001)[:-1] + 0.5e-4 if kind == "mu-law" else torch.linspace(-30, 30, 60001)
    audio = torch.zeros(len(grid), 1, 2)
    audio[:, 0, 0] = 0.1
    audio[:, 0, 1] = grid
    with torch.no_grad():
        log_prob = model.log_prob_per_sample(audio, dequantize=False)[:, 1]
    assert float(log_prob.exp().double().sum() * (grid[1] - grid[0])) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("distribution", ["gaussian", "mol"])
def test_density_of_the_next_block_integrates_to_one(distribution):
    """Of two bands, over the plane of its two samples."""
    front = FrontConfig(pre_emphasis=0.9, scale=4.0, bands=2)
    model = tiny_teacher(None, distribution=distribution, front=front)
    line = torch.linspace(-6, 6, 301)
    audio = torch.zeros(len(line) ** 2, 1, 4)
    audio[:, 0, :2] = torch.tensor([0.1, -0.2])
    audio[:, 0, 2:] = torch.cartesian_prod(line, line)
    with torch.no_grad():
        log_prob = model.log_prob_per_sample(audio, dequantize=False)[:, 2:].sum(1)
    assert float(log_prob.exp().double().sum() * (line[1] - line[0]) ** 2) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("kind", TEACHER_KINDS)
def test_every_parameter_has_a_gradient(kind):
    model = tiny_teacher(**TEACHER_KINDS[kind]).train()
    audio, mel, speaker = teacher_inputs(model)
    model.log_prob_per_sample(audio, mel, speaker).mean().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


@pytest.mark.parametrize("kind", TEACHER_KINDS)
def test_seed_decides_each_item_alone(kind):
    model = tiny_teacher(**TEACHER_KINDS[kind])
    _, mel, speaker = teacher_inputs(model, frames=3)
    options = (
        dict(mel=mel, speaker=speaker) if mel is not None else dict(num_samples=192, speaker=speaker, batch_size=2)
    )
    both = model.sample(**options, seed=5)
    assert both.shape == (2, 1, 192) and torch.isfinite(both).all()
    torch.testing.assert_close(both, model.sample(**options, seed=5), rtol=0, atol=0)
    second = {name: value[1:] if torch.is_tensor(value) else value for name, value in options.items()} | {
        "batch_size": 1
    }
    torch.testing.assert_close(model.sample(**second, seed=6), both[1:], atol=1e-5, rtol=0)
    assert not torch.allclose(both, model.sample(**options, seed=7))


def test_samples_follow_the_stated_density():
    """The mean log-likelihood of its own samples is minus the Gaussian's entropy, within 5 standard errors."""
    model = tiny_teacher(mel=None)
    audio = model.sample(num_samples=2048, batch_size=4, seed=0)
    with torch.no_grad():
        log_prob = model.log_prob_per_sample(audio, dequantize=False)
        _, log_scale = model.distribution.loc_scale(*model.predict(audio[:, 0], None, None))
    surplus = log_prob + log_scale + 0.5 * (1 + math.log(2 * math.pi))
    assert abs(float(surplus.mean())) < 5 * float(surplus.std()) / math.sqrt(surplus.numel())


@pytest.mark.parametrize("front, kept", [("mel-prediction", 301), ("sub-bands", 296)])
def test_temperature_zero_follows_the_mean_and_priming_is_kept(front, kept):
    model = tiny_teacher(front=FRONTS[front])
    audio, mel, _ = teacher_inputs(model)
    assert torch.equal(model.sample(mel, temperature=0.0, seed=1), model.sample(mel, temperature=0.0, seed=2))
    primed = model.sample(mel, prime=audio[..., :301], seed=0)
    torch.testing.assert_close(primed[..., :kept], audio[..., :kept], atol=1e-4, rtol=0)
    assert not torch.allclose(primed[..., kept : kept + 5], audio[..., kept : kept + 5], atol=1e-3)


def test_dequantisation_stays_inside_its_16_bit_step():
    audio, _ = speech_batch(1, 4)
    steps = (dequantized(audio) - audio) * 32768
    assert 0 <= float(steps.min()) and float(steps.max()) <= 1 and 0.4 < float(steps.mean()) < 0.6
    assert torch.equal(dequantized(audio), dequantized(audio))


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(stack=StackConfig(5, 2)), "multiple of num_cycles"),
        (dict(stack=StackConfig(4, 2, 1)), "kernel_size"),
        (dict(sample_rate=16000), "make them equal"),
        (dict(cond_upsample=3), "multiple of cond_upsample"),
        (dict(mel=None, front=FrontConfig(mel_prediction_order=8)), "needs a mel"),
        (dict(distribution="mulaw"), "mulaw"),
        (dict(distribution="mulaw", linear_order=0, front=FrontConfig(bands=4)), "mulaw"),
        (dict(front=FrontConfig(bands=32)), "front.bands must divide the 16 samples of a block .*, got 32"),
        (dict(mel=None, cond_upsample=16, front=FrontConfig(bands=32)), "front.bands must divide the 16 samples"),
    ],
)
def test_impossible_configurations_are_refused(settings, message):
    with pytest.raises(WavedistillError, match=message):
        WaveNetConfig(**{"mel": MEL, "sample_rate": 8000, **settings})


def test_wrong_conditions_are_refused():
    model = tiny_teacher(speakers=["a", "b"])
    _, mel, _ = teacher_inputs(model)
    with pytest.raises(WavedistillError, match="needs a mel"):
        model.sample(num_samples=10)
    with pytest.raises(WavedistillError, match="speaker index"):
        model.sample(mel)
    with pytest.raises(WavedistillError, match="indices in 0..1"):
        model.sample(mel, speaker=torch.tensor([0, 2]))
    with pytest.raises(WavedistillError, match="takes no mel"):
        tiny_teacher(mel=None).sample(mel)
    with pytest.raises(WavedistillError, match="above 0"):
        tiny_teacher(mel=None).sample(num_samples=0)
    with pytest.raises(WavedistillError, match="num_samples must be a multiple of the 8 samples .* together, got 300"):
        tiny_teacher(**TEACHER_KINDS["no mel, sub-bands"]).sample(num_samples=300)
    with pytest.raises(WavedistillError, match="gaussian"):
        tiny_teacher(**TEACHER_KINDS["mu-law"]).encode(torch.zeros(1, 1, 64), mel[:1, :, :1])


def test_receptive_field_is_exact():
    model = WaveNet(WaveNetConfig(mel=None, stack=StackConfig(4, 2, 3, 8, 8), linear_order=0))
    torch.nn.init.normal_(model.predictor.stack.output.weight)
    u = torch.randn(1, 60, requires_grad=True)
    parameters, _ = model.predict(u, None, None)
    parameters[0, 59].sum().backward()
    reached = u.grad[0].nonzero().flatten()
    assert 59 - int(reached.min()) == model.receptive_field == 1 + 2 * (1 + 2 + 1 + 2) and int(reached.max()) == 58
