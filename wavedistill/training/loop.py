"""The training loop, one for teacher and student."""

from __future__ import annotations

import contextlib
import logging
import secrets
import shlex
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from wavedistill.config import dump_yaml, to_dict
from wavedistill.distributed import Ranks, current_ranks, join, leave, pick_device
from wavedistill.errors import WavedistillError
from wavedistill.training.adversary import Adversary
from wavedistill.training.checkpoint import check_same_model, find_state, save_atomically, save_state
from wavedistill.training.compute import adamw, autocast, keep_freed_memory, step_seed
from wavedistill.training.ema import EMA
from wavedistill.training.lock import run_lock
from wavedistill.training.meter import Meter
from wavedistill.training.prefetch import Prefetcher
from wavedistill.training.schedule import learning_rate, progress
from wavedistill.training.signals import StopSignals, TrainingInterrupted
from wavedistill.training.tracker import Tracker

if TYPE_CHECKING:
    from wavedistill.data.dataset import SpeechDataset
    from wavedistill.training.recipe import Recipe
    from wavedistill.training.task import Task

logger = logging.getLogger(__name__)


def fit(task: Task, dataset: SpeechDataset, valid_dataset: SpeechDataset, recipe: Recipe) -> Path:
    """Train ``task.model`` and return the run folder (its layout stands in ``recipe.run``'s documentation).

    Continues the run that the folder already holds (``run.resume``); returns at once where that one is finished. A
    resumed run computes what an uninterrupted one would have: every batch and every random number is addressed by
    (seed, step), and depends on nothing that came before.

    Raises:
        TrainingInterrupted: on Ctrl-C or SIGTERM, after saving.
        WavedistillError: for a run folder of another model, a non-finite loss (the batch is kept), a full disk.
    """
    ranks = current_ranks()
    device = pick_device(recipe.run.device, ranks)
    _check_options(recipe, device, ranks)
    if device.type == "cpu":
        keep_freed_memory()
    joined = join(ranks, device)
    try:
        lock = run_lock(Path(recipe.run.dir)) if ranks.is_main else contextlib.nullcontext()
        with lock, StopSignals() as stop:
            return _train(task, dataset, valid_dataset, recipe, ranks, device, stop)
    finally:
        if joined:
            leave()


def _train(
    task: Task,
    dataset: SpeechDataset,
    valid_dataset: SpeechDataset,
    recipe: Recipe,
    ranks: Ranks,
    device: torch.device,
    stop: StopSignals,
) -> Path:
    optim = recipe.optim
    run = recipe.run
    run_dir = Path(recipe.run.dir)
    config = to_dict(recipe)

    # what to start from
    state = find_state(run_dir, run.resume)
    if state is not None:
        check_same_model(state, config, run_dir)
    elif run.init_from is not None:
        _load_weights(task.model, run.init_from)
    task.to(device)
    parameters = [p for p in task.model.parameters() if p.requires_grad]
    optimizer = adamw(parameters, optim.lr, optim.betas, optim.weight_decay)
    scaler = torch.amp.GradScaler(device.type, enabled=run.precision == "fp16")
    ema = EMA(task.model, optim.ema)
    adversary = (
        Adversary(task, run.precision, device, ranks) if getattr(task, "discriminators", None) is not None else None
    )
    step = 0
    elapsed_before = 0.0
    wandb_id = secrets.token_hex(4)
    if state is not None:
        task.model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        ema.load_state_dict(state["ema"])
        scaler.load_state_dict(state["scaler"])
        if adversary is not None:
            adversary.load_state_dict(state.get("adversary"))
        step = state["step"]
        elapsed_before = state["elapsed"]
        wandb_id = state["wandb_id"]
    del state
    if ranks.is_main:
        dump_yaml(recipe, run_dir / "config.yaml")

    def over(elapsed: float) -> bool:
        return step >= run.steps or (run.minutes is not None and elapsed >= 60 * run.minutes)

    if over(elapsed_before):
        logger.info("%s is finished at step %d", run_dir, step)
        return run_dir

    if run.compile:
        task.compile()
    forward = DistributedDataParallel(task, find_unused_parameters=True) if ranks.world_size > 1 else task

    def fetch(index: int) -> Any:
        return dataset.batch(index, recipe.data.batch_size, run.seed, ranks.rank, ranks.world_size)

    def save() -> None:
        # the checkpoint first: a final state then means that everything of the run is there
        with ema.applied():
            _save_checkpoint(task.model, run_dir)
        values = {"step": step, "elapsed": elapsed, "config": config, "wandb_id": wandb_id}
        values |= {"model": task.model.state_dict(), "optimizer": optimizer.state_dict()}
        values |= {"ema": ema.state_dict(), "scaler": scaler.state_dict()}
        values |= {} if adversary is None else {"adversary": adversary.state_dict()}
        save_state(run_dir, values, run.keep)

    def evaluate(method: Any, *arguments: Any) -> Any:
        task.model.eval()
        torch.manual_seed(run.seed)
        with ema.applied(), torch.no_grad():
            result = method(*arguments)
        task.model.train()
        return result

    def check_finite() -> None:
        if bad_step.item() >= 0:
            _refuse_non_finite(int(bad_step), fetch, recipe, ranks)

    meter = Meter()
    bad_step = torch.full((), -1, dtype=torch.int64, device=device)
    elapsed = saved_at = elapsed_before
    tracker = Tracker(recipe, task.model, step, elapsed, wandb_id) if ranks.is_main else None
    batches = Prefetcher(fetch, step * run.accumulate, device)
    task.model.train()
    stopping = False
    logged_at = time.monotonic()
    logged_step = step
    audio_seconds = 0.0
    started = logged_at - elapsed_before
    try:
        while not stopping and not over(elapsed):
            lr = learning_rate(optim, step, progress(step, run.steps, elapsed, run.minutes))
            for group in optimizer.param_groups:
                group["lr"] = lr

            finite = torch.ones((), dtype=torch.bool, device=device)
            micros = [batches.next() for _ in range(run.accumulate)]
            seeds = [step_seed(run.seed, step, ranks.rank, micro) for micro in range(run.accumulate)]
            if adversary is not None:
                finite &= adversary.step(micros, seeds, lr / (optim.lr or 1.0), meter)
            for micro, (batch, seed) in enumerate(zip(micros, seeds, strict=True)):
                audio_seconds += batch.audio.numel() * ranks.world_size / task.model.sample_rate
                torch.manual_seed(seed)
                is_last = micro == run.accumulate - 1
                with contextlib.nullcontext() if is_last or forward is task else forward.no_sync():
                    with autocast(run.precision, device):
                        loss, values = forward(batch, step)
                    scaler.scale(loss / run.accumulate).backward()
                finite &= torch.isfinite(loss.detach())
                meter.add({"loss": loss, **values})
            scaler.unscale_(optimizer)
            grad_norm = nn.utils.clip_grad_norm_(parameters, optim.clip_norm)
            meter.add({"grad_norm": grad_norm})
            if not scaler.is_enabled():  # a scaler skips such steps by itself
                finite &= torch.isfinite(grad_norm)
            bad_step = torch.where(finite | (bad_step >= 0), bad_step, step)
            if device.type == "cpu":  # elsewhere looking would make every step wait
                check_finite()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            ema.update(step)

            wish, elapsed = ranks.maximum([float(stop.received is not None), time.monotonic() - started])
            stopping = wish > 0
            last = over(elapsed)
            save_due = step % run.save_every == 0 or last or stopping
            save_due |= run.save_minutes is not None and elapsed - saved_at >= 60 * run.save_minutes
            validate_due = last or (step % run.validate_every == 0 and not stopping)
            sample_due = last or (step % run.sample_every == 0 and not stopping)
            # a save closes the window of the means, so that a resumed run logs what an uninterrupted one would
            if step % run.log_every == 0 or save_due:
                check_finite()
                means = {"loss": 0.0} | meter.flush(ranks)  # the loss first: it is what the bar shows
                seconds = time.monotonic() - logged_at
                means |= {"lr": lr, "steps_per_second": (step - logged_step) / seconds}
                means |= {"audio_seconds_per_second": audio_seconds / seconds}
                logged_at = time.monotonic()
                logged_step = step
                audio_seconds = 0.0
                if tracker is not None:
                    tracker.log(step, "train", elapsed, means)
            if tracker is not None:
                if validate_due:
                    check_finite()
                    tracker.log(step, "valid", elapsed, evaluate(task.validate, valid_dataset, run.validate_batches))
                if sample_due:
                    check_finite()
                    tracker.samples(step, evaluate(task.samples, valid_dataset))
                if save_due:
                    save()
                tracker.show(step, elapsed)
            saved_at = elapsed if save_due else saved_at
    finally:
        batches.close()
        if tracker is not None:
            tracker.close()
    if stopping and not over(elapsed):
        number = stop.received or signal.SIGTERM
        raise TrainingInterrupted(
            f"stopped at step {step}, state saved. To continue: {_resume_command(recipe)}", number
        )
    return run_dir


def _check_options(recipe: Recipe, device: torch.device, ranks: Ranks) -> None:
    run = recipe.run
    batch_size = recipe.data.batch_size
    for name in ("steps", "accumulate", "log_every", "validate_every", "sample_every", "save_every", "keep"):
        if getattr(run, name) < 1:
            raise WavedistillError(f"run.{name} is {getattr(run, name)}; it must be at least 1.")
    for name in ("minutes", "save_minutes"):
        if getattr(run, name) is not None and getattr(run, name) <= 0:
            raise WavedistillError(f"run.{name} is {getattr(run, name)}; it must be above 0, or null for none.")
    if run.precision == "fp16" and device.type == "cpu":
        raise WavedistillError("run.precision fp16 needs a GPU. Use --run.precision bf16 or fp32 on a CPU.")
    if batch_size % ranks.world_size:
        raise WavedistillError(
            f"data.batch_size {batch_size} cannot be shared by {ranks.world_size} processes. Give a multiple of it."
        )


def _load_weights(model: nn.Module, checkpoint: str) -> None:
    from wavedistill.models.pretrained import load_pretrained

    given = load_pretrained(checkpoint).state_dict()
    needed = model.state_dict()
    wrong = [n for n in sorted(given.keys() | needed.keys()) if _shape(given.get(n)) != _shape(needed.get(n))]
    if wrong:
        name = wrong[0]
        raise WavedistillError(
            f"run.init_from {checkpoint}: tensor {name} has shape {_shape(given.get(name))}, the model needs "
            f"{_shape(needed.get(name))} ({len(wrong)} differ). Use the checkpoint's model configuration."
        )
    model.load_state_dict(given)


def _shape(tensor: Tensor | None) -> tuple[int, ...] | None:
    return None if tensor is None else tuple(tensor.shape)


def _save_checkpoint(model: nn.Module, run_dir: Path) -> None:
    from wavedistill.models.pretrained import save_pretrained

    save_pretrained(model, run_dir / "checkpoint")


def _refuse_non_finite(step: int, fetch: Any, recipe: Recipe, ranks: Ranks) -> None:
    run = recipe.run
    name = "nonfinite-batch.pt" if ranks.world_size == 1 else f"nonfinite-batch-rank{ranks.rank}.pt"
    batches = [asdict(fetch(step * run.accumulate + micro)) for micro in range(run.accumulate)]
    path = Path(run.dir) / name
    save_atomically(path, {"step": step, "seed": run.seed, "rank": ranks.rank, "batches": batches})
    raise WavedistillError(
        f"the loss or its gradient is not finite at step {step}; the batch is kept in {path}. "
        f"Try a lower --optim.lr, or --run.precision fp32; the last save is kept: {_resume_command(recipe)}"
    )


def _resume_command(recipe: Recipe) -> str:
    verb = "distill" if hasattr(recipe, "teacher") else "train"
    never = " --run.resume auto" if recipe.run.resume == "never" else ""
    return f"wavedistill {verb} {shlex.quote(str(Path(recipe.run.dir) / 'config.yaml'))}{never}"
