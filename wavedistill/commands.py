"""What the commands of ``cli.py`` do: call the library and print the result. Each returns its exit code (None: 0)."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from argparse import Namespace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from wavedistill.config import to_dict
from wavedistill.errors import WavedistillError

if TYPE_CHECKING:
    from wavedistill.distributed import Ranks


def quickstart(args: Namespace) -> None:
    from wavedistill.quickstart import run_quickstart

    run_quickstart(args.out, echo=partial(print, flush=True))


def prepare(args: Namespace) -> None:
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


def train(args: Namespace) -> None:
    from wavedistill.training import FlowRecipe, recipe_type, train_flow, train_teacher

    recipe = recipe_file(args.recipe)
    if recipe_type(recipe) is FlowRecipe:
        run = train_flow(recipe, args.overrides)
        print(f"the flow is in {run}\nnext: wavedistill synthesize INPUT --checkpoint {run} --out DIR")
    else:
        run = train_teacher(recipe, args.overrides)
        print(f"the teacher is in {run}\nnext: wavedistill distill RECIPE.yaml --teacher {run}")


def distill(args: Namespace) -> None:
    from wavedistill.training import distill_student

    run = distill_student(recipe_file(args.recipe), overrides=args.overrides)
    print(f"the student is in {run}\nnext: wavedistill synthesize INPUT --checkpoint {run} --out DIR")


def synthesize(args: Namespace) -> int:
    from wavedistill.distributed import current_ranks

    ranks = current_ranks()
    device = _device(args.device)
    options = {
        "seed": args.seed,
        "batch_seconds": args.batch_seconds,
        "temperature": args.temperature,
        "speaker": args.speaker,
        "progress": ranks.is_main,
    }
    if args.engine == "ray":
        if args.shard is not None or ranks.world_size > 1:
            raise WavedistillError("--engine ray deals the work to its workers itself: leave out --shard and torchrun")
        if args.precision != "fp32":
            raise WavedistillError(f"--precision {args.precision} is for --engine local: leave one of the two out")
        from wavedistill.inference.batch.ray_engine import synthesize_with_ray

        report = synthesize_with_ray(
            args.inputs, args.checkpoint, args.out, workers=args.workers, device=device, **options
        )
    else:
        if args.workers is not None:
            raise WavedistillError(
                "--workers is for --engine ray: add it, or start several processes with torchrun or --shard"
            )
        if args.shard is not None and ranks.world_size > 1:
            raise WavedistillError(
                f"torchrun deals {ranks.world_size} shards itself, and with --shard each of its processes would "
                "do the same one: "
                "leave --shard out"
            )
        if device == "cuda" and ranks.world_size > 1:
            device = _device(f"cuda:{ranks.local_rank}")
        from wavedistill.inference.batch.synthesize import synthesize as run
        from wavedistill.inference.vocoder import Vocoder

        vocoder = Vocoder.from_pretrained(args.checkpoint, device, args.precision)
        shard = args.shard or (ranks.rank, ranks.world_size)
        report = run(args.inputs, vocoder, args.out, shard=shard, **options)
    for failure in report.failures:
        print(f"failed {failure.reason}", file=sys.stderr)
    print(
        f"{len(report.written)} written to {args.out} ({report.seconds:.1f} s of audio in "
        f"{report.compute_seconds:.1f} s), "
        f"{len(report.skipped)} there already, {len(report.failures)} failed"
    )
    failed, done = _over_ranks(ranks, bool(report.failures), bool(report.written or report.skipped))
    return 1 if failed and (args.strict or not done) else 0


def _over_ranks(ranks: Ranks, *flags: bool) -> list[bool]:
    """Each flag, whether any process of the job has it. Waits for all: torchrun ends the others as soon as one ends
    with an error.
    """
    import torch

    from wavedistill.distributed import join, leave

    joined = join(ranks, torch.device("cpu"))
    try:
        return [flag > 0 for flag in ranks.maximum([float(flag) for flag in flags])]
    finally:
        if joined:
            leave()


def sample(args: Namespace) -> None:
    from wavedistill.audio.io import save_audio
    from wavedistill.inference.vocoder import Vocoder

    vocoder = Vocoder.from_pretrained(args.checkpoint, _device(args.device))
    audio = vocoder.sample(
        args.seconds, seed=args.seed, temperature=args.temperature, speaker=args.speaker, progress=True
    )
    save_audio(args.out, audio, vocoder.sample_rate)
    print(f"{len(audio) / vocoder.sample_rate:.2f} s at {vocoder.sample_rate} Hz written to {args.out}")


def playground(args: Namespace) -> None:
    from wavedistill.playground import run_playground

    report = run_playground(args.out, args.density, args.family, args.depth, args.steps, args.seed, progress=True)
    print(report.markdown)


def export(args: Namespace) -> None:
    from wavedistill.inference.export import export_model

    path = export_model(args.checkpoint, args.out, args.format)
    print(f"{args.checkpoint} written to {path} ({path.stat().st_size / 1e6:.1f} MB)")


def info(args: Namespace) -> None:
    from wavedistill.models.pretrained import (
        CARD_FILE,
        WEIGHTS_FILE,
        load_pretrained,
        resolve_checkpoint,
        title,
    )

    folder = resolve_checkpoint(args.checkpoint)
    model = load_pretrained(folder)
    size = sum(p.numel() for p in model.parameters())
    print(f"{args.checkpoint}: {title(model)}, {size / 1e6:.2f} M parameters, {model.sample_rate} Hz")
    print(f"folder: {folder} ({(folder / WEIGHTS_FILE).stat().st_size / 1e6:.1f} MB)")
    _print_fields(to_dict(model.config))
    if (folder / CARD_FILE).is_file():
        print(f"card: {folder / CARD_FILE}")


def evaluate(args: Namespace) -> None:
    from wavedistill.evaluation.evaluate import EvaluateConfig
    from wavedistill.evaluation.evaluate import evaluate as run

    config = EvaluateConfig(
        split=args.split,
        limit=args.limit,
        speakers=args.speaker,
        metrics=args.metric,
        pairs=[_two_names("--compare", given, ":", "A:B") for given in args.compare] if args.compare else None,
        teacher_clips=args.teacher_clips,
        teacher_seconds=args.teacher_seconds,
        inverse_clips=args.inverse_clips,
        inverse_seconds=args.inverse_seconds,
        seed=args.seed,
    )
    report = run(
        args.manifest,
        args.checkpoint or (),
        config,
        folders=dict(_two_names("--folder", given, "=", "NAME=DIR") for given in args.folder or ()),
        out=args.out,
        device=_device(args.device),
        progress=True,
    )
    print(report.markdown)


def _two_names(option: str, given: str, mark: str, form: str) -> tuple[str, str]:
    first, _, second = given.partition(mark)
    if not (first and second):
        raise WavedistillError(f"{option} takes {form}, given '{given}'.")
    return first, second


def doctor(args: Namespace) -> None:
    from wavedistill.doctor.diagnosis import diagnose

    diagnosis = diagnose(args.run)
    print(diagnosis.markdown)
    if args.out is not None:
        diagnosis.save(args.out)


def benchmark(args: Namespace) -> int:

    device = None if args.device is None else _device(args.device)
    given = [("--teacher", args.teacher), *(("--student", name) for name in args.student or ()), ("--device", device)]
    options = [word for option, value in given if value is not None for word in (option, value)]
    if args.what == "flows" and options:
        raise WavedistillError(
            f"`wavedistill benchmark flows` measures no checkpoint, so {options[0]} means nothing to it: leave it out."
        )
    # in a process of its own, where the peers may be imported; glibc keeps freed memory there, so that nobody is timed
    # getting it anew
    script = [
        sys.executable,
        str(Path(__file__).parent / "benchmark" / {"voices": "peers.py", "flows": "flow_peers.py"}[args.what]),
        *options,
        *(("--out", args.out) if args.out else ()),
    ]
    keep = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**30)}
    return subprocess.run(script, env={**os.environ, **keep}).returncode


def demo(args: Namespace) -> None:
    _load_web_app().launch(port=args.port, checkpoints=args.checkpoint)


def _load_web_app() -> ModuleType:
    """``web/app.py``, which is no part of the package: it lies beside it, or among its assets."""
    from wavedistill.assets import web_path

    spec = importlib.util.spec_from_file_location("wavedistill_web_app", web_path() / "app.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _print_fields(values: dict[str, Any], indent: str = "") -> None:
    for name, value in values.items():
        if isinstance(value, dict):
            print(f"{indent}{name}:")
            _print_fields(value, indent + "  ")
        else:
            print(f"{indent}{name}: {value}")


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise WavedistillError(f"unknown device {name!r}: give auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise WavedistillError(
            f"there is no device {name} here ({torch.cuda.device_count()} CUDA devices): try --device cpu"
        )
    return name


def recipe_file(name: str) -> Path:
    """A file; or, where there is none, the packaged recipe of that name (``recipes/toy/teacher.yaml``)."""
    from wavedistill.assets import recipe_path

    path = Path(name)
    if not path.exists() and path.parts[:1] == ("recipes",):
        return recipe_path(str(Path(*path.parts[1:])))
    return path
