"""``wavedistill benchmark``: runs `wavedistill.benchmark` in a process of its own."""

from __future__ import annotations

import argparse
import os
import subprocess

from wavedistill.benchmark import options

SUMMARY = "measure speed on this machine: of students, teacher and other vocoders, or of the flow toolbox"
EPILOG = """\
Medians of repeats, the systems in turns, about six minutes. Other vocoders (Vocos, HiFi-GAN, Parallel WaveGAN) and flow
libraries (zuko, nflows, normflows) take part where they are installed; the report names what is missing.
"""
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**30)}
"""Environment by which glibc keeps freed memory, so that no system is timed while it gets new memory."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    options.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if args.device is not None:
        from wavedistill.distributed import resolve_device

        args.device = str(resolve_device(args.device))
    # a process of its own, where libraries may be imported that change torch's behaviour for all of it
    return subprocess.run(options.process(args), env={**os.environ, **KEEP_MEMORY}).returncode
