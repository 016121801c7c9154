"""How a teacher sees sounds: the statistics, the report, what is stored and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.tiny_models import MEL, speech_like, tiny_student, tiny_teacher

from wavedistill import cli, load_audio, save_audio
from wavedistill.applications import scoring
from wavedistill.applications.scoring import score, stands_out
from wavedistill.applications.sound_statistics import feature_names, nats_in_pieces, sound_statistics
from wavedistill.applications.sounds import Sound, find_sounds, load_sound
from wavedistill.audio.mel import LogMelSpectrogram
from wavedistill.data.baseline import bits_per_sample
from wavedistill.data.manifest import Entry, write_manifest
from wavedistill.errors import WavedistillError
from wavedistill.evaluation.systems import LoadedModel, on_grid
from wavedistill.models.base import dequantized
from wavedistill.models.front import FrontConfig
from wavedistill.models.pretrained import save_pretrained

BANDS = FrontConfig(mel_prediction_order=160, white_noise=1e-4, lag_window=10.0, bands=8)


def given(frames: int = 40, seed: int = 0):
    audio = on_grid(speech_like(frames * MEL.hop_length / MEL.sample_rate, seed=seed))
    return audio, LogMelSpectrogram(MEL)(audio[None])


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory) -> str:
    return str(save_pretrained(tiny_teacher(front=BANDS), tmp_path_factory.mktemp("models") / "teacher"))


@pytest.fixture(scope="module")
def released() -> LoadedModel:
    return LoadedModel.load("speech-teacher", "speech-teacher", "cpu")


# ---- statistics


@pytest.mark.parametrize("front", [FrontConfig(), BANDS], ids=["plain", "sub-bands"])
def test_bits_are_those_of_the_density_and_the_noise_is_the_encoded_one(front):
    teacher = tiny_teacher(front=front)
    audio, mel = given()
    found = sound_statistics(teacher, audio, mel)
    with torch.inference_mode():
        log_prob = float(teacher.log_prob(audio[None, None], mel)) / len(audio)
        z = teacher.encode(dequantized(audio[None, None]), mel)[0, 0].double().numpy()
    assert found.bits == pytest.approx(bits_per_sample(log_prob), abs=1e-4)
    assert found.variance + found.mean**2 == pytest.approx(float(np.mean(z**2)), rel=1e-4)
    assert found.typicality == pytest.approx(abs(np.mean(found.own - found.entropy)), abs=1e-5)
    assert len(found.features) == len(feature_names(teacher.step_size)) and len(found.own) == mel.shape[-1]
    np.testing.assert_allclose(found.own - found.entropy, (found.energy - 1) / 2, atol=1e-4)


def test_a_teacher_finds_its_own_samples_typical():
    teacher = tiny_teacher(front=BANDS)
    _, mel = given(frames=120)
    own = teacher.sample(mel, seed=1)[0, 0]
    nats = nats_in_pieces(teacher, own, mel, None)
    z = nats.noise[0].numpy()
    assert abs(np.mean(z**2) - 1) < 0.06 and abs(z.mean()) < 0.04
    loud = nats_in_pieces(teacher, 1.5 * own, mel, None).noise
    assert float(loud.square().mean()) > 1.3


def test_pieces_are_the_whole():
    teacher = tiny_teacher(front=BANDS)
    audio, mel = given(frames=90)
    whole = nats_in_pieces(teacher, audio, mel, None)
    for seconds in (0.1, 0.25):
        for part, value in zip(nats_in_pieces(teacher, audio, mel, None, seconds), whole, strict=True):
            torch.testing.assert_close(part, value, atol=2e-4, rtol=1e-4)


def test_raw_likelihood_prefers_silence_and_typicality_does_not(released):
    speech = on_grid(load_audio("checkpoints/speech-student/samples/en_dir-nomore-original.wav")[0][8000:24384])
    silence = torch.zeros_like(speech)
    spoken, silent = (
        sound_statistics(released.model, audio, released.front_end(audio[None])) for audio in (speech, silence)
    )
    assert silent.bits < spoken.bits - 5
    assert silent.typicality > 5 * spoken.typicality


# ---- sounds


def test_sounds_of_files_folders_and_manifests(tmp_path):
    for name in ("a.wav", "b/c.flac"):
        save_audio(tmp_path / "in" / name, speech_like(0.3), 8000)
    entry = Entry(id="x", audio=str(tmp_path / "in" / "a.wav"), duration=0.3, speaker="s", split="test")
    manifest = write_manifest(tmp_path / "manifest.jsonl", [entry])
    assert [sound.name for sound in find_sounds([tmp_path / "in"])] == ["a", "b/c"]
    assert [sound.name for sound in find_sounds([tmp_path / "in" / "b" / "c.flac", manifest])] == ["c", "x"]
    assert find_sounds([manifest])[0].speaker == "s"
    with pytest.raises(WavedistillError, match="one name"):
        find_sounds([tmp_path / "in" / "a.wav", tmp_path / "in"])
    with pytest.raises(WavedistillError, match="no such file or folder"):
        find_sounds([tmp_path / "none"])


def test_a_condition_takes_the_place_of_the_own_mel(tmp_path):
    loaded = LoadedModel("tiny", "tiny", tiny_teacher())
    paths = [save_audio(tmp_path / f"{n}.wav", speech_like(0.5, seed=n), 8000) for n in range(2)]
    clip, own = load_sound(Sound("x", paths[0]), loaded)
    again, other = load_sound(Sound("x", paths[0], None, paths[1]), loaded)
    assert torch.equal(clip.audio, again.audio) and own.shape == other.shape and not torch.equal(own, other)
    short = save_audio(tmp_path / "short.wav", speech_like(0.2), 8000)
    with pytest.raises(WavedistillError, match="shorter than"):
        load_sound(Sound("x", paths[0], None, short), loaded)


# ---- the report


def test_a_folder_is_scored_once_and_what_fails_stops_nothing(tmp_path, teacher_folder, monkeypatch):
    for n in range(2):
        save_audio(tmp_path / "in" / f"{n}.wav", speech_like(0.4, seed=n), 8000)
    save_audio(tmp_path / "in" / "short.wav", speech_like(0.01), 8000)
    first = score(tmp_path / "in", teacher_folder, tmp_path / "out")
    assert [one.name for one in first.scores] == ["0", "1"] and "at least 0.1 s" in str(first.failures)
    for name in ("scores.md", "scores.json", "sounds/0.json", "sounds/0.png", "sounds/1.png"):
        assert (tmp_path / "out" / name).stat().st_size > 100
    monkeypatch.setattr(scoring, "sound_statistics", lambda *args: pytest.fail("computed again"))
    again = score(tmp_path / "in", teacher_folder, tmp_path / "out")
    assert again.markdown == first.markdown
    save_audio(tmp_path / "in" / "0.wav", speech_like(0.4, seed=7), 8000)
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        score(tmp_path / "in", teacher_folder, tmp_path / "out")


def test_frames_far_above_the_usual_stand_out_the_strangest_first():
    deviations = np.zeros(100)
    deviations[10:12] = 6.0
    deviations[50] = 9.0
    deviations[99] = 7.0
    deviations[30] = 4.9
    spans = stands_out(np.exp(2.0 + 0.5 * deviations), 0.5, (2.0, 0.5))
    assert [(span.start, span.end, round(span.deviation, 6)) for span in spans] == [
        (25.0, 25.5, 9.0),
        (49.5, 50.0, 7.0),
        (5.0, 6.0, 6.0),
    ]
    assert stands_out(np.ones(5), 0.5) == []


def test_only_gaussian_teachers_score(tmp_path):
    save_audio(tmp_path / "a.wav", speech_like(0.4), 8000)
    with pytest.raises(WavedistillError, match="student, give a teacher"):
        score(tmp_path / "a.wav", LoadedModel("tiny", "tiny", tiny_student()))
    with pytest.raises(WavedistillError, match="gaussian"):
        score(tmp_path / "a.wav", LoadedModel("tiny", "tiny", tiny_teacher(distribution="mol")))


def test_speakers_are_asked_for_and_checked(tmp_path):
    save_audio(tmp_path / "a.wav", speech_like(0.4), 8000)
    known = LoadedModel("tiny", "tiny", tiny_teacher(speakers=["x", "y"]))
    assert "give one of x, y with --speaker" in str(score(tmp_path / "a.wav", known).failures)
    x, y = (score(tmp_path / "a.wav", known, speaker=name).scores[0].statistics.bits for name in "xy")
    assert x != y
    with pytest.raises(WavedistillError, match="know the speaker z: give one of x, y"):
        score(tmp_path / "a.wav", known, speaker="z")
    with pytest.raises(WavedistillError, match="no speakers, leave it out"):
        score(tmp_path / "a.wav", LoadedModel("tiny", "tiny", tiny_teacher()), speaker="x")


def test_the_verb_fits_a_detector_and_uses_it(tmp_path, teacher_folder, capsys):
    for n in range(12):
        save_audio(tmp_path / "normal" / f"{n}.wav", speech_like(0.5, seed=n), 8000)
    save_audio(tmp_path / "new" / "strange.wav", 0.2 * torch.randn(4000), 8000)
    save_audio(tmp_path / "new" / "usual.wav", speech_like(0.5, seed=20), 8000)
    detector = tmp_path / "detector.json"
    command = ["score", "--checkpoint", teacher_folder, "--no-pictures"]
    assert cli.main([*command, str(tmp_path / "normal"), "--fit", str(detector)]) == 0
    assert "detector of 12 normal sounds" in capsys.readouterr().out
    out = tmp_path / "out"
    assert cli.main([*command, str(tmp_path / "new"), "--detector", str(detector), "--out", str(out)]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert rows[0].split(" | ")[-3:-1] == ["anomaly", "p"] and rows[2].startswith("| strange ")
    assert float(rows[2].split(" | ")[-2]) == pytest.approx(1 / 13, abs=1e-3)
    assert not list(out.rglob("*.png")) and (out / "scores.md").is_file()


def test_the_verb_tells_what_failed(tmp_path, teacher_folder, capsys):
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    assert cli.main(["score", str(tmp_path / "a.wav"), "--checkpoint", teacher_folder]) == 1
    assert "a.wav: " in capsys.readouterr().err
