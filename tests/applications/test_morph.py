"""From one sound to another: the ends are the sounds, the norm is kept, what lies between is between."""

from __future__ import annotations

import json

import pytest
import torch
from helpers.tiny_models import MEL, speech_like, tiny_flow, tiny_student, tiny_teacher

from wavedistill import cli, load_audio, save_audio
from wavedistill.applications import morphing
from wavedistill.applications.morphing import MorphConfig, align, frames_at, morph, morph_sounds, slerp
from wavedistill.errors import WavedistillError
from wavedistill.evaluation.systems import LoadedModel
from wavedistill.models.front import FrontConfig
from wavedistill.models.pretrained import save_pretrained
from wavedistill.nn.mel_encoder import MelEncoder

BANDS = FrontConfig(mel_prediction_order=160, white_noise=1e-4, lag_window=10.0, bands=8)
NOTES = ["piano", "flute"]


def sound(frames: int, seed: int = 0) -> torch.Tensor:
    return speech_like(frames * MEL.hop_length / MEL.sample_rate, seed=seed)


def loaded(model) -> LoadedModel:
    return LoadedModel("tiny", "tiny", model)


def test_spherical_interpolation_keeps_the_norm_and_the_ends():
    a, b = torch.randn(2, 7, 64, generator=torch.Generator().manual_seed(0))
    b = 3 * b
    assert torch.allclose(slerp(a, b, 0.0), a, atol=1e-5) and torch.allclose(slerp(a, b, 1.0), b, atol=1e-5)
    for t in (0.25, 0.5, 0.9):
        norm = ((1 - t) * a.square().sum(-1) + t * b.square().sum(-1)).sqrt()
        torch.testing.assert_close(slerp(a, b, t).norm(dim=-1), norm)
    assert torch.allclose(slerp(a, a, 0.3), a, atol=1e-5)
    assert torch.isfinite(slerp(a, -a, 0.5)).all() and not slerp(0 * a, 0 * b, 0.5).any()


def test_the_path_has_every_frame_of_the_end_it_stands_at():
    stretched = torch.tensor([0, 0, 0, 1, 2, 3, 3, 4, 5])
    a = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    b = a[:, stretched]
    path = align(a, b)
    assert (a[:, path[:, 0]] - b[:, path[:, 1]]).abs().max() == 0
    assert frames_at(path, 0.0)[:, 0].tolist() == list(range(6))
    assert frames_at(path, 1.0)[:, 1].tolist() == list(range(9))
    assert len(frames_at(path, 0.5)) == 8 or len(frames_at(path, 0.5)) == 7


@pytest.mark.parametrize("model", [tiny_flow, lambda: tiny_teacher(front=BANDS)], ids=["flow", "teacher"])
def test_the_ends_are_the_sounds_and_the_lengths_go_from_one_to_the_other(model):
    a, b = sound(12), sound(18, seed=1)
    made = morph_sounds(a, b, loaded(model()), MorphConfig(steps=3))
    assert max(made.errors) < 1e-6
    assert torch.allclose(made.waves[0], a, atol=1e-4) and torch.allclose(made.waves[2], b, atol=1e-4)
    assert len(a) < len(made.waves[1]) < len(b)
    assert torch.isfinite(made.waves[1]).all()
    assert made.norms[1] == pytest.approx((made.norms[0] + made.norms[2]) / 2, rel=0.1)


def test_notes_go_through_the_pitches_between_and_through_mixed_speakers():
    teacher = loaded(tiny_teacher(speakers=NOTES, front=BANDS))
    a = b = sound(60)
    config = MorphConfig(3, ("piano", "flute"), (60.0, 64.0))
    made = morph_sounds(a, b, teacher, config)
    assert max(made.errors) < 1e-6 and made.norms[1] > 0
    assert len({len(wave) for wave in made.waves}) == 1


def test_weights_of_speakers_are_their_index_at_the_corners():
    encoder = MelEncoder(4, 3, 8, 2)
    mel = torch.randn(1, 4, 5)
    weights = torch.eye(3)[1:2]
    torch.testing.assert_close(encoder(mel, weights), encoder(mel, torch.tensor([1])))
    model = tiny_teacher(speakers=NOTES)
    with pytest.raises(WavedistillError, match="1 x 2 weights"):
        model.check_condition(torch.zeros(1, 20, 4) - 7, torch.ones(1, 3), None, 1)


def test_the_verb_writes_all_and_does_nothing_twice(tmp_path, monkeypatch, capsys):
    checkpoint = save_pretrained(tiny_flow(), tmp_path / "flow")
    paths = [str(save_audio(tmp_path / f"{name}.wav", sound(12, seed=n), 8000)) for n, name in enumerate("ab")]
    command = ["morph", *paths, "--checkpoint", str(checkpoint), "--steps", "3", "--out", str(tmp_path / "out")]
    assert cli.main(command) == 0
    assert "3 steps written" in capsys.readouterr().out
    first = load_audio(tmp_path / "out" / "step-00.wav")[0]
    assert torch.allclose(first, load_audio(paths[0])[0], atol=1e-4)
    assert len(load_audio(tmp_path / "out" / "joined.wav")[0]) > 3 * len(first)
    found = json.loads((tmp_path / "out" / "morph.json").read_text())
    assert max(found["errors"]) < 1e-4 and (tmp_path / "out" / "morph.png").stat().st_size > 1000
    monkeypatch.setattr(morphing, "morph_sounds", lambda *args, **options: pytest.fail("made again"))
    assert cli.main(command) == 0
    with pytest.raises(pytest.fail.Exception, match="made again"):
        cli.main([*command, "--steps", "4"])


def test_what_cannot_be_morphed_is_refused(tmp_path):
    path = save_audio(tmp_path / "a.wav", sound(12), 8000)
    for model, config, message in (
        (tiny_student(), {}, "student, give a teacher or a one-stage flow"),
        (tiny_teacher(distribution="mol"), {}, "gaussian"),
        (tiny_teacher(speakers=["x", "y"]), {}, "two of x, y"),
        (tiny_teacher(speakers=["x", "y"]), {"speakers": ("x", "z")}, "two of x, y"),
        (tiny_teacher(), {"speakers": ("x", "y")}, "no speakers"),
        (tiny_teacher(speakers=NOTES), {"speakers": ("piano", "flute")}, "give the pitches"),
        (tiny_teacher(), {"pitches": (60.0, 62.0)}, "plays no notes"),
    ):
        with pytest.raises(WavedistillError, match=message):
            morph(path, path, loaded(model), tmp_path / "out", MorphConfig(**config))
    with pytest.raises(WavedistillError, match="2 steps or more, given 1"):
        MorphConfig(steps=1)
    assert not (tmp_path / "out").exists()
