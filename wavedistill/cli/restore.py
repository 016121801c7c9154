"""``wavedistill restore``: see `wavedistill.applications.restoration`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from wavedistill.cli.options import add_checkpoint, add_device

if TYPE_CHECKING:
    from wavedistill.applications.declipped_files import DeclipReport
    from wavedistill.applications.restoration import RestoreReport

SUMMARY = "draw by a teacher what a sound has lost: gaps of 1 to 200 ms, or samples that are clipped"
EPILOG = """\
A teacher draws candidates from what stands before a gap, weighs each by how well what follows the gap goes on from it,
and one drawn by weight is written. The effective sample size says how many candidates are worth anything: at 1 one of
them outweighs all the others. Only samples in the gaps change.

Clipped samples (--declip) are drawn, given all others, so that they lie beyond the threshold. Only they change. They
may lie beyond full scale, so that the file written holds floats. It takes half a minute to two minutes a second of
sound, always on the CPU.
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
    lost.add_argument("--declip", action="store_true", help="the samples that are clipped, found by themselves")
    parser.add_argument(
        "--threshold", type=float, metavar="X", help="with --declip: where it was clipped, up to 1 (default: found)"
    )
    add_checkpoint(parser, default="speech-teacher")
    parser.add_argument("--candidates", type=int, metavar="N", help="(default: 16 for each gap; 32 with --declip)")
    parser.add_argument("--all", action="store_true", help="write every candidate for a gap, too")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of candidates and draw (default: 0)")
    parser.add_argument("--speaker", metavar="NAME", help="speaker of the sounds, for a model with several")
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    from functools import partial

    from tqdm import tqdm

    from wavedistill.errors import WavedistillError

    if args.declip and args.all:
        raise WavedistillError("--all writes the candidates for gaps; with --declip leave it out")
    if args.threshold is not None and not args.declip:
        raise WavedistillError("--threshold says where samples were clipped: give --declip with it")
    if args.declip and args.device not in ("auto", "cpu"):
        raise WavedistillError(f"--declip computes on the CPU, in small steps: leave --device {args.device} out")
    progress = partial(tqdm, unit="step" if args.declip else "gap", dynamic_ncols=True)
    options = {"speaker": args.speaker, "progress": progress}
    report = _declip(args, options) if args.declip else _fill(args, options)
    if report.sounds:
        print(report.markdown)
    for reason in report.failures.values():
        print(f"failed {reason}", file=sys.stderr)
    return int(bool(report.failures))


def _fill(args: argparse.Namespace, options: dict[str, Any]) -> RestoreReport:
    from wavedistill.applications.gap_filling import RestoreConfig
    from wavedistill.applications.restoration import read_gap, read_gaps, restore
    from wavedistill.distributed import resolve_device

    gaps = read_gaps(args.lost_packets) if args.gap is None else [read_gap(text) for text in args.gap]
    config = RestoreConfig(16 if args.candidates is None else args.candidates, args.seed)
    device = str(resolve_device(args.device))
    return restore(args.inputs, gaps, args.out, args.checkpoint, config, keep_all=args.all, device=device, **options)


def _declip(args: argparse.Namespace, options: dict[str, Any]) -> DeclipReport:
    from wavedistill.applications.declipped_files import declip
    from wavedistill.applications.declipping import DeclipConfig

    config = DeclipConfig(32 if args.candidates is None else args.candidates, args.seed, args.threshold)
    return declip(args.inputs, args.out, args.checkpoint, config, **options)
