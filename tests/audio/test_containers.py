"""Files that were written into a pipe, and files that end early: all of it is read, or none."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers.tiny_models import tiny_student

from wavedistill import Vocoder
from wavedistill.audio.containers import states_no_length
from wavedistill.audio.io import load_audio
from wavedistill.errors import WavedistillError

RATE = 16000
BIT_RATES = {
    1: [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
    2: [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
}


@pytest.fixture
def audio() -> np.ndarray:
    """Five seconds of sound that changes: a variable bit rate varies."""
    time = np.arange(5 * RATE) / RATE
    noise = np.random.default_rng(0).standard_normal(len(time)) * (time > 2.5) * 0.1
    return (0.3 * np.sin(2 * np.pi * 220 * time) * (time > 1) + noise).astype(np.float32)


def wav(path: Path, audio: np.ndarray, length: int | None = None, cut: int = 0) -> Path:
    """A wav whose data chunk announces ``length`` bytes (None: the truth) and ends ``cut`` bytes early."""
    soundfile.write(path, audio, RATE)
    data = bytearray(path.read_bytes())
    place = data.index(b"data") + 4
    if length is not None:
        data[place : place + 4] = struct.pack("<I", length)
    path.write_bytes(data[: len(data) - cut])
    return path


@pytest.mark.parametrize("length", [0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFF000, 0xFFFFFFFF, 0])
def test_a_wav_from_a_pipe_is_read_to_its_end(tmp_path, audio, length):
    exact = load_audio(wav(tmp_path / "file.wav", audio))[0]
    found, rate = load_audio(wav(tmp_path / "pipe.wav", audio, length))
    assert rate == RATE and torch.equal(found, exact)


@pytest.mark.parametrize("cut", [2, 4000])
def test_a_wav_that_ends_early_is_refused(tmp_path, audio, cut):
    with pytest.raises(WavedistillError, match="truncated"):
        load_audio(wav(tmp_path / "cut.wav", audio, cut=cut))


def test_a_flac_from_a_pipe_is_read_to_its_end(tmp_path, audio):
    path = tmp_path / "x.flac"
    soundfile.write(path, audio, RATE)
    exact = load_audio(path)[0]
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # 36 bits of total samples
    data[22:26] = bytes(4)
    path.write_bytes(data)
    assert states_no_length(path)
    assert torch.equal(load_audio(path)[0], exact)
    with pytest.raises(WavedistillError, match="more than 2 s long"):
        load_audio(path, max_seconds=2)


def first_frame(data: bytes) -> int:
    """Bytes of the first frame of an MPEG stream of layer III."""
    version = 1 if data[1] >> 3 & 3 == 3 else 2
    rate = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}[data[1] >> 3 & 3]
    kilobits = BIT_RATES[version][data[2] >> 4]
    return (144 if version == 1 else 72) * kilobits * 1000 // rate[data[2] >> 2 & 3] + (data[2] >> 1 & 1)


@pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT"])
@pytest.mark.parametrize("tag", [b"", b"ID3\x04\x00\x00\x00\x00\x01\x05" + bytes(133)])
def test_an_mp3_without_a_count_of_frames_is_read_to_its_end(tmp_path, audio, mode, tag):
    path = tmp_path / "x.mp3"
    soundfile.write(path, audio, RATE, format="MP3", bitrate_mode=mode, compression_level=0.5)
    data = path.read_bytes()
    assert not states_no_length(path) and len(load_audio(path)[0]) >= len(audio)
    assert b"Xing" in data[:200] or b"Info" in data[:200]
    path.write_bytes(tag + data[first_frame(data) :])
    assert states_no_length(path)
    found = load_audio(path)[0].numpy()
    assert len(audio) <= len(found) <= len(audio) + 4 * 1152  # the tag said how much of both ends is the coder's
    start = max(range(0, 3000), key=lambda shift: float(found[shift : shift + 60000] @ audio[:60000]))
    np.testing.assert_allclose(found[start : start + len(audio)], audio[: len(found) - start], atol=0.3)
    assert np.abs(found[start : start + 70000] - audio[:70000]).mean() < 0.03


def test_integers_stored_as_floats_are_refused_with_the_factor(tmp_path, audio):
    path = tmp_path / "x.wav"
    soundfile.write(path, audio * 32768.0, RATE, subtype="FLOAT")
    with pytest.raises(
        WavedistillError, match=r"x.wav: its samples reach .* like 16-bit integers: divide them by 32768"
    ):
        load_audio(path)
    with pytest.raises(WavedistillError, match="divide them by 32768"):
        Vocoder(tiny_student())(torch.from_numpy(audio * 32768.0), RATE)
    soundfile.write(path, audio * 4.0, RATE, subtype="FLOAT")  # loud, and meant so
    assert float(load_audio(path)[0].abs().max()) > 1.0
