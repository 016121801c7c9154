"""``wavedistill playground``: see `wavedistill.playground`."""

from __future__ import annotations

import argparse

SUMMARY = "fit every flow family to two-dimensional densities: a table, pictures, animations"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="output folder; finished fits there are not done again"
    )
    parser.add_argument(
        "--density",
        action="append",
        metavar="NAME",
        help="may be repeated: two_moons, checkerboard, rings (default: these), eight_gaussians, spirals",
    )
    parser.add_argument(
        "--family", action="append", metavar="NAME", help="may be repeated: realnvp, maf, ... (default: all)"
    )
    parser.add_argument("--depth", type=int, metavar="N", help="layers (default: the family's own)")
    parser.add_argument("--steps", type=int, metavar="N", help="training steps (default: the family's own)")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="seed of weights and batches (default: %(default)d)"
    )


def run(args: argparse.Namespace) -> None:
    from wavedistill.playground import run_playground

    report = run_playground(args.out, args.density, args.family, args.depth, args.steps, args.seed, progress=True)
    print(report.markdown)
