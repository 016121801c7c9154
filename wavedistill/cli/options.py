"""Arguments that several commands share, and what their values stand for."""

from __future__ import annotations

import argparse
from pathlib import Path

from wavedistill.assets import bundled_checkpoints, recipe_path


def checkpoint_help() -> str:
    """What can be given as a checkpoint."""
    bundled = ", ".join(bundled_checkpoints())
    return f"checkpoint folder, run folder, hub id (OWNER/NAME@REVISION) or bundled name ({bundled})"


def add_checkpoint(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """``--checkpoint``, required where there is no default."""
    told = checkpoint_help() + (f" (default: {default})" if default else "")
    parser.add_argument("--checkpoint", required=default is None, default=default, metavar="DIR|NAME", help=told)


def add_noise(parser: argparse.ArgumentParser) -> None:
    """What decides the noise that a model turns into audio, and where it computes."""
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the noise (default: %(default)d)")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T", help="scale of the noise (default: 1)")
    parser.add_argument("--speaker", type=_speaker, metavar="N|NAME", help="speaker, for a model with several")
    add_device(parser)


def add_device(parser: argparse.ArgumentParser) -> None:
    """``--device``, for `wavedistill.distributed.resolve_device`."""
    parser.add_argument("--device", default="auto", help="auto (CUDA where there is one), cpu, cuda or cuda:N")


def add_recipe(parser: argparse.ArgumentParser, verb: str, options: str = "") -> None:
    """The recipe, whose fields are the options of ``verb``; ``options`` are named first in its usage."""
    parser.usage = f"wavedistill {verb} RECIPE.yaml{options} [--run.dir DIR] [--run.minutes M] [--any.field V ...]"
    parser.epilog = (
        "Every field of the recipe can be set on the command line, for example --run.minutes 60 --optim.lr 5e-4.\n"
        f"`wavedistill {verb} RECIPE.yaml --help` lists them all with their values."
    )
    parser.add_argument("recipe", metavar="RECIPE.yaml", help="a recipe, or a run folder's config.yaml to resume it")


def recipe_file(name: str) -> Path:
    """A file; or, where there is none, the packaged recipe of that name (``recipes/toy/teacher.yaml``)."""
    path = Path(name)
    if not path.exists() and path.parts[:1] == ("recipes",):
        return recipe_path(str(Path(*path.parts[1:])))
    return path


def _speaker(text: str) -> int | str:
    return int(text) if text.isdecimal() else text
