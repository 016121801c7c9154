"""Files read and written whole: JSON with errors that name the file, and atomic writes."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wavedistill.errors import WavedistillError


def read_json(path: str | Path) -> Any:
    """Read a JSON file; errors name the file."""
    path = Path(path)
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise WavedistillError(f"cannot read {path}: {error.strerror}.") from None
    except ValueError as error:
        raise WavedistillError(f"{path} is not valid JSON: {error}.") from None


def write_json(path: str | Path, values: Any) -> None:
    """Write indented JSON atomically."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 atomically."""
    write_bytes(path, text.encode("utf-8"))


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
        WavedistillError: in place of any OSError of the block.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise WavedistillError(f"cannot write {path}: {error.strerror or error}. {advice}") from error
    finally:
        with contextlib.suppress(OSError):  # renamed by now, or never made
            temporary.unlink()


def remove_leftovers(folder: Path, name: str) -> None:
    """Remove the temporary files that killed processes left of the files of that name (a glob pattern) in a folder."""
    for path in folder.glob(f".{name}.*tmp"):
        path.unlink(missing_ok=True)
