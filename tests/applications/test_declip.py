"""Clipped samples drawn by a teacher: only they change, all lie beyond the threshold, and the density is right."""

from __future__ import annotations

import json
import math

import pytest
import torch
from helpers.tiny_models import MEL, speech_like, tiny_student, tiny_teacher

from wavedistill import cli, load_audio, save_audio
from wavedistill.applications import declipped_files, declipped_speech
from wavedistill.applications.clipping import Clipped, find_clipped, interpolate_clipped
from wavedistill.applications.declipped_speech import measure_declipping
from wavedistill.applications.declipping import DeclipConfig, _Filter, declip_sound
from wavedistill.applications.truncated_normal import CEILING, _truncated_normal, draw_beyond
from wavedistill.errors import WavedistillError
from wavedistill.evaluation.systems import LoadedModel, on_grid
from wavedistill.flows.solvers.stepping import CausalStepper
from wavedistill.models.base import dequantized
from wavedistill.models.front import FrontConfig
from wavedistill.models.pretrained import save_pretrained

BANDS = FrontConfig(mel_prediction_order=32, white_noise=1e-4, bands=8, mel_contraction=2)
RATE = 8000
FEW = DeclipConfig(4, rounds=1)


def loud(seconds: float = 0.3, seed: int = 0, limit: float = 0.25) -> torch.Tensor:
    return on_grid(speech_like(seconds, seed=seed)).clamp(-limit, limit)


def loaded(model) -> LoadedModel:
    return LoadedModel("tiny", "tiny", model)


def test_each_sign_has_its_own_threshold():
    audio = on_grid(speech_like(0.5)).clamp(-0.125, 1.0)
    found = find_clipped(audio)
    assert set(found.signs.tolist()) == {0, -1} and set(found.limits[found.signs != 0].tolist()) == {0.125}
    assert torch.equal(found.signs != 0, audio <= -0.125 + 1.5 / 32768)
    both = find_clipped(audio.clamp(-1.0, 0.25))
    assert set(both.limits[both.signs == 1].tolist()) == {0.25}
    given = find_clipped(audio, 0.25)
    assert torch.equal(given.signs != 0, audio.abs() >= 0.25 - 1.5 / 32768)
    for wrong, threshold, message in (
        (on_grid(speech_like(0.5)), None, "give the threshold with --threshold"),
        (torch.zeros(100), None, "nothing is clipped"),
        (audio, 0.9, "no sample reaches 0.9"),
        (audio, 1.5, "at most at 1, given 1.5"),
        (audio.sign() * 0.5, None, "too many"),
    ):
        with pytest.raises(WavedistillError, match=message):
            find_clipped(wrong, threshold)


def test_a_clipped_sound_is_interpolated():
    sound = on_grid(speech_like(0.5))
    given = sound.clamp(-0.25, 0.25)
    clipped = find_clipped(given)
    made = interpolate_clipped(given, clipped)
    mine = clipped.signs != 0
    assert torch.equal(made[~mine], given[~mine])
    assert (made[mine] * clipped.signs[mine] >= clipped.limits[mine] - 1e-6).all()
    assert (made - sound).square().mean() < 0.5 * (given - sound).square().mean()


@pytest.mark.parametrize("front", [BANDS, FrontConfig(), FrontConfig(pre_emphasis=0.9, scale=4.0)])
def test_only_clipped_samples_change_and_lie_beyond_the_threshold(front):
    audio = loud(0.0501)
    audio[100:104] = -0.25
    teacher = loaded(tiny_teacher(front=front))
    made, again, other = (declip_sound(audio, teacher, DeclipConfig(4, seed, rounds=1)) for seed in (0, 0, 1))
    mine = made.clipped.signs != 0
    assert mine[100:104].all() and torch.equal(made.audio[~mine], audio[~mine])
    sized = made.audio[mine] * made.clipped.signs[mine]
    assert (sized >= 0.25 - 1e-5).all() and (sized <= CEILING * 0.25 + 1e-5).all() and sized.std() > 0.01
    assert torch.equal(made.audio, again.audio) and not torch.equal(made.audio, other.audio)
    assert (made.low <= made.high)[mine].all() and torch.equal(made.low[~mine], audio[~mine])
    assert 1.0 <= made.effective_size <= 4.0 + 1e-9


def test_a_truncated_normal_has_its_moments_and_its_probability():
    generator = torch.Generator().manual_seed(0)
    normal = torch.distributions.Normal(0.0, 1.0)
    for low, high in ((0.5, 2.0), (-2.0, -0.5), (-1.0, 3.0), (-3.0, 1.0), (5.0, 9.0), (-40.0, -39.0), (60.0, 70.0)):
        ends = [torch.full((20000,), end, dtype=torch.float64) for end in (low, high)]
        z, log_share = _truncated_normal(*ends, generator)
        assert (z >= low).all() and (z <= high).all() and torch.isfinite(log_share).all()
        grid = torch.linspace(low, high, 200001, dtype=torch.float64)
        log_mass = torch.logsumexp(normal.log_prob(grid), 0) + math.log((high - low) / 200000)
        assert float(log_share[0]) == pytest.approx(float(log_mass), rel=1e-3, abs=1e-3)
        mean = float((grid * (normal.log_prob(grid).softmax(0))).sum())
        assert float(z.mean()) == pytest.approx(mean, abs=0.02 * max(float(z.std()), 0.05) + 1e-3)


def test_the_draws_of_a_step_are_those_of_rejection():
    """Two of four samples clipped, one of each sign: weighed draws against plain draws that are thrown away."""
    generator = torch.Generator().manual_seed(1)
    n = 100_000
    matrix = torch.randn(4, 4, generator=generator, dtype=torch.float64) + 2 * torch.eye(4, dtype=torch.float64)
    offset = torch.tensor([0.3, -0.2, 0.1, 0.4], dtype=torch.float64)
    log_scale = torch.tensor([0.1, -0.3, 0.2, 0.0], dtype=torch.float64)
    signs, limits = torch.tensor([0, 1, 0, -1]), torch.tensor([0.0, 0.1, 0.0, 0.2], dtype=torch.float64)
    x = torch.tensor([0.1, 9.0, -0.2, 9.0], dtype=torch.float64).expand(n, -1)
    made, gained = draw_beyond(x, signs, limits, matrix, offset.expand(n, -1), log_scale.expand(n, -1), generator)
    assert torch.equal(made[:, ::2], x[:, ::2])
    weights = gained.softmax(0)
    inverse = torch.linalg.inv(matrix / log_scale.exp()[:, None])
    mean, covariance = -inverse @ (offset / log_scale.exp()), inverse @ inverse.T
    known, lost = [0, 2], [1, 3]
    gain = covariance[lost][:, known] @ torch.linalg.inv(covariance[known][:, known])
    center = mean[lost] + gain @ (x[0, known] - mean[known])
    rest = covariance[lost][:, lost] - gain @ covariance[known][:, lost]
    plain = center + torch.randn(n, 2, generator=generator, dtype=torch.float64) @ torch.linalg.cholesky(rest).T
    sized = plain * torch.tensor([1.0, -1.0], dtype=torch.float64)
    kept = ((sized >= limits[lost]) & (sized <= CEILING * limits[lost])).all(1)
    assert kept.sum() > 500
    for power in (1, 2):
        expected = plain[kept].pow(power)
        error = 5 * expected.std(0) / kept.sum().sqrt()
        assert ((weights @ made[:, lost].pow(power) - expected.mean(0)).abs() < error).all()
    density = torch.distributions.MultivariateNormal(mean[known], covariance[known][:, known]).log_prob(x[0, known])
    assert float(gained.logsumexp(0)) - math.log(n) == pytest.approx(
        float(density + kept.double().mean().log()), abs=0.1
    )


@torch.inference_mode()
def test_candidates_weigh_what_the_teacher_s_density_says():
    """Known samples only: every candidate's weight is the log-density of the parallel pass."""
    teacher = tiny_teacher(front=BANDS)
    sound = dequantized(on_grid(speech_like(0.064)))
    mel = loaded(teacher).front_end(sound)[None]
    nothing = Clipped(torch.zeros(len(sound), dtype=torch.int64), torch.zeros(len(sound)))
    run = _Filter(teacher, sound, nothing, mel, None, 3, 0)
    gained = torch.zeros(3, dtype=torch.float64)
    for start in range(0, len(sound), 8):
        before = run.log_weights
        run._step(start)
        gained += run.log_weights - before
    terms = teacher.log_prob_per_sample(sound[None, None], mel, dequantize=False)[0].double().sum()
    slope = teacher.front.log_slope(sound[None], teacher.front.condition(mel)).double().sum()
    expected = terms - slope + 0.5 * len(sound) * math.log(2 * math.pi)
    torch.testing.assert_close(gained, expected.expand(3), rtol=1e-4, atol=1e-2)


@torch.inference_mode()
def test_selected_items_go_on_as_if_they_had_been_there_from_the_start():
    teacher = tiny_teacher(front=FrontConfig(bands=2))
    values = torch.randn(3, 24, generator=torch.Generator().manual_seed(0))
    features = teacher.features(torch.randn(1, MEL.n_mels, 1), None)
    kept = torch.tensor([2, 0, 2])
    steppers = [CausalStepper(teacher.predictor, 3, 64, features, None) for _ in range(2)]
    for t in range(24):
        if t == 12:
            steppers[0].select(kept)
        outputs = [stepper.parameters(t)[0] for stepper in steppers]
        if t >= 12:
            torch.testing.assert_close(outputs[0], outputs[1])
        steppers[0].feed(t, values[kept, t] if t >= 12 else values[:, t])
        steppers[1].feed(t, values[kept, t])


def test_the_verb_writes_all_and_does_nothing_twice(tmp_path, monkeypatch, capsys):
    checkpoint = save_pretrained(tiny_teacher(front=BANDS), tmp_path / "teacher")
    path = save_audio(tmp_path / "a.wav", loud(0.1, limit=0.2), RATE)
    out = tmp_path / "out"
    command = ["restore", str(path), "--checkpoint", str(checkpoint), "--candidates", "3", "--out", str(out)]
    assert cli.main([*command, "--declip"]) == 0
    assert "0.2000" in capsys.readouterr().out
    made, audio = load_audio(out / "a.wav")[0], load_audio(path)[0]
    found = json.loads((out / "a.json").read_text())
    assert found["clipped"] == int((made != audio).sum()) > 50
    assert found["above"] == -found["below"] == pytest.approx(0.2, abs=1e-4)
    assert found["peak"] == pytest.approx(float(made.abs().max())) and (out / "a.png").stat().st_size > 1000
    assert cli.main([*command, "--declip", "--threshold", "0.9"]) == 1
    assert "no sample reaches 0.9" in capsys.readouterr().err
    monkeypatch.setattr(declipped_files, "declip_sound", lambda *args, **options: pytest.fail("made again"))
    assert cli.main([*command, "--declip"]) == 0
    with pytest.raises(pytest.fail.Exception, match="made again"):
        cli.main([*command, "--declip", "--threshold", "0.19"])
    for wrong, message in (
        (["--declip", "--all"], "leave it out"),
        (["--declip", "--device", "cuda"], "computes on the CPU"),
        (["--gap", "0.1-0.12", "--threshold", "0.2"], "give --declip"),
    ):
        assert cli.main([*command, *wrong]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main([*command, "--declip", "--gap", "0.1-0.12"])


def test_what_cannot_be_restored_is_told(tmp_path):
    for model, message in (
        (tiny_student(), "student, give a teacher"),
        (tiny_teacher(distribution="mol"), "declipping needs a teacher with distribution 'gaussian'"),
    ):
        with pytest.raises(WavedistillError, match=message):
            declipped_files.declip(tmp_path, tmp_path / "out", loaded(model))
    for settings, message in (((1,), "2 candidates or more"), ((4, 0, None, 0), "1 round or more")):
        with pytest.raises(WavedistillError, match=message):
            DeclipConfig(*settings)


def test_the_measurement_compares_with_the_clipped_sound(tmp_path, monkeypatch):
    pytest.importorskip("pesq")
    pytest.importorskip("speechmos")
    monkeypatch.setattr(declipped_speech, "LEVELS", (0.6,))
    path = save_audio(tmp_path / "a.wav", speech_like(0.4), RATE)
    checkpoint = save_pretrained(tiny_teacher(front=BANDS), tmp_path / "teacher")
    table = measure_declipping([path], checkpoint, FEW)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    found = {(level, system): values for level, system, *values in rows}
    assert len(found) == 3
    clipped, interpolated, drawn = (
        found["0.6 of the peak", way] for way in ("nothing", "linear prediction", "teacher")
    )
    assert float(interpolated[1]) > float(clipped[1]) + 2.0  # a tone is easy
    assert clipped[0] == drawn[0] and 1.0 <= float(drawn[3]) <= 5.0 and 0.0 <= float(drawn[4]) <= 1.0
