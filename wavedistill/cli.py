"""The command line: what can be typed. What each command does is in ``commands.py``.

Nothing heavy is imported before a command runs, so that ``wavedistill --help`` answers at once.

Exit codes: 0 done; 1 some or all inputs of ``synthesize`` failed (see its help); 2 wrong use or wrong input, with one
or two lines on stderr; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from wavedistill import __version__
from wavedistill.errors import WavedistillError

CHECKPOINT_HELP = "checkpoint folder, run folder, bundled name (speech-teacher, speech-student) or hub id"
RECIPE_VERBS = {"train": "train a teacher or a one-stage flow", "distill": "distil a student from a teacher"}
RECIPE_EPILOG = (
    "Every field of the recipe can be set on the command line, for example --run.minutes 60 --optim.lr 5e-4.\n"
    "`wavedistill {verb} RECIPE.yaml --help` lists them all with their values."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser()
    if argv and argv[0] in RECIPE_VERBS and not {*argv[1:2]} & {"-h", "--help"}:
        # the recipe's fields are the options, and they are not known before it is read
        args = argparse.Namespace(verb=argv[0], recipe=argv[1] if argv[1:] else None, overrides=argv[2:])
        if args.recipe is None or args.recipe.startswith("-"):
            print(
                f"error: the recipe comes first: wavedistill {args.verb} RECIPE.yaml --any.field V",
                file=sys.stderr,
            )
            return 2
    else:
        args = parser.parse_args(argv)
    if args.verb is None:
        parser.print_help()
        return 0
    try:
        commands = importlib.import_module("wavedistill.commands")
        return getattr(commands, args.verb)(args) or 0
    except WavedistillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output has gone, as in `wavedistill ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt as error:
        # training's own interruption says how to continue
        print(f"\n{error if str(error) else 'stopped by Ctrl-C'}", file=sys.stderr)
        return getattr(error, "exit_code", 130)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; ``args.verb`` names the function of ``commands.py`` to call."""
    parser = _Parser(
        prog="wavedistill",
        description="Train a WaveNet teacher on recordings, distil a one-pass student from it, synthesise with it.",
        epilog="New here? `wavedistill quickstart` shows everything on real speech in five minutes.",
        formatter_class=_help_format,
    )
    parser.add_argument("--version", action="version", version=f"wavedistill {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", title="commands")

    def add(name: str, summary: str, epilog: str | None = None) -> argparse.ArgumentParser:
        return verbs.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=epilog,
            formatter_class=_help_format,
            allow_abbrev=False,
        )

    verb = add("quickstart", "hear the bundled voice, measure it, and train and distil a tiny one (5 minutes)")
    verb.add_argument("--out", default="quickstart", metavar="DIR", help="output folder (default: %(default)s)")

    verb = add("prepare", "make training data of a folder of recordings")
    verb.add_argument("folder", metavar="DIR", help="folder of wav, flac, ogg or mp3 files; sub-folders are speakers")
    verb.add_argument("--out", required=True, metavar="DIR", help="output folder: manifest.jsonl, wavs/, report.json")
    verb.add_argument("--speaker", metavar="NAME", help="one speaker for all files")
    verb.add_argument(
        "--sample-rate", type=int, default=16000, metavar="HZ", help="the model's rate (default: %(default)d)"
    )
    verb.add_argument("--workers", type=int, metavar="N", help="processes (default: one per core)")

    for name, summary in RECIPE_VERBS.items():
        verb = add(name, summary, epilog=RECIPE_EPILOG.format(verb=name))
        teacher = " --teacher DIR|NAME" if name == "distill" else ""
        verb.usage = f"wavedistill {name} RECIPE.yaml{teacher} [--run.dir DIR] [--run.minutes M] [--any.field V ...]"
        verb.add_argument("recipe", metavar="RECIPE.yaml", help="a recipe, or a run folder's config.yaml to resume it")
        if teacher:
            verb.add_argument("--teacher", metavar="DIR|NAME", help=CHECKPOINT_HELP)

    verb = add(
        "synthesize",
        "turn recordings or mels into speech",
        epilog="Finished outputs are skipped, so a stopped run is continued by the same command. Inputs that fail are "
        "listed\n"
        "on stderr and in failures.json; the exit code is 1 if all of them failed (with --strict: if any failed).\n\n"
        "Several processes: `torchrun --nproc_per_node N -m wavedistill synthesize ...` deals the shards (and the "
        "GPUs) itself. On one\n"
        "machine's CPU let OMP_NUM_THREADS be the cores of each process (torchrun and Ray set 1), so that they do "
        "not get in each\n"
        "other's way. --engine ray uses the cluster that RAY_ADDRESS names, or starts Ray on this machine.",
    )
    verb.add_argument("inputs", nargs="+", metavar="INPUT", help="wav, flac, ogg, mp3 or mel .npy files, or folders")
    _checkpoint(verb)
    verb.add_argument("--out", required=True, metavar="DIR", help="output folder")
    verb.add_argument("--shard", type=_shard, metavar="i/n", help="do part i (from 0) of n, for n machines")
    verb.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="this process, or workers of Ray (default: %(default)s)",
    )
    verb.add_argument(
        "--precision",
        choices=("fp32", "bf16"),
        default="fp32",
        help="of a student's networks (default: %(default)s); bf16 is faster on processors that have it",
    )
    verb.add_argument(
        "--workers", type=int, metavar="N", help="processes of --engine ray (default: one for each CPU or GPU)"
    )
    _noise(verb)
    verb.add_argument(
        "--batch-seconds",
        type=float,
        default=20.0,
        metavar="S",
        help="audio per batch (default: %(default)g)",
    )
    verb.add_argument("--strict", action="store_true", help="exit with 1 if any input failed")

    verb = add("sample", "let an unconditional model make audio of its own")
    _checkpoint(verb)
    verb.add_argument("--seconds", type=float, required=True, metavar="S", help="length")
    verb.add_argument("--out", required=True, metavar="FILE", help="wav, flac, ogg or mp3 file")
    _noise(verb)

    verb = add(
        "evaluate",
        "measure checkpoints and other systems' recordings on held-out clips, beside Griffin-Lim and WORLD",
        epilog='Computes every metric whose package is installed; all of them: pip install "wavedistill[eval]". With '
        "--out, a run that\n"
        "was interrupted, or that now has more checkpoints, folders or metrics, computes only what is missing.",
    )
    verb.add_argument("manifest", metavar="MANIFEST", help="manifest.jsonl of prepared data")
    verb.add_argument(
        "--checkpoint",
        action="append",
        metavar="DIR|NAME",
        help=f"{CHECKPOINT_HELP}; repeat it to compare, a student with its teacher for example",
    )
    verb.add_argument(
        "--folder",
        action="append",
        metavar="NAME=DIR",
        help="recordings of any other system, one CLIP_ID.wav or .flac each; may be repeated",
    )
    verb.add_argument(
        "--metric",
        action="append",
        metavar="NAME",
        help="may be repeated: pesq_wb, stoi, mcd, f0, pitch, level, distillmos, dnsmos, speaker, whisper "
        "(default: all that are installed)",
    )
    verb.add_argument(
        "--compare",
        action="append",
        metavar="A:B",
        help="paired difference of two systems by their names in the table; may be repeated (default: each checkpoint "
        "and folder with "
        "each other)",
    )
    verb.add_argument("--split", default="test", help="train, valid or test (default: %(default)s)")
    verb.add_argument(
        "--speaker", action="append", metavar="NAME", help="use this speaker only; may be repeated (default: all)"
    )
    verb.add_argument("--limit", type=int, metavar="N", help="use N clips (default: all)")
    verb.add_argument(
        "--teacher-clips", type=int, default=24, metavar="N", help="excerpts a teacher says (default: %(default)d)"
    )
    verb.add_argument(
        "--teacher-seconds", type=float, default=3.0, metavar="S", help="their length at most (default: %(default)g)"
    )
    verb.add_argument(
        "--inverse-clips",
        type=int,
        default=8,
        metavar="N",
        help="clips scored by the students' inverse; 0: none (default: %(default)d)",
    )
    verb.add_argument(
        "--inverse-seconds", type=float, default=0.5, metavar="S", help="their length at most (default: %(default)g)"
    )
    verb.add_argument("--out", metavar="DIR", help="folder for report.md, .json and .png and the audio; resumes there")
    verb.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the noise (default: %(default)d)")
    _device(verb)

    verb = add("doctor", "say what is wrong with a run, and which term or option to change")
    verb.add_argument(
        "run", metavar="RUN", help="run folder (run.dir of the recipe), of a run that is over or still going on"
    )
    verb.add_argument("--out", metavar="DIR", help="folder for doctor.md and doctor.json")

    verb = add("playground", "fit every flow family to two-dimensional densities: a table, pictures, animations")
    verb.add_argument(
        "--out", required=True, metavar="DIR", help="output folder; finished fits there are not done again"
    )
    verb.add_argument(
        "--density",
        action="append",
        metavar="NAME",
        help="may be repeated: two_moons, checkerboard, rings (default: these), eight_gaussians, spirals",
    )
    verb.add_argument(
        "--family", action="append", metavar="NAME", help="may be repeated: realnvp, maf, ... (default: all)"
    )
    verb.add_argument("--depth", type=int, metavar="N", help="layers (default: the family's own)")
    verb.add_argument("--steps", type=int, metavar="N", help="training steps (default: the family's own)")
    verb.add_argument(
        "--seed", type=int, default=0, metavar="S", help="seed of weights and batches (default: %(default)d)"
    )

    verb = add(
        "export",
        "write a student as one file for other runtimes: ONNX or torch.export",
        epilog="The file takes noise, mel and speaker, any batch, any length. An ONNX file needs onnxruntime alone to "
        "speak:\n"
        "examples/onnx/synthesize.py.",
    )
    verb.add_argument("checkpoint", metavar="DIR|NAME", help=CHECKPOINT_HELP)
    verb.add_argument("--out", required=True, metavar="FILE", help="file.onnx or file.pt2")
    verb.add_argument("--format", choices=("onnx", "torch"), help="default: what the file's name ends with")

    verb = add("info", "say what a checkpoint is")
    verb.add_argument("checkpoint", metavar="DIR|NAME", help=CHECKPOINT_HELP)

    verb = add("demo", "open the web page (on this machine only)")
    verb.add_argument("--port", type=int, default=7860, metavar="P", help="port on 127.0.0.1 (default: %(default)d)")
    verb.add_argument(
        "--checkpoint",
        action="append",
        metavar="DIR|NAME",
        help="offer this checkpoint (may be repeated; default: all bundled)",
    )

    verb = add(
        "benchmark",
        "measure speed on this machine: of students, teacher and other vocoders, or of the flow toolbox",
        epilog="Medians of repeats, the systems in turns, about six minutes. Other vocoders (Vocos, HiFi-GAN, Parallel "
        "WaveGAN) and flow\n"
        "libraries (zuko, nflows, normflows) take part where they are installed; the report names what is missing.",
    )
    verb.add_argument(
        "what",
        nargs="?",
        choices=("voices", "flows"),
        default="voices",
        help="voices: synthesis, sampling, training; flows: MAF, RealNVP and a WaveNet's inverse (default: "
        "%(default)s)",
    )
    verb.add_argument("--teacher", metavar="DIR|NAME", help="of voices (default: speech-teacher)")
    verb.add_argument(
        "--student",
        action="append",
        metavar="DIR|NAME",
        help="of voices; repeat it to compare (default: speech-student, speech-student-fast)",
    )
    verb.add_argument(
        "--device", help="of voices: cpu, cuda or cuda:N (default: the CPU and, where there is one, the GPU)"
    )
    verb.add_argument("--out", metavar="DIR", help="folder for the table, as Markdown and JSON")
    return parser


class _Parser(argparse.ArgumentParser):
    """Wrong use in two lines, without the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n`{self.prog} --help` tells what it takes\n")


def _help_format(prog: str) -> argparse.HelpFormatter:
    formatter = argparse.RawDescriptionHelpFormatter(prog, max_help_position=24, width=110)
    formatter._action_max_length = 14  # argparse forgets the commands' indentation and would break their lines
    return formatter


def _checkpoint(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--checkpoint", required=True, metavar="DIR|NAME", help=CHECKPOINT_HELP)


def _noise(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the noise (default: %(default)d)")
    verb.add_argument("--temperature", type=float, default=1.0, metavar="T", help="scale of the noise (default: 1)")
    verb.add_argument("--speaker", type=_speaker, metavar="N|NAME", help="speaker, for a model with several")
    _device(verb)


def _device(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--device", default="auto", help="auto (CUDA where there is one), cpu, cuda or cuda:N")


def _speaker(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


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


if __name__ == "__main__":
    sys.exit(main())
