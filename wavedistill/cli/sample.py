"""``wavedistill sample``: see `wavedistill.inference.vocoder.Vocoder.sample`."""

from __future__ import annotations

import argparse

from wavedistill.cli.options import add_checkpoint, add_noise

SUMMARY = "let an unconditional model make audio of its own"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument("--seconds", type=float, required=True, metavar="S", help="length")
    parser.add_argument("--out", required=True, metavar="FILE", help="wav, flac, ogg or mp3 file")
    add_noise(parser)


def run(args: argparse.Namespace) -> None:
    from wavedistill.audio.io import save_audio
    from wavedistill.distributed import resolve_device
    from wavedistill.inference.vocoder import Vocoder

    vocoder = Vocoder.from_pretrained(args.checkpoint, resolve_device(args.device))
    audio = vocoder.sample(
        args.seconds, seed=args.seed, temperature=args.temperature, speaker=args.speaker, progress=True
    )
    save_audio(args.out, audio, vocoder.sample_rate)
    print(f"{len(audio) / vocoder.sample_rate:.2f} s at {vocoder.sample_rate} Hz written to {args.out}")
