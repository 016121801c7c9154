"""Tests that need processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys

from helpers.paths import ROOT


def begin(*command: str) -> subprocess.Popen:
    """Start Python in a process that finds the package and the tests."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    return subprocess.Popen([sys.executable, *command], **options)


def run(*command: str) -> subprocess.CompletedProcess:
    """Run Python to its end."""
    with begin(*command) as process:
        try:
            output = process.communicate(timeout=280)
        except subprocess.TimeoutExpired:
            process.terminate()  # torchrun then ends its ranks; killed, it would leave them behind
            raise
    return subprocess.CompletedProcess(command, process.returncode, *output)
