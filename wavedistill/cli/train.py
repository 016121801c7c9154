"""``wavedistill train``: see `wavedistill.training`."""

from __future__ import annotations

import argparse

from wavedistill.cli.options import add_recipe, recipe_file

SUMMARY = "train a teacher or a one-stage flow"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser, "train")


def run(args: argparse.Namespace) -> None:
    from wavedistill.training import FlowRecipe, recipe_type, train_flow, train_teacher

    recipe = recipe_file(args.recipe)
    if recipe_type(recipe) is FlowRecipe:
        folder = train_flow(recipe, args.overrides)
        print(f"the flow is in {folder}\nnext: wavedistill synthesize INPUT --checkpoint {folder} --out DIR")
    else:
        folder = train_teacher(recipe, args.overrides)
        print(f"the teacher is in {folder}\nnext: wavedistill distill RECIPE.yaml --teacher {folder}")
