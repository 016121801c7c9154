"""One process (group) at a time in a run folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from wavedistill.errors import WavedistillError


@contextlib.contextmanager
def run_lock(run_dir: Path) -> Iterator[None]:
    """Hold the run folder; released when the process ends, however it ends.

    Raises:
        WavedistillError: another process is training there, or the folder cannot be written.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        folder = os.open(run_dir, os.O_RDONLY)
    except OSError as error:
        raise WavedistillError(
            f"cannot write {run_dir}: {error.strerror}. Give a --run.dir you can write to."
        ) from None
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WavedistillError(
                f"another process is training in {run_dir}: wait for it to end, or give another --run.dir."
            ) from None
        yield
    finally:
        os.close(folder)
