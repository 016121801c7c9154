"""Audio files: round trips, mix-down, resampling, and one clear error for each kind of bad file."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from wavedistill.audio.io import check_audible, load_audio, resample, save_audio, to_int16
from wavedistill.errors import WavedistillError

RATE = 16000


def tone(seconds: float = 1.0, rate: int = RATE, hertz: float = 220.0) -> np.ndarray:
    return (0.4 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def test_int16_round_trip_is_exact(tmp_path):
    samples = np.arange(-32768, 32768, dtype=np.int16)
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="PCM_16")
    audio, rate = load_audio(tmp_path / "a.wav")
    assert audio.dtype == torch.float32 and audio.shape == (65536,) and rate == RATE
    assert audio.min() == -1 and audio.max() < 1
    assert (to_int16(audio) == samples).all()
    for suffix in (".wav", ".flac"):
        save_audio(tmp_path / f"b{suffix}", audio, RATE)
        assert (soundfile.read(tmp_path / f"b{suffix}", dtype="int16")[0] == samples).all()


def test_int16_clips_and_refuses_nan():
    assert to_int16(torch.tensor([2.0, -2.0, 0.5])).tolist() == [32767, -32768, 16384]
    with pytest.raises(WavedistillError, match="NaN"):
        to_int16(torch.tensor([0.0, float("nan")]))


@pytest.mark.parametrize(
    "suffix,subtype,tolerance",
    [
        (".wav", "PCM_U8", 1 / 120),
        (".wav", "PCM_16", 3.1e-5),
        (".wav", "PCM_24", 1e-6),
        (".wav", "PCM_32", 1e-7),
        (".wav", "FLOAT", 0),
        (".wav", "DOUBLE", 1e-7),
        (".flac", "PCM_24", 1e-6),
        (".ogg", None, 0.05),
        (".mp3", None, 0.05),
    ],
)
def test_reads_every_format_and_depth(tmp_path, suffix, subtype, tolerance):
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, tone(), RATE, subtype=subtype)
    audio, rate = load_audio(path)
    assert rate == RATE and len(audio) == pytest.approx(RATE, abs=2304 if suffix == ".mp3" else 0)
    assert abs(audio[:RATE] - torch.from_numpy(tone())[: len(audio)]).max() <= tolerance


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_saved_files_are_read_back(tmp_path, suffix):
    path = save_audio(tmp_path / "new" / f"a{suffix}", torch.from_numpy(tone())[None], RATE)
    audio, _ = load_audio(path)
    assert abs(audio[:RATE] - torch.from_numpy(tone())[: len(audio)]).max() < 0.05
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no temporary file stays


def test_float_wav_keeps_values_that_16_bits_do_not(tmp_path):
    save_audio(tmp_path / "a.wav", torch.tensor([1e-7, 1.5]), RATE, subtype="FLOAT")
    assert load_audio(tmp_path / "a.wav")[0].tolist() == pytest.approx([1e-7, 1.5])


def test_mixes_channels_down_across_blocks(tmp_path):
    left = np.random.default_rng(0).uniform(-0.5, 0.5, 300_000).astype(np.float32)  # more than one block
    soundfile.write(tmp_path / "a.wav", np.stack([left, 0.5 * left], 1), RATE, subtype="FLOAT")
    assert torch.allclose(load_audio(tmp_path / "a.wav")[0], torch.from_numpy(0.75 * left), atol=1e-6)


def test_192_khz_with_8_channels_is_mixed_down_and_resampled(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.repeat(tone(0.5, 192_000)[:, None], 8, axis=1), 192_000)
    audio, rate = load_audio(tmp_path / "a.wav", RATE)
    assert rate == RATE and audio.shape == (RATE // 2,)
    assert abs(audio - torch.from_numpy(tone(0.5)))[200:-200].max() < 1e-3


@pytest.mark.parametrize("rate", [8000, 22050, 24000, 44100, 48000, 191_999])
def test_resampling_keeps_the_tone_and_the_length(rate):
    out = resample(torch.from_numpy(tone(0.3, rate)), rate, RATE)
    assert len(out) == -(-round(0.3 * rate) * RATE // rate)
    expected = torch.from_numpy(tone(0.31))[: len(out)]
    assert abs(out - expected)[300:-300].max() < 3e-3


def test_resampling_removes_what_the_new_rate_cannot_hold():
    out = resample(torch.from_numpy(tone(0.5, 48000, hertz=11_000)), 48000, RATE)
    assert out[300:-300].abs().max() < 1e-3


def test_same_rate_is_the_identity():
    audio = torch.from_numpy(tone())
    assert resample(audio, RATE, RATE) is audio


def bad_files(folder):
    good = folder / "good"
    for suffix in (".wav", ".flac", ".ogg", ".mp3"):
        soundfile.write(good.with_suffix(suffix), np.random.default_rng(0).uniform(-0.3, 0.3, 3 * RATE), RATE)
        data = good.with_suffix(suffix).read_bytes()
        assert len(load_audio(good.with_suffix(suffix))[0]) >= 3 * RATE
        (folder / f"truncated{suffix}").write_bytes(data[: len(data) * 6 // 10])
    (folder / "header_only.wav").write_bytes(good.with_suffix(".wav").read_bytes()[:44])
    (folder / "empty.wav").write_bytes(b"")
    soundfile.write(folder / "no_samples.wav", np.zeros(0), RATE)
    (folder / "text.wav").write_text("this is not audio " * 100)
    (folder / "folder.wav").mkdir()
    soundfile.write(folder / "nan.wav", np.array([0.1, np.nan, 0.2], np.float32), RATE, subtype="FLOAT")
    soundfile.write(folder / "infinite.wav", np.array([0.1, np.inf, 0.2], np.float32), RATE, subtype="FLOAT")


@pytest.mark.parametrize(
    "name,words",
    [
        ("truncated.wav", "truncated"),
        ("truncated.flac", "truncated"),
        ("truncated.ogg", "truncated"),
        ("truncated.mp3", "truncated"),
        ("header_only.wav", "truncated"),
        ("empty.wav", "empty"),
        ("no_samples.wav", "no samples"),
        ("text.wav", "not readable as audio"),
        ("folder.wav", "folder"),
        ("nan.wav", "NaN"),
        ("infinite.wav", "infinite"),
        ("missing.wav", "no such file"),
    ],
)
def test_bad_files_have_one_line_errors(tmp_path, name, words):
    bad_files(tmp_path)
    with pytest.raises(WavedistillError) as caught:
        load_audio(tmp_path / name)
    file, message = str(caught.value).split(": ", maxsplit=1)
    assert file == str(tmp_path / name) and words in message and "\n" not in message


def test_wavs_streamed_through_a_pipe_are_not_truncated(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(), RATE)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    place = data.index(b"data") + 4
    data[place : place + 4] = b"\xff\xff\xff\xff"
    (tmp_path / "a.wav").write_bytes(data)
    assert len(load_audio(tmp_path / "a.wav")[0]) == RATE


def test_two_hours_are_refused_by_the_header_alone(tmp_path):
    code = (
        "import resource, soundfile, sys\n"
        "from wavedistill.audio.io import load_audio\n"
        "from wavedistill.errors import WavedistillError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: load_audio(sys.argv[1], max_seconds=600)\n"
        "except WavedistillError as error: print(error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(10, np.int16), RATE)
    data = bytearray(path.read_bytes())
    size = 2 * 3600 * RATE * 2
    data[4:8], data[40:44] = (size + 36).to_bytes(4, "little"), size.to_bytes(4, "little")
    path.write_bytes(data)
    os.truncate(path, 44 + size)  # sparse: takes no space on disk
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    message, megabytes = done.stdout.splitlines()
    assert "7200 s long, at most 600 s" in message and int(megabytes) < 20


def test_check_audible_names_the_file_and_the_fault():
    check_audible(torch.from_numpy(tone()), RATE, min_seconds=0.5, name="x")
    with pytest.raises(WavedistillError, match=r"x: too short, 3 samples"):
        check_audible(torch.ones(3), RATE, min_seconds=0.1, name="x")
    with pytest.raises(WavedistillError, match=r"x: silent"):
        check_audible(torch.full((RATE,), 1e-4), RATE, min_seconds=0.1, name="x")


def test_refuses_to_write_what_is_not_audio(tmp_path):
    for path, audio, words in [
        ("a.txt", torch.zeros(4), "written as .wav"),
        ("a.wav", torch.zeros(2, 4), "mono"),
        ("a.wav", torch.tensor([float("nan")]), "NaN"),
        ("a.wav", torch.zeros(4), "PCM_99"),
    ]:
        with pytest.raises(WavedistillError, match=words):
            save_audio(tmp_path / path, audio, RATE, subtype="PCM_99" if words == "PCM_99" else "PCM_16")
    assert not any(tmp_path.iterdir())


def test_unwritable_folder_and_full_disk_are_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(WavedistillError, match="cannot write"):
        save_audio(tmp_path / "file" / "a.wav", torch.zeros(10), RATE)

    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(WavedistillError, match="No space left"):
        save_audio(tmp_path / "a.wav", torch.zeros(10), RATE)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_an_interrupted_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = save_audio(tmp_path / "a.wav", torch.from_numpy(tone()), RATE)
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save_audio(path, torch.zeros(10), RATE)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
