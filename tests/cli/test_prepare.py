"""wavedistill prepare: what it says at the end, and how more recordings are held out."""

from __future__ import annotations

import pytest
from helpers.tiny_models import speech_like

from wavedistill import cli, save_audio
from wavedistill.data.manifest import read_manifest


@pytest.fixture
def prepare(tmp_path, capsys):
    """Prepare sixteen recordings with the given options; what it says on stdout and stderr."""
    for index in range(16):
        save_audio(tmp_path / "in" / f"{index}.wav", speech_like(0.5, 16000, index), 16000)

    def run(*options: str) -> tuple[str, str]:
        assert cli.main(["prepare", str(tmp_path / "in"), "--out", str(tmp_path / "out"), *options]) == 0
        return tuple(capsys.readouterr())

    return run


def test_it_says_how_many_are_held_out_and_what_to_type_for_more(prepare, tmp_path):
    out, error = prepare()
    assert "split: " in out and "--test-clips 6" in out and "NAME.txt beside NAME.wav" in out
    assert "16/16" in error  # the bar's total
    out, _ = prepare("--test-clips", "6", "--valid-clips", "3")
    assert "split: 7 train, 3 valid, 6 test" in out and "--test-clips" not in out
    assert [entry.split for entry in read_manifest(tmp_path / "out")].count("test") == 6


def test_what_cannot_be_held_out_is_an_error(prepare, tmp_path, capsys):
    prepare()
    assert cli.main(["prepare", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--test-clips", "16"]) == 2
    assert "16 recordings cannot be held out for test" in capsys.readouterr().err
