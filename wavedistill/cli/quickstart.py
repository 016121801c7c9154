"""``wavedistill quickstart``: see `wavedistill.quickstart`."""

from __future__ import annotations

import argparse
from functools import partial

SUMMARY = "hear the bundled voice, measure it, and train and distil a tiny one (5 minutes)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", default="quickstart", metavar="DIR", help="output folder (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from wavedistill.quickstart import run_quickstart

    run_quickstart(
        args.out,
        echo=partial(print, flush=True),
        progress=lambda clips, title: tqdm(clips, desc=title, unit="clip", dynamic_ncols=True),
    )
