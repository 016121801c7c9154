"""Manifests: round trip, relative paths, errors with line numbers."""

from __future__ import annotations

import json
import shutil

import pytest

from wavedistill.data.manifest import Entry, read_manifest, write_manifest
from wavedistill.errors import WavedistillError


def entry(folder, name="a", **changes):
    values = {
        "id": name,
        "audio": str(folder / "wavs" / f"{name}.wav"),
        "duration": 1.25,
        "speaker": "s",
        "text": "Привет, мир",
        "split": "train",
    }
    return Entry(**{**values, **changes})


def test_round_trip(tmp_path):
    entries = [entry(tmp_path, "a"), entry(tmp_path, "b", text=None, split="test")]
    write_manifest(tmp_path / "manifest.jsonl", entries)
    assert read_manifest(tmp_path / "manifest.jsonl") == entries
    assert read_manifest(tmp_path) == entries  # the folder will do
    records = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    assert records[0] == {
        "id": "a",
        "audio": "wavs/a.wav",
        "duration": 1.25,
        "speaker": "s",
        "text": "Привет, мир",
        "split": "train",
    }
    assert "text" not in records[1]


def test_a_moved_folder_still_works(tmp_path):
    write_manifest(tmp_path / "old" / "manifest.jsonl", [entry(tmp_path / "old")])
    shutil.move(tmp_path / "old", tmp_path / "new")
    assert read_manifest(tmp_path / "new")[0].audio == str(tmp_path / "new" / "wavs" / "a.wav")


def test_audio_outside_the_folder_is_reached_by_a_relative_path(tmp_path, monkeypatch):
    write_manifest(tmp_path / "all" / "manifest.jsonl", [entry(tmp_path / "part")])
    assert '"../part/wavs/a.wav"' in (tmp_path / "all" / "manifest.jsonl").read_text()
    monkeypatch.chdir(tmp_path)
    assert read_manifest("all/manifest.jsonl")[0].audio == str(tmp_path / "part" / "wavs" / "a.wav")


def test_order_of_the_entries_does_not_change_the_file(tmp_path):
    entries = [entry(tmp_path, name) for name in "abc"]
    one = write_manifest(tmp_path / "1.jsonl", entries).read_bytes()
    assert write_manifest(tmp_path / "2.jsonl", reversed(entries)).read_bytes() == one


def test_a_condition_is_a_path_like_the_audio(tmp_path, monkeypatch):
    paired = entry(tmp_path, "a", condition=str(tmp_path / "coded" / "a.wav"))
    write_manifest(tmp_path / "manifest.jsonl", [paired, entry(tmp_path, "b")])
    first, second = map(json.loads, (tmp_path / "manifest.jsonl").read_text().splitlines())
    assert first["condition"] == "coded/a.wav" and "condition" not in second
    monkeypatch.chdir(tmp_path)
    found = read_manifest("manifest.jsonl")
    assert found[0].condition == paired.condition and found[1].condition is None


GOOD = {"id": "a", "audio": "a.wav", "duration": 1.0, "speaker": "s", "split": "train"}


@pytest.mark.parametrize(
    "line,words",
    [
        ("{oops", "not JSON"),
        ("[1]", "object"),
        (json.dumps({**GOOD, "lang": "en"}), "unknown field 'lang'"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "speaker"}), "'speaker' is missing"),
        (json.dumps({**GOOD, "duration": "1"}), "'duration' cannot be '1'"),
        (json.dumps({**GOOD, "duration": 0}), "'duration'"),
        (json.dumps({**GOOD, "audio": None}), "'audio'"),
        (json.dumps({**GOOD, "condition": 3}), "'condition' cannot be 3"),
        (json.dumps({**GOOD, "split": "dev"}), "split 'dev'"),
        (json.dumps(GOOD), "id 'a' occurs twice"),
        ("[" * 10**5, "not JSON"),
        (json.dumps(GOOD)[:-1] + ', "n": ' + "9" * 5000 + "}", "not JSON"),
    ],
)
def test_bad_lines_are_named_with_their_number(tmp_path, line, words):
    (tmp_path / "m.jsonl").write_text(f"{json.dumps(GOOD)}\n\n{line}\n")
    with pytest.raises(WavedistillError, match=words) as caught:
        read_manifest(tmp_path / "m.jsonl")
    assert "line 3" in str(caught.value)


def test_missing_and_empty_manifests(tmp_path):
    with pytest.raises(WavedistillError, match="wavedistill prepare"):
        read_manifest(tmp_path / "none.jsonl")
    (tmp_path / "m.jsonl").write_text("\n")
    with pytest.raises(WavedistillError, match="no entries"):
        read_manifest(tmp_path / "m.jsonl")
    (tmp_path / "m.jsonl").write_bytes(b'{"id": "caf\xe9"}')
    with pytest.raises(WavedistillError, match="m.jsonl: not readable as a manifest .*UTF-8"):
        read_manifest(tmp_path / "m.jsonl")
