"""Batch synthesis on a Ray cluster, or on one machine's cores: workers that load the model once, fed by Ray Data.

The batches, the noise, the files and their names are those of the engine "local", so a synthesis can be begun with one
engine and finished with the other. All machines must see the inputs, the output folder and the checkpoint under the
same paths.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from wavedistill.errors import WavedistillError
from wavedistill.inference.batch.pipeline import synthesize_batches
from wavedistill.inference.batch.plan import ExecutionConfig, InputBatch, Plan, RenderOptions, SynthesisReport
from wavedistill.inference.vocoder import Vocoder

BLOCKS_PER_WORKER = 50
"""A worker's share is cut into at most so many blocks: few enough to be cheap, enough to keep all workers busy to the
end.
"""


def synthesize_with_ray(
    given: Sequence[str | Path],
    checkpoint: str | Path,
    out: Path,
    options: RenderOptions,
    execution: ExecutionConfig,
    device: str,
) -> SynthesisReport:
    """`synthesize` by several processes of a Ray cluster.

    A session of Ray that is there already is used, or the cluster that the environment variable RAY_ADDRESS names; else
    one is started on this machine and ended again. A worker that dies is replaced and its batches are done again. Each
    worker computes with one thread, unless OMP_NUM_THREADS says otherwise.

    Args:
        given: files and folders.
        checkpoint: folder, run folder, bundled name or hub id.
        out: output folder.
        options: how the outputs are to sound.
        execution: how many workers, which size of batches, and whether to show a bar.
        device: "cpu", or "cuda": a whole GPU for each worker.

    Returns:
        The report of `synthesize`; its paths are absolute.

    Raises:
        WavedistillError: as `synthesize`; Ray is not installed; more workers than the cluster has room for.
    """
    ray = _import_ray()
    if device not in ("cpu", "cuda"):
        raise WavedistillError(
            f"device {device!r} cannot be given to Ray, which deals the GPUs itself: use cpu or cuda"
        )
    local = Path(checkpoint).expanduser()
    checkpoint = str(local.absolute() if local.exists() else checkpoint)  # workers stand in folders of their own
    planner = Vocoder.from_pretrained(checkpoint)
    plan = Plan([Path(path).absolute() for path in given], out.absolute(), planner, options, execution.batch_seconds)
    if plan.batches:
        with _session(ray, execution.workers), plan.progress_bar(execution.progress) as bar:
            for row in _results(ray, plan.batches, checkpoint, device, options, execution.workers):
                result = pickle.loads(row["result"])
                if isinstance(result, WavedistillError):
                    raise result
                plan.report.add(result)
                bar.update(row["files"])
    return plan.finish()


def _results(
    ray: ModuleType,
    batches: list[InputBatch],
    checkpoint: str,
    device: str,
    options: RenderOptions,
    wanted: int | None,
) -> Iterator[dict[str, Any]]:
    """What the workers return for each block of batches, as it comes; see `_Worker`."""
    resource = {"cpu": "CPU", "cuda": "GPU"}[device]
    rows = [{"batch": pickle.dumps(batch)} for batch in batches]
    workers = min(_count_workers(wanted, resource, ray.cluster_resources()), len(rows))
    blocks = ray.data.from_items(rows, override_num_blocks=min(len(rows), BLOCKS_PER_WORKER * workers))
    results = blocks.map_batches(
        _Worker,
        fn_constructor_args=(checkpoint, device, options),
        batch_size=None,  # a block, whose batches go through one pipeline
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=1,
        num_gpus=1 if device == "cuda" else 0,
    )
    return results.iter_rows()


class _Worker:
    """One process of the cluster, which holds the model and computes blocks of batches."""

    def __init__(self, checkpoint: str, device: str, options: RenderOptions) -> None:
        self._vocoder = Vocoder.from_pretrained(checkpoint, device)
        self._options = options

    def __call__(self, rows: dict[str, Any]) -> dict[str, list]:
        batches: list[InputBatch] = [pickle.loads(batch) for batch in rows["batch"]]
        try:
            result = synthesize_batches(batches, self._vocoder, self._options)
        except WavedistillError as error:  # as a value: Ray would wrap it in a long message
            result = error
        return {"result": [pickle.dumps(result)], "files": [sum(len(batch.inputs) for batch in batches)]}


@contextmanager
def _session(ray: ModuleType, workers: int | None) -> Iterator[None]:
    """Ray, quiet; where none was running, one of our own that ends with the block."""
    context = ray.data.DataContext.get_current()
    logger = logging.getLogger("ray.data")
    bars = context.enable_progress_bars
    announcements = context.print_on_execution_start
    level = logger.level
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logger.setLevel(logging.ERROR)
    ours = not ray.is_initialized()
    if ours:
        cores = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers}
        ray.init(include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False, **cores)
    try:
        yield
    finally:
        context.enable_progress_bars = bars
        context.print_on_execution_start = announcements
        logger.setLevel(level)
        if ours:
            ray.shutdown()


def _count_workers(wanted: int | None, resource: str, available: dict[str, float]) -> int:
    room = int(available.get(resource, 0))
    if room < (wanted or 1):
        raise WavedistillError(
            f"{wanted or 1} workers need as many {resource}s, but Ray has {room}: give fewer --workers"
        )
    return wanted or room


def _import_ray() -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray.data
    except ImportError as error:
        raise WavedistillError(
            'the Ray engine needs Ray Data, which is not installed: pip install "wavedistill[ray]"'
        ) from error
    return ray
