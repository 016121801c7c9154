"""The command line that the recipes' prepare.py scripts share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

from tqdm import tqdm

from wavedistill.data.manifest import read_manifest
from wavedistill.data.prepare import PrepareConfig
from wavedistill.data.splits import SPLITS
from wavedistill.errors import WavedistillError


def run_prepare(prepare: Callable, description: str, *, sample_rate: int = 16000, argv: list[str] | None = None) -> str:
    """Parse ``--out``, ``--source``, ``--sample-rate`` and ``--workers``, and run ``prepare(out, source, config=,
    workers=, progress=)``.

    Returns a table of what the manifest holds. A WavedistillError is shown on stderr with exit code 2.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to fill")
    parser.add_argument("--source", metavar="DIR", help="a folder that holds the corpus already")
    parser.add_argument("--sample-rate", type=int, default=sample_rate, metavar="HZ", help="default: %(default)s")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes (default: one per core, fewer for little audio)"
    )
    args = parser.parse_args(argv)
    try:
        prepare(
            args.out,
            args.source,
            config=PrepareConfig(sample_rate=args.sample_rate),
            workers=args.workers,
            progress=partial(tqdm, unit="file", dynamic_ncols=True),
        )
        return summary(args.out)
    except WavedistillError as error:
        parser.exit(2, f"error: {error}\n")
    except (OSError, RuntimeError) as error:  # what a corpus' own reader raises: no such folder, no network
        parser.exit(2, f"error: {error}\ngive a folder that holds the corpus: --source DIR\n")


def summary(manifest: str) -> str:
    """Clips and minutes per speaker and split, as a table in text."""
    entries = read_manifest(manifest)
    rows = [f"{'speaker':<16}" + "".join(f"{split:>18}" for split in SPLITS)]
    for speaker in [*sorted({e.speaker for e in entries}), "all"]:
        cells = []
        for split in SPLITS:
            mine = [e.duration for e in entries if e.split == split and speaker in (e.speaker, "all")]
            cells.append(f"{f'{len(mine)} ({sum(mine) / 60:.1f} min)':>18}")
        rows.append(f"{speaker:<16}" + "".join(cells))
    return "\n".join(rows)
