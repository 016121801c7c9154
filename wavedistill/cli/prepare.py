"""``wavedistill prepare``: see `wavedistill.data.prepare`."""

from __future__ import annotations

import argparse
import sys
from functools import partial

SUMMARY = "make training data of a folder of recordings"
EPILOG = """\
Texts are optional: NAME.txt beside NAME.wav, in UTF-8. A recording is for training, validation or testing (90, 5, 5 %)
by a hash of its text, or of its name where it has none, so that the same sentence never stands in two of them. Started
again, the command continues where it was, and takes what is new in the folder.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("folder", metavar="DIR", help="folder of wav, flac, ogg or mp3 files; sub-folders are speakers")
    parser.add_argument("--out", required=True, metavar="DIR", help="output folder: manifest.jsonl, wavs/, report.json")
    parser.add_argument("--speaker", metavar="NAME", help="one speaker for all files")
    parser.add_argument(
        "--sample-rate", type=int, default=16000, metavar="HZ", help="the model's rate (default: %(default)d)"
    )
    parser.add_argument(
        "--min-bandwidth",
        type=float,
        metavar="HZ",
        help="refuse recordings that hold nothing above this (default: 8500 for rates above 17000 Hz, else 0)",
    )
    parser.add_argument(
        "--valid-clips", type=int, default=0, metavar="N", help="hold out at least N for validation (default: 5 %%)"
    )
    parser.add_argument(
        "--test-clips",
        type=int,
        default=0,
        metavar="N",
        help="hold out at least N for testing (default: 5 %%); evaluate wants 20 or more",
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes (default: one per core, fewer for little audio)"
    )


def run(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from wavedistill.data.prepare import PrepareConfig, prepare_folder
    from wavedistill.data.splits import HeldOut

    report = prepare_folder(
        args.folder,
        args.out,
        PrepareConfig(args.sample_rate, min_bandwidth=args.min_bandwidth),
        speaker=args.speaker,
        held_out=HeldOut(args.valid_clips, args.test_clips),
        workers=args.workers,
        progress=partial(tqdm, unit="file", dynamic_ncols=True),
    )
    for source, reason in report.refused.items():
        print(f"refused {source}: {reason}", file=sys.stderr)
    print(report.summary())
    for advice in report.advice():
        print(f"note: {advice}")
