"""``wavedistill doctor``: see `wavedistill.doctor`."""

from __future__ import annotations

import argparse

SUMMARY = "say what is wrong with a run, and which term or option to change"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", metavar="RUN", help="run folder (run.dir of the recipe), of a run that is over or still going on"
    )
    parser.add_argument("--out", metavar="DIR", help="folder for doctor.md and doctor.json")


def run(args: argparse.Namespace) -> None:
    from wavedistill.doctor.diagnosis import diagnose

    diagnosis = diagnose(args.run)
    print(diagnosis.markdown)
    if args.out is not None:
        diagnosis.save(args.out)
