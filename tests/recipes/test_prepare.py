"""The recipes' prepare.py, run on small folders in each corpus' layout."""

from __future__ import annotations

import gzip
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.paths import RECIPES

from wavedistill.audio.io import to_int16
from wavedistill.data.corpora.asterisk import (
    ASTERISK_LANGUAGES,
    asterisk_recordings,
    decode_g722,
    read_prompt_texts,
)
from wavedistill.data.corpora.debian import fetch_debian
from wavedistill.data.manifest import read_manifest
from wavedistill.data.splits import split_of
from wavedistill.data.toy import prepare_toy, toy_tone
from wavedistill.errors import WavedistillError


def run(recipe: str, *arguments: object) -> None:
    """python recipes/<recipe>/prepare.py <arguments>, in this process."""
    before = sys.argv
    sys.argv = ["prepare.py", *map(str, arguments)]
    try:
        runpy.run_path(str(RECIPES / recipe / "prepare.py"), run_name="__main__")
    finally:
        sys.argv = before


def write_g722(path: Path, audio: np.ndarray) -> None:
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="g722") as container:
        stream = container.add_stream("g722", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(to_int16(audio)[None], format="s16", layout="mono")
        frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def make_festvox(root: Path) -> None:
    voice = root / "usr/share/festival/voices/russian/msu_ru_nsh_clunits"
    (voice / "etc").mkdir(parents=True)
    (voice / "wav").mkdir()
    texts = {"ru_0001": "Она завела, прядь вол+ос.", "ru_0002": r"Он сказал: \"Да\".", "ru_0003": "Третья."}
    lines = [f'( {name} "{text}" )' for name, text in texts.items()]
    (voice / "etc/txt.done.data").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for index, name in enumerate(texts):
        audio = np.concatenate([np.zeros(6400), toy_tone(0, index, seconds=0.6).numpy(), np.zeros(6400)])
        soundfile.write(voice / "wav" / f"{name}.wav", audio, 16000)


PROMPTS = """\ufeff; Core sounds
\tactivated: Activated.
letters/at: at [@]
letters/exclamation: [!] exclamation point
letters/O: O
again: ACTIVATED
beep: [this is a simple beep tone]
ascending-2tone: [ascending tones]
confbridge-join: <beep ascending>
silence/1: (1 second of silence)
tt-monkeys: monkeys
vm-goodbye: Goodbye: see you
is: is
"""


def make_asterisk(root: Path) -> None:
    doc = root / "usr/share/doc"
    sounds = root / "usr/share/asterisk/sounds"
    for number, language in enumerate(ASTERISK_LANGUAGES):
        folder = doc / f"asterisk-core-sounds-{language}"
        folder.mkdir(parents=True)
        (folder / f"core-sounds-{language}.txt.gz").write_bytes(gzip.compress(PROMPTS.encode()))
        voice = sounds / f"{language}_XX_f_Someone"
        for name in (
            "vm-goodbye",
            "activated",
            "letters/at",
            "letters/exclamation",
            "letters/o",
            "again",
            "untold",
            "beep",
            "ascending-2tone",
            "confbridge-join",
            "confbridge-leave",
            "silence/1",
            "tt-monkeys",
        ):
            write_g722(voice / f"{name}.g722", toy_tone(number, len(name), seconds=0.5).numpy())
        (voice / "is.g722").write_bytes(b"")


SPOKEN = {"vm-goodbye", "activated", "letters_at", "letters_exclamation", "letters_o", "again", "untold"}


def test_festvox_ru(tmp_path, capsys):
    make_festvox(tmp_path / "in")
    run("festvox_ru", "--out", tmp_path / "out", "--source", tmp_path / "in", "--workers", 1)
    entries = read_manifest(tmp_path / "out")
    assert [(e.id, e.text) for e in entries] == [
        ("festvox_ru_0001", "Она завела, прядь волос."),
        ("festvox_ru_0002", 'Он сказал: "Да".'),
        ("festvox_ru_0003", "Третья."),
    ]
    assert {e.speaker for e in entries} == {"festvox_ru"}
    assert all(0.6 <= e.duration <= 0.82 for e in entries)  # 0.4 s of silence at each end is cut to 0.1 s
    table = capsys.readouterr().out
    assert "festvox_ru" in table and "train" in table


def test_asterisk(tmp_path, capsys):
    make_asterisk(tmp_path / "in")
    run("asterisk", "--out", tmp_path / "out", "--source", tmp_path / "in", "--workers", 1)
    entries = {e.id: e for e in read_manifest(tmp_path / "out")}
    assert set(entries) == {f"{language}_{name}" for language in ASTERISK_LANGUAGES for name in SPOKEN}
    assert {e.speaker for e in entries.values()} == set(ASTERISK_LANGUAGES)
    assert entries["en_letters_at"].text == "at" and entries["fr_letters_o"].text == "O"
    assert entries["it_letters_exclamation"].text == "exclamation point"
    assert entries["ru_vm-goodbye"].text == "Goodbye: see you" and entries["es_untold"].text is None
    assert soundfile.info(entries["en_again"].audio).samplerate == 16000
    # the same sentence, whoever speaks it and in whichever file
    assert len({e.split for e in entries.values() if e.text and e.text.casefold().startswith("activated")}) == 1
    assert entries["en_activated"].split == split_of("activated")


def test_speech_is_both_with_one_manifest(tmp_path, capsys):
    make_festvox(tmp_path / "in")
    make_asterisk(tmp_path / "in")
    run("speech", "--out", tmp_path / "data/speech", "--source", tmp_path / "in", "--workers", 1)
    entries = read_manifest(tmp_path / "data/speech")
    assert len(entries) == 3 + 5 * len(SPOKEN) and len({e.speaker for e in entries}) == 6
    assert all(Path(e.audio).is_file() for e in entries)
    assert [p.name for p in (tmp_path / "data/speech").iterdir()] == ["manifest.jsonl"]  # the audio is not copied
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("data/*/wavs/*.wav")}
    run("speech", "--out", tmp_path / "data/speech", "--source", tmp_path / "in", "--workers", 1)
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.glob("data/*/wavs/*.wav")}


def test_ljspeech(tmp_path, capsys):
    root = tmp_path / "in" / "LJSpeech-1.1"
    (root / "wavs").mkdir(parents=True)
    rows = [
        ("LJ001-0001", "Printing, in 1440", "Printing, in fourteen forty"),
        ("LJ001-0002", "in being", "in being"),
    ]
    (root / "metadata.csv").write_text("".join("|".join(row) + "\n" for row in rows))
    for index, row in enumerate(rows):
        soundfile.write(
            root / "wavs" / f"{row[0]}.wav", toy_tone(0, index, seconds=0.5, sample_rate=22050).numpy(), 22050
        )
    run("ljspeech", "--out", tmp_path / "out", "--source", tmp_path / "in", "--workers", 1)
    entries = read_manifest(tmp_path / "out")
    assert [(e.id, e.text) for e in entries] == [(row[0], row[2]) for row in rows]
    assert soundfile.info(entries[0].audio).samplerate == 22050
    run(
        "ljspeech",
        "--out",
        tmp_path / "out",
        "--source",
        tmp_path / "in",
        "--workers",
        1,
        "--sample-rate",
        16000,
    )
    assert soundfile.info(read_manifest(tmp_path / "out")[0].audio).samplerate == 16000


def test_toy(tmp_path, capsys):
    run("toy", "--out", tmp_path, "--clips", 5)
    entries = read_manifest(tmp_path)
    assert len(entries) == 5 and {e.split for e in entries} == {"train", "valid", "test"}
    assert all(e.duration == 2.0 and soundfile.info(e.audio).duration == 2.0 for e in entries)
    first = (tmp_path / "wavs/tone_0000.wav").read_bytes()
    prepare_toy(tmp_path / "again", 1)
    assert (tmp_path / "again/wavs/tone_0000.wav").read_bytes() == first
    assert not np.array_equal(toy_tone(0, 0), toy_tone(0, 1))


@pytest.mark.parametrize(
    "recipe,words",
    [
        ("festvox_ru", "no such folder"),
        ("asterisk", "no such folder"),
        ("speech", "no such folder"),
        ("ljspeech", "LJSpeech-1.1"),
    ],
)
def test_a_missing_source_is_an_error_with_exit_code_2(tmp_path, capsys, recipe, words):
    with pytest.raises(SystemExit) as stop:
        run(recipe, "--out", tmp_path / "out", "--source", tmp_path / "none")
    message = capsys.readouterr().err
    assert stop.value.code == 2 and message.startswith("error: ") and words in message and "--source" in message
    assert message.count("\n") <= 2 and not (tmp_path / "none").exists()


def test_a_source_without_the_corpus_names_the_package(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run("asterisk", "--out", tmp_path / "out", "--source", tmp_path)
    assert "Debian package asterisk-core-sounds-en" in capsys.readouterr().err


def test_g722_is_decoded_and_bad_files_are_refused(tmp_path):
    audio = 0.3 * np.sin(2 * np.pi * 300 * np.arange(16000) / 16000)
    write_g722(tmp_path / "a.g722", audio)
    decoded, rate = decode_g722(tmp_path / "a.g722", 10.0)
    assert rate == 16000 and abs(len(decoded) - 16000) <= 64
    delay = 22  # samples, of the two filter banks
    assert np.corrcoef(decoded.numpy()[delay : 15000 + delay], audio[:15000])[0, 1] > 0.99
    with pytest.raises(WavedistillError, match="1 s long, at most 0.5 s"):
        decode_g722(tmp_path / "a.g722", 0.5)


def test_empty_and_unheard_prompts_are_no_recordings(tmp_path):
    make_asterisk(tmp_path)
    assert {r.id for r in asterisk_recordings(tmp_path) if r.speaker == "ru"} == {f"ru_{name}" for name in SPOKEN}
    texts = read_prompt_texts(next(tmp_path.rglob("core-sounds-ru.txt.gz")))
    assert texts["beep"] == "" and texts["activated"] == "Activated." and "; core sounds" not in texts


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs Debian's dpkg-deb")
def test_packages_are_downloaded_once_and_unpacked(tmp_path, monkeypatch, capsys):
    package = tmp_path / "package"
    make_festvox(package)
    (package / "DEBIAN").mkdir()
    (package / "DEBIAN/control").write_text(
        "Package: festvox-ru\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: test\n"
    )
    subprocess.run(["dpkg-deb", "-b", str(package), str(tmp_path / "festvox-ru.deb")], check=True, capture_output=True)
    tools = tmp_path / "tools"
    tools.mkdir()
    script = tools / "apt-get"
    script.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\ncp {tmp_path}/festvox-ru.deb .\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    for _ in range(2):
        run("festvox_ru", "--out", tmp_path / "out", "--workers", 1)
        assert len(read_manifest(tmp_path / "out")) == 3
    assert (tmp_path / "calls").read_text() == "download festvox-ru\n"
    script.write_text("#!/bin/sh\necho 'E: Unable to locate package festvox-ru' >&2\nexit 100\n")
    with pytest.raises(WavedistillError, match="Unable to locate package(?s:.*)--source DIR"):
        fetch_debian(["festvox-ru"], tmp_path / "other")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WavedistillError, match="apt-get is not on this machine"):
        fetch_debian(["festvox-ru"], tmp_path / "other")
