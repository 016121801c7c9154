"""``wavedistill restore``: see `wavedistill.applications.restoration`."""

from __future__ import annotations

import argparse
import sys

from wavedistill.cli.options import add_checkpoint, add_device

SUMMARY = "fill gaps of 1 to 200 ms in sounds by samples that a teacher draws, given what stands on both sides"
EPILOG = """\
A teacher draws candidates from what stands before a gap, weighs each by how well what follows the gap goes on from it,
and one drawn by weight is written. The effective sample size says how many candidates are worth anything: at 1 one of
them outweighs all the others. Only samples in the gaps change.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="wav, flac, ogg or mp3 files, folders, or a manifest.jsonl"
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder for sounds, pictures and JSON; finished ones are kept"
    )
    lost = parser.add_mutually_exclusive_group(required=True)
    lost.add_argument("--gap", action="append", metavar="START-END", help="seconds; may be given several times")
    lost.add_argument("--lost-packets", metavar="FILE", help="text file with one START-END a line, in seconds")
    add_checkpoint(parser, default="speech-teacher")
    parser.add_argument("--candidates", type=int, default=16, metavar="N", help="for each gap (default: 16)")
    parser.add_argument("--all", action="store_true", help="write every candidate, too")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of candidates and draw (default: 0)")
    parser.add_argument("--speaker", metavar="NAME", help="speaker of the sounds, for a model with several")
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    from functools import partial

    from tqdm import tqdm

    from wavedistill.applications.gap_filling import RestoreConfig
    from wavedistill.applications.restoration import read_gap, read_gaps, restore
    from wavedistill.distributed import resolve_device

    gaps = read_gaps(args.lost_packets) if args.gap is None else [read_gap(text) for text in args.gap]
    report = restore(
        args.inputs,
        gaps,
        args.out,
        args.checkpoint,
        RestoreConfig(args.candidates, args.seed),
        speaker=args.speaker,
        keep_all=args.all,
        device=str(resolve_device(args.device)),
        progress=partial(tqdm, unit="gap", dynamic_ncols=True),
    )
    if report.sounds:
        print(report.markdown)
    for reason in report.failures.values():
        print(f"failed {reason}", file=sys.stderr)
    return int(bool(report.failures))
