"""``wavedistill decompress``: see `wavedistill.applications.compression`."""

from __future__ import annotations

import argparse
import sys

SUMMARY = "turn compressed .wdc files back into the wav and flac files they were"
EPILOG = """\
DIR/b.wav.wdc becomes b.wav, with the same samples. Files that are done are skipped. Of a damaged file nothing is
written unless --keep-going is given; what is lost is named by its time. The exit code is 1 when any file failed or
lacks something.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("inputs", nargs="+", metavar="IN", help=".wdc files, or folders")
    parser.add_argument("--out", required=True, metavar="DIR", help="output folder")
    parser.add_argument("--checkpoint", metavar="DIR", help="codec that wrote them (default: the bundled one)")
    parser.add_argument(
        "--keep-going", action="store_true", help="write damaged files too, with silence where chunks are lost"
    )


def run(args: argparse.Namespace) -> int:
    from wavedistill.applications.compression import decompress

    report = decompress(args.inputs, args.out, checkpoint=args.checkpoint, keep_going=args.keep_going, progress=True)
    for warning in report.warnings:
        print(f"warning {warning}", file=sys.stderr)
    for failure in report.failures:
        print(f"failed {failure}", file=sys.stderr)
    print(
        f"{len(report.written)} written to {args.out} ({report.bytes_after / 1e6:.2f} MB), "
        f"{len(report.skipped)} there already, {len(report.failures)} failed"
    )
    return int(bool(report.failures or report.warnings))
