"""``wavedistill export``: see `wavedistill.inference.export` and `wavedistill.inference.export_stream`."""

from __future__ import annotations

import argparse
from pathlib import Path

from wavedistill.cli.options import checkpoint_help
from wavedistill.errors import WavedistillError

SUMMARY = "write a student as one file for other runtimes, ONNX or torch.export, or its stream as ONNX"
EPILOG = """\
The file takes noise, mel and speaker, any batch, any length. An ONNX file needs onnxruntime alone to speak:
examples/onnx/synthesize.py.

With --stream it is a folder of ONNX graphs that take a mel in chunks: examples/onnx/stream.py.
"""
CHUNK_SECONDS = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("checkpoint", metavar="DIR|NAME", help=checkpoint_help())
    parser.add_argument("--out", required=True, metavar="PATH", help="file.onnx or file.pt2; with --stream a folder")
    parser.add_argument("--format", choices=("onnx", "torch"), help="default: what the file's name ends with")
    parser.add_argument("--half", action="store_true", help="keep the weights of ONNX in float16: a smaller file")
    parser.add_argument("--stream", action="store_true", help="synthesis in chunks, the state between them as inputs")
    parser.add_argument(
        "--chunk", type=float, metavar="SECONDS", help=f"of --stream: length of a chunk (default: {CHUNK_SECONDS:g})"
    )
    parser.add_argument(
        "--low-latency", action="store_true", help="of --stream: wait for less of the mel (another waveform)"
    )


def run(args: argparse.Namespace) -> None:
    if args.stream:
        _run_stream(args)
        return
    if args.chunk is not None or args.low_latency:
        raise WavedistillError("--chunk and --low-latency say how a stream goes: give --stream with them")
    from wavedistill.inference.export import export_model

    path = export_model(args.checkpoint, args.out, args.format, half=args.half)
    print(f"{args.checkpoint} written to {path} ({_megabytes([path])})")


def _run_stream(args: argparse.Namespace) -> None:
    from wavedistill.inference.export_stream import export_stream

    if args.format:
        raise WavedistillError("a stream is always ONNX: leave --format out")
    chunk = CHUNK_SECONDS if args.chunk is None else args.chunk
    options = {"low_latency": args.low_latency, "half": args.half}
    folder = export_stream(args.checkpoint, args.out, chunk, **options, progress=True)
    files = sorted(folder.glob("*.onnx")) + sorted(folder.glob("*.bin"))
    print(f"stream of {args.checkpoint} written to {folder} ({_megabytes(files)})")


def _megabytes(files: list[Path]) -> str:
    return f"{sum(path.stat().st_size for path in files) / 1e6:.1f} MB"
