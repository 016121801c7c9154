"""Files: read and written whole, with errors that name them; names, folders searched, and held against others."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from wavedistill.errors import OutputError, WavedistillError

LONGEST_NAME = 255
"""Bytes of a file's name that file systems take."""
OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS}
"""Errors of writing that have nothing to do with which file it is."""


def read_json(path: str | Path) -> Any:
    """Read a JSON file; errors name the file."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WavedistillError(f"cannot read {path}: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise WavedistillError(f"{path} is not valid JSON: {error}.") from None


def write_json(path: str | Path, values: Any) -> None:
    """Write indented JSON atomically."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json_once(path: str | Path, values: Any) -> bool:
    """Write values unless the file is there, and say whether they were written: of several processes one does."""
    path = Path(path)
    own = path.with_name(f".{_short(path.name)}.{os.getpid()}.tmp")
    write_json(own, values)
    try:
        os.link(own, path)  # unlike a rename it never takes the place of another file
    except FileExistsError:
        return False
    except OSError:  # a file system without links: the last process wins
        os.replace(own, path)
    finally:
        with contextlib.suppress(OSError):  # renamed by now
            own.unlink()
    return True


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write bytes atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def atomic(path: str | Path, advice: str = "Give a folder you can write to, or free some space.") -> Iterator[Path]:
    """A temporary path in the same folder, which becomes ``path`` when the block ends: a reader never sees half a file.

    After an error nothing is left. The temporary name is hidden and this process's own; a killed process leaves its
    file behind, which `remove_leftovers` finds. The folder is made if it is missing.

    Args:
        path: the file to write.
        advice: what the user can do where it cannot be written; the last sentence of the error.

    Raises:
        WavedistillError: in place of any OSError of the block; `OutputError` where other files would fail as well.
    """
    path = Path(path)
    temporary = path.with_name(f".{_short(path.name)}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        kind = OutputError if error.errno in OF_THE_DISK else WavedistillError
        raise kind(f"cannot write {path}: {error.strerror or error}. {advice}") from error
    finally:
        with contextlib.suppress(OSError):  # renamed by now, or never made
            temporary.unlink()


def remove_leftovers(folder: Path, name: str = "*") -> None:
    """Remove the temporary files that killed processes left of the file of that name in a folder.

    A ``*`` in the name stands for anything; the name ``**/*`` for every file below the folder. What a process of this
    machine is writing just now stays.
    """
    place, _, last = name.rpartition("/")
    pattern = _short(glob.escape(last).replace("[*]", "*")) if "*" in last else glob.escape(_short(last))
    for path in folder.glob(f"{place}/.{pattern}.*tmp".lstrip("/")):
        if not _is_being_written(path):
            with contextlib.suppress(OSError):  # gone by now; or not ours: what is written next will say so
                path.unlink()


def _is_being_written(temporary: Path) -> bool:
    """Whether another process of this machine has the number in a temporary file's name."""
    number = temporary.name.split(".")[-2]
    if not number.isdecimal() or int(number) == os.getpid() or os.name != "posix":
        return False
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's process
        return True
    return True


@contextlib.contextmanager
def folder_lock(folder: Path, doing: str, option: str) -> Iterator[None]:
    """Hold a folder against other processes; released when this one ends, however it ends.

    Args:
        folder: made if it is missing.
        doing: what the processes do in it, for the error: "training".
        option: which names another folder: "--run.dir".

    Raises:
        WavedistillError: another process holds it, or the folder cannot be written.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise WavedistillError(
            f"cannot write {folder}: {error.strerror}. Give another {option} that you can write to."
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WavedistillError(
                f"another process is {doing} in {folder}: wait for it to end, or give another {option}."
            ) from None
        except OSError:  # a file system without locks, as some network ones are
            pass
        yield
    finally:
        os.close(descriptor)


def printable(path: str | Path) -> str:
    """A path as text; bytes of it that are not UTF-8 as ``\\xe9``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def check_name(path: Path) -> None:
    """Refuse a file whose name cannot be written into a manifest, or not onto a disk.

    Raises:
        WavedistillError: says which, and to rename it.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise WavedistillError(f"{printable(path)}: its name is not UTF-8: rename it") from None
    if (length := len(os.fsencode(path.name))) > LONGEST_NAME:
        raise WavedistillError(
            f"{path}: a name of {length} bytes, of which disks take {LONGEST_NAME}: shorten it, or its folders' names"
        )


def walk(folder: Path, suffixes: Sequence[str], skip: Path | None = None) -> list[Path]:
    """Files below a folder with one of these suffixes (any case), sorted; links to folders are followed, loops cut.

    Hidden files and folders are left out, and so is ``skip`` with what is in it.
    """
    skipped = skip.resolve() if skip is not None else None
    seen = {folder.resolve()}
    found = []
    for place, subfolders, files in os.walk(folder, followlinks=True):
        kept = []
        for name in sorted(subfolders):
            real = (Path(place) / name).resolve()
            if name[0] != "." and real != skipped and real not in seen:
                seen.add(real)
                kept.append(name)
        subfolders[:] = kept
        found += [
            Path(place) / name
            for name in files
            if name[0] != "." and os.path.splitext(name)[1].lower() in suffixes and (Path(place) / name).is_file()
        ]
    return sorted(found)


def files_of(given: Path, suffixes: Sequence[str], skip: Path | None = None) -> list[tuple[str, Path]]:
    """(path below ``given``, path) of every file that a folder holds (see `walk`); of a file its name and itself.

    Raises:
        WavedistillError: nothing of that name, or a folder without such files.
    """
    if given.is_file():
        return [(given.name, given)]
    if not given.is_dir():
        raise WavedistillError(f"{given}: no such file or folder")
    found = [(str(path.relative_to(given)), path) for path in walk(given, suffixes, skip)]
    if not found:
        raise WavedistillError(f"{given}: no {', '.join(suffixes)} files in this folder")
    return found


def _short(name: str) -> str:
    """The name, or where it leaves no room for more, one of its own that does."""
    raw = os.fsencode(name)
    return name if len(raw) <= LONGEST_NAME - 30 else hashlib.blake2b(raw, digest_size=16).hexdigest()
