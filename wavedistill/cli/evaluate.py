"""``wavedistill evaluate``: see `wavedistill.evaluation`."""

from __future__ import annotations

import argparse

from wavedistill.cli.options import add_device, checkpoint_help
from wavedistill.errors import WavedistillError

SUMMARY = "measure checkpoints and other systems' recordings on held-out clips, beside Griffin-Lim and WORLD"
EPILOG = """\
Computes every metric whose package is installed; all of them: pip install "wavedistill[eval]". With --out, a run that
was interrupted, or that now has more checkpoints, folders or metrics, computes only what is missing.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("manifest", metavar="DATA", help="folder of prepared data, or its manifest.jsonl")
    _add_systems(parser)
    _add_clips(parser)
    parser.add_argument(
        "--out", metavar="DIR", help="folder for report.md, .json and .png and the audio; resumes there"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the noise (default: %(default)d)")
    add_device(parser)


def _add_systems(parser: argparse.ArgumentParser) -> None:
    """Who is measured, by which metrics, and who is compared with whom."""
    parser.add_argument(
        "--checkpoint",
        action="append",
        metavar="DIR|NAME",
        help=f"{checkpoint_help()}; repeat it to compare, a student with its teacher for example",
    )
    parser.add_argument(
        "--folder",
        action="append",
        metavar="NAME=DIR",
        help="recordings of any other system, one CLIP_ID.wav or .flac each; may be repeated",
    )
    parser.add_argument(
        "--metric",
        action="append",
        metavar="NAME",
        help="may be repeated: pesq_wb, stoi, mcd, f0, pitch, level, upper, distillmos, dnsmos, speaker, whisper "
        "(default: all that are installed)",
    )
    parser.add_argument(
        "--compare",
        action="append",
        metavar="A:B",
        help="paired difference of two systems by their names in the table; may be repeated (default: each checkpoint "
        "and folder with each other)",
    )


def _add_clips(parser: argparse.ArgumentParser) -> None:
    """Which clips, how many and how long."""
    parser.add_argument("--split", default="test", help="train, valid or test (default: %(default)s)")
    parser.add_argument(
        "--speaker", action="append", metavar="NAME", help="use this speaker only; may be repeated (default: all)"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="use N clips (default: all)")
    parser.add_argument(
        "--teacher-clips", type=int, default=24, metavar="N", help="excerpts a teacher says (default: %(default)d)"
    )
    parser.add_argument(
        "--teacher-seconds", type=float, default=3.0, metavar="S", help="their length at most (default: %(default)g)"
    )
    parser.add_argument(
        "--inverse-clips",
        type=int,
        default=8,
        metavar="N",
        help="clips scored by the students' inverse; 0: none (default: %(default)d)",
    )
    parser.add_argument(
        "--inverse-seconds", type=float, default=0.5, metavar="S", help="their length at most (default: %(default)g)"
    )


def run(args: argparse.Namespace) -> None:
    from wavedistill.distributed import resolve_device
    from wavedistill.evaluation.evaluate import EvaluateConfig, evaluate

    pairs = [_two_names("--compare", given, ":", "A:B") for given in args.compare or ()]
    config = EvaluateConfig(
        split=args.split,
        limit=args.limit,
        speakers=args.speaker,
        metrics=args.metric,
        pairs=pairs or None,
        teacher_clips=args.teacher_clips,
        teacher_seconds=args.teacher_seconds,
        inverse_clips=args.inverse_clips,
        inverse_seconds=args.inverse_seconds,
        seed=args.seed,
    )
    report = evaluate(
        args.manifest,
        args.checkpoint or (),
        config,
        folders=dict(_two_names("--folder", given, "=", "NAME=DIR") for given in args.folder or ()),
        out=args.out,
        device=resolve_device(args.device),
        progress=True,
    )
    print(report.markdown)


def _two_names(option: str, given: str, mark: str, form: str) -> tuple[str, str]:
    first, _, second = given.partition(mark)
    if not (first and second):
        raise WavedistillError(f"{option} takes {form}, given '{given}'.")
    return first, second
