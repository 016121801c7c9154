import dataclasses
import math

import pytest
import torch
from helpers.tiny_models import FRONTS, MEL, speech_batch, tiny_student, tiny_teacher

from wavedistill.audio.mel import LogMelSpectrogram
from wavedistill.distributions import Gaussian, gaussian_kl
from wavedistill.errors import WavedistillError
from wavedistill.losses.distillation import ADVERSARIAL_TERMS, TERMS, DistillationConfig, DistillationLoss
from wavedistill.losses.divergence import divergence, first_counted, monte_carlo_kl
from wavedistill.losses.spectral import MultiResolutionSTFT

ALL = DistillationConfig(weights={name: 1.0 for name in TERMS})


def _batch(frames=24):
    audio, mel = speech_batch(2, frames)
    return audio, mel, torch.full((2, frames), 120.0)


def _loss(config=ALL, **teacher):
    front = teacher.pop("front", FRONTS["mel-prediction"])
    teacher = tiny_teacher(front=front, **teacher).requires_grad_(False)
    return DistillationLoss(config, tiny_student(front=front), teacher), tiny_student(front=front).train()


def test_closed_form_kl_is_torchs():
    generator = torch.Generator().manual_seed(0)
    loc_q, log_q, loc_p, log_p = torch.randn(4, 50, generator=generator, dtype=torch.float64)
    q = torch.distributions.Normal(loc_q, log_q.exp())
    p = torch.distributions.Normal(loc_p, log_p.exp())
    torch.testing.assert_close(gaussian_kl(loc_q, log_q, loc_p, log_p), torch.distributions.kl_divergence(q, p))
    torch.testing.assert_close(Gaussian.entropy(log_q), q.entropy())


def test_a_centred_mel_has_one_frame_more_than_the_loss_compares():
    mel = dataclasses.replace(MEL, centered=True)
    teacher, student = tiny_teacher(mel=mel).requires_grad_(False), tiny_student(mel=mel).train()
    audio, _, f0 = _batch()
    frames = LogMelSpectrogram(mel)(audio[:, 0])
    assert frames.shape[-1] == f0.shape[-1] + 1
    loss_of = DistillationLoss(DistillationConfig(weights={"kl": 1.0, "mel": 1.0}), student, teacher)
    _, values = loss_of(student, audio, frames[..., :-1], None, f0, 0)
    assert torch.isfinite(values["mel"])


@pytest.mark.parametrize("front", FRONTS)
def test_every_term_is_finite_logged_and_trains_every_parameter(front):
    terms = [name for name in TERMS if name != "contrastive" or FRONTS[front].bands == 1]
    loss_of, student = _loss(DistillationConfig(weights={name: 1.0 for name in terms}), front=FRONTS[front])
    audio, mel, f0 = _batch()
    torch.manual_seed(0)
    loss, values = loss_of(student, audio, mel, None, f0, 0)
    loss.backward()
    assert set(terms) <= set(values) and all(torch.isfinite(value) for value in values.values())
    assert {"kl_nats", "entropy", "floor_share", "amplitude_std", "real_std"} <= set(values)
    assert not [name for name, p in student.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    torch.testing.assert_close(loss.detach(), sum(values[name] for name in terms))


def test_the_spectrum_is_that_of_what_is_heard():
    """After the contraction to the mel, with its gradient; the mel term looks at the flows' own audio."""
    front = dataclasses.replace(FRONTS["sub-bands"], mel_contraction=2)
    loss_of, student = _loss(DistillationConfig(weights={"stft": 1.0, "mel": 1.0}), front=front)
    audio, mel, f0 = _batch()
    torch.manual_seed(0)
    _, values = loss_of(student, audio, mel, None, f0, 0)
    torch.manual_seed(0)
    own = student.rsample(torch.randn(audio.shape), mel).audio
    heard = student.contracted(own, mel)
    torch.testing.assert_close(values["stft"], loss_of.stft(heard[:, 0], audio[:, 0]))
    torch.testing.assert_close(values["mel"], (loss_of.mel(own[:, 0]) - mel).abs().mean())
    assert float((heard - own).detach().abs().mean()) > 1e-4


def test_terms_share_what_they_have_in_common(monkeypatch):
    """The teacher is asked once for kl, regularizer and the diagnostics, the discriminators twice for their terms."""
    loss_of, student = _loss(
        DistillationConfig(weights={name: 1.0 for name in ("kl", "regularizer", *ADVERSARIAL_TERMS)})
    )
    asked = []
    loss_of.discriminators.register_forward_hook(lambda *_: asked.append("discriminators"))
    predict = loss_of.teacher.predict
    monkeypatch.setattr(loss_of.teacher, "predict", lambda *args: asked.append("teacher") or predict(*args))
    audio, mel, f0 = _batch()
    _, values = loss_of(student, audio, mel, None, f0, 0)
    assert sorted(asked) == ["discriminators", "discriminators", "teacher"]
    assert list(TERMS)[:2] == ["kl", "regularizer"] and {"kl_nats", *ADVERSARIAL_TERMS} <= values.keys()


def test_only_weighted_terms_are_computed():
    loss_of, student = _loss(DistillationConfig(weights={"stft": 2.0}))
    audio, mel, f0 = _batch()
    loss, values = loss_of(student, audio, mel, None, f0, 0)
    assert not (set(TERMS) - {"stft"}) & set(values)
    torch.testing.assert_close(loss.detach(), 2.0 * values["stft"])


@pytest.mark.parametrize("front", ["mel-prediction", "sub-bands"])
def test_kl_in_the_fronts_domain_is_the_waveforms(front):
    """log q(x) - log p(x) of the student's samples, computed on the waveform, has the closed form's mean."""
    loss_of, student = _loss(DistillationConfig(weights={"kl": 1.0}, kl_clip_steps=0), front=FRONTS[front])
    student.eval()
    _, mel = speech_batch(1, 32)
    mel = mel.expand(16, -1, -1)
    noise = torch.randn(16, 1, 32 * MEL.hop_length, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output = student.rsample(noise, mel)
        log_q = student.own_log_prob(output)
        log_p = loss_of.teacher.log_prob_per_sample(output.audio, mel, dequantize=False)
        loc_p, log_scale_p = loss_of.teacher.distribution.loc_scale(
            *loss_of.teacher.predict(output.excitation, mel, None)
        )
        closed = gaussian_kl(output.loc, output.log_scale, loc_p, log_scale_p)
    difference = (log_q - log_p - closed)[:, 64:]
    assert abs(float(difference.mean())) < 5 * float(difference.std()) / math.sqrt(difference.numel())


@pytest.mark.parametrize("front", ["mel-prediction", "sub-bands"])
def test_monte_carlo_kl_agrees_with_the_closed_form(front):
    """A mixture-of-logistics teacher has no closed form; the estimator on a Gaussian teacher must match its own."""
    loss_of, student = _loss(DistillationConfig(weights={"kl": 1.0}), front=FRONTS[front])
    _, mel = speech_batch(2, 24)
    torch.manual_seed(0)
    with torch.no_grad():
        output = student.rsample(torch.randn(2, 1, 24 * 64), mel)
        parameters, shift = loss_of.teacher.predict(output.excitation, mel, None)
        estimate = monte_carlo_kl(loss_of.teacher.distribution, output, parameters, shift, num_draws=64)
        exact = gaussian_kl(output.loc, output.log_scale, *loss_of.teacher.distribution.loc_scale(parameters, shift))
    error = estimate - exact
    assert abs(float(error.mean())) < 5 * float(error.std()) / math.sqrt(error.numel())


@pytest.mark.parametrize("front", ["mel-prediction", "sub-bands"])
def test_mixture_of_logistics_teacher_trains_a_student(front):
    config = DistillationConfig(weights={"kl": 1.0, "stft": 1.0})
    loss_of, student = _loss(config, distribution="mol", num_mixtures=3, front=FRONTS[front])
    audio, mel, f0 = _batch()
    loss, _ = loss_of(student, audio, mel, None, f0, 0)
    loss.backward()
    assert torch.isfinite(loss) and student.flows[0].predictor.stack.output.weight.grad.abs().sum() > 0


def test_kl_is_clipped_in_the_first_steps_only():
    loss_of, student = _loss(DistillationConfig(weights={"kl": 1.0}, kl_clip=1e-3, kl_clip_steps=10))
    audio, mel, f0 = _batch()
    early, late = (float(loss_of(student, audio, mel, None, f0, step)[1]["kl"]) for step in (9, 10))
    assert early <= 1.001e-3 < late


def test_stft_distance_is_zero_for_equal_and_grows_with_noise():
    distance = MultiResolutionSTFT(16000)
    audio = speech_batch(1, 100)[0][:, 0]
    noise = torch.randn(audio.shape, generator=torch.Generator().manual_seed(0))
    assert float(distance(audio, audio)) == 0.0
    assert 0.0 < float(distance(audio + 1e-3 * noise, audio)) < float(distance(audio + 1e-1 * noise, audio))


def test_impossible_combinations_are_refused():
    with pytest.raises(WavedistillError, match="unknown term 'kll'"):
        DistillationConfig(weights={"kll": 1.0})
    with pytest.raises(WavedistillError, match="must be the teacher's"):
        DistillationLoss(ALL, tiny_student(front=FRONTS["none"]), tiny_teacher(front=FRONTS["pre-emphasis"]))
    with pytest.raises(WavedistillError, match="'mol' teacher"):
        DistillationLoss(ALL, tiny_student(), tiny_teacher(distribution="mol"))
    with pytest.raises(WavedistillError, match="source_order above 0"):
        DistillationLoss(ALL, tiny_student(source_order=0), tiny_teacher())
    with pytest.raises(WavedistillError, match="'contrastive' compares single samples .* needs front.bands: 1"):
        loss_of, student = _loss(front=FRONTS["sub-bands"])
        loss_of(student, *_batch()[:2], None, _batch()[2], 0)


def test_the_teacher_can_be_asked_about_a_share_of_the_batch():
    student = tiny_student()
    teacher = tiny_teacher()
    audio, mel = speech_batch(4, 30)
    values = {}
    for share in (0.5, 1.0):
        torch.manual_seed(0)
        loss = DistillationLoss(DistillationConfig(weights={"kl": 1.0}, kl_share=share), student, teacher)
        values[share] = loss(student, audio, mel, None, None, 0)[1]["kl_nats"]
    torch.manual_seed(0)
    noise = torch.randn(audio.shape)[:2]
    output = student.rsample(noise, mel[:2])
    skip = first_counted(student, teacher, output.loc.shape[1])
    expected = divergence(teacher, output, mel[:2], None, skip, DistillationConfig().log_scale_floor, 1).kl.mean()
    torch.testing.assert_close(values[0.5], expected.detach())
    assert not torch.isclose(values[0.5], values[1.0])
    with pytest.raises(WavedistillError, match="kl_share must be above 0 and at most 1, got 0"):
        DistillationConfig(kl_share=0.0)
