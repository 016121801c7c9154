"""The dataset: crops addressed by (seed, step, index), aligned with the mel, uniform over time, cached."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from wavedistill.audio.io import load_audio, save_audio
from wavedistill.audio.mel import LogMelSpectrogram, MelConfig
from wavedistill.audio.pitch import estimate_f0
from wavedistill.data import dataset as module
from wavedistill.data.dataset import DataConfig, SpeechDataset
from wavedistill.data.manifest import Entry, read_manifest, write_manifest
from wavedistill.data.toy import toy_tone
from wavedistill.errors import WavedistillError

RATE = 16000
HOP = 256
MEL = MelConfig()
SECONDS = {"a": 1.0, "b": 2.5, "c": 0.2}


def make(folder: Path, seconds=None, rate: int = RATE) -> str:
    entries = []
    for index, (name, length) in enumerate((seconds or SECONDS).items()):
        path = save_audio(folder / "wavs" / f"{name}.wav", toy_tone(0, index, seconds=length, sample_rate=rate), rate)
        entries.append(
            Entry(id=name, audio=str(path), duration=length, speaker=f"s{index % 2}", text=name, split="train")
        )
    return str(write_manifest(folder / "manifest.jsonl", entries))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return make(tmp_path_factory.mktemp("data"))


def same(a, b):
    return all(
        (x is None and y is None) or torch.equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True)
    )


def test_shapes_ranges_and_speakers(manifest):
    data = SpeechDataset(manifest, "train", MEL, 20, with_f0=True, speakers=["s1", "s0"])
    batch = data.batch(0, 6, seed=1)
    assert batch.audio.shape == (6, 20 * HOP) and batch.audio.dtype == torch.float32
    assert batch.mel.shape == (6, 80, 20) and batch.f0.shape == (6, 20) and batch.speaker.dtype == torch.long
    assert set(batch.speaker.tolist()) <= {0, 1}
    assert torch.equal(batch.audio * 32768, (batch.audio * 32768).round())
    assert (data.sample_rate, data.hop_length, data.num_skipped, len(data)) == (RATE, HOP, 1, 3)
    assert data.seconds == pytest.approx(3.7)


def test_what_was_not_asked_for_is_none(manifest):
    batch = SpeechDataset(manifest, "train", None, 8).batch(0, 2, seed=0)
    assert batch.mel is None and batch.f0 is None and batch.speaker is None and batch.audio.shape == (2, 8 * HOP)
    assert batch.to("cpu").audio is not None


def test_a_crop_depends_on_seed_step_and_index_only(manifest):
    data, other = (SpeechDataset(manifest, "train", MEL, 20, with_f0=True) for _ in range(2))
    for step in (7, 3, 7):  # any order
        assert same(data.batch(step, 4, seed=5), other.batch(step, 4, seed=5))
    assert torch.equal(data.batch(7, 4, seed=5).audio[:2], data.batch(7, 2, seed=5).audio)
    assert not torch.equal(data.batch(7, 4, seed=5).audio, data.batch(8, 4, seed=5).audio)
    assert not torch.equal(data.batch(7, 4, seed=5).audio, data.batch(7, 4, seed=6).audio)


def test_the_ranks_together_see_the_batch_of_one_rank(manifest):
    data = SpeechDataset(manifest, "train", MEL, 20)
    whole = data.batch(2, 6, seed=0)
    for world in (2, 3):
        parts = [data.batch(2, 6, seed=0, rank=rank, world_size=world) for rank in range(world)]
        assert torch.equal(torch.cat([p.audio for p in parts]), whole.audio)
        assert torch.equal(torch.cat([p.mel for p in parts]), whole.mel)
    with pytest.raises(WavedistillError, match="batch_size 6 does not divide among 4"):
        data.batch(0, 6, seed=0, world_size=4)


@pytest.mark.parametrize("config", [MEL, MelConfig(centered=True, hop_length=200)])
def test_crops_are_cut_from_the_recording_and_its_mel(manifest, config):
    data = SpeechDataset(manifest, "train", config, 10, with_f0=True, speakers=["s0", "s1"])
    hop = config.hop_length
    whole = {}
    for path in sorted(Path(manifest).parent.glob("wavs/*.wav")):
        audio = load_audio(path)[0]
        whole[path.stem] = audio, LogMelSpectrogram(config)(audio), estimate_f0(audio, RATE, hop)
    for step in range(6):
        batch = data.batch(step, 2, seed=0)
        for audio, mel, f0, speaker in zip(batch.audio, batch.mel, batch.f0, batch.speaker, strict=True):
            name, frame = next(
                (n, f)
                for n, (a, _, _) in whole.items()
                for f in range(len(a) // hop - 9)
                if torch.equal(a[f * hop : (f + 10) * hop], audio)
            )
            assert torch.allclose(mel, whole[name][1][:, frame : frame + 10], atol=1e-6)
            assert torch.equal(f0, whole[name][2][frame : frame + 10])
            assert int(speaker) == "abc".index(name) % 2


def test_every_position_in_time_is_equally_likely(tmp_path):
    manifest = make(tmp_path, {"a": 1.0, "b": 3.0})
    data = SpeechDataset(manifest, "train", None, 1, speakers=["s0", "s1"])
    speakers = torch.cat([data.batch(step, 50, seed=0).speaker for step in range(40)])
    assert speakers.float().mean() == pytest.approx(0.75, abs=0.03)


def test_the_whole_recording_can_be_drawn(tmp_path):
    data = SpeechDataset(make(tmp_path, {"a": 20 * HOP / RATE}), "train", None, 19)
    whole = next(data.utterances()).audio
    starts = {
        0 if torch.equal(crop, whole[: 19 * HOP]) else 1
        for step in range(10)
        for crop in data.batch(step, 2, seed=0).audio
    }
    assert starts == {0, 1}


def test_crops_can_be_beginnings_more_often(tmp_path):
    manifest = make(tmp_path, {"a": 2.0})
    for share, seen in ((0.0, 0.02), (0.5, 0.51), (1.0, 1.0)):
        data = SpeechDataset(manifest, "train", None, 8, beginnings=share)
        whole = next(data.utterances()).audio
        batches = [data.batch(step, 50, seed=0) for step in range(10)]
        begins = torch.cat([batch.begins for batch in batches])
        assert begins.float().mean() == pytest.approx(seen, abs=0.06)
        crops = torch.cat([batch.audio for batch in batches])
        assert torch.equal((crops == whole[: 8 * HOP]).all(1), begins)


def test_utterances_are_whole_and_include_the_short_ones(manifest):
    data = SpeechDataset(manifest, "train", MEL, 20, with_f0=True, speakers=["s0", "s1"])
    items = {u.id: u for u in data.utterances()}
    assert list(items) == ["a", "b", "c"]
    for name, seconds in SECONDS.items():
        frames = int(seconds * RATE) // HOP
        assert items[name].audio.shape == (frames * HOP,) and items[name].mel.shape == (80, frames)
        assert items[name].f0.shape == (frames,) and items[name].text == name
    assert [items[n].speaker for n in "abc"] == [0, 1, 0]


def test_gain_changes_audio_and_mel_alike(manifest):
    plain = SpeechDataset(manifest, "train", MEL, 20).batch(0, 8, seed=0)
    data = SpeechDataset(manifest, "train", MEL, 20, gain_augment_db=12.0)
    louder = data.batch(0, 8, seed=0)
    gains = (louder.audio.norm(dim=1) / plain.audio.norm(dim=1)).log()
    assert gains.std() > 0.2 and gains.abs().max() <= np.log(10) * 12 / 20 + 1e-3
    assert louder.audio.abs().max() < 1
    assert torch.equal(louder.audio * 32768, (louder.audio * 32768).round())
    floor = float(np.log(MEL.floor))
    expected = (plain.mel + gains[:, None, None]).clamp_min(floor)
    assert torch.allclose(louder.mel, expected, atol=1e-3) and louder.mel.min() >= floor


def test_features_are_computed_once(tmp_path, monkeypatch):
    manifest = make(tmp_path)
    first = SpeechDataset(manifest, "train", MEL, 20, with_f0=True).batch(0, 2, seed=0)
    cached = sorted(p.name for p in (tmp_path / ".cache").iterdir())
    assert len(cached) == 2

    def forbidden(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(module.LogMelSpectrogram, "forward", forbidden)
    monkeypatch.setattr(module, "estimate_f0", forbidden)
    assert same(first, SpeechDataset(manifest, "train", MEL, 20, with_f0=True).batch(0, 2, seed=0))
    with pytest.raises(AssertionError, match="computed again"):  # other settings have another cache
        SpeechDataset(manifest, "train", MelConfig(n_mels=40), 20)
    save_audio(tmp_path / "wavs" / "a.wav", toy_tone(1, 1, seconds=1.0), RATE)
    with pytest.raises(AssertionError, match="computed again"):  # so has other audio
        SpeechDataset(manifest, "train", MEL, 20)


def paired(folder: Path, seconds: float = 2.5) -> str:
    """As `make`, but "b" has a condition."""
    entries = read_manifest(make(folder))
    condition = save_audio(folder / "conditions" / "b.wav", toy_tone(3, 0, seconds=seconds), RATE)
    return str(
        write_manifest(
            folder / "manifest.jsonl", [replace(e, condition=str(condition) if e.id == "b" else None) for e in entries]
        )
    )


def test_mel_and_pitch_are_those_of_the_condition(manifest, tmp_path):
    plain = {u.id: u for u in SpeechDataset(manifest, "train", MEL, 20, with_f0=True).utterances()}
    found = {u.id: u for u in SpeechDataset(paired(tmp_path), "train", MEL, 20, with_f0=True).utterances()}
    condition = load_audio(tmp_path / "conditions" / "b.wav")[0]
    frames = found["b"].mel.shape[1]
    assert torch.equal(found["b"].audio, plain["b"].audio)
    assert torch.allclose(found["b"].mel, LogMelSpectrogram(MEL)(condition)[:, :frames], atol=1e-6)
    assert torch.equal(found["b"].f0, estimate_f0(condition, RATE, HOP)[:frames])
    assert torch.equal(found["a"].mel, plain["a"].mel) and torch.equal(found["a"].f0, plain["a"].f0)
    before = {path.name for path in (tmp_path / ".cache").iterdir()}
    save_audio(tmp_path / "conditions" / "b.wav", 0.5 * condition, RATE)
    quieter = {u.id: u for u in SpeechDataset(str(tmp_path), "train", MEL, 20).utterances()}
    assert quieter["b"].mel.mean() < found["b"].mel.mean() - 0.3
    assert len({path.name for path in (tmp_path / ".cache").iterdir()} - before) == 1, (
        "another condition has another cache"
    )


def test_a_condition_must_be_there_and_as_long(tmp_path):
    manifest = paired(tmp_path, seconds=2.4)
    with pytest.raises(
        WavedistillError, match=r"conditions/b.wav: 38400 samples, but .*b.wav.* has 40000; make them equally long"
    ):
        SpeechDataset(manifest, "train", MEL, 20)
    SpeechDataset(manifest, "train", None, 20)  # nothing is read from it
    (tmp_path / "conditions" / "b.wav").unlink()
    with pytest.raises(WavedistillError, match="conditions/b.wav: cannot be read"):
        SpeechDataset(manifest, "train", MEL, 20)


def test_a_damaged_cache_is_replaced(tmp_path):
    manifest = make(tmp_path)
    before = SpeechDataset(manifest, "train", MEL, 20).batch(0, 2, seed=0)
    (cache,) = (tmp_path / ".cache").iterdir()
    cache.write_bytes(cache.read_bytes()[:1000])
    assert same(before, SpeechDataset(manifest, "train", MEL, 20).batch(0, 2, seed=0))


def test_a_folder_that_cannot_be_written_still_serves(tmp_path):
    manifest = make(tmp_path)
    (tmp_path / ".cache").write_text("a file where the cache should be")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        batch = SpeechDataset(manifest, "train", MEL, 20).batch(0, 2, seed=0)
    assert batch.mel.shape == (2, 80, 20) and any("cannot write" in str(w.message) for w in caught)


def test_errors_say_what_to_do(manifest, tmp_path):
    for arguments, options, words in [
        (("valid", MEL, 20), {}, "split 'valid'"),
        (("train", MEL, 20), {"speakers": ["s0"]}, "speaker 's1'"),
        (("train", MEL, 2000), {}, "segment_seconds"),
        (("train", MelConfig(sample_rate=22050), 20), {}, "--sample-rate 22050"),
    ]:
        with pytest.raises(WavedistillError, match=words):
            SpeechDataset(manifest, *arguments, **options)
    gone = make(tmp_path)
    (tmp_path / "wavs" / "a.wav").unlink()
    with pytest.raises(WavedistillError, match=r"a\.wav.*prepare the data again"):
        SpeechDataset(gone, "train", None, 20)


def test_segment_frames():
    assert DataConfig("m", segment_seconds=0.5).segment_frames(16000, 256) == 31
    assert DataConfig("m", segment_seconds=0.001).segment_frames(16000, 256) == 1


@pytest.mark.parametrize(
    "settings",
    [
        dict(batch_size=0),
        dict(segment_seconds=0.0),
        dict(segment_seconds=-1.0),
        dict(gain_augment_db=-1.0),
        dict(beginnings=1.5),
    ],
)
def test_impossible_data_settings_are_named(settings):
    (name,) = settings
    with pytest.raises(WavedistillError, match=f"data.{name} is .*; it must be"):
        DataConfig("data", **settings)
