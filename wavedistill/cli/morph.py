"""``wavedistill morph``: see `wavedistill.applications.morphing`."""

from __future__ import annotations

import argparse

from wavedistill.cli.options import add_checkpoint, add_device

SUMMARY = "go from one sound to another through a model's noise: voice to voice, note to note"
EPILOG = """\
The model is a teacher or a one-stage flow: both turn a sound into noise and back, so that the first and the last step
are the sounds themselves. A model of notes needs the notes: --pitch 60 67 --speaker piano flute.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("a", metavar="A", help="wav, flac, ogg or mp3 file to start from")
    parser.add_argument("b", metavar="B", help="the one to end with; in speech, the same words")
    add_checkpoint(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the steps, joined.wav and morph.png")
    parser.add_argument("--steps", type=int, default=5, metavar="N", help="sounds, with both ends (default: 5)")
    parser.add_argument("--speaker", nargs=2, metavar="NAME", help="of A and of B, for a model with several")
    parser.add_argument("--pitch", nargs=2, type=float, metavar="P", help="MIDI numbers of A and B, for notes")
    parser.add_argument("--velocity", type=int, default=96, metavar="V", help="of the notes, 1 to 127 (default: 96)")
    add_device(parser)


def run(args: argparse.Namespace) -> None:
    from functools import partial

    from tqdm import tqdm

    from wavedistill.applications.morphing import MorphConfig, morph
    from wavedistill.distributed import resolve_device

    config = MorphConfig(
        args.steps,
        None if args.speaker is None else tuple(args.speaker),
        None if args.pitch is None else tuple(args.pitch),
        args.velocity,
    )
    found = morph(
        args.a,
        args.b,
        args.checkpoint,
        args.out,
        config,
        device=str(resolve_device(args.device)),
        progress=partial(tqdm, unit="pass", dynamic_ncols=True),
    )
    first, last = found["errors"]
    print(f"{args.steps} steps written to {args.out}; the ends are the sounds given, to {first:.1e} and {last:.1e}")
