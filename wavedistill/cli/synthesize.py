"""``wavedistill synthesize``: see `wavedistill.inference.batch.synthesize`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from wavedistill.cli.options import add_checkpoint, add_noise

if TYPE_CHECKING:
    from wavedistill.distributed import Ranks

SUMMARY = "turn recordings or mels into speech"
EPILOG = """\
Finished outputs are skipped, so a stopped run is continued by the same command. Inputs that fail are listed
on stderr and in failures.json, the others are done all the same, and the exit code is 1.

Several processes: `torchrun --nproc_per_node N -m wavedistill synthesize ...` deals the shards (and the GPUs) itself.
On one machine's CPU set OMP_NUM_THREADS to the cores of each process (torchrun and Ray set 1), so that the processes
do not compete for the same cores. --engine ray uses the cluster that RAY_ADDRESS names, or starts Ray on this machine.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="wav, flac, ogg, mp3 or mel .npy files, or folders")
    add_checkpoint(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="output folder")
    parser.add_argument("--shard", type=_shard, metavar="i/n", help="do part i (from 0) of n, for n machines")
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="this process, or workers of Ray (default: %(default)s)",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16"),
        default="fp32",
        help="of a student's networks (default: %(default)s); bf16 is faster on processors that have it",
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes of --engine ray (default: one for each CPU or GPU)"
    )
    add_noise(parser)
    parser.add_argument(
        "--batch-seconds", type=float, default=20.0, metavar="S", help="audio per batch (default: %(default)g)"
    )


def run(args: argparse.Namespace) -> int:
    from wavedistill.distributed import current_ranks, resolve_device
    from wavedistill.inference.batch.plan import ExecutionConfig
    from wavedistill.inference.batch.synthesize import synthesize

    ranks = current_ranks()
    report = synthesize(
        args.inputs,
        args.checkpoint,
        args.out,
        seed=args.seed,
        temperature=args.temperature,
        speaker=args.speaker,
        device=resolve_device(args.device),
        execution=ExecutionConfig(
            engine=args.engine,
            workers=args.workers,
            shard=args.shard,
            batch_seconds=args.batch_seconds,
            precision=args.precision,
            progress=ranks.is_main,
        ),
    )
    for failure in report.failures:
        print(f"failed {failure.reason}", file=sys.stderr)
    print(
        f"{len(report.written)} written to {args.out} ({report.seconds:.1f} s of audio in "
        f"{report.compute_seconds:.1f} s), "
        f"{len(report.skipped)} there already, {len(report.failures)} failed"
    )
    return int(_any_rank(ranks, bool(report.failures)))


def _any_rank(ranks: Ranks, flag: bool) -> bool:
    """Whether any process of torchrun has the flag.

    Waits for all of them, since torchrun ends the others as soon as one ends with an error.
    """
    import torch

    from wavedistill.distributed import join, leave

    joined = join(ranks, torch.device("cpu"))
    try:
        return ranks.maximum([float(flag)])[0] > 0
    finally:
        if joined:
            leave()


def _shard(text: str) -> tuple[int, int]:
    try:
        index, count = map(int, text.split("/"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not i/n, for example 0/4") from None
    if not 0 <= index < count:
        raise argparse.ArgumentTypeError(
            f"{text} does not exist: write 0/{max(count, 1)} to {max(count, 1) - 1}/{max(count, 1)}"
        )
    return index, count
