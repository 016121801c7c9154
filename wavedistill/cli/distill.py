"""``wavedistill distill``: see `wavedistill.training`."""

from __future__ import annotations

import argparse

from wavedistill.cli.options import add_recipe, checkpoint_help, recipe_file

SUMMARY = "distil a student from a teacher"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser, "distill", " --teacher DIR|NAME")
    parser.add_argument("--teacher", metavar="DIR|NAME", help=checkpoint_help())


def run(args: argparse.Namespace) -> None:
    from wavedistill.training import distill_student

    folder = distill_student(recipe_file(args.recipe), overrides=args.overrides)
    print(f"the student is in {folder}\nnext: wavedistill synthesize INPUT --checkpoint {folder} --out DIR")
