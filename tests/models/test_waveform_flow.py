"""The one-stage flow: exact densities in both directions, chunks that join, and crops that tell the same."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.tiny_models import FRONTS, MEL, speech_batch, tiny_flow

from wavedistill.data.baseline import bits_per_sample, linear_prediction_bits
from wavedistill.data.dataset import Batch
from wavedistill.errors import WavedistillError
from wavedistill.flows import LTP, LongTermPredictionFlow
from wavedistill.models.waveform_flow import WaveformFlow, WaveformFlowConfig
from wavedistill.training.flow import FlowTask

KINDS = {
    **{f"front {name}": dict(front=front) for name, front in FRONTS.items()},
    "no long-term prediction": dict(long_term_order=0),
    "no split": dict(split_every=0),
    "reversible": dict(reversible=True),
    "no mel": dict(mel=None),
    "mel and speaker": dict(speakers=["a", "b"]),
}


def condition(model, frames=6, batch=2):
    audio, mel = speech_batch(batch, frames)
    speaker = torch.arange(batch) if model.config.speakers else None
    return audio, (mel if model.config.mel else None), speaker


def in_double(kind):
    model = tiny_flow(**KINDS[kind]).double()
    audio, mel, speaker = condition(model, 1, 1)
    return model, audio.double(), None if mel is None else mel.double(), speaker


# ---- densities


@pytest.mark.parametrize("kind", KINDS)
def test_density_is_that_of_the_bijection(kind):
    """log p(x) = log N(encode(x)) + log |det d encode / dx|, with the Jacobian of the whole model by autograd."""
    model, audio, mel, speaker = in_double(kind)
    jacobian = torch.autograd.functional.jacobian(lambda x: model.encode(x, mel, speaker)[0, 0], audio)[:, 0, 0]
    output = model.density(audio, mel, speaker)
    log_normal = -0.5 * float(output.noise.detach().square().sum() + audio.numel() * math.log(2 * math.pi))
    expected = log_normal + float(torch.linalg.slogdet(jacobian).logabsdet)
    assert float(output.log_prob.detach()) == pytest.approx(expected, abs=1e-8)
    assert not torch.equal(jacobian.triu(1), torch.zeros_like(jacobian)), "its couplings see the future"


@pytest.mark.parametrize("kind", KINDS)
def test_decode_is_encode_read_backwards(kind):
    model, audio, mel, speaker = in_double(kind)
    forward = model.density(audio, mel, speaker)
    back = model.decode(forward.noise, mel, speaker)
    torch.testing.assert_close(back.audio, audio, atol=1e-12, rtol=0)
    torch.testing.assert_close(back.log_prob, forward.log_prob, atol=1e-8, rtol=0)
    torch.testing.assert_close(
        model.sample(mel, audio.shape[-1], 1, noise=forward.noise, speaker=speaker), audio, atol=1e-12, rtol=0
    )


def test_log_prob_is_comparable_with_linear_predictions_bits():
    """Untrained, the flow is the two predictors with unit-variance noise: near linear prediction from the mel."""
    torch.manual_seed(0)
    model = WaveformFlow(tiny_flow(front=FRONTS["mel-prediction"]).config).eval()
    audio, mel = speech_batch(2, 60)
    bits = bits_per_sample(float(model.log_prob(audio, mel).detach().sum()) / audio.numel())
    assert abs(bits - linear_prediction_bits(list(audio[:, 0]), list(mel), MEL)) < 3.0


def test_dequantisation_noise_can_be_chosen():
    model = tiny_flow()
    audio, mel, _ = condition(model)
    first = model.log_prob(audio, mel)
    assert first.shape == (2,) and torch.equal(first, model.log_prob(audio, mel))
    assert not torch.equal(first, model.log_prob(audio, mel, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(model.log_prob(audio, mel, dequantize=False), model.density(audio, mel).log_prob)


@pytest.mark.parametrize("kind", ["front mel-prediction", "no mel", "reversible"])
def test_every_parameter_has_a_gradient_in_both_directions(kind):
    model = tiny_flow(**KINDS[kind]).train()
    audio, mel, speaker = condition(model)
    for run in (model.density, model.decode):
        model.zero_grad(set_to_none=True)
        output = run(audio, mel, speaker)
        (output.log_prob.sum() + output.audio.square().sum()).backward()
        without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
        assert without == {name for name, _ in model.named_parameters() if name.startswith("pitch.")}


def test_reversible_backward_gives_the_same_gradients():
    audio, mel, _ = condition(tiny_flow())
    gradients = []
    for reversible in (False, True):
        model = tiny_flow(reversible=reversible).double()
        model.density(audio.double(), mel.double()).log_prob.sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-7, rtol=1e-7)


def test_autocast_keeps_the_density_in_full_precision():
    model = tiny_flow(front=FRONTS["mel-prediction"])
    audio, mel, _ = condition(model, 40)
    exact = model.density(audio, mel)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.density(audio, mel)
    assert rough.log_prob.dtype == rough.noise.dtype == torch.float32
    torch.testing.assert_close(rough.log_prob, exact.log_prob, atol=0.02 * audio.shape[-1], rtol=0)


def test_a_crop_with_past_is_scored_as_the_rest_of_it():
    """The past lends both predictors what they look back on: noise and density are those of the later frames alone."""
    model = tiny_flow(front=FRONTS["mel-prediction"]).double()
    audio, mel, _ = condition(model, 8)
    audio = audio.double()
    mel = mel.double()
    crop = model.density(audio, mel, past_frames=3)
    assert crop.noise.shape == (2, 1, 5 * MEL.hop_length)
    tail = audio[..., 3 * MEL.hop_length :]

    def encode(x):
        return model.density(torch.cat([audio[..., : 3 * MEL.hop_length], x], dim=-1), mel, past_frames=3).noise[0, 0]

    jacobian = torch.autograd.functional.jacobian(encode, tail)[:, 0, 0]
    log_normal = -0.5 * float(crop.noise[0].detach().square().sum() + tail.shape[-1] * math.log(2 * math.pi))
    assert float(crop.log_prob[0].detach()) == pytest.approx(
        log_normal + float(torch.linalg.slogdet(jacobian).logabsdet), abs=1e-8
    )


# ---- sampling


@pytest.mark.parametrize("kind", KINDS)
def test_seed_decides_each_item_alone(kind):
    model = tiny_flow(**KINDS[kind])
    _, mel, speaker = condition(model)
    options = dict(mel=mel, speaker=speaker) if mel is not None else dict(num_samples=384, batch_size=2)
    both = model.sample(**options, seed=5)
    assert both.shape == (2, 1, 384) and torch.isfinite(both).all()
    assert torch.equal(both, model.sample(**options, seed=5))
    second = {name: value[1:] if torch.is_tensor(value) else value for name, value in options.items()} | {
        "batch_size": 1
    }
    torch.testing.assert_close(model.sample(**second, seed=6), both[1:], atol=1e-5, rtol=0)
    torch.testing.assert_close(model.sample(**options, seed=[5, 6]), both, atol=1e-6, rtol=0)
    assert not torch.allclose(both, model.sample(**options, seed=8))


@pytest.mark.parametrize(
    "kind", ["front none", "front pre-emphasis", "front mel-prediction", "no long-term prediction", "mel and speaker"]
)
@pytest.mark.parametrize("frames_per_chunk", [1, 2, 5, 19, 40])
def test_streamed_equals_whole(kind, frames_per_chunk):
    model = tiny_flow(**KINDS[kind])
    _, mel, speaker = condition(model, 19)
    mel = mel[:1]
    speaker = speaker[:1] if speaker is not None else None
    whole = model.sample(mel, seed=3, speaker=speaker)
    chunks = list(model.stream(mel, frames_per_chunk, seed=3, speaker=speaker))
    assert all(chunk.shape[-1] == frames_per_chunk * 64 for chunk in chunks[:-1])
    torch.testing.assert_close(torch.cat(chunks, dim=-1), whole, atol=1e-5, rtol=0)


def test_padding_a_mel_by_its_last_frame_changes_nothing():
    model = tiny_flow(front=FRONTS["mel-prediction"])
    _, mel, _ = condition(model)
    padded = torch.nn.functional.pad(mel, (0, 9), mode="replicate")
    torch.testing.assert_close(model.sample(padded, seed=1)[..., :384], model.sample(mel, seed=1), atol=1e-5, rtol=0)


def test_any_number_of_samples_without_a_mel():
    assert tiny_flow(mel=None).sample(num_samples=301, seed=0).shape == (1, 1, 301)


def test_temperature_scales_the_noise():
    model = tiny_flow()
    _, mel, _ = condition(model)
    silent = model.sample(mel, seed=0, temperature=0.0)
    assert torch.equal(silent, model.sample(mel, seed=1, temperature=0.0))
    assert model.sample(mel, seed=0, temperature=0.5).std() < model.sample(mel, seed=0).std()


# ---- long-term prediction


def predictor(batch=2, blocks=12, order=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lags = torch.randint(10, 31, (batch, blocks), generator=generator)
    taps = torch.rand(batch, blocks, order, generator=generator, dtype=torch.float64) - 0.5
    return LTP(lags, taps / (1 + taps.abs().sum(-1, keepdim=True)))


def test_long_term_prediction_follows_its_formula():
    flow = LongTermPredictionFlow(30)
    cond = predictor()
    x = torch.randn(2, 1, 96, dtype=torch.float64)
    y = flow.forward(x, cond).value
    for item in range(2):
        for t in range(96):
            lag = int(cond.lags[item, t // 8])
            taps = cond.taps[item, t // 8]
            told = sum(float(taps[k + 2] * x[item, 0, t - lag - k]) for k in range(-2, 3) if t - lag - k >= 0)
            assert float(y[item, 0, t]) == pytest.approx(float(x[item, 0, t]) - told, abs=1e-12)
    torch.testing.assert_close(flow.inverse(y, cond).value, x, atol=1e-12, rtol=0)
    assert not flow.forward(x, cond).log_det.any() and flow.inverse(y, cond, per_step=True).log_det.shape == (2, 96)


def test_long_term_prediction_goes_on_from_its_past():
    flow = LongTermPredictionFlow(30)
    cond = predictor()
    y = torch.randn(2, 96, dtype=torch.float64)
    whole, _ = flow.synthesize(y, cond, None)
    past = None
    parts = []
    for start in range(0, 12, 4):
        part = LTP(*(value[:, start : start + 4] for value in cond))
        made, past = flow.synthesize(y[:, 8 * start : 8 * start + 32], part, past)
        parts.append(made)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-12, rtol=0)


def test_long_term_prediction_passes_gradients_both_ways():
    flow = LongTermPredictionFlow(30)
    cond = predictor(1, 4, 3)
    x = torch.randn(1, 1, 32, dtype=torch.float64, requires_grad=True)
    taps = cond.taps.clone().requires_grad_()
    for run in (flow.forward, flow.inverse):
        assert torch.autograd.gradcheck(
            lambda x, taps, run=run: run(x, LTP(cond.lags, taps)).value, (x, taps), fast_mode=True
        )


def test_lags_are_the_smallest_whole_periods_that_reach_back_before_the_block():
    periods = torch.tensor([20.0, 33.4, 60.0, 72.0, 266.7])
    lags = LongTermPredictionFlow.admissible(periods, block=64, reach=8)
    assert lags.tolist() == [80, 100, 120, 72, 267]


def test_long_term_prediction_refuses_what_does_not_fit():
    flow = LongTermPredictionFlow(30)
    with pytest.raises(WavedistillError, match="needs a LTP as condition, got NoneType"):
        flow.forward(torch.zeros(1, 1, 16))
    with pytest.raises(WavedistillError, match="17 samples, 4 blocks and 3 taps"):
        flow.forward(torch.zeros(2, 1, 17, dtype=torch.float64), predictor(2, 4, 3))


# ---- configuration and training


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(squeeze=3), "divide a block of 64 samples, got 3"),
        (dict(num_flows=0), "num_flows must be from 1 to 4096"),
        (dict(num_flows=17), "4 splits of 2 of 8 channels leave fewer"),
        (dict(long_term_order=4), "must be odd"),
        (dict(mel=None), "without mel has no pitch"),
        (dict(stack=dict(kernel_size=2)), "kernel_size must be odd"),
    ],
)
def test_configurations_that_cannot_be_are_refused(options, message):
    from wavedistill.config import from_dict

    with pytest.raises(WavedistillError, match=message):
        from_dict(WaveformFlowConfig, options)


def test_training_lowers_bits_and_the_pitch_loss():
    torch.manual_seed(0)
    task = FlowTask(WaveformFlow(tiny_flow(front=FRONTS["mel-prediction"]).config)).train()
    audio, mel = speech_batch(4, 30)
    batch = Batch(audio[:, 0], mel, torch.full((4, 30), 160.0))
    optimizer = torch.optim.Adam(task.model.parameters(), 1e-2)
    logged = []
    for step in range(12):
        loss, values = task(batch, step)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        logged.append(values)
    for name in ("bits", "pitch"):
        assert float(logged[-1][name]) < float(logged[0][name]) - 0.05, name
