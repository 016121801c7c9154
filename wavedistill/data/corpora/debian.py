"""Corpora in Debian packages: downloaded and unpacked, no root needed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from wavedistill.errors import WavedistillError


def fetch_debian(packages: Iterable[str], folder: Path) -> None:
    """Download Debian packages with apt-get (no root needed) and unpack them into ``folder``."""
    packages = list(packages)
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise WavedistillError(
                f"{tool} is not on this machine; unpack the Debian packages {' '.join(packages)} "
                "yourself and give the folder: --source DIR"
            )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as downloads:
        _run(["apt-get", "download", *packages], downloads)
        for archive in sorted(Path(downloads).glob("*.deb")):
            _run(["dpkg-deb", "-x", str(archive), str(folder.absolute())], downloads)


def _run(command: list[str], folder: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise WavedistillError(
            f"{' '.join(command[:2])} failed: {lines[-1]}\nupdate the package lists "
            "(apt-get update), or give a folder with the unpacked packages: --source DIR"
        )


def unpacked_source(source: str | Path | None, packages: Iterable[str], out: str | Path) -> Path:
    """The given folder, or ``out``/source with the packages in it, downloaded if it is not there yet."""
    if source is not None:
        if not Path(source).is_dir():
            raise WavedistillError(f"{source}: no such folder; --source takes one with the unpacked Debian packages")
        return Path(source)
    folder = Path(out) / "source"
    if not folder.exists():
        partial = folder.with_name("source.partial")
        shutil.rmtree(partial, ignore_errors=True)
        fetch_debian(packages, partial)
        partial.replace(folder)
    return folder


def find_below(folder: str | Path, pattern: str, package: str) -> Path:
    """The first path below ``folder`` that fits ``pattern``; the error names the ``package`` it comes from."""
    found = sorted(Path(folder).rglob(pattern))
    if not found:
        raise WavedistillError(
            f"{folder}: no {pattern} in it or below it; unpack the Debian package {package} "
            "there, or leave out --source to download it"
        )
    return found[0]
