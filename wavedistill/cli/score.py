"""``wavedistill score``: see `wavedistill.applications.scoring`."""

from __future__ import annotations

import argparse
import sys

from wavedistill.cli.options import add_checkpoint, add_device

SUMMARY = "say how a teacher sees sounds: likelihood, typicality, what stands out; or detect strange ones"
EPILOG = """\
bits are per 16-bit sample, "- LP's" less those of linear prediction; typicality is |-log p - entropy| in nats per
sample; mean to KS describe the teacher's noise z, which is N(0, 1) for a sound it expects. Low bits are no sign of a
normal sound: silence has the lowest. Detect strange sounds by --fit on normal ones and --detector on the others.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="wav, flac, ogg or mp3 files, folders, or a manifest.jsonl"
    )
    add_checkpoint(parser)
    parser.add_argument(
        "--out", metavar="DIR", help="folder for table, JSON and a picture a sound; finished ones are not done again"
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--fit", metavar="FILE", help="fit a detector to the inputs, normal sounds, and write it there")
    group.add_argument("--detector", metavar="FILE", help="of --fit: adds an anomaly score and its p-value")
    parser.add_argument("--speaker", metavar="NAME", help="speaker of the sounds, for a model with several")
    parser.add_argument("--no-pictures", action="store_true", help="draw none")
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    from functools import partial

    from tqdm import tqdm

    from wavedistill.applications.scoring import score
    from wavedistill.distributed import resolve_device
    from wavedistill.evaluation.systems import LoadedModel

    loaded = LoadedModel.load(args.checkpoint, args.checkpoint, str(resolve_device(args.device)))
    report = score(
        args.inputs,
        loaded,
        args.out,
        speaker=args.speaker,
        detector=args.detector,
        pictures=not args.no_pictures,
        progress=partial(tqdm, unit="sound", dynamic_ncols=True),
    )
    if report.scores:
        print(report.markdown)
    for reason in report.failures.values():
        print(f"failed {reason}", file=sys.stderr)
    if args.fit is not None:
        detector = report.fit(loaded.key)
        detector.save(args.fit)
        print(f"\ndetector of {len(report.scores)} normal sounds written to {args.fit}")
    return int(bool(report.failures))
