import dataclasses
import math

import pytest
import torch
from helpers.tiny_models import FRONTS, MEL, shake, speech_batch, tiny_student

from wavedistill.audio.mel import LogMelSpectrogram
from wavedistill.dsp.harmonic_source import HarmonicSource, Pitch, pulse_train
from wavedistill.errors import WavedistillError
from wavedistill.flows.autoregressive import Condition
from wavedistill.models import parallel_wavenet
from wavedistill.models.front import FrontConfig
from wavedistill.models.parallel_wavenet import ParallelWaveNetConfig
from wavedistill.nn.causal_network import CausalNetwork
from wavedistill.nn.pitch_predictor import F0_MAX, F0_MIN, PitchPredictor
from wavedistill.nn.wavenet_stack import StackConfig

KINDS = {
    **{f"front {name}": dict(front=front) for name, front in FRONTS.items()},
    "no source": dict(source_order=0),
    "no mel": dict(mel=None, source_order=0),
    "mel and speaker": dict(speakers=["a", "b"]),
    "patches": dict(patch_size=4),
    "patches of sub-bands": dict(patch_size=2, source_order=3, front=FRONTS["sub-bands"]),
    "patches of sub-bands as long as a block": dict(
        patch_size=4, cond_upsample=2, source_iterations=0, front=FRONTS["sub-bands"]
    ),
    "contraction": dict(front=dataclasses.replace(FRONTS["sub-bands"], mel_contraction=2)),
    "patches beyond the linear path": dict(patch_size=8, linear_order=3, front=FRONTS["mel-prediction"]),
}


def _condition(model, frames=6):
    _, mel = speech_batch(2, frames)
    speaker = torch.tensor([0, 1]) if model.config.speakers else None
    return (mel if model.config.mel else None), speaker


@pytest.mark.parametrize("kind", KINDS)
def test_one_pass_is_triangular_with_the_stated_log_density(kind):
    model = tiny_student(**KINDS[kind]).double()
    mel, speaker = _condition(model, 1)
    mel = mel[:1].double() if mel is not None else None
    speaker = speaker[:1] if speaker is not None else None
    noise = torch.randn(1, 1, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    jacobian = torch.autograd.functional.jacobian(lambda z: model.rsample(z, mel, speaker).audio[0, 0], noise)[:, 0, 0]
    output = model.rsample(noise, mel, speaker)
    step = torch.arange(64) // model.config.front.bands  # inside a step of the front the bands make up the samples
    assert not jacobian[step[:, None] < step].any()  # the first step included: a true bijection
    log_normal = -0.5 * float(noise.square().sum() + 64 * math.log(2 * math.pi))
    expected = log_normal - float(torch.linalg.slogdet(jacobian).logabsdet)
    assert float(model.own_log_prob(output).sum().detach()) == pytest.approx(expected, abs=1e-9)
    torch.testing.assert_close(output.loc + output.log_scale.exp() * noise[:, 0], output.excitation)


def test_the_density_of_what_is_heard_is_that_of_the_whole_map():
    model = tiny_student(**KINDS["contraction"]).double()
    _, mel = speech_batch(1, 4)
    mel = mel.double()
    noise = torch.randn(1, 1, 256, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def heard(z):
        return model.contracted(model.rsample(z, mel, None).audio, mel)[0, 0]

    jacobian = torch.autograd.functional.jacobian(heard, noise)[:, 0, 0]
    log_normal = -0.5 * float(noise.square().sum() + 256 * math.log(2 * math.pi))
    expected = log_normal - float(torch.linalg.slogdet(jacobian).logabsdet)
    found = model.sample_log_prob(model.rsample(noise, mel, None), mel)
    assert float(found.detach()) == pytest.approx(expected, abs=1e-6)
    before = float(model.own_log_prob(model.rsample(noise, mel, None)).sum().detach())
    assert abs(before - expected) > 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_but_the_pitch_predictors_has_a_gradient(kind):
    model = tiny_student(**KINDS[kind]).train()
    mel, speaker = _condition(model)
    model.contracted(model.rsample(torch.randn(2, 1, 6 * 64), mel, speaker).audio, mel).square().mean().backward()
    without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert without == {name for name, _ in model.named_parameters() if name.startswith("pitch.")}


@pytest.mark.parametrize("kind", KINDS)
def test_seed_decides_each_item_alone(kind):
    model = tiny_student(**KINDS[kind])
    mel, speaker = _condition(model)
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


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "no mel"])
@pytest.mark.parametrize("frames_per_chunk", [1, 2, 5, 19, 40])
def test_streamed_equals_whole(kind, frames_per_chunk):
    model = tiny_student(**KINDS[kind])
    mel, speaker = _condition(model, 19)
    mel = mel[:1]
    speaker = speaker[:1] if speaker is not None else None
    whole = model.sample(mel, seed=3, speaker=speaker)
    chunks = list(model.stream(mel, frames_per_chunk, seed=3, speaker=speaker))
    assert all(chunk.shape[-1] == frames_per_chunk * 64 for chunk in chunks[:-1])
    torch.testing.assert_close(torch.cat(chunks, dim=-1), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "kind",
    ["front mel-prediction", "no mel", "mel and speaker", "patches beyond the linear path", "patches of sub-bands"],
)
def test_pieces_equal_the_pass_with_gradient(kind, monkeypatch):
    model = tiny_student(**KINDS[kind])
    mel, speaker = _condition(model, 7)
    noise = torch.randn(2, 1, 7 * 64, generator=torch.Generator().manual_seed(0))
    whole = model.rsample(noise, mel, speaker).audio.detach()
    two_frames = 2 * 2 * 64 * model.config.stack.channels // model.config.step_size  # of the two items
    monkeypatch.setattr(parallel_wavenet, "CACHED_VALUES", two_frames)
    with torch.no_grad():
        pieces = model.rsample(noise, mel, speaker, in_pieces=True).audio
        torch.testing.assert_close(pieces, whole, atol=1e-5, rtol=0)


def test_padding_a_batch_by_repeating_the_last_frame_changes_nothing():
    model = tiny_student(front=FRONTS["mel-prediction"])
    mel, _ = _condition(model, 9)
    padded = torch.nn.functional.pad(mel, (0, 7), mode="replicate")
    torch.testing.assert_close(
        model.sample(padded, seed=1)[..., : 9 * 64], model.sample(mel, seed=1), atol=1e-5, rtol=0
    )


def test_temperature_scales_the_noise():
    model = tiny_student()
    mel, _ = _condition(model)
    still = model.sample(mel, seed=1, temperature=0.0)
    assert torch.equal(still, model.sample(mel, seed=2, temperature=0.0))
    assert not torch.equal(model.sample(mel, seed=1), model.sample(mel, seed=2))


def test_wrong_arguments_are_refused():
    with pytest.raises(WavedistillError, match="read the pitch"):
        ParallelWaveNetConfig(mel=None)
    with pytest.raises(WavedistillError, match="num_flows"):
        ParallelWaveNetConfig(num_flows=0)
    with pytest.raises(WavedistillError, match="mel_contraction must be at least 0"):
        FrontConfig(mel_contraction=-1)
    with pytest.raises(WavedistillError, match="front.mel_contraction needs a mel"):
        ParallelWaveNetConfig(mel=None, source_order=0, front=FrontConfig(mel_contraction=2))
    model = tiny_student()
    with pytest.raises(WavedistillError, match="one frame"):
        list(model.stream(_condition(model)[0][:1], 0))
    with pytest.raises(WavedistillError, match="20"):
        model.sample(torch.zeros(1, 13, 4))


def test_pulse_train_has_its_pitch_unit_power_and_continues():
    frames = 30
    f0 = 125.0
    pitch = Pitch(torch.full((1, frames + 2), f0), torch.ones(1, frames + 2))
    source, phases = pulse_train(pitch, 256, 16000)
    assert source.shape == (1, frames * 256)
    assert float(source.square().mean()) == pytest.approx(1.0, abs=0.05)
    spectrum = torch.fft.rfft(source[0, :7680] * torch.hann_window(7680)).abs()
    harmonics = torch.arange(1, 60) * 60  # 125 Hz is bin 60 of 7680
    assert float(spectrum[harmonics].min()) > 100 * float(spectrum[harmonics + 30].max())
    head = Pitch(*(part[:, :12] for part in pitch))
    tail = Pitch(*(part[:, 10:] for part in pitch))
    first, phases = pulse_train(head, 256, 16000)
    second, _ = pulse_train(tail, 256, 16000, phases[:, -1])
    torch.testing.assert_close(torch.cat([first, second], dim=1), source, atol=1e-4, rtol=0)


def test_source_follows_the_mel_and_is_silent_where_unvoiced():
    audio, mel = speech_batch(1, 40)
    pitch = Pitch(torch.full((1, 42), 150.0), torch.ones(1, 42))
    raw = HarmonicSource(MEL, 0)(pitch, mel)
    fitted = HarmonicSource(MEL, 3)(pitch, mel)
    distance = [float((LogMelSpectrogram(MEL)(wave) - mel)[..., 4:-4].abs().mean()) for wave in (raw, fitted)]
    assert distance[1] < 0.9 * distance[0]
    silent = HarmonicSource(MEL, 3)(Pitch(pitch.f0, torch.zeros(1, 42)), mel)
    assert torch.equal(silent, torch.zeros(1, 40 * MEL.hop_length))


def test_pitch_predictor_learns_and_decodes():
    torch.manual_seed(0)
    predictor = PitchPredictor(MEL.n_mels, channels=16)
    mel = torch.randn(1, MEL.n_mels, 12)
    f0 = torch.tensor([[0.0] * 6 + [80.0, 110.0, 150.0, 220.0, 300.0, 420.0]])
    optimizer = torch.optim.Adam(predictor.parameters(), lr=1e-2)
    for _ in range(150):
        loss = predictor.loss(predictor(mel), f0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pitch = predictor.decode(predictor(mel))
    assert torch.equal(pitch.voicing > 0.5, f0 > 0)
    cents = 1200 * (pitch.f0[0, 6:] / f0[0, 6:]).log2()
    assert float(cents.abs().max()) < 30
    assert F0_MIN <= float(pitch.f0.min()) and float(pitch.f0.max()) <= F0_MAX


@pytest.mark.parametrize("patch_size, bands", [(1, 1), (4, 1), (16, 1), (1, 8), (2, 8), (4, 4)])
def test_each_flow_is_inverted_step_by_step(patch_size, bands):
    model = tiny_student(patch_size=patch_size, front=FrontConfig(bands=bands)).double()
    mel, _ = _condition(model, 2)
    source = torch.randn(2, 128, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    condition = Condition(model.features(mel.double(), None), source)
    z = torch.randn(2, 1, 128, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for flow in model.flows:
        found = flow.inverse(flow.forward(z, condition).value, condition).value
        torch.testing.assert_close(found, z, rtol=0, atol=1e-10)


def test_the_network_of_a_patch_sees_earlier_patches_only():
    torch.manual_seed(0)
    predictor = CausalNetwork(2, StackConfig(2, 1, 2, 8, 8), cond_channels=0, linear_order=3, step_size=8)
    shake(predictor, 0.1).double()
    x = torch.randn(1, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    jacobian = torch.autograd.functional.jacobian(lambda x: predictor(x, None)[0].sum(-1)[0], x)[:, 0]
    seen = torch.tensor([[jacobian[t, s] != 0 for s in range(64)] for t in range(64)])
    assert not any(seen[t, t - t % 8 :].any() for t in range(64))
    assert seen[63].nonzero().min() == 63 - predictor.reach == 24  # reach: 4 patches of 8 and the place in its own
    shift = torch.autograd.functional.jacobian(lambda x: predictor(x, None)[1][0], x)[:, 0]
    assert shift[36, 8:32].all() and not shift[36, :8].any() and not shift[36, 32:].any()  # three whole patches


@pytest.mark.parametrize("kind", ["patches", "patches of sub-bands"])
def test_bfloat16_networks_are_close_and_leave_scales_and_density_in_float32(kind):
    model = tiny_student(**KINDS[kind])
    mel = _condition(tiny_student())[0]
    noise = torch.randn(2, 1, 384, generator=torch.Generator().manual_seed(0))
    exact = model.sample(mel, noise=noise)
    with torch.inference_mode():
        output = model.compute_in(torch.bfloat16).rsample(noise, mel)
    assert model.flows[0].predictor.stack.convs[0].weight.dtype == torch.bfloat16
    assert output.audio.dtype == output.log_scale.dtype == torch.float32
    difference = (output.audio - exact).square().mean() / exact.square().mean()
    assert 0 < difference < 1e-4
    rebuilt = output.loc + output.log_scale.exp() * noise[:, 0]
    torch.testing.assert_close(rebuilt, output.excitation)


@pytest.mark.parametrize("patch_size", [0, -1])
def test_a_patch_holds_something(patch_size):
    with pytest.raises(WavedistillError, match=f"patch_size must be from 1 to .*, got {patch_size}"):
        ParallelWaveNetConfig(patch_size=patch_size)


@pytest.mark.parametrize("patch_size, bands", [(48, 1), (16, 8)])
def test_patches_must_fit_the_blocks_of_the_condition(patch_size, bands):
    message = rf"patch_size \* front.bands must divide the 64 samples .*, got {patch_size} \* {bands}\."
    with pytest.raises(WavedistillError, match=message):
        ParallelWaveNetConfig(patch_size=patch_size, front=FrontConfig(bands=bands))


def test_without_a_mel_a_waveform_is_whole_steps():
    model = tiny_student(None, patch_size=4, front=FrontConfig(bands=8))
    assert model.sample(num_samples=96, seed=0).shape == (1, 1, 96)
    with pytest.raises(WavedistillError, match="multiple of the 32 samples that this model makes together, got 50"):
        model.sample(num_samples=50, seed=0)
