"""``wavedistill export``: see `wavedistill.inference.export`."""

from __future__ import annotations

import argparse

from wavedistill.cli.options import checkpoint_help

SUMMARY = "write a student as one file for other runtimes: ONNX or torch.export"
EPILOG = """\
The file takes noise, mel and speaker, any batch, any length. An ONNX file needs onnxruntime alone to speak:
examples/onnx/synthesize.py.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("checkpoint", metavar="DIR|NAME", help=checkpoint_help())
    parser.add_argument("--out", required=True, metavar="FILE", help="file.onnx or file.pt2")
    parser.add_argument("--format", choices=("onnx", "torch"), help="default: what the file's name ends with")


def run(args: argparse.Namespace) -> None:
    from wavedistill.inference.export import export_model

    path = export_model(args.checkpoint, args.out, args.format)
    print(f"{args.checkpoint} written to {path} ({path.stat().st_size / 1e6:.1f} MB)")
