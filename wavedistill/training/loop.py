"""The training loop, one for teacher, student and flow."""

from __future__ import annotations

import contextlib
import functools
import logging
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from wavedistill.config import dump_yaml
from wavedistill.distributed import Ranks, current_ranks, join, leave, resolve_device
from wavedistill.files import remove_leftovers
from wavedistill.training.compute import autocast, keep_freed_memory, step_seed
from wavedistill.training.config import check_run
from wavedistill.training.guard import FiniteGuard
from wavedistill.training.lock import run_lock
from wavedistill.training.meter import Meter, Speed
from wavedistill.training.prefetch import Prefetcher
from wavedistill.training.schedule import lr_scale, progress
from wavedistill.training.signals import StopSignals, TrainingInterrupted
from wavedistill.training.state import Due, Run
from wavedistill.training.tracker import Tracker

if TYPE_CHECKING:
    from wavedistill.data.dataset import Batch, SpeechDataset
    from wavedistill.training.recipe import Recipe
    from wavedistill.training.task import Task

logger = logging.getLogger(__name__)


def fit(
    task: Task, dataset: SpeechDataset, valid_dataset: SpeechDataset, recipe: Recipe, card: str | None = None
) -> Path:
    """Train ``task.model`` and return the run folder (its layout stands in ``wavedistill.training``'s documentation).

    Continues the run that the folder already holds (``run.resume``); returns at once where that one is finished. A
    resumed run computes what an uninterrupted one would have: every batch and every random number is addressed by
    (seed, step), and depends on nothing that came before. ``card`` is the model card of its checkpoint.

    Raises:
        TrainingInterrupted: on Ctrl-C or SIGTERM, after saving.
        WavedistillError: for a run folder of another model, a non-finite loss (the batch is kept), a full disk.
    """
    ranks = current_ranks()
    device = resolve_device(recipe.run.device, ranks, "--run.device")
    check_run(recipe.run, recipe.data.batch_size, device, ranks)
    if device.type == "cpu":
        keep_freed_memory()
    joined = join(ranks, device)
    try:
        lock = run_lock(Path(recipe.run.dir)) if ranks.is_main else contextlib.nullcontext()
        with lock, StopSignals() as stop:
            if ranks.is_main:
                remove_leftovers(Path(recipe.run.dir), "**/*")
            run = Run.begin(task, recipe, ranks, device)
            run.card = card
            return _train(run, dataset, valid_dataset, stop)
    finally:
        if joined:
            leave()


def _train(run: Run, dataset: SpeechDataset, valid_dataset: SpeechDataset, stop: StopSignals) -> Path:
    """Step after step until the run is over, or a signal asks to stop."""
    recipe = run.recipe
    task = run.task
    folder = Path(recipe.run.dir)
    is_main = run.ranks.is_main
    if is_main:
        dump_yaml(recipe, folder / "config.yaml")
    if run.is_over:
        logger.info("%s is finished at step %d", folder, run.step)
        return folder
    if recipe.run.compile:
        task.compile()
    forward = DistributedDataParallel(task, find_unused_parameters=True) if run.ranks.world_size > 1 else task
    fetch = functools.partial(_fetch, dataset, recipe, run.ranks)
    guard = FiniteGuard(run, fetch)
    meter = Meter()
    tracker = Tracker(recipe, task.model, run.step, run.elapsed, run.wandb_id) if is_main else None
    batches = Prefetcher(fetch, run.step * recipe.run.accumulate, run.device)
    task.model.train()
    stop_requested = False
    speed = Speed()
    started = time.monotonic() - run.elapsed
    try:
        while not stop_requested and not run.is_over:
            scale = lr_scale(recipe.optim, run.step, _progress(run))
            micro_batches = [batches.next() for _ in range(recipe.run.accumulate)]
            _step(run, forward, micro_batches, scale, meter, guard)
            speed.add(sum(batch.audio.numel() for batch in micro_batches) * run.ranks.world_size)

            requested, run.elapsed = run.ranks.maximum([float(stop.requested), time.monotonic() - started])
            stop_requested = requested > 0
            due = run.due(stop_requested)
            if due.log:
                guard.check()
                means = {"loss": 0.0} | meter.flush(run.ranks)  # the loss first: it is what the bar shows
                means |= {"lr": recipe.optim.lr * scale} | speed.flush(task.model.sample_rate)
                if tracker is not None:
                    tracker.log(run.step, "train", run.elapsed, means)
            if tracker is not None:
                _record(run, due, valid_dataset, tracker, guard)
            if due.save:
                run.saved_at = run.elapsed
    finally:
        batches.close()
        if tracker is not None:
            tracker.close()
    if stop_requested and not run.is_over:
        message = f"stopped at step {run.step}, state saved. To continue: {run.resume_command}"
        raise TrainingInterrupted(message, stop.received or signal.SIGTERM)
    return folder


def _progress(run: Run) -> float:
    config = run.recipe.run
    return progress(run.step, config.steps, run.elapsed, config.minutes)


def _fetch(dataset: SpeechDataset, recipe: Recipe, ranks: Ranks, index: int) -> Batch:
    """This process's share of a batch."""
    return dataset.batch(index, recipe.data.batch_size, recipe.run.seed, ranks.rank, ranks.world_size)


def _step(
    run: Run, forward: nn.Module, micro_batches: list[Batch], scale: float, meter: Meter, guard: FiniteGuard
) -> None:
    """One step on the mean gradient of ``micro_batches``, after one of the adversary's; ``scale`` of the peak rates."""
    config = run.recipe.run
    count = len(micro_batches)
    alone = run.ranks.world_size == 1
    seeds = [step_seed(config.seed, run.step, run.ranks.rank, index) for index in range(count)]
    finite = torch.ones((), dtype=torch.bool, device=run.device)
    if run.adversary is not None:
        finite &= run.adversary.step(micro_batches, seeds, scale, meter)
    run.optimizer.set_lr_scale(scale)
    for index, (batch, seed) in enumerate(zip(micro_batches, seeds, strict=True)):
        torch.manual_seed(seed)
        # gradients are averaged over the processes once, in the last backward pass
        with contextlib.nullcontext() if alone or index == count - 1 else forward.no_sync():
            with autocast(run.precision, run.device):
                loss, values = forward(batch, run.step)
            run.optimizer.backward(loss / count)
        finite &= torch.isfinite(loss.detach())
        meter.add({"loss": loss, **values})
    grad_norm, is_finite = run.optimizer.clip()
    meter.add({"grad_norm": grad_norm})
    guard.note(finite & is_finite)
    run.optimizer.step()
    run.step += 1
    run.ema.update(run.step)


def _record(run: Run, due: Due, valid_dataset: SpeechDataset, tracker: Tracker, guard: FiniteGuard) -> None:
    """What one process does for all: validate, write samples, save, move the bar."""
    if due.validate:
        guard.check()
        with run.evaluating():
            values = run.task.validate(valid_dataset, run.recipe.run.validate_batches)
        tracker.log(run.step, "valid", run.elapsed, values)
    if due.sample:
        guard.check()
        with run.evaluating():
            samples = run.task.samples(valid_dataset)
        tracker.samples(run.step, samples)
    if due.save:
        run.save()
    tracker.show(run.step, run.elapsed)
