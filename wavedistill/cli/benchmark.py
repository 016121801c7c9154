"""``wavedistill benchmark``: runs `wavedistill.benchmark` in a process of its own."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from wavedistill.cli.options import resolve_device
from wavedistill.errors import WavedistillError

SUMMARY = "measure speed on this machine: of students, teacher and other vocoders, or of the flow toolbox"
EPILOG = """\
Medians of repeats, the systems in turns, about six minutes. Other vocoders (Vocos, HiFi-GAN, Parallel WaveGAN) and flow
libraries (zuko, nflows, normflows) take part where they are installed; the report names what is missing.
"""
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**30)}
"""Environment by which glibc keeps freed memory, so that no system is timed while it gets new memory."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument(
        "what",
        nargs="?",
        choices=("voices", "flows"),
        default="voices",
        help="voices: synthesis, sampling, training; flows: MAF, RealNVP and a WaveNet's inverse (default: "
        "%(default)s)",
    )
    parser.add_argument("--teacher", metavar="DIR|NAME", help="of voices (default: speech-teacher)")
    parser.add_argument(
        "--student",
        action="append",
        metavar="DIR|NAME",
        help="of voices; repeat it to compare (default: speech-student, speech-student-fast)",
    )
    parser.add_argument(
        "--device", help="of voices: cpu, cuda or cuda:N (default: the CPU and, where there is one, the GPU)"
    )
    parser.add_argument("--out", metavar="DIR", help="folder for the table, as Markdown and JSON")


def run(args: argparse.Namespace) -> int:
    device = None if args.device is None else resolve_device(args.device)
    students = [("--student", name) for name in args.student or ()]
    given = [("--teacher", args.teacher), *students, ("--device", device)]
    options = [word for option, value in given if value is not None for word in (option, value)]
    if args.what == "flows" and options:
        raise WavedistillError(
            f"`wavedistill benchmark flows` measures no checkpoint, so {options[0]} means nothing to it: leave it out."
        )
    out = ["--out", args.out] if args.out else []
    # a process of its own, where libraries may be imported that change torch's behaviour for all of it
    command = [sys.executable, "-m", "wavedistill.benchmark", args.what, *options, *out]
    return subprocess.run(command, env={**os.environ, **KEEP_MEMORY}).returncode
