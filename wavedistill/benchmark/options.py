"""The benchmark's command line: of ``python -m wavedistill.benchmark``, and of the verb that starts it."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from wavedistill.errors import WavedistillError


def add_arguments(parser: ArgumentParser) -> None:
    """What is measured, of which models, where, and the folder for the result."""
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
        help="of voices; repeat it to compare (default: speech-student, speech-24k)",
    )
    parser.add_argument(
        "--device", help="of voices: cpu, cuda or cuda:N (default: the CPU and, where there is one, the GPU)"
    )
    parser.add_argument("--out", metavar="DIR", help="folder for the table, as Markdown and JSON")


def process(args: Namespace) -> list[str]:
    """The command that runs the benchmark in a process of its own.

    Raises:
        WavedistillError: an option that means nothing to the flow benchmark.
    """
    check(args)
    folder = ["--out", args.out] if args.out else []
    return [sys.executable, "-m", "wavedistill.benchmark", args.what, *_words(args), *folder]


def check(args: Namespace) -> None:
    """Refuse options of the voices where flows are measured."""
    words = _words(args)
    if args.what == "flows" and words:
        raise WavedistillError(
            f"`wavedistill benchmark flows` measures no checkpoint, so {words[0]} means nothing to it: leave it out."
        )


def _words(args: Namespace) -> list[str]:
    """The options of the voices that were given."""
    given = [("--teacher", args.teacher), *(("--student", name) for name in args.student or ())]
    given.append(("--device", args.device))
    return [word for option, value in given if value is not None for word in (option, value)]
