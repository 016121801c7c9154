"""One process (group) at a time in a run folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from wavedistill.files import folder_lock


@contextlib.contextmanager
def run_lock(run_dir: Path) -> Iterator[None]:
    """Hold the run folder; released when the process ends, however it ends.

    Raises:
        WavedistillError: another process is training there, or the folder cannot be written.
    """
    with folder_lock(run_dir, "training", "--run.dir"):
        yield
