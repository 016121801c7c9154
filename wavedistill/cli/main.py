"""Which command is meant, and what becomes of its errors: one or two lines on stderr and an exit code."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
import textwrap
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from wavedistill import __version__
from wavedistill.errors import WavedistillError

VERBS = (
    "quickstart",
    "prepare",
    "train",
    "distill",
    "synthesize",
    "sample",
    "evaluate",
    "compress",
    "decompress",
    "score",
    "morph",
    "restore",
    "doctor",
    "playground",
    "export",
    "info",
    "demo",
    "benchmark",
)
"""The commands, in the order of the help; each is the module of that name beside this one."""
RECIPE_VERBS = ("train", "distill")
"""Those whose options are the fields of a recipe."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and argv[0] in RECIPE_VERBS and not {*argv[1:2]} & {"-h", "--help"}:
        # the recipe's fields are the options, and they are not known before it is read
        if not argv[1:] or argv[1].startswith("-"):
            print(
                f"error: the recipe comes first: wavedistill {argv[0]} RECIPE.yaml --any.field V",
                file=sys.stderr,
            )
            return 2
        args = argparse.Namespace(verb=argv[0], recipe=argv[1], overrides=argv[2:])
    else:
        parser = build_parser()
        _suggest_verb(parser, argv)
        args = parser.parse_args(argv)
    if args.verb is None:
        parser.print_help()
        return 0
    try:
        return verb_module(args.verb).run(args) or 0
    except WavedistillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output has gone, as in `wavedistill ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt as error:
        # training's own interruption says how to continue
        print(f"\n{error if str(error) else 'stopped by Ctrl-C'}", file=sys.stderr)
        return getattr(error, "exit_code", 130)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; ``args.verb`` is the command's name."""
    parser = _Parser(
        prog="wavedistill",
        description="Train a WaveNet teacher on recordings, distil a one-pass student from it, synthesise with it.",
        epilog="New here? `wavedistill quickstart` shows everything on real speech in five minutes.",
        formatter_class=_HelpFormat,
    )
    parser.add_argument("--version", action="version", version=f"wavedistill {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", title="commands")
    for name in VERBS:
        module = verb_module(name)
        module.add_arguments(
            verbs.add_parser(
                name,
                help=module.SUMMARY,
                description=module.SUMMARY[0].upper() + module.SUMMARY[1:] + ".",
                formatter_class=_HelpFormat,
                allow_abbrev=False,
            )
        )
    return parser


def verb_module(name: str) -> ModuleType:
    """The file of a command."""
    return importlib.import_module(f"wavedistill.cli.{name}")


def _suggest_verb(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Exit with the closest command's name where there is none of the given one."""
    given = argv[0] if argv else ""
    close = difflib.get_close_matches(given, VERBS, n=1)
    if close and given not in VERBS:
        parser.error(f"argument COMMAND: invalid choice: '{given}'. Did you mean {close[0]}?")


class _Parser(argparse.ArgumentParser):
    """Wrong use in two lines, without the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n`{self.prog} --help` tells what it takes\n")


class _HelpFormat(argparse.RawDescriptionHelpFormatter):
    """Wide lines, which break between words but not inside names like speech-student."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=24, width=110)
        self._action_max_length = 14  # argparse forgets the commands' indentation and would break their lines

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)
