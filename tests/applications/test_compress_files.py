"""compress and decompress as a user types them: files, folders, damage, what cannot be done."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.compression import make_pcm

from wavedistill import cli
from wavedistill.applications.compression.container import read_container
from wavedistill.applications.compression.model import CONFIG_FILE, load_codec, save_codec
from wavedistill.applications.compression.pcm import read_pcm, write_pcm
from wavedistill.errors import WavedistillError

RATE = 30  # 10 s, a chunk, are then 300 samples


def write(path: Path, kind: str = "resonance", *, frames: int = 1000, channels: int = 1, subtype: str = "PCM_16"):
    pcm = make_pcm(kind, frames=frames, channels=channels, subtype=subtype, sample_rate=RATE, seed=frames)
    write_pcm(path, pcm)
    return pcm.samples


def compress(*words: object) -> int:
    return cli.main(["compress", *map(str, words)])


def decompress(*words: object) -> int:
    return cli.main(["decompress", *map(str, words)])


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    "name, subtype",
    [("a.wav", "PCM_U8"), ("a.wav", "PCM_16"), ("a.WAV", "PCM_24"), ("a.flac", "PCM_16"), ("a.flac", "PCM_24")],
)
def test_formats(tmp_path, name, subtype, channels):
    samples = make_pcm("resonance", frames=400, channels=channels, subtype=subtype, sample_rate=8000, seed=1).samples
    bits = {"PCM_U8": 8, "PCM_16": 16, "PCM_24": 24}[subtype]
    values = (samples << (32 - bits)).astype(np.int32)
    soundfile.write(tmp_path / name, values, 8000, subtype=subtype, format=Path(name).suffix[1:].upper())
    assert compress(tmp_path / name, "--out", tmp_path / "packed", "--verify") == 0
    assert decompress(tmp_path / "packed" / f"{name}.wdc", "--out", tmp_path / "out") == 0
    again, rate = soundfile.read(tmp_path / "out" / name, dtype="int32", always_2d=True)
    assert np.array_equal(again, values) and rate == 8000
    assert soundfile.info(tmp_path / "out" / name).subtype == subtype


@pytest.mark.parametrize("frames", [0, 1])
def test_hardly_any_samples(tmp_path, frames):
    write(tmp_path / "a.wav", "white noise", frames=frames)
    assert compress(tmp_path / "a.wav", "--out", tmp_path) == 0
    assert decompress(tmp_path / "a.wav.wdc", "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / "a.wav").read_bytes() == (tmp_path / "a.wav").read_bytes()


def test_folders_keep_their_shape_and_what_is_done_is_not_redone(tmp_path, capsys):
    for name in ("a.wav", "sub/a.wav", "sub/b.flac"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "in" / name, np.arange(50, dtype=np.int16), RATE)
    assert compress(tmp_path / "in", "--out", tmp_path / "packed") == 0
    assert "3 written" in capsys.readouterr().out
    before = (tmp_path / "packed" / "a.wav.wdc").stat().st_mtime_ns
    soundfile.write(tmp_path / "in" / "sub" / "a.wav", np.arange(60, dtype=np.int16), RATE)
    assert compress(tmp_path / "in", "--out", tmp_path / "packed") == 0
    assert "1 written" in (out := capsys.readouterr().out) and "2 there already" in out, "a changed input is done again"
    assert (tmp_path / "packed" / "a.wav.wdc").stat().st_mtime_ns == before
    for expected in ("3 written", "3 there already"):
        assert decompress(tmp_path / "packed", "--out", tmp_path / "out") == 0
        assert expected in capsys.readouterr().out
    for path in (tmp_path / "in").rglob("*.*"):
        again = tmp_path / "out" / path.relative_to(tmp_path / "in")
        assert np.array_equal(read_pcm(again).samples, read_pcm(path).samples)


def test_damage_costs_one_chunk_and_is_named(tmp_path, capsys):
    samples = write(tmp_path / "a.wav")
    compress(tmp_path / "a.wav", "--out", tmp_path)
    packed = tmp_path / "a.wav.wdc"
    data = bytearray(packed.read_bytes())
    chunks = read_container(packed).chunks
    data[len(data) - sum(map(len, chunks[1:])) + 5] ^= 1  # in the second of four chunks
    packed.write_bytes(data)
    assert decompress(packed, "--out", tmp_path / "out") == 1
    assert "1 of 4 chunks damaged or cut off: 2 (10.0-20.0 s)" in capsys.readouterr().err
    assert not (tmp_path / "out" / "a.wav").exists()
    assert decompress(packed, "--out", tmp_path / "out", "--keep-going") == 1
    assert "silence in" in capsys.readouterr().err
    expected = samples.copy()
    expected[300:600] = 0
    assert np.array_equal(read_pcm(tmp_path / "out" / "a.wav").samples, expected)


def test_a_file_that_is_cut_off_keeps_its_first_chunks(tmp_path, capsys):
    samples = write(tmp_path / "a.wav")
    compress(tmp_path / "a.wav", "--out", tmp_path)
    packed = tmp_path / "a.wav.wdc"
    packed.write_bytes(packed.read_bytes()[:-10])
    assert decompress(packed, "--out", tmp_path / "out", "--keep-going") == 1
    assert "4 (30.0-33.3 s)" in capsys.readouterr().err
    assert np.array_equal(read_pcm(tmp_path / "out" / "a.wav").samples[:900], samples[:900])


@pytest.mark.parametrize(
    "spoil, reason",
    [
        (lambda data: b"", "no .wdc file"),
        (lambda data: b"RIFF" + data[4:], "no .wdc file"),
        (lambda data: data[:3] + b"\x09" + data[4:], "version 9"),
        (lambda data: data[:20], "header is damaged"),
        (lambda data: data[:25] + b"\xff" + data[26:], "header is damaged"),
    ],
)
def test_damaged_headers(tmp_path, capsys, spoil, reason):
    write(tmp_path / "a.wav", frames=40)
    compress(tmp_path / "a.wav", "--out", tmp_path)
    packed = tmp_path / "a.wav.wdc"
    packed.write_bytes(spoil(packed.read_bytes()))
    assert decompress(packed, "--out", tmp_path / "out", "--keep-going") == 1
    assert reason in capsys.readouterr().err


def test_every_damaged_byte_is_found(tmp_path, capsys):
    write(tmp_path / "a.wav", frames=40)
    compress(tmp_path / "a.wav", "--out", tmp_path)
    data = (tmp_path / "a.wav.wdc").read_bytes()
    for place in range(0, len(data), 3):
        (tmp_path / "b.wdc").write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        assert decompress(tmp_path / "b.wdc", "--out", tmp_path / "out") == 1, place
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def other_codec(folder: Path) -> Path:
    network = load_codec().network.copy()
    network["bias_3"][0, 0] += 0.5
    return save_codec(network, folder)


def test_another_model_is_refused_and_can_be_given(tmp_path, capsys):
    samples = write(tmp_path / "a.wav", frames=200)
    other = other_codec(tmp_path / "other")
    assert compress(tmp_path / "a.wav", "--out", tmp_path, "--checkpoint", other) == 0
    assert decompress(tmp_path / "a.wav.wdc", "--out", tmp_path / "out") == 1
    assert "written with the codec" in capsys.readouterr().err
    assert decompress(tmp_path / "a.wav.wdc", "--out", tmp_path / "out", "--checkpoint", other) == 0
    assert np.array_equal(read_pcm(tmp_path / "out" / "a.wav").samples, samples)


def test_arithmetic_that_gives_other_bits_is_refused(tmp_path):
    folder = other_codec(tmp_path / "other")
    config = folder / CONFIG_FILE
    answer = load_codec(folder) and config.read_text().split('"known_answer": "')[1][:8]
    shutil.copytree(folder, tmp_path / "moved")
    (tmp_path / "moved" / CONFIG_FILE).write_text(config.read_text().replace(answer, "00000000"))
    with pytest.raises(WavedistillError, match=f"gives {answer} for the codec's test signal, not 00000000"):
        load_codec(tmp_path / "moved")


@pytest.mark.parametrize(
    "name, values, options, reason",
    [
        ("a.wav", np.zeros(9, np.float32), {"subtype": "FLOAT"}, "its samples are FLOAT"),
        ("a.wav", np.full(9, np.nan, np.float32), {"subtype": "FLOAT"}, "its samples are FLOAT"),
        ("a.wav", np.zeros(9, np.int32), {"subtype": "PCM_32"}, "its samples are PCM_32"),
        ("a.wav", np.zeros((9, 3), np.int16), {}, "3 channels"),
        ("a.ogg", np.zeros(900, np.float32), {}, "wav and flac are compressed"),
    ],
)
def test_what_cannot_be_compressed_is_listed_and_the_rest_is_done(tmp_path, capsys, name, values, options, reason):
    soundfile.write(tmp_path / name, values, 8000, **options)
    write(tmp_path / "good.wav", frames=40)
    assert compress(tmp_path / name, tmp_path / "good.wav", "--out", tmp_path / "packed") == 1
    captured = capsys.readouterr()
    assert reason in captured.err and "1 written" in captured.out and "1 failed" in captured.out
    assert [path.name for path in (tmp_path / "packed").iterdir()] == ["good.wav.wdc"]


def test_broken_inputs(tmp_path, capsys):
    write(tmp_path / "cut.wav", frames=900)
    (tmp_path / "cut.wav").write_bytes((tmp_path / "cut.wav").read_bytes()[:-100])
    (tmp_path / "text.wav").write_text("no audio")
    assert compress(tmp_path, "--out", tmp_path / "packed") == 1
    errors = capsys.readouterr().err
    assert "cut.wav: truncated" in errors and "text.wav: not readable as audio" in errors
    assert compress(tmp_path / "missing.wav", "--out", tmp_path / "packed") == 2
    assert "no such file or folder" in capsys.readouterr().err


def test_two_inputs_of_one_name_are_refused(tmp_path, capsys):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "x.wav", frames=9)
    assert compress(tmp_path / "a", tmp_path / "b", "--out", tmp_path / "packed") == 2
    assert "would both be written" in capsys.readouterr().err


def test_a_file_in_the_way_is_not_overwritten(tmp_path, capsys):
    write(tmp_path / "a.wav", frames=40)
    compress(tmp_path / "a.wav", "--out", tmp_path)
    (tmp_path / "out").mkdir()
    kept = write(tmp_path / "out" / "a.wav", "white noise", frames=50)
    assert decompress(tmp_path / "a.wav.wdc", "--out", tmp_path / "out") == 1
    assert "holds other samples" in capsys.readouterr().err
    assert np.array_equal(read_pcm(tmp_path / "out" / "a.wav").samples, kept)


def test_a_full_disk_ends_the_job_in_one_line(tmp_path, capsys, monkeypatch):
    """It is the same for all files: they are not told one by one."""
    for number in range(3):
        write(tmp_path / "in" / f"{number}.wav")

    def full(*paths):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("wavedistill.files.os.replace", full)
    assert compress(tmp_path / "in", "--out", tmp_path / "out") == 2
    told = [line for line in capsys.readouterr().err.splitlines() if "No space left" in line]
    assert len(told) == 1 and told[0].startswith("error: cannot write ")
    assert not list((tmp_path / "out").iterdir())
