"""``wavedistill demo``: the page of the folder ``web``."""

from __future__ import annotations

import argparse

from wavedistill.assets import bundled_checkpoints
from wavedistill.cli.options import checkpoint_help

SUMMARY = "open the web page (on this machine only)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=7860, metavar="P", help="port on 127.0.0.1 (default: %(default)d)")
    parser.add_argument(
        "--checkpoint",
        action="append",
        metavar="DIR|NAME",
        help=f"offer this one: {checkpoint_help()}; may be repeated (default: all bundled)",
    )
    parser.add_argument(
        "--root-path", default="", metavar="/PREFIX", help="where a reverse proxy shows the page, if not at its root"
    )


def run(args: argparse.Namespace) -> None:
    from wavedistill.assets import load_web_app

    names = args.checkpoint or bundled_checkpoints()
    print(
        f"loading {len(names)} voices ({', '.join(names)}): some seconds\n"
        f"the page will be at http://127.0.0.1:{args.port} (Ctrl-C ends it)",
        flush=True,
    )
    load_web_app().launch(port=args.port, checkpoints=args.checkpoint, root_path=args.root_path)
