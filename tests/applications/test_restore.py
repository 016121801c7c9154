"""Gaps filled by a teacher: only they change, weights are what the density says, and what a user types."""

from __future__ import annotations

import json

import pytest
import torch
from helpers.tiny_models import MEL, speech_like, tiny_student, tiny_teacher

from wavedistill import cli, load_audio, save_audio
from wavedistill.applications import gap_filling, restoration, restored_speech
from wavedistill.applications.extrapolation import bridge, extrapolate, repeat_period
from wavedistill.applications.gap_filling import Filling, RestoreConfig, gap_mel, gap_samples, restore_sound
from wavedistill.applications.restoration import read_gap, read_gaps, restore
from wavedistill.applications.restored_speech import gaps_of, measure_restoration
from wavedistill.data.manifest import Entry, write_manifest
from wavedistill.errors import WavedistillError
from wavedistill.evaluation.systems import LoadedModel, on_grid
from wavedistill.models.base import dequantized
from wavedistill.models.front import FrontConfig
from wavedistill.models.pretrained import save_pretrained

BANDS = FrontConfig(mel_prediction_order=32, white_noise=1e-4, bands=8, mel_contraction=2)
RATE = 8000


def sound(seconds: float = 0.5, seed: int = 0) -> torch.Tensor:
    return on_grid(speech_like(seconds, seed=seed))


def loaded(model) -> LoadedModel:
    return LoadedModel("tiny", "tiny", model)


@torch.inference_mode()
def log_prob(teacher, waves, mel, start):
    """Of what follows sample ``start``, (batch,)."""
    terms = teacher.log_prob_per_sample(waves, mel.expand(len(waves), -1, -1), dequantize=False)
    return terms[:, start:].double().sum(1)


@pytest.mark.parametrize("gap", [(0.2, 0.25), (0.2001, 0.2203), (0.0, 0.02), (0.4799, 0.5)])
def test_only_the_gap_changes_and_what_was_in_it_does_not_matter(gap):
    audio = sound()
    ((start, stop),) = gap_samples([gap], len(audio), RATE)
    other = audio.clone()
    other[start:stop] = 0.7
    teacher = loaded(tiny_teacher(front=BANDS))
    made, again = (restore_sound(x, [gap], teacher, RestoreConfig(4)) for x in (audio, other))
    assert torch.equal(made.audio, again.audio)
    assert torch.equal(made.audio[:start], audio[:start]) and torch.equal(made.audio[stop:], audio[stop:])
    filling = made.fillings[0]
    assert filling.candidates.shape == (4, stop - start) and torch.isfinite(filling.candidates).all()
    assert len({tuple(one.tolist()) for one in filling.candidates}) == 4
    assert torch.equal(made.audio[start:stop], filling.candidates[filling.chosen])
    assert float(filling.weights.sum()) == pytest.approx(1.0) and 1.0 <= filling.effective_size <= 4.0 + 1e-9
    assert torch.equal(made.with_candidate(2)[start:stop], filling.candidates[2])


def test_weights_are_the_density_of_what_follows_the_gap():
    audio = sound(0.512)  # whole frames
    teacher = tiny_teacher(front=FrontConfig(scale=8.0, bands=8))
    start, stop = 1600, 1760  # whole blocks: the ratio is that of what follows
    filling = restore_sound(audio, [(start / RATE, stop / RATE)], loaded(teacher), RestoreConfig(5)).fillings[0]
    whole = dequantized(audio).repeat(5, 1, 1)
    whole[:, 0, start:stop] = filling.candidates + 0.5 / 32768
    mel = gap_mel(audio, [(start, stop)], loaded(teacher))
    expected = log_prob(teacher, whole, mel, stop).softmax(0)
    torch.testing.assert_close(filling.weights, expected, atol=1e-5, rtol=1e-3)
    assert filling.effective_size > 1.5


def test_without_sound_after_the_gap_all_candidates_weigh_alike():
    filling = restore_sound(sound(), [(0.46, 0.5)], loaded(tiny_teacher(front=BANDS)), RestoreConfig(3)).fillings[0]
    assert filling.weights.tolist() == pytest.approx([1 / 3] * 3)
    assert filling.effective_size == pytest.approx(3.0)


def test_a_long_sound_is_looked_at_around_the_gap_only():
    audio = sound(4.0)
    teacher = loaded(tiny_teacher(front=BANDS))
    other = audio.clone()
    other[:8000] = 0.0
    other[-8000:] = 0.0
    made, again = (restore_sound(x, [(2.0, 2.05)], teacher, RestoreConfig(2)) for x in (audio, other))
    assert torch.equal(made.fillings[0].candidates, again.fillings[0].candidates)
    mel = gap_mel(audio, [(16000, 16400), (30000, 30100)], teacher)
    hop = MEL.hop_length
    part = gap_filling._window_mel(audio, [(16000, 16400), (30000, 30100)], teacher, 200 * hop, 70)
    torch.testing.assert_close(part, mel[:, 200:270])


def test_gaps_are_filled_one_after_another_and_those_that_touch_are_one():
    assert gap_samples([(0.3, 0.32), (0.1, 0.12), (0.12, 0.14)], 4000, RATE) == [(800, 1120), (2400, 2560)]
    made = restore_sound(sound(), [(0.2, 0.22), (0.23, 0.25)], loaded(tiny_teacher()), RestoreConfig(2))
    assert [(one.start, one.stop) for one in made.fillings] == [(1600, 1760), (1840, 2000)]


def test_the_band_holds_a_value_like_the_candidates_as_often_as_it_says():
    values = torch.randn(20, 20000, generator=torch.Generator().manual_seed(0))
    low, high = Filling(0, 0, values[:19], torch.full((19,), 1 / 19), 0).band(0.9)
    assert float(((low <= values[19]) & (values[19] <= high)).float().mean()) == pytest.approx(0.9, abs=0.01)


def test_a_tone_is_continued_and_bridged():
    tone = 0.3 * torch.sin(2 * torch.pi * 200 * torch.arange(4000) / RATE)
    assert (extrapolate(tone[:2000], 160) - tone[2000:2160]).abs().max() < 0.02
    assert (bridge(tone, 2000, 2160) - tone[2000:2160]).abs().max() < 0.02
    assert (repeat_period(tone[:2000], 160, RATE) - tone[2000:2160]).abs().max() < 0.05
    assert torch.equal(bridge(tone, 0, 160), extrapolate(tone[160:].flip(0), 160).flip(0))
    assert torch.equal(bridge(tone, 3840, 4000), extrapolate(tone[:3840], 160))
    assert not extrapolate(tone[:2], 8).any() and extrapolate(torch.zeros(500), 160).abs().max() < 1e-3


def test_the_verb_writes_all_and_does_nothing_twice(tmp_path, monkeypatch, capsys):
    checkpoint = save_pretrained(tiny_teacher(front=BANDS), tmp_path / "teacher")
    path = save_audio(tmp_path / "a.wav", sound(), RATE)
    (tmp_path / "lost.txt").write_text("# lost\n0.2-0.22\n\n0.3-0.31  # short\n")
    out = tmp_path / "out"
    command = ["restore", str(path), "--checkpoint", str(checkpoint), "--candidates", "3", "--all", "--out", str(out)]
    lost = ["--lost-packets", str(tmp_path / "lost.txt")]
    assert cli.main([*command, *lost]) == 0
    assert "0.3000-0.3100" in (told := capsys.readouterr().out) and "of 3" in told
    made, audio = load_audio(out / "a.wav")[0], load_audio(path)[0]
    changed = (made != audio).nonzero()[:, 0]
    assert set(changed.tolist()) <= {*range(1600, 1760), *range(2400, 2480)} and len(changed) > 200
    found = json.loads((out / "a.json").read_text())["gaps"]
    assert [len(gap["weights"]) for gap in found] == [3, 3]
    assert sorted(one.name for one in (out / "a-candidates").iterdir()) == ["00.wav", "01.wav", "02.wav"]
    assert (out / "a.png").stat().st_size > 1000
    monkeypatch.setattr(restoration, "restore_sound", lambda *args, **options: pytest.fail("made again"))
    assert cli.main([*command, *lost]) == 0
    with pytest.raises(pytest.fail.Exception, match="made again"):
        cli.main([*command, "--gap", "0.2-0.22"])


def test_float_files_keep_their_samples(tmp_path):
    audio = speech_like(0.5)
    path = save_audio(tmp_path / "a.wav", audio, RATE, "FLOAT")
    report = restore(path, [(0.2, 0.22)], tmp_path / "out", loaded(tiny_teacher()), RestoreConfig(2))
    made = load_audio(tmp_path / "out" / "a.wav")[0]
    assert not report.failures and torch.equal(made[:1600], audio[:1600]) and torch.equal(made[1760:], audio[1760:])


def test_what_cannot_be_restored_is_told(tmp_path, capsys):
    path = save_audio(tmp_path / "a.wav", sound(), RATE)
    fast = save_audio(tmp_path / "fast.wav", sound(), 16000)
    teacher = loaded(tiny_teacher(speakers=["x", "y"]))
    for file, gap, speaker, message in (
        (path, (0.4, 0.6), "x", "does not lie in the sound, which lasts 0.500 s"),
        (path, (0.2, 0.1), "x", "does not lie in the sound"),
        (path, (0.1, 0.4), "x", "lasts 300 ms: 1 to 200 ms are filled"),
        (path, (0.1, 0.12), "z", "does not know its speaker, z: give one of x, y"),
        (fast, (0.1, 0.12), "x", "16000 Hz, but tiny restores at 8000 Hz"),
    ):
        report = restore(file, [gap], tmp_path / "out", teacher, speaker=speaker)
        assert message in report.failures[str(file)] and not report.sounds
    with pytest.raises(WavedistillError, match="is a student, give a teacher"):
        restore(path, [(0.1, 0.12)], tmp_path / "out", loaded(tiny_student()))
    assert not (tmp_path / "out").exists()
    with pytest.raises(WavedistillError, match="1 candidate or more, given 0"):
        RestoreConfig(0)
    (tmp_path / "bad.txt").write_text("0.1-0.2\n0.3 0.4\n")
    (tmp_path / "empty.txt").write_text("# none\n")
    for file, message in (
        ("bad.txt", "line 2: a gap is START-END"),
        ("empty.txt", "no gaps"),
        ("no.txt", "not readable"),
    ):
        with pytest.raises(WavedistillError, match=message):
            read_gaps(tmp_path / file)
    assert read_gap(".5 - 0.56") == (0.5, 0.56)
    assert cli.main(["restore", str(path), "--out", str(tmp_path / "o"), "--gap", "now"]) == 2
    assert "START-END in seconds, like 0.5-0.56; given 'now'" in capsys.readouterr().err
    for wrong in ([], ["--gap", "0.1-0.2", "--lost-packets", "x"]):
        with pytest.raises(SystemExit):
            cli.main(["restore", str(path), "--out", str(tmp_path / "o"), *wrong])


def test_the_mel_of_a_gap_depends_on_what_is_known_only():
    audio = sound()
    teacher = loaded(tiny_teacher())
    other = audio.clone()
    other[1600:1760] = 0.9
    mel = gap_mel(audio, [(1600, 1760)], teacher)
    assert torch.equal(mel, gap_mel(other, [(1600, 1760)], teacher))
    far = (1760 + MEL.n_fft) // MEL.hop_length + 1
    assert torch.equal(mel[:, far:], teacher.front_end(audio)[:, far:])


def test_the_measurement_fills_the_same_gaps_in_every_way(tmp_path, monkeypatch):
    pytest.importorskip("pesq")
    monkeypatch.setattr(restored_speech, "MILLISECONDS", (20,))
    entries = []
    for number in range(2):
        path = save_audio(tmp_path / f"{number}.wav", speech_like(2.1, seed=number), RATE)
        entries.append(Entry(id=str(number), audio=str(path), duration=2.1, speaker="a", split="test"))
    checkpoint = save_pretrained(tiny_teacher(front=BANDS), tmp_path / "teacher")
    manifest = write_manifest(tmp_path / "manifest.jsonl", entries)
    table = measure_restoration(manifest, checkpoint, clips=1, config=RestoreConfig(2))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    found = {system: values for _, system, *values in rows}
    assert len(found) == 7
    assert float(found["zeros"][0]) == 0.0  # nothing is left of the sound
    assert float(found["linear prediction, both sides"][0]) > 3.0  # a tone is easy to continue
    assert float(found["nothing lost"][1]) > 4.6 and float(found["nothing lost"][2]) > 1.0
    assert 0.0 <= float(found["teacher"][3]) <= 1.0 <= float(found["teacher"][4]) <= 2.0


def test_silence_is_not_cut_out_of_a_clip():
    audio = sound(2.0)
    audio[: RATE + 400] = 0.0
    assert gaps_of(audio, 0.02, RATE) == [(12000, 12160)]
