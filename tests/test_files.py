"""Whole files or none."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import pytest

from wavedistill.errors import OutputError, WavedistillError
from wavedistill.files import (
    atomic,
    read_json,
    remove_leftovers,
    write_bytes,
    write_json,
    write_json_once,
    write_text,
)

ROOM = Path(__file__).parents[1] / "wavedistill"

DEAD = 2**30
"""No process has this number: systems count up to 2^22."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    write_json(tmp_path / "new" / "folder" / "a.json", {"name": "Öl", "values": [1, 2]})
    assert read_json(tmp_path / "new" / "folder" / "a.json") == {"name": "Öl", "values": [1, 2]}
    write_text(tmp_path / "a.txt", "für")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "für"
    write_bytes(tmp_path / "a.txt", b"second")
    assert (tmp_path / "a.txt").read_bytes() == b"second"
    assert names(tmp_path) == ["a.txt", "new"]


def test_of_several_processes_one_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "settings.json"
    assert write_json_once(path, {"seed": 1}) and not write_json_once(path, {"seed": 2})
    assert read_json(path) == {"seed": 1}
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links here")))
    assert write_json_once(tmp_path / "other.json", {"seed": 3}) and read_json(tmp_path / "other.json") == {"seed": 3}
    assert [p.name for p in path.parent.iterdir()] == ["settings.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "other.json"]


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.wav"
    with atomic(path) as temporary:
        assert temporary.parent == path.parent and temporary.name.startswith(".") and str(os.getpid()) in temporary.name
        temporary.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one" and names(path.parent) == ["a.wav"]


def test_the_longest_names_are_written_and_cleaned_up(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 125 + ".wave")
    write_bytes(path, b"1")
    assert path.read_bytes() == b"1" and names(tmp_path) == [path.name]
    with pytest.raises(KeyboardInterrupt), atomic(path) as temporary:
        temporary.write_text("half")
        (tmp_path / temporary.name.replace(str(os.getpid()), str(DEAD))).write_text("left by a killed process")
        raise KeyboardInterrupt
    assert len(names(tmp_path)) == 2
    remove_leftovers(tmp_path, path.name)
    assert names(tmp_path) == [path.name]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_an_error_keeps_the_old_file_and_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(error)), atomic(path) as temporary:
        temporary.write_text("new")
        raise error
    assert path.read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_a_full_disk_and_a_file_in_the_way_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WavedistillError, match=r"cannot write .*a.txt: No space left.*another --out"):
        with atomic(tmp_path / "a.txt", "Give another --out.") as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert names(tmp_path) == []
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WavedistillError, match=r"cannot write .*file/a.json: .*Give a folder you can write to"):
        write_json(tmp_path / "file" / "a.json", {})


def test_leftovers_of_killed_processes_are_removed_by_name(tmp_path: Path) -> None:
    for name in (f".a.wav.{DEAD}.tmp", ".a.wav.tmp", f".b.wav.{DEAD}.tmp", "a.wav", f"below/.c.json.{DEAD}.tmp"):
        write_bytes(tmp_path / name, b"")
    remove_leftovers(tmp_path, "a.wav")
    assert names(tmp_path) == [f".b.wav.{DEAD}.tmp", "a.wav", "below"]
    remove_leftovers(tmp_path, "*.wav")
    assert names(tmp_path) == ["a.wav", "below"]
    remove_leftovers(tmp_path, "**/*")
    assert names(tmp_path / "below") == []
    remove_leftovers(tmp_path / "nowhere")


def test_what_another_process_is_writing_stays(tmp_path: Path) -> None:
    for owner in (os.getppid(), os.getpid(), DEAD):
        (tmp_path / f".a.wav.{owner}.tmp").write_text("")
    remove_leftovers(tmp_path, "a.wav")
    assert names(tmp_path) == [f".a.wav.{os.getppid()}.tmp"]


def test_json_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(WavedistillError, match="cannot read .*none.json"):
        read_json(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(WavedistillError, match="bad.json is not valid JSON"):
        read_json(tmp_path / "bad.json")
    write_json(tmp_path / "good.json", [1])
    assert json.loads((tmp_path / "good.json").read_text()) == [1]


def test_no_other_file_of_the_package_renames_a_temporary_one() -> None:
    """There is one way to write a file whole."""
    own = re.compile(r"os\.replace|os\.rename|temporary\.replace|mkstemp|NamedTemporaryFile")
    found = [path.name for path in ROOM.rglob("*.py") if own.search(path.read_text())]
    assert found == ["files.py"]


@pytest.mark.parametrize(
    ("number", "of_all"), [(errno.ENOSPC, True), (errno.EACCES, True), (errno.ENAMETOOLONG, False)]
)
def test_errors_that_other_files_would_meet_are_of_their_own_kind(tmp_path: Path, number: int, of_all: bool) -> None:
    with pytest.raises(WavedistillError) as raised, atomic(tmp_path / "a.txt"):
        raise OSError(number, os.strerror(number))
    assert isinstance(raised.value, OutputError) is of_all
