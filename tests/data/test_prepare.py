"""wavedistill prepare: trims, refuses by name and goes on, resumes, and always gives the same manifest."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from wavedistill.audio.io import load_audio, save_audio
from wavedistill.data import prepare
from wavedistill.data.manifest import read_manifest
from wavedistill.data.prepare import (
    PrepareConfig,
    Recording,
    prepare_folder,
    prepare_recordings,
)
from wavedistill.data.prepare_report import ENOUGH_TEST_CLIPS, FEWEST_TEST_CLIPS, PrepareReport
from wavedistill.data.splits import HeldOut
from wavedistill.data.toy import toy_tone
from wavedistill.errors import WavedistillError
from wavedistill.evaluation import comparison
from wavedistill.files import folder_lock

RATE = 16000


def write(path: Path, audio, rate: int = RATE, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.asarray(audio), rate, **options)
    return path


def tone(index: int = 0, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    return toy_tone(0, index, seconds=seconds, sample_rate=rate).numpy()


def padded(audio: np.ndarray, seconds: float, rate: int = RATE) -> np.ndarray:
    silence = np.zeros(round(seconds * rate), audio.dtype)
    return np.concatenate([silence, audio, silence])


def test_a_folder_of_everything(tmp_path):
    folder = tmp_path / "in"
    write(folder / "anna" / "one.wav", padded(tone(0), 0.5))
    (folder / "anna" / "one.txt").write_text("Hello,\nworld\n", encoding="utf-8")
    write(folder / "anna" / "take 2" / "deep.flac", tone(1, 1.0, 44100), 44100)
    write(folder / "ben" / "stereo.ogg", np.repeat(tone(2)[:, None], 2, 1))
    write(folder / "ben" / "LOUD.WAV", np.repeat(0.9 * tone(3, 0.5, 192_000)[:, None], 8, 1), 192_000)
    write(folder / "top.mp3", tone(4, 1.0, 24000), 24000)
    (folder / "notes.pdf").write_text("ignored")
    report = prepare_folder(folder, tmp_path / "out", workers=1)
    entries = {e.id: e for e in read_manifest(tmp_path / "out")}
    assert report.accepted == 5 and not report.refused
    assert {e.id: e.speaker for e in entries.values()} == {
        "anna_one": "anna",
        "anna_take 2_deep": "anna",
        "ben_stereo": "ben",
        "ben_LOUD": "ben",
        "top": "in",
    }
    assert entries["anna_one"].text == "Hello, world" and entries["top"].text is None
    for entry in entries.values():
        info = soundfile.info(entry.audio)
        assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")
        assert entry.duration == pytest.approx(info.duration, abs=1e-4)
    assert entries["anna_one"].duration <= 1.2 + 0.01
    assert report.seconds == pytest.approx(sum(e.duration for e in entries.values()), abs=0.01)
    assert {e.split for e in entries.values()} == {"train", "valid", "test"}


def test_bad_files_are_refused_by_name_and_the_rest_goes_on(tmp_path):
    folder = tmp_path / "in"
    good = write(folder / "good.wav", tone())
    write(folder / "good.flac", tone())
    write(folder / "silent.wav", np.zeros(RATE))
    write(folder / "three.wav", np.full(3, 0.5))
    write(folder / "click.wav", padded(np.full(20, 0.5), 0.5))
    write(folder / "clipped.wav", np.clip(8 * tone(), -1, 1))
    write(folder / "nan.wav", np.array([0.1, np.nan] * RATE, np.float32), subtype="FLOAT")
    write(folder / "long.wav", tone(0, 3.0))
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("no audio " * 50)
    (folder / "cut.wav").write_bytes(good.read_bytes()[:9000])
    report = prepare_folder(folder, tmp_path / "out", PrepareConfig(max_seconds=2.0), workers=1)
    words = {
        "silent.wav": "silent",
        "three.wav": "too short, 3 samples",
        "click.wav": "after trimming: too short",
        "clipped.wav": "clipped",
        "nan.wav": "NaN",
        "long.wav": "3 s long, at most 2 s",
        "empty.wav": "empty",
        "text.wav": "not readable as audio",
        "cut.wav": "truncated",
        "good.wav": "same id",
    }
    refused = {Path(name).name: reason for name, reason in report.refused.items()}
    assert set(refused) == set(words) and report.accepted == 1
    for name, expected in words.items():
        assert expected in refused[name] and "\n" not in refused[name] and str(folder / name) not in refused[name]
    stored = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert stored["refused"] == report.refused and stored["accepted"] == 1
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "manifest.jsonl",
        "prepare.json",
        "report.json",
        "wavs",
    ]


def test_workers_do_not_change_the_result(tmp_path):
    for i in range(17):
        write(tmp_path / "in" / f"{i}.wav", tone(i, 0.5))
    (tmp_path / "in" / "bad.wav").write_bytes(b"")
    for workers in (1, 2):
        report = prepare_folder(tmp_path / "in", tmp_path / str(workers), workers=workers)
        assert report.accepted == 17 and len(report.refused) == 1
    assert (tmp_path / "1" / "manifest.jsonl").read_bytes() == (tmp_path / "2" / "manifest.jsonl").read_bytes()
    for i in range(17):
        assert (tmp_path / "1/wavs" / f"{i}.wav").read_bytes() == (tmp_path / "2/wavs" / f"{i}.wav").read_bytes()


def test_a_stopped_run_is_continued_and_ends_with_the_same_files(tmp_path, monkeypatch):
    folder = tmp_path / "in"
    out = tmp_path / "out"
    for i in range(4):
        write(folder / f"{i}.wav", tone(i, 0.5))
    whole = prepare_folder(folder, tmp_path / "whole", workers=1)

    def stop_after_two(results):
        for count, result in enumerate(results):
            if count == 2:
                raise KeyboardInterrupt
            yield result

    with pytest.raises(KeyboardInterrupt):
        prepare_folder(folder, out, workers=1, progress=stop_after_two)
    assert not (out / "manifest.jsonl").exists()
    done = {p.name: p.stat().st_mtime_ns for p in (out / "wavs").iterdir()}
    assert len(done) in (2, 3)
    prepare_folder(folder, out, workers=1)
    assert (out / "manifest.jsonl").read_bytes() == Path(whole.manifest).read_bytes()
    assert all((out / "wavs" / name).stat().st_mtime_ns == at for name, at in done.items())
    monkeypatch.setattr(prepare, "load_audio", None)  # a third run decodes nothing
    prepare_folder(folder, out, workers=1)


def test_a_run_stopped_under_new_settings_keeps_nothing_of_the_old_ones(tmp_path):
    for i in range(4):
        write(tmp_path / "in" / f"{i}.wav", tone(i, 0.5))
    prepare_folder(tmp_path / "in", tmp_path / "out", workers=1)

    def stop_after_one(results):
        yield next(iter(results))
        raise KeyboardInterrupt

    lower = PrepareConfig(sample_rate=8000)
    with pytest.raises(KeyboardInterrupt):
        prepare_folder(tmp_path / "in", tmp_path / "out", lower, workers=1, progress=stop_after_one)
    prepare_folder(tmp_path / "in", tmp_path / "out", lower, workers=1)
    assert {soundfile.info(path).samplerate for path in (tmp_path / "out" / "wavs").iterdir()} == {8000}


def test_one_process_prepares_into_a_folder_and_what_killed_ones_left_is_removed(tmp_path):
    write(tmp_path / "in" / "a.wav", tone(0, 0.5))
    left = write(tmp_path / "out" / "wavs" / "b.wav", tone(0, 0.5)).rename(tmp_path / f"out/wavs/.a.wav.{2**30}.tmp")
    with folder_lock(tmp_path / "out", "preparing recordings", "--out"), pytest.raises(WavedistillError) as caught:
        prepare_folder(tmp_path / "in", tmp_path / "out", workers=1)
    assert "another process is preparing recordings in" in str(caught.value) and "--out" in str(caught.value)
    prepare_folder(tmp_path / "in", tmp_path / "out", workers=1)
    assert not left.exists()


def test_changed_settings_and_changed_sources_are_redone(tmp_path):
    folder = tmp_path / "in"
    out = tmp_path / "out"
    source = write(folder / "a.wav", tone(0, 0.5))
    prepare_folder(folder, out, workers=1)
    prepare_folder(folder, out, PrepareConfig(sample_rate=8000), workers=1)
    assert soundfile.info(out / "wavs" / "a.wav").samplerate == 8000
    write(source, tone(1, 1.0))
    for seconds, date in ((1.0, 2e9), (0.7, 1e9)):  # a newer file, and an older one (cp -p)
        write(source, tone(1, seconds))
        os.utime(source, (date, date))
        report = prepare_folder(folder, out, PrepareConfig(sample_rate=8000), workers=1)
        assert read_manifest(out)[0].duration == pytest.approx(seconds, abs=0.05)
        assert report.renewed == 1 and "1 made anew, since their files changed" in report.summary()
    again = prepare_folder(folder, out, PrepareConfig(sample_rate=8000), workers=1)
    assert again.renewed == 0 and "anew" not in again.summary()


def test_links_are_followed_and_impossible_names_listed(tmp_path):
    folder = tmp_path / "in"
    write(folder / "good.wav", tone(0, 0.5))
    write(tmp_path / "elsewhere" / "linked.wav", tone(1, 0.5))
    (folder / "anna").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(folder)
    with open(os.fsencode(folder) + b"/caf\xe9.wav", "wb") as file:
        file.write((folder / "good.wav").read_bytes())
    write(folder / ("d" * 90) / ("e" * 90) / ("f" * 90) / "deep.wav", tone(2, 0.5))
    report = prepare_folder(folder, tmp_path / "out", workers=1)
    assert {(entry.id, entry.speaker) for entry in read_manifest(tmp_path / "out")} == {
        ("good", "in"),
        ("anna_linked", "anna"),
    }
    assert len(report.refused) == 2
    (wrong,) = (why for source, why in report.refused.items() if source.endswith("caf\\xe9.wav"))
    assert wrong == "its name is not UTF-8: rename it"
    (long,) = (why for source, why in report.refused.items() if source.endswith("deep.wav"))
    assert "a name of 281 bytes, of which disks take 255: shorten it, or its folders' names" in long


def test_one_speaker_for_all_and_output_inside_the_input(tmp_path):
    write(tmp_path / "x" / "a.wav", tone())
    for _ in range(2):  # the second time must not take its own output for input
        report = prepare_folder(tmp_path, tmp_path / "out", speaker="anna", workers=1)
        assert report.accepted == 1
    assert read_manifest(tmp_path / "out")[0].speaker == "anna"


def test_16_bit_speech_passes_unchanged(tmp_path):
    audio = tone(0, 0.5)
    save_audio(tmp_path / "in" / "a.wav", audio, RATE)
    before = load_audio(tmp_path / "in" / "a.wav")[0]
    prepare_folder(tmp_path / "in", tmp_path / "out", workers=1)
    after = load_audio(tmp_path / "out" / "wavs" / "a.wav")[0]
    start = next(i for i in range(len(before)) if torch.equal(before[i : i + 64], after[:64]))
    assert torch.equal(before[start : start + len(after)], after)


def test_nothing_to_prepare_is_an_error(tmp_path):
    with pytest.raises(WavedistillError, match="no such folder"):
        prepare_folder(tmp_path / "none", tmp_path / "out")
    with pytest.raises(WavedistillError, match=r"no \.wav"):
        prepare_folder(tmp_path, tmp_path / "out")
    (tmp_path / "a.wav").write_bytes(b"")
    with pytest.raises(WavedistillError, match="none of 1 recordings was accepted; .*a.wav: .*empty"):
        prepare_folder(tmp_path, tmp_path / "out", workers=1)
    assert not (tmp_path / "out" / "manifest.jsonl").exists()


def test_an_unwritable_output_is_an_error_and_no_refusal(tmp_path):
    write(tmp_path / "in" / "a.wav", tone())
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises(WavedistillError, match="out"):
        prepare_folder(tmp_path / "in", tmp_path / "out", workers=1)


def test_a_missing_source_is_refused(tmp_path):
    recordings = [
        Recording("a", write(tmp_path / "a.wav", tone()), "s"),
        Recording("b", tmp_path / "b.wav", "s"),
    ]
    report = prepare_recordings(recordings, tmp_path / "out", workers=1)
    assert report.accepted == 1 and "no such file" in report.refused[str(tmp_path / "b.wav")]


def test_the_progress_knows_how_many_there_are(tmp_path):
    for i in range(9):
        write(tmp_path / "in" / f"{i}.wav", tone(i, 0.5))
    totals = []

    def progress(results):
        totals.append(len(results))
        return results

    before = torch.get_num_threads()
    for workers in (1, 2, None):
        prepare_folder(tmp_path / "in", tmp_path / str(workers), workers=workers, progress=progress)
    assert totals == [9, 9, 9] and torch.get_num_threads() == before


def test_more_are_held_out_without_preparing_again(tmp_path):
    for i in range(24):
        write(tmp_path / "in" / f"{i}.wav", tone(i, 0.4))
    (tmp_path / "in" / "3.txt").write_text("Hello")
    first = prepare_folder(tmp_path / "in", tmp_path / "out", workers=1)
    assert sum(first.clips.values()) == 24 and first.clips["test"] < FEWEST_TEST_CLIPS and first.with_text == 1
    done = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out" / "wavs").iterdir()}
    second = prepare_folder(tmp_path / "in", tmp_path / "out", held_out=HeldOut(test=6), workers=1)
    assert second.clips["test"] == 6 and second.clips["valid"] == first.clips["valid"]
    assert [e.split for e in read_manifest(tmp_path / "out")].count("test") == 6
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out" / "wavs").iterdir()} == done
    stored = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert stored["clips"] == second.clips and stored["with_text"] == 1
    with pytest.raises(WavedistillError, match="24 recordings cannot be held out"):
        prepare_folder(tmp_path / "in", tmp_path / "out", held_out=HeldOut(test=24), workers=1)


def report(accepted: int, test: int, with_text: int = 1) -> PrepareReport:
    clips = {"train": accepted - test - 1, "valid": 1, "test": test}
    return PrepareReport("out/manifest.jsonl", accepted, 60.0, {}, clips, with_text)


@pytest.mark.parametrize(
    "accepted, test, words",
    [
        (40, 3, "3 of 40 recordings are held out.*--test-clips 10: what is prepared is kept"),
        (400, 18, "--test-clips 20"),
        (20, 1, "--test-clips 6"),
        (8, 1, "Record more: 12 at least, 80 at best"),
        (40, 10, "A quarter is held out already: record more"),
    ],
)
def test_too_few_test_clips_are_said_with_what_to_type(accepted, test, words):
    assert re.search(words, *report(accepted, test).advice())


def test_no_texts_are_said_and_how_to_give_them():
    (advice,) = report(800, 40, with_text=0).advice()
    assert "NAME.txt beside NAME.wav" in advice
    assert not report(800, 40).advice()
    assert report(800, 40).summary().splitlines()[1].startswith("split: 759 train, 1 valid, 40 test (")
    assert FEWEST_TEST_CLIPS == comparison.FEWEST_CLIPS < ENOUGH_TEST_CLIPS
