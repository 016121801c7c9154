"""Batch synthesis on a Ray cluster, or on one machine's cores: workers that load the voice once, fed by Ray Data.

The batches, the noise, the files and their names are those of `synthesize`; so a job can be begun with one engine and
finished with the other. All machines must see the inputs, the output folder and the checkpoint under the same paths.
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
from wavedistill.inference.batch.plan import Batch, Job, RenderOptions, SynthesisReport
from wavedistill.inference.vocoder import Vocoder

BLOCKS_PER_WORKER = 50
"""Into so many portions a worker's share is cut at most: few enough to be cheap, enough to keep all workers busy to the
end.
"""


def synthesize_with_ray(
    inputs: str | Path | Sequence[str | Path],
    checkpoint: str | Path,
    out: str | Path,
    *,
    workers: int | None = None,
    seed: int = 0,
    batch_seconds: float = 20.0,
    temperature: float = 1.0,
    speaker: int | str | None = None,
    device: str = "cpu",
    progress: bool = False,
) -> SynthesisReport:
    """`synthesize` by several processes of a Ray cluster.

    A session of Ray that is there already is used, or the cluster that the environment variable RAY_ADDRESS names; else
    one is started on this machine and ended again. A worker that dies is replaced and its batches are done again.

    Args:
        inputs, seed, batch_seconds, temperature, speaker, progress: as in `synthesize`.
        checkpoint: folder, run folder, bundled name or hub id.
        out: output folder.
        workers: processes that each hold the model; by default one for each CPU (or GPU) of the cluster. Each computes
            with one thread, unless OMP_NUM_THREADS says otherwise.
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
    if workers is not None and workers < 1:
        raise WavedistillError(f"at least one worker is needed, not {workers}")
    given = [inputs] if isinstance(inputs, (str, Path)) else inputs
    local = Path(checkpoint).expanduser()
    checkpoint = str(local.absolute() if local.exists() else checkpoint)  # workers stand in folders of their own
    options = RenderOptions(seed, temperature, speaker)
    planner = Vocoder.from_pretrained(checkpoint)
    job = Job([Path(path).absolute() for path in given], Path(out).absolute(), planner, options, batch_seconds)
    if job.batches:
        with _session(ray, workers), job.progress_bar(progress) as bar:
            resource = {"cpu": "CPU", "cuda": "GPU"}[device]
            rows = [{"batch": pickle.dumps(batch)} for batch in job.batches]
            workers = min(_count_workers(workers, resource, ray.cluster_resources()), len(rows))
            batches = ray.data.from_items(rows, override_num_blocks=min(len(rows), BLOCKS_PER_WORKER * workers))
            results = batches.map_batches(
                _Worker,
                fn_constructor_args=(checkpoint, device, options),
                batch_size=None,  # a block, whose batches overlap
                compute=ray.data.ActorPoolStrategy(size=workers),
                num_cpus=1,
                num_gpus=1 if device == "cuda" else 0,
            )
            for row in results.iter_rows():
                result = pickle.loads(row["result"])
                if isinstance(result, WavedistillError):
                    raise result
                job.report.add(result)
                bar.update(row["files"])
    return job.finish()


class _Worker:
    """One process of the cluster: the voice, and the work on portions of batches."""

    def __init__(self, checkpoint: str, device: str, options: RenderOptions) -> None:
        self._vocoder = Vocoder.from_pretrained(checkpoint, device)
        self._options = options

    def __call__(self, rows: dict[str, Any]) -> dict[str, list]:
        batches: list[Batch] = [pickle.loads(batch) for batch in rows["batch"]]
        try:
            result = synthesize_batches(batches, self._vocoder, self._options)
        except WavedistillError as error:  # as a value: Ray would write a lecture around it
            result = error
        return {"result": [pickle.dumps(result)], "files": [sum(len(batch.items) for batch in batches)]}


@contextmanager
def _session(ray: ModuleType, workers: int | None) -> Iterator[None]:
    """Ray, quiet; where none was running, one of our own that ends with the block."""
    context = ray.data.DataContext.get_current()
    logger = logging.getLogger("ray.data")
    before = context.enable_progress_bars, context.print_on_execution_start, logger.level
    context.enable_progress_bars = context.print_on_execution_start = False
    logger.setLevel(logging.ERROR)
    ours = not ray.is_initialized()
    if ours:
        cores = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers}
        ray.init(include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False, **cores)
    try:
        yield
    finally:
        context.enable_progress_bars, context.print_on_execution_start, level = before
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
