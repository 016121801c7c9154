"""``wavedistill prepare``: see `wavedistill.data.prepare`."""

from __future__ import annotations

import argparse
import sys
from functools import partial

SUMMARY = "make training data of a folder of recordings"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="folder of wav, flac, ogg or mp3 files; sub-folders are speakers")
    parser.add_argument("--out", required=True, metavar="DIR", help="output folder: manifest.jsonl, wavs/, report.json")
    parser.add_argument("--speaker", metavar="NAME", help="one speaker for all files")
    parser.add_argument(
        "--sample-rate", type=int, default=16000, metavar="HZ", help="the model's rate (default: %(default)d)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one per core)")


def run(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from wavedistill.data.prepare import PrepareConfig, prepare_folder

    report = prepare_folder(
        args.folder,
        args.out,
        PrepareConfig(args.sample_rate),
        speaker=args.speaker,
        workers=args.workers,
        progress=partial(tqdm, unit="file", dynamic_ncols=True),
    )
    for source, reason in report.refused.items():
        print(f"refused {source}: {reason}", file=sys.stderr)
    print(
        f"{report.accepted} recordings, {report.seconds / 60:.1f} min in {report.manifest}; {len(report.refused)} "
        "refused"
    )
