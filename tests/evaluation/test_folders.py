"""Recordings of other systems, given as folders."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny_models import speech_like

from wavedistill.audio.io import resample, save_audio
from wavedistill.errors import WavedistillError
from wavedistill.evaluation.folders import folder_system
from wavedistill.evaluation.systems import Clip, on_grid

RATE = 8000
HOP = 64


@pytest.fixture
def clips():
    return [Clip(f"speaker/{i}", "a", on_grid(speech_like(1.024, RATE, seed=i))) for i in range(5)]


def write(folder, clips, suffix=".wav"):
    for clip in clips:
        save_audio(folder / f"{clip.id}{suffix}", clip.audio, RATE)
    return folder


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_files_are_found_by_clip_id(tmp_path, clips, suffix):
    system = folder_system("other", write(tmp_path, clips, suffix), clips, RATE, HOP)
    for made, clip in zip(system.generate(clips), clips, strict=True):
        torch.testing.assert_close(made, clip.audio, rtol=0, atol=0)
    assert system.name == "other" and system.notes == () and not system.has_speed
    assert torch.equal(system.generate([clips[1].excerpt(640)])[0], clips[1].audio[:640])


def test_missing_files_are_one_error_with_the_first_few(tmp_path, clips):
    write(tmp_path, clips[:1])
    with pytest.raises(
        WavedistillError, match=r"4 of 5 clips .*: speaker/1.wav, speaker/2.wav, speaker/3.wav, \.\.\.\. Add"
    ):
        folder_system("other", tmp_path, clips, RATE, HOP)
    with pytest.raises(WavedistillError, match="no such folder"):
        folder_system("other", tmp_path / "nowhere", clips, RATE, HOP)


def test_other_rates_and_lengths_are_fitted_and_noted(tmp_path, clips):
    write(tmp_path, clips[3:])
    save_audio(tmp_path / "speaker/0.wav", resample(clips[0].audio, RATE, 16000), 16000)
    save_audio(tmp_path / "speaker/1.wav", clips[1].audio[:-800], RATE)
    save_audio(tmp_path / "speaker/2.wav", torch.nn.functional.pad(clips[2].audio, (0, 1600)), RATE)
    save_audio(
        tmp_path / "speaker/3.wav", torch.nn.functional.pad(clips[3].audio, (0, HOP - 1)), RATE
    )  # the clip's own last frame
    system = folder_system("other", tmp_path, clips, RATE, HOP)
    made = system.generate(clips)
    assert [len(x) for x in made] == [len(c.audio) for c in clips]
    assert (made[0] - clips[0].audio)[200:-200].std() < 0.03 * clips[0].audio.std()  # noise near half the rate is lost
    assert torch.equal(made[1][:-800], clips[1].audio[:-800]) and not made[1][-800:].any()
    assert torch.equal(made[2], clips[2].audio)
    assert system.notes == (
        "other: resampled from 16000 Hz to 8000 Hz.",
        "other: 1 of 5 files are shorter than the clip, by up to 0.10 s: padded with silence.",
        "other: 1 of 5 files are longer than the clip, by up to 0.20 s: cut at the end.",
    )


def test_the_key_changes_with_the_files(tmp_path, clips):
    keys = [folder_system("other", write(tmp_path, clips), clips, RATE, HOP).key for _ in range(2)]
    save_audio(tmp_path / "speaker/0.wav", 0.5 * clips[0].audio, RATE)
    assert keys[0] == keys[1] != folder_system("other", tmp_path, clips, RATE, HOP).key
