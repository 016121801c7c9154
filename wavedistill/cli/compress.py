"""``wavedistill compress``: see `wavedistill.applications.compression`."""

from __future__ import annotations

import argparse
import sys

SUMMARY = "compress wav and flac files without loss, smaller than FLAC and WavPack do"
EPILOG = """\
a/b.wav becomes DIR/b.wav.wdc (below a folder that is given, its sub-folders are kept). The samples are kept bit for
bit; tags are not. Files that are done are skipped, so a stopped run is continued by the same command. Inputs that fail
are listed on stderr, the others are done all the same, and the exit code is 1.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("inputs", nargs="+", metavar="IN", help="wav and flac files of 8 to 24 bits, or folders")
    parser.add_argument("--out", required=True, metavar="DIR", help="output folder")
    parser.add_argument("--checkpoint", metavar="DIR", help="codec to use (default: the bundled one)")
    parser.add_argument("--verify", action="store_true", help="decode each file again before it is written")


def run(args: argparse.Namespace) -> int:
    from wavedistill.applications.compression import compress

    report = compress(args.inputs, args.out, checkpoint=args.checkpoint, verify=args.verify, progress=True)
    for failure in report.failures:
        print(f"failed {failure}", file=sys.stderr)
    share = f", {report.bytes_after / report.bytes_before:.1%} of the PCM" if report.bytes_before else ""
    print(
        f"{len(report.written)} written to {args.out} ({report.bytes_after / 1e6:.2f} MB{share}), "
        f"{len(report.skipped)} there already, {len(report.failures)} failed"
    )
    return int(bool(report.failures))
