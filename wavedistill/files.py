"""Files read and written whole: JSON with errors that name the file, and atomic writes."""

from __future__ import annotations

import contextlib
import json
import os
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
    """Write to a temporary name in the same folder, then rename: a reader never sees half a file."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        raise WavedistillError(f"cannot write {path}: {error.strerror}. Give a folder you can write to.") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
