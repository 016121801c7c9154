"""The command line: `main` runs one command, `build_parser` says what can be typed.

Each command is a file of its own, with ``SUMMARY`` (one line of help), ``add_arguments(parser)`` and ``run(args)``,
which calls the library, prints the result and returns the exit code (None: 0). Nothing heavy is imported before a
command runs, so that ``wavedistill --help`` answers at once.

Exit codes: 0 done; 1 some or all inputs of ``synthesize`` failed (see its help); 2 wrong use or wrong input, with one
or two lines on stderr; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

from wavedistill.cli.main import build_parser, main

__all__ = ["build_parser", "main"]
